//! Job: pods that run to their end, counted exactly once.

mod count;
mod indexes;
mod plan;
mod pod;
mod policy;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use client::{Client, Informer, Key};
use futures::future::{BoxFuture, join_all};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use meta::{LabelSelector, Status};
use parking_lot::Mutex;
use reconcile::owners::{controller_of, controller_reference, controllers};
use reconcile::{Outcome, Queue, Reconcile, Recorder, feed};
use serde_json::json;

use self::count::Failures;
pub(crate) use self::plan::finished;
use self::plan::{Plan, plan};
use super::control::{PodControl, claim, settle, write_status};
use crate::context::Context;
use crate::pods;

const NAME: &str = "job-controller";
const WORKERS: usize = 5;
/// Finalizers taken away at one time.
const UNTRACK_MAX: usize = 32;
/// Index of the pod cache: the key of the job that tracks a pod.
const TRACKED_BY: &str = "tracked by job";
/// `spec.managedBy` of the jobs this controller looks after.
const MANAGER: &str = "kubernetes.io/job-controller";

struct Controller {
    client: Client,
    jobs: Informer<Job>,
    control: PodControl,
    recorder: Recorder,
    /// By uid of the job; gone with the job's end.
    failures: Mutex<HashMap<String, Failures>>,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let queue = context.queue();
    let recorder = context.recorder(NAME);
    let controller = Controller {
        client: context.client(NAME),
        jobs: context.hub.informer(),
        control: PodControl::new(context, NAME, recorder.clone()),
        recorder,
        failures: Mutex::default(),
    };
    controller.control.pods.add_index(TRACKED_BY, tracked_by);
    watch(context, &controller, &queue);
    let (jobs, pods) = (controller.jobs.clone(), controller.control.pods.clone());
    let synced = async move {
        jobs.synced().await;
        pods.synced().await;
    };
    context.drive(Arc::new(controller), &queue, WORKERS, synced);
}

fn watch(context: &Context, controller: &Controller, queue: &Queue<Key>) {
    let crew = &context.crew;
    feed(NAME, &controller.jobs, queue, crew, |change| {
        vec![change.key.clone()]
    });
    let jobs = controller.jobs.clone();
    feed(NAME, &controller.control.pods, queue, crew, move |change| {
        let keys = controllers(change, "Job");
        let mut orphans = change.new.iter();
        let Some(orphan) = orphans.find(|pod| controller_of(&pod.metadata).is_none()) else {
            return keys;
        };
        let nearby = jobs.list_in(&change.key.namespace).into_iter();
        let matching = nearby.filter(|job| {
            selector_of(job).is_some_and(|selector| pods::matches(&selector, &orphan.metadata))
        });
        let tracked = pod::is_tracked(orphan).then(|| change.key.clone());
        keys.into_iter()
            .chain(matching.map(|job| Key::of(job.as_ref())))
            // Whatever job this key names: looking at it frees the namespace's orphans.
            .chain(tracked)
            .collect()
    });
}

fn selector_of(job: &Job) -> Option<LabelSelector> {
    let spec = job.spec.as_ref();
    let selector = spec.and_then(|spec| spec.selector.as_ref());
    selector.and_then(pods::selector)
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(job) = self.jobs.get_key(key) else {
                self.free_orphans(key, None).await?;
                return Ok(Outcome::Done);
            };
            let manager = job
                .spec
                .as_ref()
                .and_then(|spec| spec.managed_by.as_deref());
            if manager.is_some_and(|manager| manager != MANAGER) {
                return Ok(Outcome::Done);
            }
            self.free_orphans(key, job.metadata.uid.as_deref()).await?;
            match self.sync(&job).await {
                Err(status) => settle(Err(status)).map(|()| Outcome::Done),
                outcome => outcome,
            }
        })
    }
}

impl Controller {
    async fn sync(&self, job: &Arc<Job>) -> Result<Outcome, Status> {
        let (Some(spec), Some(selector)) = (&job.spec, selector_of(job)) else {
            return Ok(Outcome::Done);
        };
        let uid = job.metadata.uid.clone().unwrap_or_default();
        let failures = self.failures.lock().get(&uid).copied().unwrap_or_default();
        let own = self.claim(job, &selector).await?;
        let mut next = plan(job, &own, failures, Timestamp::now());
        let mut acted = Ok(());
        if !next.delete.is_empty() || !next.create.is_empty() {
            acted = self.act(job, spec, &next).await;
            // The status tells of the pods as they are now.
            let own = self.claim(job, &selector).await?;
            next = plan(job, &own, failures, Timestamp::now());
        }
        self.write(job, &next).await?;
        if finished(job).is_some() {
            self.failures.lock().remove(&uid);
        } else if next.failures != Failures::default() {
            self.failures.lock().insert(uid, next.failures);
        } else {
            self.failures.lock().remove(&uid);
        }
        self.untrack(&next.untrack).await?;
        acted?;
        Ok(next.again_in.map_or(Outcome::Done, Outcome::After))
    }

