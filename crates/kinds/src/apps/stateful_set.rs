//! StatefulSet.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, containers, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Ready, Age, Containers*, Images*";

pub(crate) struct StatefulSet;

impl Strategy for StatefulSet {
    fn validate_name(&self, name: &str) -> Vec<String> {
        meta::naming::dns1123_label(name)
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let [names, images] = containers(object, "spec.template.spec");
        let ready = object.int("status.readyReplicas");
        cells![
            name(object),
            format!("{ready}/{}", object.int("spec.replicas")),
            age(object, now),
            names,
            images,
        ]
    }
}
