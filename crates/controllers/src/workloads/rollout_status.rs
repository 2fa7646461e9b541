//! A deployment's status: counts, and how its roll-out goes. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::control::plain;
use super::rollout;

/// The status a deployment should have, and after how many seconds its deadline passes.
pub(crate) fn of(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    own: &[Arc<ReplicaSet>],
    newest: Option<&Arc<ReplicaSet>>,
    now: Timestamp,
) -> (DeploymentStatus, Option<i64>) {
    let before = deployment.status.clone().unwrap_or_default();
    let sum = |count: fn(&ReplicaSet) -> i32| own.iter().map(|set| count(set)).sum::<i32>();
    let replicas = sum(|set| set.status.as_ref().map_or(0, |s| s.replicas));
    let ready = sum(|set| {
        set.status
            .as_ref()
            .and_then(|s| s.ready_replicas)
            .unwrap_or(0)
    });
    let available = sum(|set| {
        set.status
            .as_ref()
            .and_then(|s| s.available_replicas)
            .unwrap_or(0)
    });
    let leaving = sum(|set| {
        set.status
            .as_ref()
            .and_then(|s| s.terminating_replicas)
            .unwrap_or(0)
    });
    let updated = newest
        .and_then(|set| set.status.as_ref())
        .map_or(0, |status| status.replicas);
    let wanted = spec.replicas.unwrap_or(1);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: plain(replicas),
        updated_replicas: plain(updated),
        ready_replicas: plain(ready),
        available_replicas: plain(available),
        unavailable_replicas: plain((wanted.max(replicas) - available).max(0)),
        terminating_replicas: Some(leaving),
        collision_count: before.collision_count,
        conditions: before.conditions.clone(),
    };
    let mut conditions = before.conditions.clone().unwrap_or_default();
    let least = wanted - rollout::bounds(spec).max_unavailable;
    if available >= least {
        let message = "Deployment has minimum availability.";
        set(
            &mut conditions,
            now,
            ("Available", "True", "MinimumReplicasAvailable", message),
        );
    } else {
        let message = "Deployment does not have minimum availability.";
        set(
            &mut conditions,
            now,
            ("Available", "False", "MinimumReplicasUnavailable", message),
        );
    }
    copy_failure(&mut conditions, own);
    let again_in = progress(&mut conditions, deployment, &status, spec, newest, now);
    status.conditions = Some(conditions);
    (status, again_in)
}

/// Sets condition `Progressing`; returns the seconds until the progress deadline.
fn progress(
    conditions: &mut Vec<DeploymentCondition>,
    deployment: &Deployment,
    status: &DeploymentStatus,
    spec: &DeploymentSpec,
    newest: Option<&Arc<ReplicaSet>>,
    now: Timestamp,
) -> Option<i64> {
    let wanted = spec.replicas.unwrap_or(1);
    let name = newest.and_then(|set| set.metadata.name.as_deref());
    let subject = match name {
        Some(name) => format!("ReplicaSet \"{name}\""),
        None => {
            let name = deployment.metadata.name.as_deref().unwrap_or_default();
            format!("Deployment \"{name}\"")
        }
    };
    let known = conditions
        .iter()
        .find(|one| one.type_ == "Progressing")
        .cloned();
    let known_reason = known
        .as_ref()
        .and_then(|one| one.reason.clone())
        .unwrap_or_default();
    if spec.paused == Some(true) {
        if known_reason != "DeploymentPaused" {
            let message = "Deployment is paused";
            set(
                conditions,
                now,
                ("Progressing", "Unknown", "DeploymentPaused", message),
            );
        }
        return None;
    }
    let resumed = known_reason == "DeploymentPaused";
    let complete = newest.is_some()
        && status.updated_replicas == plain(wanted)
        && status.replicas == plain(wanted)
        && status.available_replicas == plain(wanted);
    if complete {
        let message = format!("{subject} has successfully progressed.");
        set(
            conditions,
            now,
            ("Progressing", "True", "NewReplicaSetAvailable", &message),
        );
        return None;
    }
    let before = deployment.status.clone().unwrap_or_default();
    let more = |new: Option<i32>, old: Option<i32>| new.unwrap_or(0) > old.unwrap_or(0);
    let old_shrank = status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0)
        < before.replicas.unwrap_or(0) - before.updated_replicas.unwrap_or(0);
    let moved = more(status.updated_replicas, before.updated_replicas)
        || more(status.ready_replicas, before.ready_replicas)
        || more(status.available_replicas, before.available_replicas)
        || old_shrank;
    let new_template = known_reason == "NewReplicaSetAvailable"
        && before.observed_generation != deployment.metadata.generation;
    if moved || known.is_none() || resumed || new_template {
        let message = format!("{subject} is progressing.");
        // The deadline counts from the last sign of progress.
        conditions.retain(|one| one.type_ != "Progressing");
        let since = known
            .filter(|one| one.status == "True")
            .and_then(|one| one.last_transition_time);
        conditions.push(DeploymentCondition {
            type_: "Progressing".into(),
            status: "True".into(),
            reason: Some("ReplicaSetUpdated".into()),
            message: Some(message),
            last_update_time: Some(Time(now)),
            last_transition_time: Some(since.unwrap_or(Time(now))),
        });
        return spec
            .progress_deadline_seconds
            .map(|seconds| i64::from(seconds) + 1);
    }
    // A roll-out that was complete may lose pods without a deadline running.
    if known_reason == "NewReplicaSetAvailable" || known_reason == "ProgressDeadlineExceeded" {
        return None;
    }
    let deadline = i64::from(spec.progress_deadline_seconds?);
    let last = known
        .and_then(|one| one.last_update_time)
        .map_or(now, |time| time.0);
    let left = last.as_second() + deadline - now.as_second();
    if left > 0 {
        return Some(left + 1);
    }
    let message = format!("{subject} has timed out progressing.");
    set(
        conditions,
        now,
        ("Progressing", "False", "ProgressDeadlineExceeded", &message),
    );
    None
}

