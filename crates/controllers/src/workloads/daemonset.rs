//! DaemonSet: one pod on every node that qualifies.

mod eligible;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use meta::{LabelSelector, Status};
use parking_lot::Mutex;
use reconcile::owners::{controller_of, controllers};
use reconcile::{Outcome, Queue, Reconcile, Recorder, feed};

use self::plan::{Plan, plan};
use super::control::{PodControl, claim, settle, write_status};
use super::history::History;
use crate::context::Context;
use crate::pods;

const NAME: &str = "daemon-set-controller";
/// By this name events know the controller.
const COMPONENT: &str = "daemonset-controller";
const WORKERS: usize = 2;
const HASH_LABEL: &str = "controller-revision-hash";
/// A failed pod is replaced after this long, longer each time it fails again.
const FAILED_FIRST: Duration = Duration::from_secs(1);
const FAILED_LIMIT: Duration = Duration::from_secs(15 * 60);
/// Failures remembered; beyond that the oldest memories are of no use anyway.
const FAILED_MAX: usize = 10_000;

/// How often pods failed on a node, and when the last one was replaced.
#[derive(Clone, Copy)]
struct Failure {
    delay: Duration,
    since: Timestamp,
}

struct Controller {
    client: Client,
    sets: Informer<DaemonSet>,
    nodes: Informer<Node>,
    history: History,
    control: PodControl,
    recorder: Recorder,
    /// By uid of the set and name of the node.
    failures: Mutex<HashMap<(String, String), Failure>>,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let queue = context.queue();
    let recorder = Recorder::start(context.client(NAME), COMPONENT, "", &context.crew);
    let controller = Controller {
        client: context.client(NAME),
        sets: context.hub.informer(),
        nodes: context.hub.informer(),
        history: History {
            client: context.client(NAME),
            revisions: context.hub.informer(),
            hash_label: HASH_LABEL,
        },
        control: PodControl::new(context, NAME, recorder.clone()),
        recorder,
        failures: Mutex::default(),
    };
    watch(context, &controller, &queue);
    let (sets, pods) = (controller.sets.clone(), controller.control.pods.clone());
    let (nodes, revisions) = (
        controller.nodes.clone(),
        controller.history.revisions.clone(),
    );
    let synced = async move {
        sets.synced().await;
        pods.synced().await;
        nodes.synced().await;
        revisions.synced().await;
    };
    context.drive(Arc::new(controller), &queue, WORKERS, synced);
}

fn watch(context: &Context, controller: &Controller, queue: &Queue<Key>) {
    let crew = &context.crew;
    feed(NAME, &controller.sets, queue, crew, |change| {
        vec![change.key.clone()]
    });
    let revisions: &Informer<ControllerRevision> = &controller.history.revisions;
    feed(NAME, revisions, queue, crew, |change| {
        if change.new.is_some() {
            return Vec::new();
        }
        controllers(change, "DaemonSet")
    });
    let sets = controller.sets.clone();
    feed(NAME, &controller.nodes, queue, crew, move |change| {
        // Heartbeats change the status alone: no daemon cares.
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && old.metadata.labels == new.metadata.labels
            && old.spec == new.spec
            && old.metadata.uid == new.metadata.uid
        {
            return Vec::new();
        }
        sets.list()
            .iter()
            .map(|set| Key::of(set.as_ref()))
            .collect()
    });
    let sets = controller.sets.clone();
    feed(NAME, &controller.control.pods, queue, crew, move |change| {
        let keys = controllers(change, "DaemonSet");
        let mut orphans = change.new.iter();
        let Some(orphan) = orphans.find(|pod| controller_of(&pod.metadata).is_none()) else {
            return keys;
        };
        let nearby = sets.list_in(&change.key.namespace).into_iter();
        let matching = nearby.filter(|set| {
            selector_of(set).is_some_and(|selector| pods::matches(&selector, &orphan.metadata))
        });
        keys.into_iter()
            .chain(matching.map(|set| Key::of(set.as_ref())))
            .collect()
    });
}

fn selector_of(set: &DaemonSet) -> Option<LabelSelector> {
    let spec = set.spec.as_ref();
    spec.and_then(|spec| pods::selector(&spec.selector))
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(set) = self.sets.get_key(key) else {
                return Ok(Outcome::Done);
            };
            match self.sync(&set).await {
                Err(status) => settle(Err(status)).map(|()| Outcome::Done),
                outcome => outcome,
            }
        })
    }
}

