//! ReplicationController.

use jiff::Timestamp;
use serde_json::Value;

use crate::core::default_pod_spec;
use crate::row::{Cells, Strategy};
use crate::table::{age, cells, containers, labels, name};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Desired:integer, Current:integer, Ready:integer, Age, \
     Containers*, Images*, Selector*";

pub(crate) struct ReplicationController;

impl Strategy for ReplicationController {
    fn default(&self, object: &mut Value) {
        object.fill("spec.replicas", 1);
        if object.count("spec.template.metadata.labels") > 0 {
            let labels = object.at("spec.template.metadata.labels").clone();
            if object.count("spec.selector") == 0 {
                object.set("spec.selector", labels.clone());
            }
            if object.count("metadata.labels") == 0 {
                object.set("metadata.labels", labels);
            }
        }
        if object.has("spec.template") {
            default_pod_spec(object, "spec.template.spec");
        }
    }

    fn orphans_dependents(&self) -> bool {
        true
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
            labels(object, "spec.selector"),
        ]
    }
}