    /// The job's pods. Adopted ones are tracked from now on.
    async fn claim(&self, job: &Job, selector: &LabelSelector) -> Result<Vec<Arc<Pod>>, Status> {
        let mut claims = claim(
            &job.metadata,
            selector,
            &self.control.candidates(&job.metadata),
        );
        for pod in std::mem::take(&mut claims.adopt) {
            let body = json!({"metadata": {"uid": pod.metadata.uid,
                "finalizers": [pod::FINALIZER], "ownerReferences": [controller_reference(job)]}});
            self.control.patch(&pod, body).await?;
        }
        let released = std::mem::take(&mut claims.release);
        for pod in &released {
            let body = json!({"metadata": {"uid": pod.metadata.uid,
                "$deleteFromPrimitiveList/finalizers": [pod::FINALIZER],
                "ownerReferences": [{"$patch": "delete", "uid": job.metadata.uid}]}});
            self.control.patch(pod, body).await?;
        }
        Ok(claims.own)
    }

    async fn act(&self, job: &Arc<Job>, spec: &JobSpec, plan: &Plan) -> Result<(), Status> {
        let deleted = self.control.delete_all(job.as_ref(), &plan.delete).await;
        let made: Vec<Pod> = plan
            .create
            .iter()
            .map(|index| pod::build(job, spec, *index))
            .collect();
        let created = self.control.create_all(job.as_ref(), &made).await;
        deleted.and(created)
    }

    async fn write(&self, job: &Arc<Job>, plan: &Plan) -> Result<(), Status> {
        if job.status.as_ref() == Some(&plan.status) {
            return Ok(());
        }
        let changed = Job {
            status: Some(plan.status.clone()),
            ..Job::clone(job)
        };
        write_status(&self.client, &self.jobs, &changed).await?;
        for (kind, reason, message) in &plan.notes {
            let about = reconcile::events::reference(job.as_ref());
            self.recorder.record(about, kind, reason, message.clone());
        }
        Ok(())
    }

    async fn untrack(&self, pods: &[Arc<Pod>]) -> Result<(), Status> {
        let mut outcome = Ok(());
        for batch in pods.chunks(UNTRACK_MAX) {
            let bodies = batch.iter().map(|pod| {
                let body = json!({"metadata": {"uid": pod.metadata.uid,
                    "$deleteFromPrimitiveList/finalizers": [pod::FINALIZER]}});
                self.control.patch(pod, body)
            });
            let done: Result<Vec<()>, Status> = join_all(bodies).await.into_iter().collect();
            outcome = outcome.and(done.map(drop));
        }
        outcome
    }

    /// Lets go of tracked pods whose job is gone, or is another one of the same name, or that no
    /// job wants.
    async fn free_orphans(&self, key: &Key, uid: Option<&str>) -> Result<(), Status> {
        let pods = &self.control.pods;
        let mut lost = pods.by_index(TRACKED_BY, &key.to_string());
        lost.retain(|pod| {
            let owner = controller_of(&pod.metadata);
            owner.map(|owner| owner.uid.as_str()) != uid
        });
        let orphans = pods.by_index(TRACKED_BY, &orphans_key(&key.namespace));
        if !orphans.is_empty() {
            let jobs = self.jobs.list_in(&key.namespace);
            let selectors: Vec<_> = jobs.iter().filter_map(|job| selector_of(job)).collect();
            let wanted = |pod: &Arc<Pod>| {
                let mut all = selectors.iter();
                pods::is_active(pod) && all.any(|one| pods::matches(one, &pod.metadata))
            };
            lost.extend(orphans.into_iter().filter(|pod| !wanted(pod)));
        }
        self.untrack(&lost).await
    }
}

fn tracked_by(pod: &Pod) -> Vec<String> {
    if !pod::is_tracked(pod) {
        return Vec::new();
    }
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    match controller_of(&pod.metadata) {
        Some(owner) if owner.kind == "Job" => {
            vec![Key::new(namespace, owner.name.clone()).to_string()]
        }
        Some(_) => Vec::new(),
        None => vec![orphans_key(&namespace)],
    }
}

/// No name of a job has a colon.
fn orphans_key(namespace: &str) -> String {
    format!("{namespace}/orphans:")
}
