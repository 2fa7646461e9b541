//! The rules that all keepers of pods share: selectors, templates, counts.

use meta::{FaultKind, Faults};
use serde_json::Value;

use crate::core::validate_template as validate_pod_template;
use crate::go::{LABEL_SELECTOR, shown};
use crate::spot::{Spot, label_selector, not_negative, selects, unsupported};
use crate::tree::Tree;

/// `spec.selector` must be there, sound and choose something.
pub(crate) fn validate_selector(spec: &Spot<'_>, what: &str, faults: &mut Faults) {
    let selector = spec.child("selector");
    if selector.is_null() {
        return faults.required(selector.path, "");
    }
    label_selector(&selector, faults);
    if selector.count("matchLabels") + selector.count("matchExpressions") == 0 {
        let rule = format!("empty selector is invalid for {what}");
        faults.invalid(selector.path.clone(), selector.value.clone(), rule);
    }
}

/// Whether the selector could be used; one that is absent selects nothing.
pub(crate) fn is_selector(selector: &Spot<'_>) -> bool {
    let mut faults = Faults::new();
    label_selector(selector, &mut faults);
    faults.is_empty()
}

/// `spec.template` must be chosen by the selector, and be sound; false if the selector is so
/// broken that nothing can be said of the template. `rule` is what then is said.
pub(crate) fn validate_chosen(object: &Value, rule: &str, faults: &mut Faults) -> bool {
    let spec = Spot::new(object, "spec");
    let selector = spec.child("selector");
    if !is_selector(&selector) {
        let shown = shown(selector.value, &LABEL_SELECTOR);
        faults.add_shown(selector.path, FaultKind::Invalid, shown, rule);
        return false;
    }
    let labels = spec.child("template.metadata.labels");
    let all = selector.count("matchLabels") + selector.count("matchExpressions") == 0;
    let chosen = match selector.is_null() {
        true => false,
        false => all || selects(selector.value, labels.value),
    };
    if !chosen {
        let rule = "`selector` does not match template `labels`";
        faults.invalid(labels.path, labels.value.clone(), rule);
    }
    validate_pod_template(object, "spec.template", faults);
    true
}

/// `spec.template` must be chosen by the selector, be sound, and run for ever.
pub(crate) fn validate_template(object: &Value, kind: &str, faults: &mut Faults) {
    if validate_chosen(object, "invalid label selector", faults) {
        validate_endless(&Spot::new(object, "spec"), kind, faults);
    }
}

/// Only pods that are started again and again can be kept.
pub(crate) fn validate_endless(spec: &Spot<'_>, kind: &str, faults: &mut Faults) {
    let pod = spec.child("template.spec");
    let policy = pod.text("restartPolicy");
    if policy != "Always" {
        unsupported(faults, pod.path("restartPolicy"), policy, &["Always"]);
    }
    if pod.has("activeDeadlineSeconds") {
        let rule = format!("activeDeadlineSeconds in {kind} is not Supported");
        faults.forbidden(pod.path("activeDeadlineSeconds"), rule);
    }
}

/// Whether a count or percentage comes to nothing.
pub(crate) fn is_none(value: &Value) -> bool {
    match value {
        Value::String(text) => crate::spot::percentage(value).unwrap_or(0) == 0 || text.is_empty(),
        other => other.as_i64().unwrap_or(0) == 0,
    }
}

/// The counts of a status: none below zero, none above `replicas`.
pub(crate) fn validate_counts(
    object: &Value,
    counted: &[&str],
    ready_shown: &str,
    faults: &mut Faults,
) {
    let status = Spot::new(object, "status");
    not_negative(&status, "observedGeneration", faults);
    not_negative(&status, "replicas", faults);
    for field in counted {
        not_negative(&status, field, faults);
    }
    not_negative(&status, "collisionCount", faults);
    for field in counted {
        if status.int(field) > status.int("replicas") {
            let rule = "cannot be greater than status.replicas";
            faults.invalid(status.path(field), status.int(field), rule);
        }
    }
    let available = status.int("availableReplicas");
    if available > status.int("readyReplicas") {
        let rule = format!("cannot be greater than {ready_shown}");
        faults.invalid(status.path("availableReplicas"), available, rule);
    }
}
