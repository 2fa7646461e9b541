//! What a job does next, and what its status says. Pure.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::count::{Count, Failures, count};
use super::pod::{
    ended_at, failures_before, has_failed, index_of, is_indexed, is_tracked, replaces_only_failed,
    restarts,
};
use super::policy::succeeded_by;
use crate::pods;
use crate::workloads::control::{BURST_MAX, plain};

const BACKOFF_LIMIT: i32 = 6;

/// An event: type, reason, message.
pub(crate) type Note = (&'static str, String, String);

#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Written before any finalizer goes.
    pub(crate) status: JobStatus,
    /// Pods that then lose their finalizer.
    pub(crate) untrack: Vec<Arc<Pod>>,
    pub(crate) delete: Vec<Arc<Pod>>,
    /// Index and its failures so far, for pods that have one.
    pub(crate) create: Vec<Option<(i32, i32)>>,
    pub(crate) again_in: Option<Duration>,
    pub(crate) notes: Vec<Note>,
    pub(crate) failures: Failures,
}

/// Why a job ends.
#[derive(Clone, Debug)]
struct Target {
    failed: bool,
    reason: String,
    message: String,
}

impl Target {
    fn failure(reason: &str, message: &str) -> Target {
        Target {
            failed: true,
            reason: reason.into(),
            message: message.into(),
        }
    }

    fn success(reason: &str, message: &str) -> Target {
        Target {
            failed: false,
            ..Target::failure(reason, message)
        }
    }
}

fn standing<'s>(status: &'s JobStatus, kind: &str) -> Option<&'s JobCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|one| one.type_ == kind && one.status == "True")
}

/// Whether the job has come to its end: `Complete` or `Failed`, and since when.
pub(crate) fn finished(job: &Job) -> Option<&JobCondition> {
    let status = job.status.as_ref()?;
    standing(status, "Complete").or_else(|| standing(status, "Failed"))
}

struct View<'a> {
    spec: &'a JobSpec,
    own: &'a [Arc<Pod>],
    active: Vec<Arc<Pod>>,
    terminating: i32,
    count: Count,
    now: Timestamp,
}

/// Plans one round for the pods the job controls.
pub(crate) fn plan(job: &Job, own: &[Arc<Pod>], failures: Failures, now: Timestamp) -> Plan {
    let mut plan = Plan {
        status: job.status.clone().unwrap_or_default(),
        failures,
        ..Plan::default()
    };
    let Some(spec) = &job.spec else { return plan };
    if finished(job).is_some() {
        plan.untrack = own.iter().filter(|pod| is_tracked(pod)).cloned().collect();
        return plan;
    }
    let succeeding = standing(&plan.status, "SuccessCriteriaMet").is_some();
    let leaving =
        |pod: &&Arc<Pod>| pod.metadata.deletion_timestamp.is_some() && !pods::is_terminal(pod);
    let view = View {
        spec,
        own,
        active: own
            .iter()
            .filter(|pod| pods::is_active(pod))
            .cloned()
            .collect(),
        terminating: size(own.iter().filter(leaving).count()),
        count: count(job, spec, own, failures, succeeding, now),
        now,
    };
    let suspended = spec.suspend == Some(true);
    if plan.status.start_time.is_none() && !suspended {
        plan.status.start_time = Some(Time(now));
    }
    let mut target = view.target(&mut plan);
    if target.is_some() {
        plan.delete.clone_from(&view.active);
    } else if job.metadata.deletion_timestamp.is_none() {
        view.manage(&mut plan);
        target = view.completion();
        if target.is_none() {
            view.suspend(&mut plan, suspended);
        }
    }
    view.write(&mut plan);
    if let Some(target) = target {
        view.end(&mut plan, &target);
    }
    plan.delete.truncate(BURST_MAX);
    plan.create.truncate(BURST_MAX);
    plan
}

