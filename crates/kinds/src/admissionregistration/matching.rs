//! `matchConstraints` of policies and `matchResources` of bindings.

use std::collections::BTreeSet;

use meta::{Faults, naming};
use serde_json::{Value, json};

use super::rule::validate_rule;
use crate::spot::{Spot, label_selector, one_given, rules, unsupported};
use crate::tree::Tree;

/// What can be changed: a deletion cannot.
const MUTATING_OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];

/// Fills what is left out.
pub(super) fn default_match(resources: &mut Value) {
    resources.fill("matchPolicy", "Equivalent");
    resources.fill("namespaceSelector", json!({}));
    resources.fill("objectSelector", json!({}));
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in resources.list_mut(list) {
            rule.fill("scope", "*");
        }
    }
}

/// Faults in what a policy or a binding is about.
pub(super) fn validate_match(resources: &Spot<'_>, mutating: bool, faults: &mut Faults) {
    one_given(resources, "matchPolicy", &["Equivalent", "Exact"], faults);
    for field in ["namespaceSelector", "objectSelector"] {
        match resources.some(field) {
            Some(selector) => label_selector(&selector, faults),
            None => faults.required(resources.path(field), ""),
        }
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in resources.items(list) {
            validate_names(&rule, faults);
            validate_rule(&rule, faults);
        }
    }
    if mutating {
        validate_mutating(resources, faults);
    }
}

fn validate_names(rule: &Spot<'_>, faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    for name in rule.items("resourceNames") {
        let text = name.as_str().unwrap_or("");
        let broken = naming::path_segment(text);
        rules(faults, name.path.clone(), text, broken);
        if !seen.insert(text.to_owned()) {
            faults.duplicate(name.path.clone(), text);
        }
    }
}

/// Only creations, updates and connections can be changed.
pub(super) fn validate_mutating(resources: &Spot<'_>, faults: &mut Faults) {
    let path = format!("{}.operations", resources.path("resourceRules"));
    for rule in resources.list("resourceRules") {
        for operation in rule.texts("operations") {
            if !MUTATING_OPERATIONS.contains(&operation) {
                unsupported(faults, path.clone(), operation, &MUTATING_OPERATIONS);
            }
        }
    }
}
