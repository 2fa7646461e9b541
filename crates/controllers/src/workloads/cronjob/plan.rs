//! Whether a cron job starts a job now, which jobs it forgets, and when to look again. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::owners::controller_reference;

use super::schedule::{Schedule, parse};
use crate::workloads::job::finished;

/// More missed starts than this are worth a warning.
const MISSED_MAX: i64 = 100;
/// Looked at a little late rather than a little early.
const SLACK: Duration = Duration::from_millis(100);
const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// An event: type, reason, message.
pub(crate) type Note = (&'static str, &'static str, String);

#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) status: CronJobStatus,
    /// Start the job of this time.
    pub(crate) start: Option<Timestamp>,
    /// Running jobs that make room for it.
    pub(crate) replace: Vec<Arc<Job>>,
    /// Ended jobs beyond the history limits.
    pub(crate) forget: Vec<Arc<Job>>,
    pub(crate) again_in: Option<Duration>,
    pub(crate) notes: Vec<Note>,
}

/// Plans one round; `own` are the jobs this cron job controls.
pub(crate) fn plan(cron: &CronJob, own: &[Arc<Job>], now: Timestamp) -> Plan {
    let mut plan = Plan {
        status: cron.status.clone().unwrap_or_default(),
        ..Plan::default()
    };
    let spec = &cron.spec;
    follow(&mut plan, own);
    if cron.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    forget(spec, own, &mut plan);
    if spec.suspend == Some(true) {
        return plan;
    }
    let (schedule, zone) = match read(spec) {
        Ok(read) => read,
        Err(note) => {
            plan.notes.push(note);
            return plan;
        }
    };
    start(cron, spec, (&schedule, &zone), own, now, &mut plan);
    if let Some(next) = schedule.next(now, &zone) {
        let wait = next.as_millisecond() - now.as_millisecond();
        plan.again_in = Some(Duration::from_millis(wait.unsigned_abs()) + SLACK);
    }
    plan
}

/// Brings the list of active jobs and the last success up to date.
fn follow(plan: &mut Plan, own: &[Arc<Job>]) {
    let name = |job: &Job| job.metadata.name.clone().unwrap_or_default();
    let mut active = plan.status.active.take().unwrap_or_default();
    for job in own {
        let at = active.iter().position(|one| one.uid == job.metadata.uid);
        match (at, finished(job)) {
            (None, None) => {
                let message = format!(
                    "Saw a job that the controller did not create or forgot: {}",
                    name(job)
                );
                plan.notes.push(("Warning", "UnexpectedJob", message));
            }
            (Some(at), Some(end)) => {
                active.remove(at);
                let message = format!("Saw completed job: {}, condition: {}", name(job), end.type_);
                plan.notes.push(("Normal", "SawCompletedJob", message));
            }
            _ => {}
        }
        let done = job
            .status
            .as_ref()
            .and_then(|status| status.completion_time.clone());
        let known = plan.status.last_successful_time.as_ref();
        if let Some(done) = done
            && known.is_none_or(|known| known.0 < done.0)
        {
            plan.status.last_successful_time = Some(done);
        }
    }
    active.retain(|one| {
        let there = own.iter().any(|job| job.metadata.uid == one.uid);
        if !there {
            let message = format!(
                "Active job went missing: {}",
                one.name.as_deref().unwrap_or_default()
            );
            plan.notes.push(("Normal", "MissingJob", message));
        }
        there
    });
    plan.status.active = Some(active).filter(|active| !active.is_empty());
}

/// The oldest ended jobs beyond the limits.
fn forget(spec: &CronJobSpec, own: &[Arc<Job>], plan: &mut Plan) {
    let limits = [
        ("Complete", spec.successful_jobs_history_limit.unwrap_or(3)),
        ("Failed", spec.failed_jobs_history_limit.unwrap_or(1)),
    ];
    for (kind, limit) in limits {
        let ended = |job: &&Arc<Job>| finished(job).is_some_and(|end| end.type_ == kind);
        let mut jobs: Vec<_> = own.iter().filter(ended).cloned().collect();
        jobs.retain(|job| job.metadata.deletion_timestamp.is_none());
        jobs.sort_by_key(|job| {
            let start = job
                .status
                .as_ref()
                .and_then(|status| status.start_time.as_ref());
            (start.map(|time| time.0), job.metadata.name.clone())
        });
        let keep = usize::try_from(limit).unwrap_or(0);
        let surplus = jobs.len().saturating_sub(keep);
        plan.forget.extend(jobs.into_iter().take(surplus));
    }
}

