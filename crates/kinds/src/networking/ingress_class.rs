//! IngressClass.

use jiff::Timestamp;
use serde_json::Value;

use crate::row::{Cells, Strategy};
use crate::table::{age, cells};
use crate::tree::Tree;

pub(crate) const COLUMNS: &str = "Name, Controller, Parameters, Age";

pub(crate) struct IngressClass;

impl Strategy for IngressClass {
    fn default(&self, object: &mut Value) {
        if object.has("spec.parameters") {
            object.fill("spec.parameters.scope", "Cluster");
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let mut name = object.text("metadata.name").to_owned();
        let annotations = object.at("metadata.annotations");
        let mark = annotations.get("ingressclass.kubernetes.io/is-default-class");
        if mark.is_some_and(|mark| mark == "true") {
            name.push_str(" (default)");
        }
        let parameters = object.at("spec.parameters");
        let (kind, target) = (parameters.text("kind"), parameters.text("name"));
        let parameters = match parameters.at("apiGroup") {
            _ if parameters.is_null() => "<none>".to_owned(),
            Value::String(group) => format!("{kind}.{group}/{target}"),
            _ => format!("{kind}/{target}"),
        };
        let controller = object.text("spec.controller");
        cells![name, controller, parameters, age(object, now)]
    }
}
