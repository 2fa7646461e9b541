//! What the server itself says of a new or changed pod.

use meta::Quantity;
use serde_json::{Value, json};

use super::defaults::{CONTAINER_LISTS, sync_service_account};
use crate::tree::Tree;

pub(super) fn prepare_create(pod: &mut Value) {
    let class = qos_class(pod);
    pod.set("status", json!({"phase": "Pending", "qosClass": class}));
    if pod.count("spec.schedulingGates") > 0 {
        let gated = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "lastProbeTime": null,
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
        pod.set("status.conditions", gated);
    }
    // Ephemeral containers come only through their own subresource.
    if let Some(spec) = pod.at_mut("spec") {
        sync_service_account(spec);
    }
    apply_label_keys(pod);
}

pub(super) fn prepare_update(pod: &mut Value) {
    if let Some(spec) = pod.at_mut("spec") {
        sync_service_account(spec);
    }
}

/// Guaranteed when cpu and memory are limited to what is requested everywhere, best effort when
/// neither is mentioned anywhere, else burstable.
pub fn qos_class(pod: &Value) -> &'static str {
    let (mut mentioned, mut guaranteed) = (false, true);
    let own = pod.at("spec.resources");
    let whole: Vec<&Value> = if own.count("limits") + own.count("requests") > 0 {
        vec![own]
    } else {
        let lists = CONTAINER_LISTS[..2].iter();
        let containers = lists.flat_map(|list| pod.at("spec").list(list));
        containers.map(|one| one.at("resources")).collect()
    };
    for resources in &whole {
        for resource in ["cpu", "memory"] {
            let amount = |kind: &str| {
                let amount = resources.at(kind).get(resource)?;
                let amount = Quantity::parse(&crate::table::plain(amount)).ok()?;
                (!amount.is_zero()).then_some(amount)
            };
            let (limit, request) = (amount("limits"), amount("requests"));
            mentioned |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (mentioned, guaranteed && !whole.is_empty()) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Turns `matchLabelKeys` and `mismatchLabelKeys` into conditions on the pod's own labels.
fn apply_label_keys(pod: &mut Value) {
    let labels = pod.at("metadata.labels").clone();
    for affinity in ["spec.affinity.podAffinity", "spec.affinity.podAntiAffinity"] {
        let Some(affinity) = pod.at_mut(affinity) else {
            continue;
        };
        for term in affinity.list_mut("preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = term.at_mut("podAffinityTerm") {
                add_conditions(term, &labels);
            }
        }
        for term in affinity.list_mut("requiredDuringSchedulingIgnoredDuringExecution") {
            add_conditions(term, &labels);
        }
    }
    for constraint in pod.list_mut("spec.topologySpreadConstraints") {
        add_conditions(constraint, &labels);
    }
}

fn add_conditions(term: &mut Value, labels: &Value) {
    if !term.has("labelSelector") {
        return;
    }
    let mut added = Vec::new();
    for (keys, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in term.texts(keys) {
            if let Some(value) = labels.get(key) {
                added.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    if added.is_empty() {
        return;
    }
    term.fill("labelSelector.matchExpressions", Vec::<Value>::new());
    if let Some(Value::Array(list)) = term.at_mut("labelSelector.matchExpressions") {
        list.extend(added);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(resources: &[Value], expected: &str) {
        let containers: Vec<_> = resources
            .iter()
            .map(|resources| json!({ "resources": resources }))
            .collect();
        let pod = json!({"spec": {"containers": containers}});
        assert_eq!(qos_class(&pod), expected, "{resources:?}");
    }

    #[test]
    fn quality_of_service() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"},
            "requests": {"cpu": "1000m", "memory": "1Gi"}});
        check(&[json!({})], "BestEffort");
        check(std::slice::from_ref(&full), "Guaranteed");
        check(&[full.clone(), json!({})], "Burstable");
        check(&[json!({"requests": {"cpu": "1"}})], "Burstable");
        check(&[json!({"limits": {"cpu": "1"}})], "Burstable");
        check(&[json!({"limits": {"example.com/a": "1"}})], "BestEffort");
    }

    #[test]
    fn a_new_pod_is_pending() {
        let mut pod = json!({"spec": {"schedulingGates": [{"name": "a"}], "serviceAccountName": "x"},
            "status": {"phase": "Running"}});
        prepare_create(&mut pod);
        assert_eq!(pod.text("status.phase"), "Pending");
        assert_eq!(pod.text("status.qosClass"), "BestEffort");
        assert_eq!(
            pod.list("status.conditions")[0].text("reason"),
            "SchedulingGated"
        );
        assert_eq!(pod.text("spec.serviceAccount"), "x");
    }
}