fn copy_failure(conditions: &mut Vec<DeploymentCondition>, own: &[Arc<ReplicaSet>]) {
    let failure = own.iter().find_map(|set| {
        let list = set.status.as_ref()?.conditions.as_deref()?;
        list.iter()
            .find(|one| one.type_ == "ReplicaFailure")
            .cloned()
    });
    conditions.retain(|one| one.type_ != "ReplicaFailure");
    if let Some(failure) = failure {
        conditions.push(DeploymentCondition {
            type_: failure.type_,
            status: failure.status,
            reason: failure.reason,
            message: failure.message,
            last_update_time: failure.last_transition_time.clone(),
            last_transition_time: failure.last_transition_time,
        });
    }
}

fn set(
    conditions: &mut Vec<DeploymentCondition>,
    now: Timestamp,
    (type_, status, reason, message): (&str, &str, &str, &str),
) {
    let known = conditions.iter().position(|one| one.type_ == type_);
    if let Some(known) = known.map(|at| &conditions[at])
        && known.status == status
        && known.reason.as_deref() == Some(reason)
        && known.message.as_deref() == Some(message)
    {
        return;
    }
    let since = known
        .map(|at| conditions.remove(at))
        .filter(|known| known.status == status)
        .and_then(|known| known.last_transition_time);
    conditions.push(DeploymentCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(since.unwrap_or(Time(now))),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(status: serde_json::Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "generation": 3},
            "spec": {"replicas": 2, "progressDeadlineSeconds": 60, "selector": {}, "template": {}},
            "status": status
        }))
        .unwrap()
    }

    fn set_with(available: i32) -> Arc<ReplicaSet> {
        let tree = json!({"metadata": {"name": "web-1"},
            "status": {"replicas": 2, "readyReplicas": available, "availableReplicas": available}});
        Arc::new(serde_json::from_value(tree).unwrap())
    }

    fn reason(status: &DeploymentStatus) -> String {
        let conditions = status.conditions.as_deref().unwrap();
        let found = conditions
            .iter()
            .find(|one| one.type_ == "Progressing")
            .unwrap();
        found.reason.clone().unwrap()
    }

    #[test]
    fn a_rollout_progresses_completes_or_times_out() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let later: Timestamp = "2026-01-01T00:02:00Z".parse().unwrap();
        let fresh = deployment(json!({}));
        let spec = fresh.spec.clone().unwrap();
        let set = set_with(1);
        let (status, again) = of(&fresh, &spec, std::slice::from_ref(&set), Some(&set), now);
        assert_eq!(
            (reason(&status).as_str(), again),
            ("ReplicaSetUpdated", Some(61))
        );

        let stuck = deployment(serde_json::to_value(&status).unwrap());
        let (status, again) = of(&stuck, &spec, std::slice::from_ref(&set), Some(&set), later);
        assert_eq!(
            (reason(&status).as_str(), again),
            ("ProgressDeadlineExceeded", None)
        );

        let set = set_with(2);
        let (status, _) = of(&stuck, &spec, std::slice::from_ref(&set), Some(&set), later);
        assert_eq!(reason(&status), "NewReplicaSetAvailable");
        assert_eq!(status.unavailable_replicas, None);
    }
}
