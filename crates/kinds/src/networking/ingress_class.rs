//! IngressClass.

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use crate::go::TEXT;
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, immutable_shown, named, present_named, unsupported};
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

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        validate_controller(&spec, faults);
        if let Some(parameters) = spec.some("parameters") {
            present_named(&parameters, "apiGroup", naming::dns1123_subdomain, faults);
            named(&parameters, "kind", naming::path_segment, faults);
            named(&parameters, "name", naming::path_segment, faults);
            validate_scope(&parameters, faults);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        let (spec, before) = (Spot::new(object, "spec"), old.at("spec"));
        immutable_shown(&spec, before, "controller", &TEXT, faults);
        self.validate_create(object, faults);
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

fn validate_scope(parameters: &Spot<'_>, faults: &mut Faults) {
    let namespaced = parameters.has("namespace");
    match parameters.text("scope") {
        "Namespace" if namespaced => {
            present_named(parameters, "namespace", naming::dns1123_label, faults);
        }
        "Namespace" => {
            let rule = "`parameters.scope` is set to 'Namespace'";
            faults.required(parameters.path("namespace"), rule);
        }
        "Cluster" if namespaced => {
            let rule = "`parameters.scope` is set to 'Cluster'";
            faults.forbidden(parameters.path("namespace"), rule);
        }
        "Cluster" => {}
        other => {
            let words = ["Cluster", "Namespace"];
            unsupported(faults, parameters.path("scope"), other, &words);
        }
    }
}

/// The longest name of a controller.
const CONTROLLER_MAX: usize = 250;

/// A domain with a path, such as `example.com/ingress`.
fn validate_controller(spec: &Spot<'_>, faults: &mut Faults) {
    let (path, controller) = (spec.path("controller"), spec.text("controller"));
    if controller.len() > CONTROLLER_MAX {
        faults.too_long(path.clone(), CONTROLLER_MAX);
    }
    faults.domain_prefixed_path(&path, controller);
}
