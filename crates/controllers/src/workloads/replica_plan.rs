//! How many pods a ReplicaSet (or ReplicationController) lacks or has too many of. Pure.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use meta::Status;

use super::control::{BURST_MAX, Claims, claim, plain};
use crate::pods;

/// What one round does.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// How many pods to create.
    pub create: usize,
    pub delete: Vec<Arc<Pod>>,
    pub claims: Claims,
    /// The status as it should be, without the outcome of this round.
    pub status: ReplicaSetStatus,
    /// When a ready pod becomes available.
    pub again_in: Option<Duration>,
}

/// Compares a set with the pods of its namespace that match it or are controlled by it. Pure.
pub(crate) fn plan(set: &ReplicaSet, candidates: &[Arc<Pod>], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &set.spec else { return plan };
    let Some(selector) = pods::selector(&spec.selector) else {
        return plan;
    };
    let terminating = set.metadata.deletion_timestamp.is_some();
    let claims = claim(&set.metadata, &selector, candidates);
    let own = &claims.own;
    let mut active: Vec<_> = own
        .iter()
        .filter(|pod| pods::is_active(pod))
        .cloned()
        .collect();
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    if !terminating {
        plan.create = wanted.saturating_sub(active.len()).min(BURST_MAX);
        let surplus = active.len().saturating_sub(wanted).min(BURST_MAX);
        active.sort_by_cached_key(|pod| pods::deletion_order(pod));
        plan.delete = active[..surplus].to_vec();
    }
    count(set, own, now, &mut plan);
    plan.claims = claims;
    plan
}

fn count(set: &ReplicaSet, own: &[Arc<Pod>], now: Timestamp, plan: &mut Plan) {
    let Some(spec) = &set.spec else { return };
    let template = spec
        .template
        .as_ref()
        .and_then(|template| template.metadata.as_ref());
    let wanted = template
        .and_then(|metadata| metadata.labels.clone())
        .unwrap_or_default();
    let (mut replicas, mut labelled, mut ready, mut available, mut leaving) = (0, 0, 0, 0, 0);
    for pod in own {
        if !pods::is_active(pod) {
            leaving += i32::from(!pods::is_terminal(pod));
            continue;
        }
        replicas += 1;
        let labels = pod.metadata.labels.as_ref();
        let has = |(key, value): (&String, &String)| labels.and_then(|l| l.get(key)) == Some(value);
        labelled += i32::from(wanted.iter().all(has));
        match pods::seconds_to_available(pod, spec.min_ready_seconds.unwrap_or(0), now) {
            None => {}
            Some(0) => {
                ready += 1;
                available += 1;
            }
            Some(seconds) => {
                ready += 1;
                let wait = Duration::from_secs(seconds.unsigned_abs());
                plan.again_in = Some(plan.again_in.map_or(wait, |known| known.min(wait)));
            }
        }
    }
    let conditions = set
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone());
    plan.status = ReplicaSetStatus {
        replicas,
        fully_labeled_replicas: plain(labelled),
        ready_replicas: plain(ready),
        available_replicas: plain(available),
        terminating_replicas: Some(leaving),
        observed_generation: set.metadata.generation,
        conditions,
    };
}

/// Condition `ReplicaFailure` comes and goes with this round's outcome.
pub(crate) fn failure_condition(
    known: Option<Vec<ReplicaSetCondition>>,
    plan: &Plan,
    fault: Option<&Status>,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = known.unwrap_or_default();
    let standing = conditions
        .iter()
        .position(|one| one.type_ == "ReplicaFailure");
    match (fault, standing) {
        (None, Some(at)) => {
            conditions.remove(at);
        }
        (Some(fault), None) => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(
                if plan.create > 0 {
                    "FailedCreate"
                } else {
                    "FailedDelete"
                }
                .into(),
            ),
            message: Some(fault.message.clone()),
            last_transition_time: Some(Time(Timestamp::now())),
        }),
        _ => {}
    }
    Some(conditions).filter(|conditions| !conditions.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u1", "generation": 2},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}}
        }))
        .unwrap()
    }

    fn pod(name: &str, owner: Option<&str>, app: &str, phase: &str) -> Arc<Pod> {
        let owners: Vec<_> = owner
            .map(|uid| {
                json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web",
                "uid": uid, "controller": true})
            })
            .into_iter()
            .collect();
        let tree = json!({"metadata": {"name": name, "labels": {"app": app},
            "ownerReferences": owners}, "status": {"phase": phase}});
        Arc::new(serde_json::from_value(tree).unwrap())
    }

    #[test]
    fn missing_pods_are_made_and_surplus_ones_removed() {
        let pods = [
            pod("a", Some("u1"), "web", "Running"),
            pod("b", Some("u1"), "web", "Failed"),
            pod("c", Some("other"), "web", "Running"),
        ];
        assert_eq!(plan(&set(3), &pods, Timestamp::now()).create, 2);
        let less = plan(&set(0), &pods, Timestamp::now());
        assert_eq!(less.delete.len(), 1);
        assert_eq!(less.delete[0].metadata.name.as_deref(), Some("a"));
        assert_eq!(less.status.replicas, 1);
    }

    #[test]
    fn orphans_are_adopted_and_strays_released() {
        let pods = [
            pod("a", None, "web", "Running"),
            pod("b", Some("u1"), "db", "Running"),
        ];
        let plan = plan(&set(2), &pods, Timestamp::now());
        assert_eq!(
            (
                plan.claims.adopt.len(),
                plan.claims.release.len(),
                plan.create
            ),
            (1, 1, 1)
        );
    }

    #[test]
    fn a_terminating_set_leaves_its_pods_alone() {
        let mut set = set(5);
        set.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
        let pods = [
            pod("a", Some("u1"), "web", "Running"),
            pod("b", None, "web", "Running"),
        ];
        let plan = plan(&set, &pods, Timestamp::now());
        assert_eq!(
            (plan.create, plan.delete.len(), plan.claims.adopt.len()),
            (0, 0, 0)
        );
    }
}
