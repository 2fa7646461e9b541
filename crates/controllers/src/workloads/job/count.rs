//! Counts a job's ended pods exactly once. Pure.
//!
//! A pod keeps a finalizer until it is counted. First its uid goes into the status
//! (`uncountedTerminatedPods`), then the finalizer goes, then the uid becomes a number. Wherever
//! this is cut short, the next round sees where it stood: a uid whose pod has no finalizer any
//! more is not in the number yet. Succeeded indexes need no uid: a set counts nothing twice.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobSpec, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::indexes::Indexes;
use super::pod::{ended_at, failures_before, has_failed, index_of, is_indexed, is_tracked};
use super::policy::{Action, judge};
use crate::pods;

/// Most pods counted in one round; bounds the status.
const COUNT_MAX: usize = 500;
const BACKOFF_FIRST_SECONDS: u64 = 10;
const BACKOFF_LIMIT_SECONDS: u64 = 600;

/// Failures since the last success, which hold new pods back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failures {
    pub(crate) count: u32,
    pub(crate) last: Option<Timestamp>,
}

impl Failures {
    /// How long new pods have to wait still.
    pub(crate) fn wait(self, now: Timestamp) -> Option<Duration> {
        let doublings = self.count.checked_sub(1)?.min(10);
        let whole = (BACKOFF_FIRST_SECONDS << doublings).min(BACKOFF_LIMIT_SECONDS);
        let passed = now.as_millisecond() - self.last?.as_millisecond();
        let left = i64::try_from(whole * 1000).unwrap_or(i64::MAX) - passed;
        (left > 0).then(|| Duration::from_millis(left.unsigned_abs()))
    }

    fn after(self, successes: &[Timestamp], failures: &[Timestamp]) -> Failures {
        let success = successes.iter().max();
        let later = failures
            .iter()
            .filter(|at| success.is_none_or(|success| *at > success));
        let base = if success.is_some() {
            Failures::default()
        } else {
            self
        };
        Failures {
            count: base.count + u32::try_from(later.clone().count()).unwrap_or(u32::MAX),
            last: later.max().copied().or(base.last),
        }
    }
}

/// The outcome of counting.
#[derive(Debug, Default)]
pub(crate) struct Count {
    /// Numbers for the status.
    pub(crate) succeeded: i32,
    pub(crate) failed: i32,
    pub(crate) uncounted: UncountedTerminatedPods,
    pub(crate) completed: Indexes,
    pub(crate) failed_indexes: Indexes,
    /// Pods that lose their finalizer once the status is written.
    pub(crate) untrack: Vec<Arc<Pod>>,
    /// There is more to count than one round takes.
    pub(crate) more: bool,
    /// A pod's failure fails the job, says its policy.
    pub(crate) fail_job: Option<String>,
    pub(crate) failures: Failures,
}

impl Count {
    /// All that succeeded, counted or about to be.
    pub(crate) fn all_succeeded(&self) -> i32 {
        self.succeeded + length(&self.uncounted.succeeded)
    }

    /// All that failed, counted or about to be.
    pub(crate) fn all_failed(&self) -> i32 {
        self.failed + length(&self.uncounted.failed)
    }

    /// Whether nothing waits to be counted.
    pub(crate) fn is_settled(&self) -> bool {
        !self.more && length(&self.uncounted.succeeded) == 0 && length(&self.uncounted.failed) == 0
    }
}

fn length(list: &Option<Vec<String>>) -> i32 {
    list.as_ref()
        .map_or(0, |list| i32::try_from(list.len()).unwrap_or(i32::MAX))
}

/// Counts the pods of a job. `succeeding`: it has met its criteria, so what still ends does not matter.
pub(crate) fn count(
    job: &Job,
    spec: &JobSpec,
    own: &[Arc<Pod>],
    failures: Failures,
    succeeding: bool,
    now: Timestamp,
) -> Count {
    let status = job.status.clone().unwrap_or_default();
    let completions = spec.completions.unwrap_or(0);
    let indexed = is_indexed(spec);
    let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
    let tracked: HashSet<String> = own
        .iter()
        .filter(|pod| is_tracked(pod))
        .map(|pod| uid(pod))
        .collect();
    let known = status.uncounted_terminated_pods.unwrap_or_default();
    let (mut succeeded, done) = split(known.succeeded, &tracked);
    let mut result = Count {
        succeeded: status.succeeded.unwrap_or(0) + done,
        ..Count::default()
    };
    let (mut failed, done) = split(known.failed, &tracked);
    result.failed = status.failed.unwrap_or(0) + done;
    let (mut successes, mut failed_at) = (Vec::new(), Vec::new());
    let (mut new_indexes, mut lost_indexes) = (Vec::new(), Vec::new());
    for pod in own.iter().filter(|pod| is_tracked(pod)) {
        let uid = uid(pod);
        let noted = succeeded.contains(&uid) || failed.contains(&uid);
        let ended = pods::phase(pod) == "Succeeded" || has_failed(spec, pod);
        if !noted && !ended {
            continue;
        }
        if result.untrack.len() >= COUNT_MAX {
            result.more = true;
            break;
        }
        result.untrack.push(pod.clone());
        if noted {
            continue;
        }
        if pods::phase(pod) == "Succeeded" {
            successes.push(ended_at(pod, now));
            match indexed {
                true => {
                    new_indexes.extend(index_of(pod).filter(|at| (0..completions).contains(at)))
                }
                false => succeeded.push(uid),
            }
            continue;
        }
        let action = judge(spec, pod);
        if succeeding || action == Action::Ignore {
            continue;
        }
        failed.push(uid);
        failed_at.push(ended_at(pod, now));
        let spent = spec
            .backoff_limit_per_index
            .is_some_and(|limit| failures_before(pod) >= limit || action == Action::FailIndex);
        lost_indexes.extend(index_of(pod).filter(|_| spent));
        if let Action::FailJob(why) = action {
            result.fail_job.get_or_insert(why);
        }
    }
    let indexes = |text: Option<String>| Indexes::parse(&text.unwrap_or_default(), completions);
    result.completed = indexes(status.completed_indexes).with(new_indexes);
    result.failed_indexes = indexes(status.failed_indexes).with(lost_indexes);
    if indexed {
        result.succeeded = result.completed.total();
    }
    result.failures = failures.after(&successes, &failed_at);
    result.uncounted = UncountedTerminatedPods {
        succeeded: Some(succeeded).filter(|list| !list.is_empty()),
        failed: Some(failed).filter(|list| !list.is_empty()),
    };
    result
}

/// Those whose pods are tracked still, and the number of the others.
fn split(uids: Option<Vec<String>>, tracked: &HashSet<String>) -> (Vec<String>, i32) {
    let (waiting, done): (Vec<_>, Vec<_>) = uids
        .unwrap_or_default()
        .into_iter()
        .partition(|uid| tracked.contains(uid));
    (waiting, i32::try_from(done.len()).unwrap_or(i32::MAX))
}
