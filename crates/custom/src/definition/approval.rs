//! Groups of the Kubernetes community need its approval, told by an annotation.

use meta::Faults;
use serde_json::Value;

use super::text;

const ANNOTATION: &str = "api-approved.kubernetes.io";
const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Invalid,
    Approved,
    Bypassed,
    Missing,
}

fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|own| {
        let above = group.strip_suffix(own);
        above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
    })
}

fn annotation(definition: &Value) -> &str {
    let annotations = definition.pointer("/metadata/annotations");
    let own = annotations.and_then(|own| own.get(ANNOTATION));
    own.and_then(Value::as_str).unwrap_or("")
}

fn state(definition: &Value) -> (State, String) {
    let own = annotation(definition);
    let is_url = own.split_once("://").is_some_and(|(scheme, rest)| {
        let host = rest.split('/').next().unwrap_or("");
        !host.is_empty()
            && !scheme.is_empty()
            && scheme.bytes().all(|sign| sign.is_ascii_alphanumeric())
    });
    match own {
        "" => (
            State::Missing,
            format!("protected groups must have approval annotation {ANNOTATION:?}, {SEE}"),
        ),
        own if own.starts_with("unapproved") => (State::Bypassed, format!("not approved: {own:?}")),
        own if is_url => (State::Approved, format!("approved in {own}")),
        _ => (
            State::Invalid,
            format!(
                "protected groups must have approval annotation {ANNOTATION:?} with either a URL \
                 or a reason starting with \"unapproved\", {SEE}"
            ),
        ),
    }
}

/// Faults of the annotation; one that did not change has none.
pub(super) fn validate(definition: &Value, old: Option<&Value>, faults: &mut Faults) {
    if !is_protected(text(definition, "/spec/group")) {
        return;
    }
    let (now, why) = state(definition);
    if old.is_some_and(|old| state(old).0 == now) {
        return;
    }
    let path = format!("metadata.annotations[{ANNOTATION}]");
    match now {
        State::Invalid => faults.invalid(path, annotation(definition), why),
        State::Missing => faults.required(path, why),
        State::Approved | State::Bypassed => {}
    }
}

/// Status, reason and message of `KubernetesAPIApprovalPolicyConformant`; `None` for groups that
/// need no approval.
pub fn condition(definition: &Value) -> Option<(&'static str, &'static str, String)> {
    if !is_protected(text(definition, "/spec/group")) {
        return None;
    }
    let (state, why) = state(definition);
    Some(match state {
        State::Invalid => ("False", "InvalidAnnotation", why),
        State::Missing => ("False", "MissingAnnotation", why),
        State::Approved => ("True", "ApprovedAnnotation", why),
        State::Bypassed => ("False", "UnapprovedAnnotation", why),
    })
}
