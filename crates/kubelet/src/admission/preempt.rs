//! Which pods go so that a critical one has room: as few as possible, those
//! with the fewest guarantees first. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::pod::PodExt;
use crate::resources::{self, Qos};

/// Resources by name, and how much of them is missing.
pub(super) type Missing<'n> = Vec<(&'n str, i64)>;

/// Nobody could go whose room would do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: {0}"
)]
pub(super) struct TooFew(String);

/// Chooses among the pods that run.
pub(super) fn choose(
    pod: &Pod,
    running: &[Arc<Pod>],
    missing: Missing<'_>,
) -> Result<Vec<Arc<Pod>>, TooFew> {
    let of = |class: Qos| -> Vec<Arc<Pod>> {
        let all = running.iter().filter(|other| may_go(pod, other));
        all.filter(|other| resources::qos(other) == class)
            .cloned()
            .collect()
    };
    let (best_effort, burstable) = (of(Qos::BestEffort), of(Qos::Burstable));
    let guaranteed = of(Qos::Guaranteed);
    let never = without(&missing, &[&best_effort, &burstable, &guaranteed]);
    if !never.is_empty() {
        return Err(TooFew(shown(&never)));
    }
    // The more is guaranteed to a pod, the later it is its turn; and then nobody goes in vain.
    let mut gone = nearest(guaranteed, without(&missing, &[&best_effort, &burstable]))?;
    let more = nearest(burstable, without(&missing, &[&best_effort, &gone]))?;
    gone.splice(0..0, more);
    let more = nearest(best_effort, without(&missing, &[&gone]))?;
    gone.splice(0..0, more);
    Ok(gone)
}

/// What is still missing when these pods are gone.
fn without<'n>(missing: &Missing<'n>, groups: &[&[Arc<Pod>]]) -> Missing<'n> {
    let gone = || groups.iter().copied().flatten();
    let left = missing.iter().map(|(name, amount)| {
        let freed: i64 = gone().map(|pod| request(pod, name)).sum();
        (*name, amount - freed)
    });
    left.filter(|(_, amount)| *amount > 0).collect()
}

fn may_go(pod: &Pod, other: &Pod) -> bool {
    let lower = || pod.spec().priority.zip(other.spec().priority);
    (pod.is_critical() && !other.is_critical()) || lower().is_some_and(|(own, other)| own > other)
}

fn request(pod: &Pod, name: &str) -> i64 {
    match name.starts_with(resources::HUGE_PAGES) {
        true => resources::huge_pages_of(pod)
            .get(name)
            .copied()
            .unwrap_or(0),
        false => resources::requests(pod).of(name),
    }
}

/// Takes, again and again, the pod that frees the most of what is still missing.
fn nearest(mut pods: Vec<Arc<Pod>>, mut missing: Missing<'_>) -> Result<Vec<Arc<Pod>>, TooFew> {
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let key = |pod: &Arc<Pod>| {
            let size = (request(pod, "memory"), request(pod, "cpu"));
            (distance(pod, &missing), size)
        };
        let best = (0..pods.len()).min_by(|one, other| {
            let (one, other) = (key(&pods[*one]), key(&pods[*other]));
            one.0.total_cmp(&other.0).then(one.1.cmp(&other.1))
        });
        let Some(best) = best else {
            return Err(TooFew(shown(&missing)));
        };
        let pod = pods.swap_remove(best);
        for (name, amount) in &mut missing {
            *amount -= request(&pod, name);
        }
        missing.retain(|(_, amount)| *amount > 0);
        chosen.push(pod);
    }
    Ok(chosen)
}

/// How far a pod is from freeing all that is missing; each resource counts the same.
fn distance(pod: &Pod, missing: &Missing<'_>) -> f64 {
    let far = missing.iter().map(|(name, amount)| {
        #[expect(clippy::cast_precision_loss, reason = "only compared")]
        let part = (amount - request(pod, name)).max(0) as f64 / (*amount).max(1) as f64;
        part * part
    });
    far.sum()
}

fn shown(missing: &Missing<'_>) -> String {
    let all = missing
        .iter()
        .map(|(name, amount)| format!("(res: {name}, q: {amount}), "));
    format!("[{}]", all.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, requests: serde_json::Value, limited: bool, priority: i32) -> Arc<Pod> {
        let limits = if limited { requests.clone() } else { json!({}) };
        let pod = json!({"metadata": {"name": name}, "spec": {"priority": priority, "containers": [
            {"name": "main", "resources": {"requests": requests, "limits": limits}}]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn names(chosen: Result<Vec<Arc<Pod>>, TooFew>) -> Vec<String> {
        let all = chosen.unwrap().into_iter();
        all.map(|pod| pod.name().to_owned()).collect()
    }

    #[test]
    fn as_few_go_as_possible_and_the_least_guaranteed_first() {
        let critical = pod("vip", json!({}), false, 2_000_000_000);
        let mi = |n: i64| n << 20;
        let running = [
            pod("none", json!({}), false, 0),
            pod("small", json!({"memory": "100Mi"}), false, 0),
            pod("large", json!({"memory": "300Mi"}), false, 0),
            pod("sure", json!({"memory": "400Mi", "cpu": "1"}), true, 0),
            pod("system", json!({"memory": "9Gi"}), true, 2_000_000_000),
        ];
        let choose = |missing| choose(&critical, &running, missing);
        assert_eq!(names(choose(vec![("memory", mi(50))])), ["small"]);
        assert_eq!(names(choose(vec![("memory", mi(200))])), ["large"]);
        assert_eq!(names(choose(vec![("memory", mi(350))])), ["large", "small"]);
        // Guaranteed ones have to go: then the others need not.
        assert_eq!(names(choose(vec![("memory", mi(500))])), ["small", "sure"]);
        assert_eq!(names(choose(vec![("cpu", 500)])), ["sure"]);
        assert_eq!(names(choose(vec![("pods", 1)])), ["none"]);
        assert!(names(choose(Vec::new())).is_empty());
        let none = choose(vec![("memory", mi(900)), ("cpu", 10)]).unwrap_err();
        assert!(
            none.to_string()
                .ends_with("[(res: memory, q: 104857600), ]"),
            "{none}"
        );
    }
}
