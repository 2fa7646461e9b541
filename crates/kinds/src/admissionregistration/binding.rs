//! ValidatingAdmissionPolicyBinding and MutatingAdmissionPolicyBinding.

use std::collections::BTreeSet;

use jiff::Timestamp;
use meta::{Faults, naming};
use serde_json::Value;

use super::matching::{default_match, validate_match};
use crate::row::{Cells, Strategy};
use crate::spot::{Spot, label_selector, named, rules, unsupported};
use crate::tree::Tree;

const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
/// In upstream's order.
const NOT_FOUND_ACTIONS: [&str; 2] = ["Deny", "Allow"];

/// The rules of both kinds of bindings.
pub(super) struct Bindings {
    pub(super) mutating: bool,
    pub(super) cells: fn(&Value, Timestamp) -> Cells,
}

impl Strategy for Bindings {
    fn default(&self, object: &mut Value) {
        let resources = object.pointer_mut("/spec/matchResources");
        if let Some(resources) = resources.filter(|own| own.is_object()) {
            default_match(resources);
        }
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        let spec = Spot::new(object, "spec");
        named(&spec, "policyName", naming::dns1123_subdomain, faults);
        if let Some(param) = spec.some("paramRef") {
            validate_param(&param, faults);
        }
        if let Some(resources) = spec.some("matchResources") {
            validate_match(&resources, self.mutating, faults);
        }
        if !self.mutating {
            validate_actions(&spec, faults);
        }
    }

    fn validate_update(&self, object: &Value, _old: &Value, faults: &mut Faults) {
        self.validate_create(object, faults);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        crate::warnings::static_suffix(object)
    }

    fn has_free_finalizers(&self) -> bool {
        true
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        (self.cells)(object, now)
    }
}

fn validate_param(param: &Spot<'_>, faults: &mut Faults) {
    const BOTH: &str = "name and selector are mutually exclusive";
    let (name, selector) = (param.text("name"), param.some("selector"));
    if !name.is_empty() {
        let broken = naming::path_segment(name);
        rules(faults, param.path("name"), name, broken);
        if selector.is_some() {
            faults.forbidden(param.path("name"), BOTH);
        }
    }
    match &selector {
        Some(selector) => {
            label_selector(selector, faults);
            if !name.is_empty() {
                faults.forbidden(param.path("selector"), BOTH);
            }
        }
        None if name.is_empty() => {
            let text = "one of name or selector must be specified";
            faults.required(param.path.clone(), text);
        }
        None => {}
    }
    let path = param.path("parameterNotFoundAction");
    match param.text("parameterNotFoundAction") {
        "" => faults.required(path, ""),
        word if !NOT_FOUND_ACTIONS.contains(&word) => {
            unsupported(faults, path, word, &NOT_FOUND_ACTIONS);
        }
        _ => {}
    }
}

fn validate_actions(spec: &Spot<'_>, faults: &mut Faults) {
    const FIELD: &str = "validationActions";
    let mut seen = BTreeSet::new();
    for action in spec.items(FIELD) {
        let word = action.as_str().unwrap_or("");
        if !ACTIONS.contains(&word) {
            unsupported(faults, action.path.clone(), word, &ACTIONS);
        }
        if !seen.insert(word.to_owned()) {
            faults.duplicate(action.path.clone(), word);
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let rule = "must not contain both Deny and Warn (repeating the same validation failure \
                    information in the API response and headers serves no purpose)";
        faults.invalid(spec.path(FIELD), spec.at(FIELD).clone(), rule);
    }
    if seen.is_empty() {
        let rule = "at least one validation action is required";
        faults.required(spec.path(FIELD), rule);
    }
}
