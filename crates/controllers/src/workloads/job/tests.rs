//! Tables of what a job does next, and a play from start to end.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::count::Failures;
use super::plan::{Plan, finished, plan};
use super::pod::{FINALIZER, is_tracked};

const NOW: &str = "2026-01-01T00:10:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn job(spec: Value, status: Value) -> Job {
    let mut tree = json!({"metadata": {"name": "sum", "namespace": "n", "uid": "u1"},
        "spec": {"parallelism": 1, "completions": 1, "backoffLimit": 2,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}},
        "status": status});
    for (key, value) in spec.as_object().unwrap() {
        tree["spec"][key] = value.clone();
        if value.is_null() {
            tree["spec"].as_object_mut().unwrap().remove(key);
        }
    }
    serde_json::from_value(tree).unwrap()
}

/// `uid phase [index]`, tracked; `-leaving` after the phase: is being deleted.
fn pod(text: &str) -> Arc<Pod> {
    let words: Vec<_> = text.split(' ').collect();
    let phase = words[1].strip_suffix("-leaving");
    let mut tree = json!({"metadata": {"name": words[0], "uid": words[0], "finalizers": [FINALIZER]},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": phase.unwrap_or(words[1])}});
    if phase.is_some() {
        tree["metadata"]["deletionTimestamp"] = json!(NOW);
    }
    if let Some(index) = words.get(2) {
        tree["metadata"]["annotations"] =
            json!({"batch.kubernetes.io/job-completion-index": index});
    }
    Arc::new(serde_json::from_value(tree).unwrap())
}

fn planned(job: &Job, pods: &[&str]) -> Plan {
    let pods: Vec<_> = pods.iter().map(|text| pod(text)).collect();
    plan(job, &pods, Failures::default(), now())
}

fn check(spec: Value, pods: &[&str], create: usize, delete: &[&str]) -> Plan {
    let plan = planned(&job(spec, json!({})), pods);
    let deleted: Vec<_> = plan
        .delete
        .iter()
        .filter_map(|pod| pod.metadata.name.as_deref())
        .collect();
    assert_eq!(
        (plan.create.len(), deleted.as_slice()),
        (create, delete),
        "{pods:?}"
    );
    plan
}

fn conditions(plan: &Plan) -> Vec<String> {
    let list = plan.status.conditions.iter().flatten();
    list.map(|one| format!("{} {}", one.type_, one.reason.clone().unwrap_or_default()))
        .collect()
}

#[test]
fn the_number_of_active_pods_is_made_right() {
    check(json!({"parallelism": 3, "completions": 5}), &[], 3, &[]);
    check(json!({"parallelism": 3, "completions": 2}), &[], 2, &[]);
    check(
        json!({"parallelism": 3, "completions": 2}),
        &["a Succeeded"],
        1,
        &[],
    );
    check(
        json!({"parallelism": 1, "completions": 5}),
        &["a Running", "b Pending"],
        0,
        &["b"],
    );
    check(
        json!({"parallelism": 2, "completions": null}),
        &["a Running"],
        1,
        &[],
    );
    check(
        json!({"parallelism": 2, "completions": null}),
        &["a Running", "b Succeeded"],
        0,
        &[],
    );
    check(json!({"suspend": true}), &["a Running"], 0, &["a"]);
    check(json!({"parallelism": 0}), &[], 0, &[]);
}

#[test]
fn leaving_pods_are_replaced_now_or_when_they_ended() {
    let leaving = ["a Running-leaving"];
    check(json!({"podReplacementPolicy": "Failed"}), &leaving, 0, &[]);
    let plan = check(json!({}), &leaving, 0, &[]);
    assert!(plan.again_in.is_some(), "a failure makes the next pod wait");
    assert_eq!(plan.untrack.len(), 1);
}

#[test]
fn failures_wait_longer_and_longer() {
    let waits: Vec<_> = (0..9)
        .map(|count| {
            let failures = Failures {
                count,
                last: Some(now()),
            };
            failures.wait(now()).map_or(0, |wait| wait.as_secs())
        })
        .collect();
    assert_eq!(waits, [0, 10, 20, 40, 80, 160, 320, 600, 600]);
}

#[test]
fn limits_end_a_job() {
    let plan = check(
        json!({}),
        &["a Failed", "b Failed", "c Failed", "d Running"],
        0,
        &["d"],
    );
    assert_eq!(conditions(&plan), ["FailureTarget BackoffLimitExceeded"]);
    let late = json!({"startTime": "2026-01-01T00:00:00Z"});
    let plan = planned(
        &job(json!({"activeDeadlineSeconds": 600}), late.clone()),
        &["a Running"],
    );
    assert_eq!(conditions(&plan), ["FailureTarget DeadlineExceeded"]);
    let plan = planned(
        &job(json!({"activeDeadlineSeconds": 660}), late),
        &["a Running"],
    );
    assert_eq!(plan.again_in.map(|wait| wait.as_secs()), Some(60));
}

#[test]
fn indexes_are_filled_from_the_lowest() {
    let indexed = |more: Value| {
        let mut spec = json!({"completionMode": "Indexed", "parallelism": 3, "completions": 5});
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        spec
    };
    let plan = check(
        indexed(json!({})),
        &["a Running 1", "b Succeeded 0"],
        2,
        &[],
    );
    assert_eq!(plan.create, [Some((2, 0)), Some((3, 0))]);
    assert_eq!(plan.status.completed_indexes.as_deref(), Some("0"));
    assert_eq!(plan.status.succeeded, Some(1));
    check(
        indexed(json!({})),
        &["a Running 1", "b Running 1", "c Running 9"],
        0,
        &["c", "a"],
    );
    let per_index = indexed(json!({"backoffLimitPerIndex": 0, "maxFailedIndexes": 0}));
    let plan = check(per_index, &["a Failed 1"], 0, &[]);
    assert_eq!(
        conditions(&plan),
        ["FailureTarget MaxFailedIndexesExceeded"]
    );
    assert_eq!(plan.status.failed_indexes.as_deref(), Some("1"));
    let policy = json!({"rules": [{"succeededIndexes": "0"}]});
    let plan = check(
        indexed(json!({"successPolicy": policy})),
        &["a Succeeded 0", "b Running 1"],
        0,
        &["b"],
    );
    assert_eq!(conditions(&plan), ["SuccessCriteriaMet SuccessPolicy"]);
}

#[test]
fn suspending_stops_the_clock_and_resuming_starts_it() {
    let plan = planned(&job(json!({"suspend": true}), json!({})), &[]);
    assert_eq!(conditions(&plan), ["Suspended JobSuspended"]);
    assert!(plan.status.start_time.is_none());
    let status = serde_json::to_value(&plan.status).unwrap();
    let plan = planned(&job(json!({}), status), &[]);
    assert_eq!(conditions(&plan), ["Suspended JobResumed"]);
    assert_eq!(plan.status.start_time, Some(Time(now())));
    assert_eq!(plan.create.len(), 1);
}

/// Does what the driver does with a plan's counting half, and may die after any write.
fn settle_round(job: &mut Job, pods: &mut [Arc<Pod>], dies_after_status: bool) -> Plan {
    let plan = plan(job, pods, Failures::default(), now());
    job.status = Some(plan.status.clone());
    if !dies_after_status {
        for pod in pods.iter_mut() {
            if plan
                .untrack
                .iter()
                .any(|one| one.metadata.uid == pod.metadata.uid)
            {
                Arc::make_mut(pod).metadata.finalizers = None;
            }
        }
    }
    plan
}

#[test]
fn pods_are_counted_once_whatever_dies_in_between() {
    for deaths in 0..4 {
        let mut job = job(
            json!({"parallelism": 3, "completions": 2, "backoffLimit": 6}),
            json!({}),
        );
        let mut pods = vec![pod("a Succeeded"), pod("b Failed"), pod("c Succeeded")];
        for _ in 0..deaths {
            settle_round(&mut job, &mut pods, true);
        }
        for _ in 0..4 {
            settle_round(&mut job, &mut pods, false);
        }
        let status = job.status.clone().unwrap();
        assert_eq!(
            (status.succeeded, status.failed),
            (Some(2), Some(1)),
            "{deaths} deaths"
        );
        assert_eq!(
            finished(&job).map(|one| one.type_.as_str()),
            Some("Complete")
        );
        assert!(status.completion_time.is_some());
        assert!(!pods.iter().any(|pod| is_tracked(pod)));
        // Pods that vanish afterwards change nothing.
        settle_round(&mut job, &mut [], false);
        assert_eq!(job.status, Some(status));
    }
}

#[test]
fn a_job_ends_when_its_last_pod_is_gone() {
    let mut job = job(json!({"backoffLimit": 0}), json!({}));
    let mut pods = vec![pod("a Failed"), pod("b Running")];
    let plan = settle_round(&mut job, &mut pods, false);
    assert_eq!(plan.delete.len(), 1);
    assert!(finished(&job).is_none());
    pods[1] = pod("b Running-leaving");
    settle_round(&mut job, &mut pods, false);
    settle_round(&mut job, &mut pods, false);
    assert!(finished(&job).is_none(), "b has not ended yet");
    pods.pop();
    let plan = settle_round(&mut job, &mut pods, false);
    assert_eq!(
        finished(&job).and_then(|one| one.reason.as_deref()),
        Some("BackoffLimitExceeded")
    );
    assert_eq!(job.status.unwrap().failed, Some(2));
    assert_eq!(plan.notes.len(), 1);
}
