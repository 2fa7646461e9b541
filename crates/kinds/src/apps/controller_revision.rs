//! ControllerRevision: one remembered template of a stateful or daemon set.

use jiff::Timestamp;
use meta::Faults;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::spot::{Spot, immutable, not_negative};
use crate::table::{age, cells, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Controller, Revision, Age";

pub(crate) struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        not_negative(&Spot::new(object, ""), "revision", faults);
        match object.at("data") {
            Value::Null => faults.required("data", "data is mandatory"),
            Value::Object(_) => {}
            _ => faults.required("data", "data must be a valid JSON object"),
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        not_negative(&Spot::new(object, ""), "revision", faults);
        immutable(&Spot::new(object, ""), old, "data", faults);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let revision = object.int("revision");
        cells![name(object), controller(object), revision, age(object, now)]
    }
}

/// The owner that manages the object, as `deployment.apps/web`.
fn controller(object: &Value) -> String {
    let mut owners = object.list("metadata.ownerReferences").iter();
    let Some(owner) = owners.find(|owner| owner.flag("controller")) else {
        return "<none>".into();
    };
    let (kind, name) = (owner.text("kind").to_lowercase(), owner.text("name"));
    match owner.text("apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{}/{name}", group.to_lowercase()),
        None => format!("{kind}/{name}"),
    }
}
