//! StatefulSet: pods with names, order and storage of their own.

mod identity;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::{Client, Informer, Key};
use futures::future::{BoxFuture, try_join_all};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use k8s_openapi::jiff::Timestamp;
use meta::{LabelSelector, Status};
use reconcile::owners::{controller_of, controllers};
use reconcile::{Outcome, Queue, Reconcile, Recorder, feed};
use serde_json::json;

use self::plan::{Plan, Revisions, Step, plan};
use super::control::{PodControl, claim, is_namespace_terminating, settle, write_status};
use super::history::{History, name_of, template_of};
use crate::context::Context;
use crate::pods;

const NAME: &str = "statefulset-controller";
const WORKERS: usize = 5;
/// Steps of one plan done at one time.
const STEPS_MAX: usize = 16;

struct Controller {
    client: Client,
    sets: Informer<StatefulSet>,
    claims: Informer<PersistentVolumeClaim>,
    history: History,
    control: PodControl,
    recorder: Recorder,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let queue = context.queue();
    let recorder = context.recorder(NAME);
    let controller = Controller {
        client: context.client(NAME),
        sets: context.hub.informer(),
        claims: context.hub.informer(),
        history: History {
            client: context.client(NAME),
            revisions: context.hub.informer(),
            hash_label: "controller.kubernetes.io/hash",
        },
        control: PodControl::new(context, NAME, recorder.clone()),
        recorder,
    };
    watch(context, &controller, &queue);
    let (sets, pods) = (controller.sets.clone(), controller.control.pods.clone());
    let (claims, revisions) = (
        controller.claims.clone(),
        controller.history.revisions.clone(),
    );
    let synced = async move {
        sets.synced().await;
        pods.synced().await;
        claims.synced().await;
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
        // Only a lost one matters: the others are our own doing.
        if change.new.is_some() {
            return Vec::new();
        }
        controllers(change, "StatefulSet")
    });
    let sets = controller.sets.clone();
    feed(NAME, &controller.control.pods, queue, crew, move |change| {
        let keys = controllers(change, "StatefulSet");
        let mut orphans = change.new.iter();
        let Some(orphan) = orphans.find(|pod| controller_of(&pod.metadata).is_none()) else {
            return keys;
        };
        let nearby = sets.list_in(&change.key.namespace).into_iter();
        let matching = nearby.filter(|set| is_member(set, orphan));
        keys.into_iter()
            .chain(matching.map(|set| Key::of(set.as_ref())))
            .collect()
    });
}

fn selector_of(set: &StatefulSet) -> Option<LabelSelector> {
    let spec = set.spec.as_ref();
    spec.and_then(|spec| pods::selector(&spec.selector))
}

fn is_member(set: &StatefulSet, pod: &Pod) -> bool {
    let matching = selector_of(set).is_some_and(|selector| pods::matches(&selector, &pod.metadata));
    matching && identity::ordinal_of(set, pod).is_some()
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
            let Some(selector) = selector_of(&set) else {
                return Ok(Outcome::Done);
            };
            match self.sync(&set, &selector).await {
                Err(status) if is_namespace_terminating(&status) => Ok(Outcome::Done),
                outcome => outcome,
            }
        })
    }
}

/// The templates a set moves between.
struct Templates {
    current: PodTemplateSpec,
    update: PodTemplateSpec,
    current_name: String,
    update_name: String,
}

impl Controller {
    async fn sync(
        &self,
        set: &Arc<StatefulSet>,
        selector: &LabelSelector,
    ) -> Result<Outcome, Status> {
        let Some(spec) = &set.spec else {
            return Ok(Outcome::Done);
        };
        let mut candidates = self.control.candidates(&set.metadata);
        candidates.retain(|pod| identity::ordinal_of(set, pod).is_some());
        let claims = claim(&set.metadata, selector, &candidates);
        self.control.settle_claims(set.as_ref(), &claims).await?;

        let known = set.status.as_ref();
        let collisions = known.and_then(|status| status.collision_count);
        let mut revisions = self.history.claim(set.as_ref(), selector).await?;
        let newest = self
            .history
            .newest(set.as_ref(), &mut revisions, &spec.template, collisions)
            .await?;
        let current = known.and_then(|status| status.current_revision.as_deref());
        let current = revisions
            .iter()
            .find(|revision| Some(name_of(revision)) == current)
            .unwrap_or(&newest.revision);
        let templates = Templates {
            current: template_of(current).unwrap_or_else(|| spec.template.clone()),
            update: spec.template.clone(),
            current_name: name_of(current).to_owned(),
            update_name: name_of(&newest.revision).to_owned(),
        };
        let names = Revisions {
            current: &templates.current_name,
            update: &templates.update_name,
            collisions: newest.collisions,
        };
        let plan = plan(set, names, &claims.own, Timestamp::now());
        let acted = self.act(set, &plan, &templates).await;
        if set.status.as_ref() != Some(&plan.status) {
            let changed = StatefulSet {
                status: Some(plan.status.clone()),
                ..StatefulSet::clone(set)
            };
            write_status(&self.client, &self.sets, &changed).await?;
        }
        settle(acted)?;
        let is_used = |revision: &ControllerRevision| {
            let name = name_of(revision);
            let by_pod = |pod: &Arc<Pod>| identity::revision_of(pod) == name;
            name == names.current || name == names.update || claims.own.iter().any(by_pod)
        };
        let limit = spec.revision_history_limit;
        self.history.truncate(&revisions, is_used, limit).await?;
        Ok(plan.again_in.map_or(Outcome::Done, Outcome::After))
    }

