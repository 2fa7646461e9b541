//! ReplicaSet.

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use super::workload;
use crate::core::{default_pod_spec, drop_gated, warnings};
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, immutable, not_negative};
use crate::table::{age, cells, containers, name, selector};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Desired:integer, Current:integer, Ready:integer, Age, \
     Containers*, Images*, Selector*";

pub(crate) struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn default(&self, object: &mut Value) {
        object.fill("spec.replicas", 1);
        default_pod_spec(object, "spec.template.spec");
    }

    fn prepare_create(&self, object: &mut Value) {
        drop_gated(object, &Value::Null, "spec.template.spec");
        object.set("status", serde_json::json!({"replicas": 0}));
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        drop_gated(object, old, "spec.template.spec");
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        not_negative(&spec, "replicas", faults);
        not_negative(&spec, "minReadySeconds", faults);
        // Upstream says deployment here too.
        workload::validate_selector(&spec, "deployment", faults);
        workload::validate_template(object, "ReplicaSet", faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        self.validate_create(object, faults);
        immutable(
            &Spot::new(object, "spec"),
            old.at("spec"),
            "selector",
            faults,
        );
    }

    fn validate_status(&self, object: &Value, _old: &Value, faults: &mut Faults) {
        let counted = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        workload::validate_counts(object, &counted, "readyReplicas", faults);
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let replicas = object.int("status.replicas");
        vec![("status.replicas", replicas.to_string())]
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let host = warnings::host_name(object, "Pod names and hostnames").into_iter();
        host.chain(warnings::of_template(object, "spec.template"))
            .collect()
    }

    fn warnings_update(&self, object: &Value, old: &Value) -> Vec<String> {
        warnings::of_changed_template(object, old, "spec.template")
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let [names, images] = containers(object, "spec.template.spec");
        cells![
            name(object),
            object.int("spec.replicas"),
            object.int("status.replicas"),
            object.int("status.readyReplicas"),
            age(object, now),
            names,
            images,
            selector(object, "spec.selector"),
        ]
    }
}
