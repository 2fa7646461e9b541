//! Tables of what a cron job does at a given time.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use serde_json::{Value, json};

use super::plan::{Plan, build, plan, read};

fn cron(spec: Value, status: Value) -> CronJob {
    let mut tree = json!({
        "metadata": {"name": "nightly", "namespace": "n", "uid": "u1",
            "creationTimestamp": "2026-01-01T00:00:30Z"},
        "spec": {"schedule": "*/10 * * * *", "timeZone": "Etc/UTC",
            "jobTemplate": {"spec": {"template": {"spec": {"containers": []}}}}},
        "status": status
    });
    for (key, value) in spec.as_object().unwrap() {
        tree["spec"][key] = value.clone();
    }
    serde_json::from_value(tree).unwrap()
}

/// `uid [condition]`.
fn job(text: &str) -> Arc<Job> {
    let (uid, condition) = text.split_once(' ').unwrap_or((text, ""));
    let conditions = match condition {
        "" => json!([]),
        kind => json!([{"type": kind, "status": "True"}]),
    };
    let done = (condition == "Complete").then_some("2026-01-01T00:05:00Z");
    let tree = json!({"metadata": {"name": uid, "uid": uid},
        "status": {"conditions": conditions, "completionTime": done}});
    Arc::new(serde_json::from_value(tree).unwrap())
}

fn planned(cron: &CronJob, jobs: &[&str], now: &str) -> Plan {
    let jobs: Vec<_> = jobs.iter().map(|text| job(text)).collect();
    plan(cron, &jobs, now.parse::<Timestamp>().unwrap())
}

fn check(spec: Value, now: &str, start: Option<&str>, reasons: &[&str]) -> Plan {
    let active = json!({"active": [{"name": "nightly-1", "uid": "j1"}]});
    let plan = planned(&cron(spec.clone(), active), &["j1"], now);
    assert_eq!(
        plan.start.map(|at| at.to_string()).as_deref(),
        start,
        "{spec} at {now}"
    );
    let found: Vec<_> = plan.notes.iter().map(|note| note.1).collect();
    assert_eq!(found, reasons, "{spec} at {now}");
    plan
}

#[test]
fn a_job_starts_when_it_is_due() {
    check(json!({}), "2026-01-01T00:09:59Z", None, &[]);
    let plan = check(
        json!({}),
        "2026-01-01T00:10:01Z",
        Some("2026-01-01T00:10:00Z"),
        &[],
    );
    assert_eq!(plan.again_in.map(|wait| wait.as_secs()), Some(599));
    check(
        json!({}),
        "2026-01-01T00:35:00Z",
        Some("2026-01-01T00:30:00Z"),
        &[],
    );
    check(json!({"suspend": true}), "2026-01-01T00:35:00Z", None, &[]);
}

#[test]
fn what_has_started_does_not_start_again() {
    let status = json!({"lastScheduleTime": "2026-01-01T00:10:00Z"});
    let plan = planned(&cron(json!({}), status), &[], "2026-01-01T00:19:00Z");
    assert_eq!(
        (plan.start, plan.again_in.map(|wait| wait.as_secs())),
        (None, Some(60))
    );
}

#[test]
fn policies_decide_beside_a_running_job() {
    let at = "2026-01-01T00:10:00Z";
    let forbid = json!({"concurrencyPolicy": "Forbid"});
    check(forbid, at, None, &["JobAlreadyActive"]);
    let plan = check(json!({"concurrencyPolicy": "Replace"}), at, Some(at), &[]);
    assert_eq!(plan.replace.len(), 1);
    assert!(plan.status.active.is_none());
    check(json!({"concurrencyPolicy": "Allow"}), at, Some(at), &[]);
}

#[test]
fn missed_starts_are_caught_up_once_or_given_up() {
    let late = "2026-01-02T00:05:00Z";
    check(
        json!({}),
        late,
        Some("2026-01-02T00:00:00Z"),
        &["TooManyMissedTimes"],
    );
    check(json!({"startingDeadlineSeconds": 60}), late, None, &[]);
    let recent = json!({"startingDeadlineSeconds": 600});
    check(recent, late, Some("2026-01-02T00:00:00Z"), &[]);
    check(
        json!({"schedule": "nonsense"}),
        late,
        None,
        &["UnParseableCronJobSchedule"],
    );
    check(
        json!({"timeZone": "Mars/Olympus"}),
        late,
        None,
        &["UnknownTimeZone"],
    );
}

#[test]
fn ended_jobs_are_noted_and_the_oldest_forgotten() {
    let status = json!({"active": [{"name": "a", "uid": "a"}, {"name": "gone", "uid": "gone"}],
        "lastScheduleTime": "2026-01-01T00:10:00Z"});
    let spec = json!({"successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0});
    let jobs = ["a Complete", "b Complete", "c Failed", "d"];
    let plan = planned(&cron(spec, status), &jobs, "2026-01-01T00:11:00Z");
    let reasons: Vec<_> = plan.notes.iter().map(|note| note.1).collect();
    assert_eq!(reasons, ["SawCompletedJob", "UnexpectedJob", "MissingJob"]);
    let forgotten: Vec<_> = plan
        .forget
        .iter()
        .filter_map(|job| job.metadata.name.as_deref())
        .collect();
    assert_eq!(forgotten, ["a", "c"]);
    assert!(plan.status.active.is_none() && plan.status.last_successful_time.is_some());
}

#[test]
fn a_job_is_named_by_its_minute_and_tells_its_time() {
    let cron = cron(json!({"timeZone": "Asia/Tokyo"}), json!({}));
    let spec = &cron.spec;
    let (_, zone) = read(spec).unwrap();
    let job = build(&cron, spec, &zone, "2026-01-01T00:10:00Z".parse().unwrap());
    assert_eq!(job.metadata.name.as_deref(), Some("nightly-29453770"));
    let annotations = job.metadata.annotations.unwrap();
    assert_eq!(
        annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"],
        "2026-01-01T09:10:00+09:00"
    );
}
