//! RuntimeClass.

use jiff::Timestamp;
use meta::{FaultKind, Faults, naming};
use serde_json::Value;

use crate::core::pod::validate::{validate_overhead, validate_tolerations};
use crate::go::{TOLERATION, shown};
use crate::metadata::validate_labels;
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, immutable, named};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Handler, Age";

pub(crate) struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        named(
            &Spot::new(object, ""),
            "handler",
            naming::dns1123_label,
            faults,
        );
        let overhead = Spot::new(object, "overhead.podFixed");
        validate_overhead(
            &Spot {
                path: "overhead".into(),
                ..overhead
            },
            faults,
        );
        if let Some(scheduling) = Spot::new(object, "").some("scheduling") {
            validate_scheduling(&scheduling, faults);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        self.validate_create(object, faults);
        immutable(&Spot::new(object, ""), old, "handler", faults);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let keys = object.fields("scheduling.nodeSelector").map(|(key, _)| key);
        let old = keys.filter_map(crate::warnings::node_label);
        old.map(|message| format!("scheduling.nodeSelector: {message}"))
            .collect()
    }

    fn has_free_finalizers(&self) -> bool {
        true
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        cells![name(object), object.text("handler"), age(object, now)]
    }
}

fn validate_scheduling(scheduling: &Spot<'_>, faults: &mut Faults) {
    let selector = scheduling.child("nodeSelector");
    validate_labels(selector.value, &selector.path, faults);
    validate_tolerations(scheduling, faults);
    let mut seen = std::collections::BTreeSet::new();
    for toleration in scheduling.items("tolerations") {
        let fields = ["key", "operator", "value", "effect"];
        if !seen.insert(fields.map(|field| toleration.text(field).to_owned())) {
            let shown = shown(toleration.value, &TOLERATION);
            faults.add_shown(toleration.path.clone(), FaultKind::Duplicate, shown, "");
        }
    }
}
