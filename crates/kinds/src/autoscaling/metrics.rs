//! What an autoscaler may aim at: the rules of `spec.metrics` and of the objects it names.

use std::cmp::Ordering;

use meta::{Faults, naming};
use serde_json::Value;

use crate::core::pod::validate::validate_container_name;
use crate::spot::{Spot, amount, named, rules, unsupported};
use crate::tree::Tree;

/// Types of metrics and the fields that describe them, by type.
const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];
/// The order in which sources are looked at; only the first that is there is judged.
const ORDER: [&str; 5] = [
    "object",
    "external",
    "pods",
    "resource",
    "containerResource",
];

/// What is wrong with the `apiVersion` of an object that is referred to.
pub(super) fn api_version_fault(version: &str, needs_group: bool) -> Option<String> {
    let slashes = match version {
        "/" => 0,
        version => version.matches('/').count(),
    };
    let group = match version.split_once('/') {
        Some((group, _)) if slashes == 1 => group,
        _ => "",
    };
    if slashes > 1 {
        return Some(format!("unexpected GroupVersion string: {version}"));
    }
    let missing = needs_group && group.is_empty();
    missing.then(|| "apiVersion must specify API group".to_owned())
}

/// Faults in a `CrossVersionObjectReference`; `None`: its version is not looked at.
pub(super) fn reference(target: &Spot<'_>, needs_group: Option<bool>, faults: &mut Faults) {
    named(target, "kind", naming::path_segment, faults);
    named(target, "name", naming::path_segment, faults);
    let version = target.text("apiVersion");
    if let Some(fault) = needs_group.and_then(|needs| api_version_fault(version, needs)) {
        faults.invalid(target.path("apiVersion"), version, fault);
    }
}

/// Faults in `spec.metrics`.
pub(super) fn validate(spec: &Spot<'_>, versions: bool, faults: &mut Faults) {
    for metric in spec.items("metrics") {
        validate_metric(&metric, versions, faults);
    }
    let from_zero = |metric: &Value| matches!(metric.text("type"), "Object" | "External");
    if spec.maybe_int("minReplicas") == Some(0) && !spec.list("metrics").iter().any(from_zero) {
        let rule = "must specify at least one Object or External metric to support scaling to \
                    zero replicas";
        faults.forbidden(spec.path("metrics"), rule);
    }
}

fn validate_metric(metric: &Spot<'_>, versions: bool, faults: &mut Faults) {
    let kind = metric.text("type");
    if kind.is_empty() {
        faults.required(metric.path("type"), "must specify a metric source type");
    }
    let present: Vec<_> = ORDER.into_iter().filter(|one| metric.has(one)).collect();
    let expected = SOURCES.iter().find(|(word, _)| *word == kind);
    let unknown = |faults: &mut Faults| {
        let words = SOURCES.map(|(word, _)| word);
        unsupported(faults, metric.path("type"), kind, &words);
    };
    if expected.is_none() {
        unknown(faults);
    }
    if let Some(first) = present.first() {
        validate_source(&metric.child(first), first, versions, faults);
    }
    match expected {
        // Upstream says it twice.
        None => unknown(faults),
        Some((_, field)) if !metric.has(field) => {
            let rule = "must populate information for the given metric source";
            faults.required(metric.path(field), rule);
        }
        Some(_) => {}
    }
    if present.len() > 1 {
        let own = expected.map_or("", |(_, field)| field);
        for other in present.iter().filter(|other| **other != own) {
            let rule = "must populate the given metric source only";
            faults.forbidden(metric.path(other), rule);
        }
    }
}

fn validate_source(source: &Spot<'_>, kind: &str, versions: bool, faults: &mut Faults) {
    match kind {
        "object" => {
            let described = source.child("describedObject");
            reference(&described, versions.then_some(false), faults);
            identifier(&source.child("metric"), faults);
        }
        "external" | "pods" => identifier(&source.child("metric"), faults),
        _ => {
            let (name, path) = (source.text("name"), source.path("name"));
            if name.is_empty() {
                faults.required(path, "must specify a resource name");
            } else if kind == "containerResource" {
                validate_container_name(name, &path, faults);
            }
        }
    }
    if kind == "containerResource" {
        let (container, path) = (source.text("container"), source.path("container"));
        match container {
            "" => faults.required(path, "must specify a container"),
            name => rules(faults, path, name, naming::dns1123_label(name)),
        }
    }
    let target = source.child("target");
    validate_target(&target, faults);
    let has = |field: &str| target.has(field);
    match kind {
        "object" if !has("value") && !has("averageValue") => {
            let rule = "must set either a target value or averageValue";
            faults.required(target.path("averageValue"), rule);
        }
        "external" if !has("value") && !has("averageValue") => {
            let rule = "must set either a target value for metric or a per-pod target";
            faults.required(target.path("averageValue"), rule);
        }
        "external" if has("value") && has("averageValue") => {
            let rule = "may not set both a target value for metric and a per-pod target";
            faults.forbidden(target.path("value"), rule);
        }
        "pods" if !has("averageValue") => {
            let rule = "must specify a positive target averageValue";
            faults.required(target.path("averageValue"), rule);
        }
        "resource" | "containerResource" => {
            match (has("averageUtilization"), has("averageValue")) {
                (false, false) => {
                    let rule = "must set either a target raw value or a target utilization";
                    faults.required(target.path("averageUtilization"), rule);
                }
                (true, true) => {
                    let rule = "may not set both a target raw value and a target utilization";
                    faults.forbidden(target.path("averageValue"), rule);
                }
                _ => {}
            }
        }
        _ => {}
    }
}

fn identifier(metric: &Spot<'_>, faults: &mut Faults) {
    let (name, path) = (metric.text("name"), metric.path("name"));
    match name {
        "" => faults.required(path, "must specify a metric name"),
        name => rules(faults, path, name, naming::path_segment(name)),
    }
}

fn validate_target(target: &Spot<'_>, faults: &mut Faults) {
    let kind = target.text("type");
    if kind.is_empty() {
        faults.required(target.path("type"), "must specify a metric target type");
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        let rule = "must be either Utilization, Value, or AverageValue";
        faults.invalid(target.path("type"), kind, rule);
    }
    let zero = amount(&Value::from("0"));
    for field in ["value", "averageValue"] {
        let value = target.at(field);
        if !value.is_null() && amount(value).partial_cmp(&zero) != Some(Ordering::Greater) {
            faults.invalid(target.path(field), value.clone(), "must be positive");
        }
    }
    let percent = target.maybe_int("averageUtilization");
    if let Some(percent) = percent.filter(|percent| *percent < 1) {
        let rule = "must be greater than 0";
        faults.invalid(target.path("averageUtilization"), percent, rule);
    }
}
