//! Which checks a standard runs, version by version, and what they say together.

mod baseline;
mod restricted;

use std::collections::BTreeSet;

use serde_json::Value;

use super::standard::{Level, Standard, Version};
use crate::tree::{list, text};

/// What one check has against a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// In a word or two.
    pub(super) reason: String,
    /// Which containers, volumes or values.
    pub(super) detail: String,
}

impl Finding {
    fn new(reason: impl Into<String>, detail: impl Into<String>) -> Option<Finding> {
        Some(Finding {
            reason: reason.into(),
            detail: detail.into(),
        })
    }
}

/// A pod, or what a workload makes pods of.
#[derive(Clone, Copy)]
pub(super) struct Pod<'a> {
    pub(super) annotations: &'a Value,
    pub(super) spec: &'a Value,
}

impl<'a> Pod<'a> {
    fn containers(self) -> impl Iterator<Item = &'a Value> {
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(move |field| list(self.spec, field))
    }

    /// A field of the pod's security context; null when absent.
    fn security(self, field: &str) -> &'a Value {
        security(self.spec, field)
    }

    /// Whether the pod's users are not the host's.
    fn has_own_users(self) -> bool {
        self.spec.get("hostUsers") == Some(&Value::Bool(false))
    }

    fn is_windows(self) -> bool {
        self.spec.pointer("/os/name") == Some(&Value::from("windows"))
    }

    /// Names of the containers that `bad` is true of.
    fn named(self, mut bad: impl FnMut(&'a Value) -> bool) -> Vec<&'a str> {
        let containers = self.containers().filter(|container| bad(container));
        containers
            .map(|container| text(container, "name"))
            .collect()
    }
}

/// A field of the security context of a pod or container; null when absent.
fn security<'a>(holder: &'a Value, field: &str) -> &'a Value {
    let context = holder.get("securityContext");
    context
        .and_then(|context| context.get(field))
        .unwrap_or(&Value::Null)
}

type CheckPod = fn(Pod<'_>) -> Option<Finding>;

/// One check and the minor versions from which its forms count.
struct Check {
    id: &'static str,
    forms: &'static [(u32, CheckPod)],
    /// The baseline check that a restricted one replaces.
    replaces: &'static str,
}

impl Check {
    const fn new(id: &'static str, forms: &'static [(u32, CheckPod)]) -> Check {
        Check {
            id,
            forms,
            replaces: "",
        }
    }

    const fn replacing(self, replaces: &'static str) -> Check {
        Check { replaces, ..self }
    }

    fn form(&self, minor: u32) -> Option<CheckPod> {
        let form = self.forms.iter().rev().find(|(since, _)| *since <= minor);
        form.map(|(_, check)| *check)
    }
}

/// All that the checks have against a pod, in upstream's order.
pub(super) fn findings(standard: Standard, pod: Pod<'_>) -> Vec<Finding> {
    if standard.level == Level::Privileged {
        return Vec::new();
    }
    let minor = match standard.version {
        Version::Minor(minor) => minor,
        Version::Latest => u32::MAX,
    };
    let restricted: &[Check] = match standard.level {
        Level::Restricted => restricted::CHECKS,
        _ => &[],
    };
    let replaced: Vec<_> = restricted
        .iter()
        .filter(|check| check.form(minor).is_some())
        .map(|check| check.replaces)
        .collect();
    let baseline = baseline::CHECKS.iter();
    let kept = baseline.filter(|check| !replaced.contains(&check.id));
    kept.chain(restricted)
        .filter_map(|check| check.form(minor))
        .filter_map(|check| check(pod))
        .collect()
}

/// Reasons alone, as namespaces are told of their pods.
pub(super) fn reasons(findings: &[Finding]) -> String {
    let reasons: Vec<_> = findings.iter().map(|one| one.reason.as_str()).collect();
    reasons.join(", ")
}

/// Reasons with their details, as is told of one pod.
pub(super) fn details(findings: &[Finding]) -> String {
    let one = |finding: &Finding| match finding.detail.as_str() {
        "" => finding.reason.clone(),
        detail => format!("{} ({detail})", finding.reason),
    };
    findings.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items = items.into_iter();
    let items: Vec<_> = items.map(|item| format!("\"{}\"", item.as_ref())).collect();
    items.join(", ")
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `container "a"` or `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    let word = plural("container", "containers", names.len());
    format!("{word} {}", quoted(names))
}

/// `pod and containers "a", "b"`: who sets something.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    match (pod, names.is_empty()) {
        (false, true) => None,
        (true, true) => Some("pod".into()),
        (false, false) => Some(containers(names)),
        (true, false) => Some(format!("pod and {}", containers(names))),
    }
}

/// Collects what `bad` finds in containers, each value once and in order.
fn values<'a>(
    pod: Pod<'a>,
    mut bad: impl FnMut(&'a Value, &mut BTreeSet<String>) -> bool,
) -> (Vec<&'a str>, BTreeSet<String>) {
    let mut found = BTreeSet::new();
    let names = pod.named(|container| bad(container, &mut found));
    (names, found)
}
