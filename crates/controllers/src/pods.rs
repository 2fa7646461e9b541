//! What controllers ask of pods, and how they make them.

use std::cmp::Reverse;

use client::Kind;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector as Selector, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use meta::LabelSelector;
use reconcile::owners::controller_reference;

/// The selector of a workload in the form that matches. One that does not parse matches nothing.
pub fn selector(selector: &Selector) -> Option<LabelSelector> {
    let value = serde_json::to_value(selector).ok()?;
    LabelSelector::from_value(&value).ok()
}

/// Whether a selector matches an object's labels.
pub fn matches(selector: &LabelSelector, metadata: &ObjectMeta) -> bool {
    selector.matches(|key| metadata.labels.as_ref()?.get(key).map(String::as_str))
}

/// `status.phase`, `Pending` when not set.
pub fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending")
}

/// Whether the pod has ended for good.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether the pod counts as a replica: neither ended nor on its way out.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Since when condition `Ready` is true, if it is.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    let ready = conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")?;
    if ready.status != "True" {
        return None;
    }
    Some(
        ready
            .last_transition_time
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
    )
}

/// Whether the pod serves.
pub fn is_ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// Seconds until the pod has been ready for `min_ready_seconds`: 0 when it is available, `None`
/// when it is not ready.
pub fn seconds_to_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<i64> {
    let since = ready_since(pod)?;
    let passed = now.as_second() - since.as_second();
    Some((i64::from(min_ready_seconds) - passed).max(0))
}

/// A pod from a template, controlled by `owner`; the name is left to the API server.
pub fn from_template<K: Kind>(template: &PodTemplateSpec, owner: &K) -> Pod {
    let from = template.metadata.clone().unwrap_or_default();
    let name = owner.metadata().name.as_deref().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: owner.metadata().namespace.clone(),
            labels: from.labels,
            annotations: from.annotations,
            finalizers: from.finalizers,
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone().unwrap_or_default()),
        status: None,
    }
}

/// Orders pods by how gladly they are given up: unassigned before assigned, pending before
/// running, not ready before ready, cheap (`pod-deletion-cost`) before dear, then those ready for
/// less long, restarted more often, created later (upstream's `ActivePodsWithRanks`).
pub fn deletion_order(pod: &Pod) -> impl Ord + use<> {
    let assigned = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .is_some();
    let rank = match phase(pod) {
        "Pending" => 0,
        "Running" => 2,
        _ => 1,
    };
    let annotations = pod.metadata.annotations.as_ref();
    let cost = annotations.and_then(|map| map.get("controller.kubernetes.io/pod-deletion-cost"));
    let cost: i32 = cost.and_then(|text| text.parse().ok()).unwrap_or(0);
    let since = ready_since(pod).map(Reverse);
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref());
    let restarts = statuses
        .unwrap_or_default()
        .iter()
        .map(|status| status.restart_count)
        .max();
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (
        assigned,
        rank,
        is_ready(pod),
        cost,
        since,
        Reverse(restarts),
        Reverse(created),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(tree: serde_json::Value) -> Pod {
        serde_json::from_value(tree).unwrap()
    }

    #[test]
    fn the_least_useful_pod_goes_first() {
        let ready = |name: &str, at: &str| {
            pod(
                json!({"metadata": {"name": name}, "spec": {"nodeName": "n", "containers": []},
                "status": {"phase": "Running", "conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": at}]}}),
            )
        };
        let pending = pod(json!({"metadata": {"name": "pending"}, "spec": {"containers": []}}));
        let old = ready("old", "2026-01-01T00:00:00Z");
        let young = ready("young", "2026-01-02T00:00:00Z");
        let mut pods = [&old, &young, &pending];
        pods.sort_by_cached_key(|pod| deletion_order(pod));
        let names: Vec<_> = pods
            .iter()
            .filter_map(|pod| pod.metadata.name.as_deref())
            .collect();
        assert_eq!(names, ["pending", "young", "old"]);
    }

    #[test]
    fn availability_waits_for_min_ready_seconds() {
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
        let pod = pod(json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}));
        assert_eq!(seconds_to_available(&pod, 0, now), Some(0));
        assert_eq!(seconds_to_available(&pod, 30, now), Some(20));
        assert_eq!(seconds_to_available(&Pod::default(), 0, now), None);
    }
}
