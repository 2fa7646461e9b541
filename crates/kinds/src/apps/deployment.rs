//! Deployment.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells, containers, name, sorted};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str =
    "Name, Ready, Up-to-date, Available, Age, Containers*, Images*, Selector*";

pub(crate) struct Deployment;

impl Strategy for Deployment {
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
