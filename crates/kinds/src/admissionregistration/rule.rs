//! Which requests a webhook or a policy is about: the rules of `rules` and `resourceRules`.

use std::collections::BTreeSet;

use meta::Faults;

use crate::spot::{Spot, maybe_one_of, unsupported};
use crate::tree::Tree;

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

/// Faults in a rule with operations.
pub(super) fn validate_rule(rule: &Spot<'_>, faults: &mut Faults) {
    validate_operations(rule, faults);
    validate_scope(rule, faults);
}

fn validate_operations(rule: &Spot<'_>, faults: &mut Faults) {
    let operations: Vec<Spot<'_>> = rule.items("operations").collect();
    let path = rule.path("operations");
    if operations.is_empty() {
        faults.required(path.clone(), "");
    }
    if operations.len() > 1 && operations.iter().any(|one| one.as_str() == Some("*")) {
        let broken = "if '*' is present, must not specify other operations";
        faults.invalid(path, rule.at("operations").clone(), broken);
    }
    for operation in operations {
        let word = operation.as_str().unwrap_or("");
        if !OPERATIONS.contains(&word) {
            unsupported(faults, operation.path.clone(), word, &OPERATIONS);
        }
    }
}

/// `apiGroups`, `apiVersions`, `resources` and `scope` of a rule.
fn validate_scope(rule: &Spot<'_>, faults: &mut Faults) {
    let lists = [("apiGroups", "API groups"), ("apiVersions", "API versions")];
    for (field, what) in lists {
        if rule.count(field) == 0 {
            faults.required(rule.path(field), "");
        }
        if rule.count(field) > 1 && rule.texts(field).any(|one| one == "*") {
            let broken = format!("if '*' is present, must not specify other {what}");
            faults.invalid(rule.path(field), rule.at(field).clone(), broken);
        }
    }
    for version in rule.items("apiVersions") {
        if version.as_str() == Some("") {
            faults.required(version.path.clone(), "");
        }
    }
    validate_resources(rule, faults);
    maybe_one_of(rule, "scope", &["*", "Cluster", "Namespaced"], faults);
}

fn validate_resources(rule: &Spot<'_>, faults: &mut Faults) {
    let resources = rule.path("resources");
    if rule.count("resources") == 0 {
        faults.required(resources.clone(), "");
    }
    // `x/*` and `*/x` seen so far.
    let (mut with_all_parts, mut of_all) = (BTreeSet::new(), BTreeSet::new());
    let (mut everything, mut all_whole, mut some_whole) = (false, false, false);
    for spot in rule.items("resources") {
        let text = spot.as_str().unwrap_or("");
        if text.is_empty() {
            faults.required(spot.path.clone(), "");
            continue;
        }
        everything |= text == "*/*";
        all_whole |= text == "*";
        let Some((resource, part)) = text.split_once('/') else {
            some_whole = text != "*";
            continue;
        };
        if with_all_parts.contains(resource) {
            let broken = format!("if '{resource}/*' is present, must not specify {text}");
            faults.invalid(spot.path.clone(), text, broken);
        }
        if of_all.contains(part) {
            let broken = format!("if '*/{part}' is present, must not specify {text}");
            faults.invalid(spot.path.clone(), text, broken);
        }
        if part == "*" {
            with_all_parts.insert(resource.to_owned());
        }
        if resource == "*" {
            of_all.insert(part.to_owned());
        }
    }
    let list = rule.at("resources");
    if everything && rule.count("resources") > 1 {
        let broken = "if '*/*' is present, must not specify other resources";
        faults.invalid(resources.clone(), list.clone(), broken);
    }
    if all_whole && some_whole {
        let broken = "if '*' is present, must not specify other resources without subresources";
        faults.invalid(resources, list.clone(), broken);
    }
}
