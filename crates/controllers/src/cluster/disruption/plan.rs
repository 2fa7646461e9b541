//! What a budget allows, given its pods and how many there should be. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;

use crate::pods;

const ALLOWED: &str = "DisruptionAllowed";
/// A pod whose eviction was granted and that is not on its way out after this long stays.
const GRANT: Duration = Duration::from_secs(120);

/// How many pods there should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    /// What the pods' controllers ask for together.
    pub by_controllers: i32,
}

/// Whether a budget must know how many pods the controllers ask for.
pub(super) fn asks_controllers(budget: &PodDisruptionBudget) -> bool {
    let Some(spec) = &budget.spec else {
        return false;
    };
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// The status as it should be, and when it will be due again.
pub(super) fn plan(
    budget: &PodDisruptionBudget,
    covered: &[Arc<Pod>],
    expected: Expected,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Option<Duration>) {
    let known = budget.status.clone().unwrap_or_default();
    let (disrupted, again_in) = still_granted(&known, covered, now);
    let healthy = covered.iter().filter(|pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let leaving = pod.metadata.deletion_timestamp.is_some();
        !leaving && !disrupted.contains_key(name) && pods::is_ready(pod)
    });
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    let (expected, desired) = wanted(budget, covered.len(), expected);
    let allowed = match expected {
        0 => 0,
        _ => (healthy - desired).max(0),
    };
    let (reason, granted) = match allowed {
        0 => ("InsufficientPods", "False"),
        _ => ("SufficientPods", "True"),
    };
    let status = PodDisruptionBudgetStatus {
        conditions: Some(vec![condition(budget, granted, reason, "", now)]),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disrupted_pods: Some(disrupted).filter(|pods| !pods.is_empty()),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: budget.metadata.generation,
    };
    (status, again_in)
}

/// The status of a budget that cannot be computed: nothing is allowed.
pub(super) fn failed(
    budget: &PodDisruptionBudget,
    why: &str,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let known = budget.status.clone().unwrap_or_default();
    PodDisruptionBudgetStatus {
        conditions: Some(vec![condition(budget, "False", "SyncFailed", why, now)]),
        disruptions_allowed: Some(0),
        observed_generation: budget.metadata.generation,
        current_healthy: known.current_healthy.or(Some(0)),
        desired_healthy: known.desired_healthy.or(Some(0)),
        expected_pods: known.expected_pods.or(Some(0)),
        ..known
    }
}

