//! Deployment.

use jiff::Timestamp;
use serde_json::Value;

use crate::core::default_pod_spec;
use crate::row::{Cells, Strategy};
use crate::table::{age, cells, containers, name, sorted};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str =
    "Name, Ready, Up-to-date, Available, Age, Containers*, Images*, Selector*";

pub(crate) struct Deployment;

impl Strategy for Deployment {
    fn default(&self, object: &mut Value) {
        object.fill("spec.replicas", 1);
        object.fill_text("spec.strategy.type", "RollingUpdate");
        if object.text("spec.strategy.type") == "RollingUpdate" {
            object.fill("spec.strategy.rollingUpdate.maxUnavailable", "25%");
            object.fill("spec.strategy.rollingUpdate.maxSurge", "25%");
        }
        object.fill("spec.revisionHistoryLimit", 10);
        object.fill("spec.progressDeadlineSeconds", 600);
        default_pod_spec(object, "spec.template.spec");
    }

    /// Annotations count too: they are copied to the replica sets.
    fn moves_generation(&self, object: &Value, old: &Value) -> bool {
        object.at("spec") != old.at("spec")
            || object.at("metadata.annotations") != old.at("metadata.annotations")
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let [names, images] = containers(object, "spec.template.spec");
        let selector = match meta::LabelSelector::from_value(object.at("spec.selector")) {
            Ok(selector) => sorted(selector).to_string(),
            Err(_) => "<invalid>".into(),
        };
        let ready = object.int("status.readyReplicas");
        cells![
            name(object),
            format!("{ready}/{}", object.int("spec.replicas")),
            object.int("status.updatedReplicas"),
            object.int("status.availableReplicas"),
            age(object, now),
            names,
            images,
            selector,
        ]
    }
}
