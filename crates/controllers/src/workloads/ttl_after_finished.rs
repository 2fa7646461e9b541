//! Deletes jobs some time after they ended (`ttlSecondsAfterFinished`).

use std::sync::Arc;
use std::time::Duration;

use client::{Client, DeleteOptions, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::Timestamp;
use meta::Status;
use reconcile::{Outcome, Reconcile, feed};

use super::job::finished;
use crate::context::Context;

const NAME: &str = "ttl-after-finished-controller";
const WORKERS: usize = 1;

struct Controller {
    client: Client,
    jobs: Informer<Job>,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let queue = context.queue();
    let controller = Controller {
        client: context.client(NAME),
        jobs: context.hub.informer(),
    };
    let jobs = controller.jobs.clone();
    feed(NAME, &jobs, &queue, &context.crew, |change| {
        let ended = change
            .new
            .as_ref()
            .filter(|job| time_left(job, Timestamp::now()).is_some());
        ended.map(|_| change.key.clone()).into_iter().collect()
    });
    let synced = async move { jobs.synced().await };
    context.drive(Arc::new(controller), &queue, WORKERS, synced);
}

/// How long an ended job with a time to live has still; `None` for all others.
fn time_left(job: &Job, now: Timestamp) -> Option<Duration> {
    let ttl = i64::from(job.spec.as_ref()?.ttl_seconds_after_finished?);
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let end = finished(job)?.last_transition_time.as_ref()?.0;
    let left = end.as_millisecond() + ttl * 1000 - now.as_millisecond();
    Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(job) = self.jobs.get_key(key) else {
                return Ok(Outcome::Done);
            };
            let Some(left) = time_left(&job, Timestamp::now()) else {
                return Ok(Outcome::Done);
            };
            if !left.is_zero() {
                return Ok(Outcome::After(left));
            }
            // The version guards against a time to live that was raised meanwhile.
            let options = DeleteOptions {
                propagation_policy: Some("Foreground".into()),
                resource_version: job.metadata.resource_version.clone(),
                ..DeleteOptions::uid(job.metadata.uid.as_deref().unwrap_or_default())
            };
            match self
                .client
                .beside(job.as_ref())
                .delete(&key.name, &options)
                .await
            {
                Ok(()) => Ok(Outcome::Done),
                Err(status) if status.is_not_found() => Ok(Outcome::Done),
                Err(status) => Err(status),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_ended_jobs_with_a_time_to_live_go() {
        let check = |ttl: Option<i32>, condition: &str, expected: Option<u64>| {
            let job: Job = serde_json::from_value(json!({
                "spec": {"ttlSecondsAfterFinished": ttl, "template": {}},
                "status": {"conditions": [{"type": condition, "status": "True",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
            }))
            .unwrap();
            let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
            assert_eq!(time_left(&job, now).map(|left| left.as_secs()), expected);
        };
        check(Some(90), "Complete", Some(30));
        check(Some(30), "Failed", Some(0));
        check(Some(30), "FailureTarget", None);
        check(None, "Complete", None);
    }
}