fn condition(
    budget: &PodDisruptionBudget,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Condition {
    let known = budget
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let known = known.and_then(|known| known.iter().find(|one| one.type_ == ALLOWED));
    let since = known.filter(|known| known.status == status);
    Condition {
        type_: ALLOWED.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: since.map_or(Time(now), |known| known.last_transition_time.clone()),
        observed_generation: budget.metadata.generation,
    }
}

/// Evictions that were granted and are not seen in the pods yet.
fn still_granted(
    known: &PodDisruptionBudgetStatus,
    covered: &[Arc<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Duration>) {
    let mut standing = BTreeMap::new();
    let mut again_in: Option<Duration> = None;
    for (name, since) in known.disrupted_pods.iter().flatten() {
        let here = |pod: &&Arc<Pod>| pod.metadata.name.as_deref() == Some(name);
        let Some(pod) = covered.iter().find(here) else {
            continue;
        };
        let passed = now.as_second().saturating_sub(since.0.as_second());
        let passed = Duration::from_secs(u64::try_from(passed).unwrap_or(0));
        if pod.metadata.deletion_timestamp.is_some() || passed >= GRANT {
            continue;
        }
        standing.insert(name.clone(), since.clone());
        let left = GRANT - passed;
        again_in = Some(again_in.map_or(left, |known| known.min(left)));
    }
    (standing, again_in)
}

/// How many pods are expected, and how many of them must be healthy.
fn wanted(budget: &PodDisruptionBudget, covered: usize, expected: Expected) -> (i32, i32) {
    let covered = i32::try_from(covered).unwrap_or(i32::MAX);
    let asked = expected.by_controllers;
    let Some(spec) = &budget.spec else {
        return (0, 0);
    };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => (asked, (asked - scaled(most, asked)).max(0)),
        (None, Some(IntOrString::Int(least))) => (covered, *least),
        (None, Some(share)) => (asked, scaled(share, asked)),
        (None, None) => (0, 0),
    }
}

/// A number as it is, a percentage of `whole` rounded up.
fn scaled(value: &IntOrString, whole: i32) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let share = (i64::from(whole) * percent + 99).div_euclid(100);
            i32::try_from(share).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: &str = "2026-01-01T00:01:00Z";

    fn pods(ready: usize, unready: usize) -> Vec<Arc<Pod>> {
        let pod = |number: usize| {
            let status = if number < ready { "True" } else { "False" };
            let tree = json!({"metadata": {"name": format!("p{number}")}, "status": {
                "conditions": [{"type": "Ready", "status": status}]}});
            Arc::new(serde_json::from_value(tree).unwrap())
        };
        (0..ready + unready).map(pod).collect()
    }

    fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
        let tree = json!({"metadata": {"name": "b", "generation": 3}, "spec": spec,
            "status": status});
        serde_json::from_value(tree).unwrap()
    }

    /// Healthy, desired, expected, allowed.
    fn numbers(spec: Value, covered: &[Arc<Pod>], asked: i32) -> [i32; 4] {
        let expected = Expected {
            by_controllers: asked,
        };
        let budget = budget(spec, Value::Null);
        let (status, _) = plan(&budget, covered, expected, NOW.parse().unwrap());
        [
            status.current_healthy,
            status.desired_healthy,
            status.expected_pods,
            status.disruptions_allowed,
        ]
        .map(|number| number.unwrap())
    }

    #[test]
    fn numbers_and_percentages() {
        let three = pods(3, 0);
        assert_eq!(numbers(json!({"minAvailable": 2}), &three, 0), [3, 2, 3, 1]);
        assert_eq!(
            numbers(json!({"maxUnavailable": 1}), &three, 3),
            [3, 2, 3, 1]
        );
        assert_eq!(
            numbers(json!({"maxUnavailable": 1}), &three, 4),
            [3, 3, 4, 0]
        );
        assert_eq!(
            numbers(json!({"minAvailable": "50%"}), &three, 3),
            [3, 2, 3, 1]
        );
        assert_eq!(
            numbers(json!({"maxUnavailable": "30%"}), &pods(9, 1), 10),
            [9, 7, 10, 2]
        );
        assert_eq!(
            numbers(json!({"maxUnavailable": 5}), &three, 3),
            [3, 0, 3, 3]
        );
        assert_eq!(numbers(json!({"minAvailable": 0}), &[], 0), [0, 0, 0, 0]);
        assert!(asks_controllers(&budget(
            json!({"minAvailable": "1%"}),
            Value::Null
        )));
        assert!(!asks_controllers(&budget(
            json!({"minAvailable": 1}),
            Value::Null
        )));
    }

    #[test]
    fn granted_evictions_count_until_they_are_seen() {
        let granted = json!({"disruptedPods": {"p0": "2026-01-01T00:00:30Z",
            "p1": "2025-12-31T00:00:00Z", "gone": "2026-01-01T00:00:30Z"}});
        let budget = budget(json!({"minAvailable": 1}), granted);
        let expected = Expected { by_controllers: 0 };
        let (status, again) = plan(&budget, &pods(3, 0), expected, NOW.parse().unwrap());
        assert_eq!(status.current_healthy, Some(2));
        let names: Vec<_> = status.disrupted_pods.unwrap().into_keys().collect();
        assert_eq!(names, ["p0"]);
        assert_eq!(again, Some(Duration::from_secs(90)));
    }

    #[test]
    fn conditions_keep_their_time() {
        let now: Timestamp = NOW.parse().unwrap();
        let expected = Expected { by_controllers: 0 };
        let mut budget = budget(json!({"minAvailable": 1}), Value::Null);
        let (first, _) = plan(&budget, &pods(1, 0), expected, now);
        budget.status = Some(first.clone());
        let (second, _) = plan(&budget, &pods(1, 0), expected, now + GRANT);
        assert_eq!(first, second);
        let (third, _) = plan(&budget, &pods(2, 0), expected, now + GRANT);
        let condition = &third.conditions.as_ref().unwrap()[0];
        assert_eq!(condition.reason, "SufficientPods");
        assert_eq!(condition.last_transition_time.0, now + GRANT);
        let lost = failed(&budget, "no scale", now);
        assert_eq!(lost.disruptions_allowed, Some(0));
        assert_eq!(lost.conditions.unwrap()[0].reason, "SyncFailed");
    }
}