impl Controller {
    async fn sync(&self, set: &Arc<DaemonSet>) -> Result<Outcome, Status> {
        let (Some(spec), Some(selector)) = (&set.spec, selector_of(set)) else {
            return Ok(Outcome::Done);
        };
        if selector.is_empty() {
            let message =
                "This daemon set is selecting all pods. A non-empty selector is required.";
            self.recorder.warning(set.as_ref(), "SelectingAll", message);
            return Ok(Outcome::Done);
        }
        let candidates = self.control.candidates(&set.metadata);
        let claims = claim(&set.metadata, &selector, &candidates);
        self.control.settle_claims(set.as_ref(), &claims).await?;

        let collisions = set
            .status
            .as_ref()
            .and_then(|status| status.collision_count);
        let mut revisions = self.history.claim(set.as_ref(), &selector).await?;
        let newest = self
            .history
            .newest(set.as_ref(), &mut revisions, &spec.template, collisions)
            .await?;
        let hash = hash_of(&newest.revision).to_owned();
        let template = eligible::with_tolerations(&spec.template);
        let nodes = self.nodes.list();
        let now = Timestamp::now();
        let mut plan = plan(set, &template, &hash, &nodes, &claims.own, now);
        plan.status.collision_count = newest.collisions;
        let failed_in = self.judge_ended(set, &mut plan, now);

        let made: Vec<Pod> = plan
            .create
            .iter()
            .map(|node| eligible::pod_for(set, &template, &hash, node))
            .collect();
        let created = self.control.create_all(set.as_ref(), &made).await;
        let deleted = self.control.delete_all(set.as_ref(), &plan.delete).await;
        if set.status.as_ref() != Some(&plan.status) {
            let changed = DaemonSet {
                status: Some(plan.status.clone()),
                ..DaemonSet::clone(set)
            };
            write_status(&self.client, &self.sets, &changed).await?;
        }
        settle(created)?;
        settle(deleted)?;
        let is_used = |revision: &ControllerRevision| {
            let hash = hash_of(revision);
            let by_pod = |pod: &Arc<Pod>| {
                let labels = pod.metadata.labels.as_ref();
                labels
                    .and_then(|labels| labels.get(HASH_LABEL))
                    .map(String::as_str)
                    == Some(hash)
            };
            revision.metadata.uid == newest.revision.metadata.uid || claims.own.iter().any(by_pod)
        };
        let limit = spec.revision_history_limit;
        self.history.truncate(&revisions, is_used, limit).await?;
        let next = [plan.again_in, failed_in].into_iter().flatten().min();
        Ok(next.map_or(Outcome::Done, Outcome::After))
    }

    /// Adds the pods that ended to those to delete, failed ones not before their time; returns
    /// when the next one's time comes.
    fn judge_ended(&self, set: &DaemonSet, plan: &mut Plan, now: Timestamp) -> Option<Duration> {
        let uid = set.metadata.uid.clone().unwrap_or_default();
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let mut failures = self.failures.lock();
        if failures.len() > FAILED_MAX {
            failures.clear();
        }
        let mut next: Option<Duration> = None;
        for (node, pod) in std::mem::take(&mut plan.ended) {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let subject = format!("daemon pod {namespace}/{name} on node {node}");
            if pods::phase(&pod) == "Succeeded" {
                let message = format!("Found succeeded {subject}, will try to delete it");
                self.recorder.normal(set, "SucceededDaemonPod", message);
                plan.delete.push(pod);
                continue;
            }
            let slot = (uid.clone(), node);
            if let Some(known) = failures.get(&slot) {
                let passed = now.as_second() - known.since.as_second();
                let passed = Duration::from_secs(u64::try_from(passed).unwrap_or(0));
                if passed < known.delay {
                    let left = known.delay - passed;
                    next = Some(next.map_or(left, |other| other.min(left)));
                    continue;
                }
            }
            // What stood for twice the longest delay is a new trouble, not the old one.
            let delay = match failures.get(&slot) {
                Some(known)
                    if now.as_second() - known.since.as_second()
                        < 2 * FAILED_LIMIT.as_secs().cast_signed() =>
                {
                    known.delay.saturating_mul(2).min(FAILED_LIMIT)
                }
                _ => FAILED_FIRST,
            };
            failures.insert(slot, Failure { delay, since: now });
            let message = format!("Found failed {subject}, will try to kill it");
            self.recorder.warning(set, "FailedDaemonPod", message);
            plan.delete.push(pod);
        }
        next
    }
}

fn hash_of(revision: &ControllerRevision) -> &str {
    let labels = revision.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(HASH_LABEL))
        .map_or("", String::as_str)
}
