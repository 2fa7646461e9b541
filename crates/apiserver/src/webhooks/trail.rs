//! What webhooks leave on the audit trail: that they were asked, what they changed, and that one
//! which could not be asked was passed over.

use audit::Level;
use serde_json::{Value, json};

use super::Asked;
use super::hook::Hook;
use super::review::Verdict;

/// Which question it was: the round, and the webhook's place in it.
pub(super) type Place = (usize, usize);

/// Notes whether a mutating webhook changed the object.
pub(super) fn mutated(asked: &Asked<'_>, hook: &Hook, (round, index): Place, changed: bool) {
    if asked.call.audit.is_none() {
        return;
    }
    let value = json!({"configuration": hook.configuration, "webhook": hook.name,
        "mutated": changed});
    let key = format!("mutation.webhook.admission.k8s.io/round_{round}_index_{index}");
    asked.call.annotate(&key, value.to_string());
}

/// Notes a patch, where requests are recorded with their objects.
pub(super) fn patched(asked: &Asked<'_>, hook: &Hook, (round, index): Place, verdict: &Verdict) {
    let level = asked.call.audit.as_ref().map(|record| record.level());
    if level.is_none_or(|level| level < Level::Request) {
        return;
    }
    let patch: Value = serde_json::from_slice(&verdict.patch).unwrap_or_default();
    let value = json!({"configuration": hook.configuration, "webhook": hook.name,
        "patch": patch, "patchType": "JSONPatch"});
    let key = format!("patch.webhook.admission.k8s.io/round_{round}_index_{index}");
    asked.call.annotate(&key, value.to_string());
}

/// Notes that a webhook could not be asked, and that its policy is to go on.
pub(super) fn failed_open(asked: &Asked<'_>, hook: &Hook, kind: &str, (round, index): Place) {
    let key = format!("failed-open.{kind}.webhook.admission.k8s.io/round_{round}_index_{index}");
    asked.call.annotate(&key, hook.name.as_str());
}

/// Notes what the webhook itself wants to be noted.
pub(super) fn told(asked: &Asked<'_>, hook: &Hook, verdict: &Verdict) {
    for (key, value) in &verdict.annotations {
        let key = format!("{}/{key}", hook.name);
        asked.call.annotate(&key, value.as_str());
    }
}
