//! CronJob: starts jobs by the clock.

mod plan;
mod schedule;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::{Client, DeleteOptions, Informer, Key};
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use meta::Status;
use reconcile::owners::{controller_of, controllers, is_controlled_by};
use reconcile::{Outcome, Reconcile, Recorder, feed};

use self::plan::{Plan, plan};
use super::control::{is_namespace_terminating, settle, write_status};
use crate::context::Context;

const NAME: &str = "cronjob-controller";
const WORKERS: usize = 2;
/// Index of the job cache: the uid of the controller.
const BY_CONTROLLER: &str = "controller";

struct Controller {
    client: Client,
    crons: Informer<CronJob>,
    jobs: Informer<Job>,
    recorder: Recorder,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let queue = context.queue();
    let controller = Controller {
        client: context.client(NAME),
        crons: context.hub.informer(),
        jobs: context.hub.informer(),
        recorder: context.recorder(NAME),
    };
    let (crons, jobs) = (controller.crons.clone(), controller.jobs.clone());
    jobs.add_index(BY_CONTROLLER, |job| {
        let owner = controller_of(&job.metadata);
        owner.map(|owner| owner.uid.clone()).into_iter().collect()
    });
    feed(NAME, &crons, &queue, &context.crew, |change| {
        vec![change.key.clone()]
    });
    feed(NAME, &jobs, &queue, &context.crew, |change| {
        controllers(change, "CronJob")
    });
    let synced = async move {
        crons.synced().await;
        jobs.synced().await;
    };
    context.drive(Arc::new(controller), &queue, WORKERS, synced);
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(cron) = self.crons.get_key(key) else {
                return Ok(Outcome::Done);
            };
            match self.sync(&cron).await {
                Err(status) => settle(Err(status)).map(|()| Outcome::Done),
                outcome => outcome,
            }
        })
    }
}

impl Controller {
    async fn sync(&self, cron: &Arc<CronJob>) -> Result<Outcome, Status> {
        let spec = &cron.spec;
        let uid = cron.metadata.uid.as_deref().unwrap_or_default();
        let own = self.jobs.by_index(BY_CONTROLLER, uid);
        let mut plan = plan(cron, &own, Timestamp::now());
        for (kind, reason, message) in &plan.notes {
            let about = reconcile::events::reference(cron.as_ref());
            self.recorder.record(about, kind, reason, message.clone());
        }
        for job in plan.replace.iter().chain(&plan.forget) {
            self.delete(cron, job).await?;
        }
        if let Some(due) = plan.start {
            self.begin(cron, spec, due, &mut plan).await?;
        }
        if cron.status.as_ref() != Some(&plan.status) {
            let changed = CronJob {
                status: Some(plan.status.clone()),
                ..CronJob::clone(cron)
            };
            write_status(&self.client, &self.crons, &changed).await?;
        }
        Ok(plan.again_in.map_or(Outcome::Done, Outcome::After))
    }

    /// Creates the job of a time and enters it into the status. One that stands already, from a
    /// round that was cut short, is taken for this one's.
    async fn begin(
        &self,
        cron: &Arc<CronJob>,
        spec: &CronJobSpec,
        due: Timestamp,
        plan: &mut Plan,
    ) -> Result<(), Status> {
        let Ok((_, zone)) = plan::read(spec) else {
            return Ok(());
        };
        let wanted = plan::build(cron, spec, &zone, due);
        let name = wanted.metadata.name.clone().unwrap_or_default();
        let api = self.client.beside(&wanted);
        let job = match api.create(&wanted).await {
            Ok(job) => {
                self.jobs.absorb(job.clone());
                let message = format!("Created job {name}");
                self.recorder
                    .normal(cron.as_ref(), "SuccessfulCreate", message);
                job
            }
            Err(status) if status.is_already_exists() => api.get(&name).await?,
            Err(status) => {
                if !is_namespace_terminating(&status) {
                    let message = format!("Error creating job: {status}");
                    self.recorder
                        .warning(cron.as_ref(), "FailedCreate", message);
                }
                return Err(status);
            }
        };
        let uid = cron.metadata.uid.as_deref().unwrap_or_default();
        let ended = super::job::finished(&job).is_some();
        if is_controlled_by(&job.metadata, uid) && !ended {
            let reference = ObjectReference {
                api_version: Some("batch/v1".into()),
                kind: Some("Job".into()),
                namespace: job.metadata.namespace.clone(),
                name: job.metadata.name.clone(),
                uid: job.metadata.uid.clone(),
                resource_version: job.metadata.resource_version.clone(),
                field_path: None,
            };
            plan.status.active.get_or_insert_default().push(reference);
        }
        plan.status.last_schedule_time = Some(Time(due));
        Ok(())
    }

    async fn delete(&self, cron: &Arc<CronJob>, job: &Job) -> Result<(), Status> {
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let options = DeleteOptions {
            propagation_policy: Some("Background".into()),
            ..DeleteOptions::uid(job.metadata.uid.as_deref().unwrap_or_default())
        };
        match self
            .client
            .beside(job)
            .delete_gracefully(name, &options)
            .await
        {
            Ok(left) => {
                if let Some(left) = left {
                    self.jobs.absorb(left);
                }
                let message = format!("Deleted job {name}");
                self.recorder
                    .normal(cron.as_ref(), "SuccessfulDelete", message);
            }
            Err(status) if status.is_not_found() || status.is_conflict() => {}
            Err(status) => {
                let message = format!("Deleted job: {status}");
                self.recorder
                    .warning(cron.as_ref(), "FailedDelete", message);
                return Err(status);
            }
        }
        Ok(())
    }
}