/// The schedule and its time zone, or the event that tells what is wrong with them.
pub(crate) fn read(spec: &CronJobSpec) -> Result<(Schedule, TimeZone), Note> {
    let text = &spec.schedule;
    let (schedule, inline) = parse(text).map_err(|error| {
        let message = format!("unparseable schedule: {text:?} : {error}");
        ("Warning", "UnParseableCronJobSchedule", message)
    })?;
    let name = spec.time_zone.clone().or(inline);
    let zone = match name {
        None => TimeZone::system(),
        Some(name) => TimeZone::get(&name).map_err(|error| {
            let message = format!("invalid timeZone: {name:?}: {error}");
            ("Warning", "UnknownTimeZone", message)
        })?,
    };
    Ok((schedule, zone))
}

/// Decides whether a job is due.
fn start(
    cron: &CronJob,
    spec: &CronJobSpec,
    (schedule, zone): (&Schedule, &TimeZone),
    own: &[Arc<Job>],
    now: Timestamp,
    plan: &mut Plan,
) {
    let Some((due, missed)) = most_recent(cron, spec, schedule, zone, now) else {
        return;
    };
    if missed > MISSED_MAX {
        let message = "too many missed start times. Set or decrease \
            .spec.startingDeadlineSeconds or check clock skew";
        plan.notes
            .push(("Warning", "TooManyMissedTimes", message.into()));
    }
    let deadline = spec.starting_deadline_seconds;
    if deadline.is_some_and(|seconds| due.as_second() + seconds < now.as_second()) {
        let message = format!("Missed scheduled time to start a job: {due}");
        plan.notes.push(("Warning", "MissSchedule", message));
        return;
    }
    let active = plan.status.active.as_deref().unwrap_or_default();
    let name = job_name(cron, due);
    if active.iter().any(|one| one.name.as_deref() == Some(&name)) {
        return;
    }
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let message = "Not starting job because prior execution is running and \
                concurrency policy is Forbid";
            plan.notes
                .push(("Normal", "JobAlreadyActive", message.into()));
            return;
        }
        Some("Replace") => {
            let is_active = |job: &&Arc<Job>| active.iter().any(|one| one.uid == job.metadata.uid);
            plan.replace = own.iter().filter(is_active).cloned().collect();
            plan.status.active = None;
        }
        _ => {}
    }
    plan.start = Some(due);
}

/// The latest start that has come and was not made, and how many have.
fn most_recent(
    cron: &CronJob,
    spec: &CronJobSpec,
    schedule: &Schedule,
    zone: &TimeZone,
    now: Timestamp,
) -> Option<(Timestamp, i64)> {
    let last = cron
        .status
        .as_ref()
        .and_then(|status| status.last_schedule_time.as_ref());
    let since = last.or(cron.metadata.creation_timestamp.as_ref())?.0;
    let earliest = match spec.starting_deadline_seconds {
        None => since,
        Some(seconds) => {
            let earliest = Timestamp::from_second(now.as_second().checked_sub(seconds)?).ok()?;
            since.max(earliest)
        }
    };
    let first = schedule
        .next(earliest, zone)
        .filter(|first| *first <= now)?;
    let second = match schedule.next(first, zone) {
        Some(second) if second <= now => second,
        _ => return Some((first, 1)),
    };
    // Years may have passed: jump near the end by the first interval, then walk.
    let between = (second.as_second() - first.as_second()).max(1);
    let missed = (now.as_second() - first.as_second()) / between + 1;
    let jump = first.as_second() + (missed - 2).max(0) * between;
    let mut due = first;
    let mut at = Timestamp::from_second(jump).ok()?;
    while let Some(next) = schedule.next(at, zone).filter(|next| *next <= now) {
        (due, at) = (next, next);
    }
    Some((due, missed))
}

/// The name of the job of a time.
pub(crate) fn job_name(cron: &CronJob, due: Timestamp) -> String {
    let name = cron.metadata.name.as_deref().unwrap_or_default();
    format!("{name}-{}", due.as_second().div_euclid(60))
}

/// The job of a time.
pub(crate) fn build(cron: &CronJob, spec: &CronJobSpec, zone: &TimeZone, due: Timestamp) -> Job {
    let from = spec.job_template.metadata.clone().unwrap_or_default();
    let mut annotations = from.annotations.unwrap_or_default();
    let local = due.to_zoned(zone.clone());
    let shown = local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    let shown = match shown.strip_suffix("+00:00") {
        Some(utc) => format!("{utc}Z"),
        None => shown,
    };
    annotations.insert(SCHEDULED_AT.into(), shown);
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(cron, due)),
            namespace: cron.metadata.namespace.clone(),
            labels: from.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec.clone(),
        status: None,
    }
}