fn size(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn sooner(plan: &mut Plan, wait: Duration) {
    plan.again_in = Some(plan.again_in.map_or(wait, |known| known.min(wait)));
}

impl View<'_> {
    /// Why the job ends, if it has to.
    fn target(&self, plan: &mut Plan) -> Option<Target> {
        let known = |kind: &str, failed: bool| {
            let condition = standing(&plan.status, kind)?;
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            Some(Target {
                failed,
                reason: text(&condition.reason),
                message: text(&condition.message),
            })
        };
        known("SuccessCriteriaMet", false)
            .or_else(|| known("FailureTarget", true))
            .or_else(|| {
                let why = self.count.fail_job.as_ref()?;
                Some(Target::failure("PodFailurePolicy", why))
            })
            .or_else(|| self.over_the_limit())
            .or_else(|| self.over_time(plan))
            .or_else(|| self.by_indexes())
    }

    fn over_the_limit(&self) -> Option<Target> {
        let per_index = self.spec.backoff_limit_per_index.is_some();
        let usual = if per_index { i32::MAX } else { BACKOFF_LIMIT };
        let limit = self.spec.backoff_limit.unwrap_or(usual);
        let template = self.spec.template.spec.as_ref();
        let restarting = template.and_then(|spec| spec.restart_policy.as_deref());
        let restarts = match restarting {
            Some("OnFailure") => self.active.iter().map(|pod| restarts(pod)).sum(),
            _ => 0,
        };
        let restarted_out = restarts > 0 && restarts >= limit;
        (self.count.all_failed() > limit || restarted_out).then(|| {
            let message = "Job has reached the specified backoff limit";
            Target::failure("BackoffLimitExceeded", message)
        })
    }

    fn over_time(&self, plan: &mut Plan) -> Option<Target> {
        let deadline = self.spec.active_deadline_seconds?;
        if self.spec.suspend == Some(true) {
            return None;
        }
        let start = plan.status.start_time.as_ref()?.0;
        let left = start.as_millisecond() + deadline * 1000 - self.now.as_millisecond();
        if left > 0 {
            sooner(plan, Duration::from_millis(left.unsigned_abs()));
            return None;
        }
        let message = "Job was active longer than specified deadline";
        Some(Target::failure("DeadlineExceeded", message))
    }

    fn by_indexes(&self) -> Option<Target> {
        if !is_indexed(self.spec) {
            return None;
        }
        let lost = self.count.failed_indexes.total();
        if self.spec.max_failed_indexes.is_some_and(|most| lost > most) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(Target::failure("MaxFailedIndexesExceeded", message));
        }
        let all = lost + self.count.completed.total();
        if lost > 0
            && self
                .spec
                .completions
                .is_some_and(|completions| all >= completions)
        {
            return Some(Target::failure("FailedIndexes", "Job has failed indexes"));
        }
        let why = succeeded_by(self.spec, &self.count.completed)?;
        Some(Target::success("SuccessPolicy", &why))
    }

    fn completion(&self) -> Option<Target> {
        let succeeded = self.count.all_succeeded();
        let complete = match self.spec.completions {
            None => succeeded > 0,
            Some(completions) => succeeded >= completions,
        };
        (complete && self.active.is_empty()).then(|| {
            let message = "Reached expected number of succeeded pods";
            Target::success("CompletionsReached", message)
        })
    }

    /// Makes the number of active pods right.
    fn manage(&self, plan: &mut Plan) {
        if self.spec.suspend == Some(true) {
            plan.delete.clone_from(&self.active);
            return;
        }
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let active = size(self.active.len());
        let succeeded = self.count.all_succeeded();
        let wanted = match self.spec.completions {
            // The first success says that the work is done; the others may finish.
            None if succeeded > 0 => active.min(parallelism),
            None => parallelism,
            Some(completions) => (completions - succeeded).clamp(0, parallelism),
        };
        plan.delete = self.surplus(usize::try_from(active - wanted).unwrap_or(0));
        if !plan.delete.is_empty() {
            return;
        }
        let held = if replaces_only_failed(self.spec) {
            self.terminating
        } else {
            0
        };
        let room = usize::try_from(wanted - active - held)
            .unwrap_or(0)
            .min(BURST_MAX);
        if room == 0 {
            return;
        }
        if self.spec.backoff_limit_per_index.is_none()
            && let Some(wait) = self.count.failures.wait(self.now)
        {
            sooner(plan, wait);
            return;
        }
        if is_indexed(self.spec) {
            self.fill_indexes(plan, room);
        } else {
            plan.create = vec![None; room];
        }
    }

    /// Pods to give up: those whose index is taken or out of range, then the least useful ones.
    fn surplus(&self, at_least: usize) -> Vec<Arc<Pod>> {
        let mut order = self.active.clone();
        order.sort_by_cached_key(|pod| pods::deletion_order(pod));
        if !is_indexed(self.spec) {
            order.truncate(at_least);
            return order;
        }
        let completions = self.spec.completions.unwrap_or(0);
        let mut seen = HashSet::new();
        let (mut useful, mut useless) = (Vec::new(), Vec::new());
        // The most useful pod of an index keeps it.
        for pod in order.into_iter().rev() {
            let index = index_of(&pod);
            let fits = index.is_some_and(|index| {
                (0..completions).contains(&index)
                    && !self.count.completed.contains(index)
                    && seen.insert(index)
            });
            if fits {
                useful.push(pod)
            } else {
                useless.push(pod)
            }
        }
        let more = at_least.saturating_sub(useless.len());
        useless.extend(useful.into_iter().rev().take(more));
        useless
    }

    /// The lowest indexes that have no pod and are not done.
    fn fill_indexes(&self, plan: &mut Plan, room: usize) {
        let only_failed = replaces_only_failed(self.spec);
        let taken: HashSet<i32> = self
            .own
            .iter()
            .filter(|pod| pods::is_active(pod) || (only_failed && !pods::is_terminal(pod)))
            .filter_map(|pod| index_of(pod))
            .collect();
        let past = self.past_failures();
        for index in 0..self.spec.completions.unwrap_or(0) {
            if plan.create.len() >= room {
                return;
            }
            let done = self.count.completed.contains(index)
                || self.count.failed_indexes.contains(index)
                || taken.contains(&index);
            if done {
                continue;
            }
            let failures = past.get(&index).copied().unwrap_or_default();
            match failures.wait(self.now) {
                Some(wait) => sooner(plan, wait),
                None => plan
                    .create
                    .push(Some((index, size(failures.count as usize)))),
            }
        }
    }

    /// How often each index failed, when that is counted by index.
    fn past_failures(&self) -> BTreeMap<i32, Failures> {
        let mut past: BTreeMap<i32, Failures> = BTreeMap::new();
        if self.spec.backoff_limit_per_index.is_none() {
            return past;
        }
        for pod in self.own.iter().filter(|pod| has_failed(self.spec, pod)) {
            let Some(index) = index_of(pod) else { continue };
            let count = u32::try_from(failures_before(pod) + 1).unwrap_or(1);
            let known = past.entry(index).or_default();
            known.count = known.count.max(count);
            known.last = known.last.max(Some(ended_at(pod, self.now)));
        }
        past
    }

    /// Condition `Suspended`, which also restarts the job's clock.
    fn suspend(&self, plan: &mut Plan, suspended: bool) {
        let was = standing(&plan.status, "Suspended").is_some();
        let (status, reason, message) = match (was, suspended) {
            (false, true) => ("True", "JobSuspended", "Job suspended"),
            (true, false) => ("False", "JobResumed", "Job resumed"),
            _ => return,
        };
        if !suspended {
            plan.status.start_time = Some(Time(self.now));
        }
        let conditions = plan.status.conditions.get_or_insert_default();
        conditions.retain(|one| one.type_ != "Suspended");
        conditions.push(condition("Suspended", status, reason, message, self.now));
        let event = if suspended { "Suspended" } else { "Resumed" };
        plan.notes.push(("Normal", event.into(), message.into()));
    }

    fn write(&self, plan: &mut Plan) {
        let ready = self.active.iter().filter(|pod| pods::is_ready(pod)).count();
        let status = &mut plan.status;
        status.active = plain(size(self.active.len()));
        status.ready = Some(size(ready));
        status.terminating = Some(self.terminating);
        status.succeeded = plain(self.count.succeeded);
        status.failed = plain(self.count.failed);
        status.uncounted_terminated_pods = Some(self.count.uncounted.clone());
        if is_indexed(self.spec) {
            status.completed_indexes = self.count.completed.text();
        }
        if self.spec.backoff_limit_per_index.is_some() {
            status.failed_indexes = Some(self.count.failed_indexes.to_string());
        }
        plan.untrack.clone_from(&self.count.untrack);
        plan.failures = self.count.failures;
    }

    /// Says at once that the job will end, and that it has ended once its last pod is gone and
    /// counted.
    fn end(&self, plan: &mut Plan, target: &Target) {
        let (first, last) = match target.failed {
            true => ("FailureTarget", "Failed"),
            false => ("SuccessCriteriaMet", "Complete"),
        };
        let (reason, message) = (target.reason.as_str(), target.message.as_str());
        let known = standing(&plan.status, first).is_some();
        let conditions = plan.status.conditions.get_or_insert_default();
        if !known {
            conditions.push(condition(first, "True", reason, message, self.now));
        }
        if !self.count.is_settled() || !self.active.is_empty() || self.terminating > 0 {
            return;
        }
        conditions.push(condition(last, "True", reason, message, self.now));
        if target.failed {
            plan.notes.push(("Warning", reason.into(), message.into()));
        } else {
            plan.status.completion_time = Some(Time(self.now));
            plan.notes
                .push(("Normal", "Completed".into(), "Job completed".into()));
        }
    }
}

fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> JobCondition {
    JobCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}
