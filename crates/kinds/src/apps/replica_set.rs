//! ReplicaSet.

use jiff::Timestamp;
use serde_json::Value;

use crate::core::default_pod_spec;
use crate::row::{Cells, Strategy};
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

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let replicas = object.int("status.replicas");
        vec![("status.replicas", replicas.to_string())]
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