    async fn act(
        &self,
        set: &StatefulSet,
        plan: &Plan,
        templates: &Templates,
    ) -> Result<(), Status> {
        for (ordinal, pod) in &plan.condemned {
            self.own_claims(set, *ordinal, Some(pod)).await?;
        }
        for ordinal in &plan.living {
            self.own_claims(set, *ordinal, None).await?;
        }
        for steps in plan.steps.chunks(STEPS_MAX) {
            try_join_all(steps.iter().map(|step| self.step(set, step, templates))).await?;
        }
        Ok(())
    }

    async fn step(
        &self,
        set: &StatefulSet,
        step: &Step,
        templates: &Templates,
    ) -> Result<(), Status> {
        match step {
            Step::Create { ordinal, is_update } => {
                let (template, revision) = if *is_update {
                    (&templates.update, &templates.update_name)
                } else {
                    (&templates.current, &templates.current_name)
                };
                self.make_claims(set, *ordinal).await?;
                let pod = identity::build(set, template, revision, *ordinal);
                let made = self.control.create_silently(&pod).await;
                // The cache has not seen it yet, or it is someone else's and we wait.
                self.tell(set, "create", &pod, made.map(|_| true))
            }
            Step::Recreate(pod) => {
                let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
                let (own, name) = (
                    name_in(set),
                    pod.metadata.name.as_deref().unwrap_or_default(),
                );
                let message =
                    format!("StatefulSet {namespace}/{own} is recreating failed Pod {name}");
                self.recorder.warning(set, "RecreatingFailedPod", message);
                let gone = self.control.delete_silently(pod).await;
                self.tell(set, "delete", pod, gone)
            }
            Step::Delete(pod) => {
                let gone = self.control.delete_silently(pod).await;
                self.tell(set, "delete", pod, gone)
            }
            Step::Claims { ordinal } => self.make_claims(set, *ordinal).await,
            Step::Identify { pod, ordinal } => {
                let labels = identity::missing_labels(pod, *ordinal);
                let body = json!({"metadata": {"uid": pod.metadata.uid, "labels": labels}});
                self.control.patch(pod, body).await
            }
        }
    }

    /// Records what became of creating or deleting a pod.
    fn tell(
        &self,
        set: &StatefulSet,
        verb: &str,
        pod: &Pod,
        outcome: Result<bool, Status>,
    ) -> Result<(), Status> {
        let (own, name) = (
            name_in(set),
            pod.metadata.name.as_deref().unwrap_or_default(),
        );
        let suffix = if verb == "create" { "Create" } else { "Delete" };
        match outcome {
            Ok(true) => {
                let message = format!("{verb} Pod {name} in StatefulSet {own} successful");
                self.recorder
                    .normal(set, &format!("Successful{suffix}"), message);
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(status) => {
                if !is_namespace_terminating(&status) {
                    let message =
                        format!("{verb} Pod {name} in StatefulSet {own} failed error: {status}");
                    self.recorder
                        .warning(set, &format!("Failed{suffix}"), message);
                }
                Err(status)
            }
        }
    }

    /// Creates the claims of an ordinal that do not exist.
    async fn make_claims(&self, set: &StatefulSet, ordinal: i32) -> Result<(), Status> {
        for (_, mut claim) in identity::claims(set, ordinal) {
            if self.claims.get_key(&Key::of(&claim)).is_some() {
                continue;
            }
            let owners = identity::claim_owners(set, &claim, None);
            claim.metadata.owner_references = Some(owners).filter(|owners| !owners.is_empty());
            let own = name_in(set);
            let name = claim.metadata.name.clone().unwrap_or_default();
            let subject = format!("create Claim {name} Pod {own}-{ordinal} in StatefulSet {own}");
            match self.client.beside(&claim).create(&claim).await {
                Ok(created) => {
                    self.claims.absorb(created);
                    let message = format!("{subject} success");
                    self.recorder.normal(set, "SuccessfulCreate", message);
                }
                Err(status) if status.is_already_exists() => {}
                Err(status) => {
                    let message = format!("{subject} failed error: {status}");
                    self.recorder.warning(set, "FailedCreate", message);
                    return Err(status);
                }
            }
        }
        Ok(())
    }

    /// Sets the claims' owners as the retention policy has it.
    async fn own_claims(
        &self,
        set: &StatefulSet,
        ordinal: i32,
        condemned: Option<&Pod>,
    ) -> Result<(), Status> {
        for (_, wanted) in identity::claims(set, ordinal) {
            let Some(claim) = self.claims.get_key(&Key::of(&wanted)) else {
                continue;
            };
            let owners = identity::claim_owners(set, &claim, condemned);
            let known = claim.metadata.owner_references.as_deref();
            if known.unwrap_or_default() == owners {
                continue;
            }
            let mut changed = PersistentVolumeClaim::clone(&claim);
            changed.metadata.owner_references = Some(owners);
            let written = self.client.beside(&changed).replace(&changed).await?;
            self.claims.absorb(written);
        }
        Ok(())
    }
}

fn name_in(set: &StatefulSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}
