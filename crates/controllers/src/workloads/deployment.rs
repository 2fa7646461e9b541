//! Deployment: rolls a template out over ReplicaSets, one per template.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, DeleteOptions, Informer, Key, Patch, WriteOptions};
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetSpec,
};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use meta::Status;
use reconcile::owners::{controller_of, controller_reference, controllers};
use reconcile::{Outcome, Reconcile, Recorder, feed};
use serde_json::json;

use super::control::{is_namespace_terminating, write_status};
use super::rollout::{self, Set};
use super::rollout_status;
use crate::context::Context;
use crate::pods;

const NAME: &str = "deployment-controller";
const WORKERS: usize = 5;
/// The label that tells the sets of one deployment apart.
pub(crate) const HASH_LABEL: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations that describe the deployment itself and are not handed down to its sets.
const OWN_ANNOTATIONS: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

struct Controller {
    client: Client,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    recorder: Recorder,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let queue = context.queue();
    let controller = Controller {
        client: context.client(NAME),
        deployments: context.hub.informer(),
        sets: context.hub.informer(),
        pods: context.hub.informer(),
        recorder: context.recorder(NAME),
    };
    feed(
        NAME,
        &controller.deployments,
        &queue,
        &context.crew,
        |change| vec![change.key.clone()],
    );
    let deployments = controller.deployments.clone();
    feed(
        NAME,
        &controller.sets,
        &queue,
        &context.crew,
        move |change| {
            let keys = controllers(change, "Deployment");
            let orphan = change
                .new
                .as_ref()
                .filter(|set| controller_of(&set.metadata).is_none());
            let Some(orphan) = orphan else { return keys };
            let nearby = deployments.list_in(&change.key.namespace).into_iter();
            let matching = nearby.filter(|deployment| selects(deployment, &orphan.metadata));
            keys.into_iter()
                .chain(matching.map(|one| Key::of(one.as_ref())))
                .collect()
        },
    );
    // A recreating deployment waits for the last old pod to be gone.
    let (deployments, sets) = (controller.deployments.clone(), controller.sets.clone());
    feed(
        NAME,
        &controller.pods,
        &queue,
        &context.crew,
        move |change| {
            if change.new.is_some() {
                return Vec::new();
            }
            let owners = controllers(change, "ReplicaSet");
            let set = owners.first().and_then(|key| sets.get_key(key));
            let owner = set.as_ref().and_then(|set| controller_of(&set.metadata));
            let key = owner.map(|owner| Key::new(change.key.namespace.clone(), owner.name.clone()));
            let recreates = |key: &Key| {
                deployments
                    .get_key(key)
                    .is_some_and(|deployment| strategy(&deployment) == "Recreate")
            };
            key.filter(recreates).into_iter().collect()
        },
    );
    let synced = {
        let (one, two, three) = (
            controller.deployments.clone(),
            controller.sets.clone(),
            controller.pods.clone(),
        );
        async move {
            one.synced().await;
            two.synced().await;
            three.synced().await;
        }
    };
    context.drive(Arc::new(controller), &queue, WORKERS, synced);
}

fn selects(deployment: &Deployment, metadata: &ObjectMeta) -> bool {
    let selector = deployment
        .spec
        .as_ref()
        .and_then(|spec| pods::selector(&spec.selector));
    selector.is_some_and(|selector| pods::matches(&selector, metadata))
}

fn strategy(deployment: &Deployment) -> &str {
    let strategy = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.strategy.as_ref());
    strategy
        .and_then(|strategy| strategy.type_.as_deref())
        .unwrap_or("RollingUpdate")
}

/// A short text that differs for different templates: FNV-1a in the alphabet of generated names.
pub(crate) fn template_hash(template: &impl serde::Serialize, collisions: i32) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut bytes = serde_json::to_vec(template).unwrap_or_default();
    bytes.extend_from_slice(&collisions.to_le_bytes());
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(16_777_619);
    let hash = bytes.into_iter().fold(2_166_136_261_u32, step);
    let digits = hash.to_string().into_bytes();
    digits
        .iter()
        .map(|digit| char::from(ALPHABET[usize::from(*digit) % ALPHABET.len()]))
        .collect()
}

/// Whether a set was made from this template.
pub(crate) fn has_template(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
    let Some(mut own) = set.spec.as_ref().and_then(|spec| spec.template.clone()) else {
        return false;
    };
    if let Some(labels) = own
        .metadata
        .as_mut()
        .and_then(|metadata| metadata.labels.as_mut())
    {
        labels.remove(HASH_LABEL);
    }
    own == *template
}

fn revision_of(set: &ReplicaSet) -> i64 {
    let annotations = set.metadata.annotations.as_ref();
    annotations
        .and_then(|map| map.get(REVISION))
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn replicas_of(set: &ReplicaSet) -> i32 {
    set.spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(0)
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(mut deployment) = self.deployments.get_key(key) else {
                return Ok(Outcome::Done);
            };
            let Some(spec) = &deployment.spec.clone() else {
                return Ok(Outcome::Done);
            };
            let mut own = self.claim(&deployment).await?;
            if deployment.metadata.deletion_timestamp.is_some() {
                return self.finish(&deployment, spec, &own).await;
            }
            own.sort_by_key(|set| {
                let created = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
                (created, set.metadata.name.clone())
            });
            let paused = spec.paused.unwrap_or(false);
            let newest = self.newest(&mut deployment, spec, &mut own, paused).await;
            let newest = match newest {
                Err(status) if is_namespace_terminating(&status) => return Ok(Outcome::Done),
                newest => newest?,
            };
            let wait_for_old_pods =
                strategy(&deployment) == "Recreate" && self.has_old_pods(&own, newest.as_ref());
            let sets: Vec<Set> = own
                .iter()
                .map(|set| rollout::view(set, newest.as_ref()))
                .collect();
            let targets = rollout::targets(spec, &sets, wait_for_old_pods);
            for (set, target) in own.iter_mut().zip(targets) {
                self.scale(&deployment, spec, set, target).await?;
            }
            if !paused {
                self.clean_up(spec, &own, newest.as_ref()).await?;
            }
            self.finish(&deployment, spec, &own).await
        })
    }
}

impl Controller {
    /// The sets this deployment controls; adopts matching orphans.
    async fn claim(&self, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, Status> {
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
        let mut own = Vec::new();
        for set in self.sets.list_in(namespace) {
            match controller_of(&set.metadata) {
                Some(owner) if owner.uid == uid => own.push(set),
                None if deployment.metadata.deletion_timestamp.is_none()
                    && selects(deployment, &set.metadata) =>
                {
                    let body = json!({"metadata": {"uid": set.metadata.uid,
                        "ownerReferences": [controller_reference(deployment)]}});
                    own.push(Arc::new(self.patch_set(&set, body).await?));
                }
                _ => {}
            }
        }
        Ok(own)
    }

    /// The set of the current template: found, or created unless the deployment is paused.
    async fn newest(
        &self,
        deployment: &mut Arc<Deployment>,
        spec: &DeploymentSpec,
        own: &mut Vec<Arc<ReplicaSet>>,
        paused: bool,
    ) -> Result<Option<Arc<ReplicaSet>>, Status> {
        let found = own.iter().position(|set| has_template(set, &spec.template));
        let others = own.iter().enumerate().filter(|(at, _)| Some(*at) != found);
        let revision = others.map(|(_, set)| revision_of(set)).max().unwrap_or(0) + 1;
        if let Some(at) = found {
            let set = own[at].clone();
            let revision = revision.max(revision_of(&set));
            let annotations = annotations_for(deployment, &set, revision);
            let known = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
            let patient = known.unwrap_or(0) == spec.min_ready_seconds.unwrap_or(0);
            if annotations.is_some() || !patient {
                let body = json!({"metadata": {"annotations": annotations.unwrap_or_default()},
                    "spec": {"minReadySeconds": spec.min_ready_seconds.unwrap_or(0)}});
                own[at] = Arc::new(self.patch_set(&set, body).await?);
            }
            self.write_revision(deployment, revision).await?;
            return Ok(Some(own[at].clone()));
        }
        if paused {
            return Ok(None);
        }
        let created = self.create_set(deployment, spec, own, revision).await?;
        own.push(created.clone());
        self.write_revision(deployment, revision).await?;
        Ok(Some(created))
    }

    async fn create_set(
        &self,
        deployment: &Deployment,
        spec: &DeploymentSpec,
        own: &[Arc<ReplicaSet>],
        revision: i64,
    ) -> Result<Arc<ReplicaSet>, Status> {
        let status = deployment.status.as_ref();
        let collisions = status
            .and_then(|status| status.collision_count)
            .unwrap_or(0);
        let sets: Vec<Set> = own.iter().map(|set| rollout::view(set, None)).collect();
        let replicas = rollout::first_size(spec, strategy(deployment), &sets);
        let mut set = set_for(deployment, spec, collisions);
        let annotations = set.metadata.annotations.get_or_insert_default();
        annotations.insert(REVISION.into(), revision.to_string());
        set_size_annotations(annotations, spec);
        if let Some(spec) = set.spec.as_mut() {
            spec.replicas = Some(replicas);
        }
        let api = self.client.beside(&set);
        match api.create(&set).await {
            Ok(created) => {
                let name = created.metadata.name.clone().unwrap_or_default();
                self.sets.absorb(created.clone());
                let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                self.recorder
                    .normal(deployment, "ScalingReplicaSet", message);
                Ok(Arc::new(created))
            }
            Err(status) if status.is_already_exists() => {
                let name = set.metadata.name.as_deref().unwrap_or_default();
                let standing = api.get(name).await?;
                let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
                let mine = reconcile::owners::is_controlled_by(&standing.metadata, uid);
                if mine && has_template(&standing, &spec.template) {
                    self.sets.absorb(standing.clone());
                    return Ok(Arc::new(standing));
                }
                // Another template has the same hash: count it in and come back.
                let mut counted = deployment.status.clone().unwrap_or_default();
                counted.collision_count = Some(collisions + 1);
                self.write_status(deployment, counted).await?;
                Err(status)
            }
            Err(status) => {
                if !is_namespace_terminating(&status) {
                    let name = set.metadata.name.as_deref().unwrap_or_default();
                    let message = format!("Failed to create new replica set \"{name}\": {status}");
                    self.recorder
                        .warning(deployment, "ReplicaSetCreateError", message);
                }
                Err(status)
            }
        }
    }

    fn has_old_pods(&self, own: &[Arc<ReplicaSet>], newest: Option<&Arc<ReplicaSet>>) -> bool {
        let uid = |set: &ReplicaSet| set.metadata.uid.clone();
        let newest = newest.and_then(|set| uid(set));
        let old = own.iter().filter(|set| uid(set) != newest);
        old.into_iter().any(|set| {
            let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
            let mut pods = self.pods.list_in(namespace).into_iter();
            pods.any(|pod| super::replicaset::owns(set, &pod) && !pods::is_terminal(&pod))
        })
    }

    async fn scale(
        &self,
        deployment: &Deployment,
        spec: &DeploymentSpec,
        set: &mut Arc<ReplicaSet>,
        target: i32,
    ) -> Result<(), Status> {
        let before = replicas_of(set);
        let mut annotations = BTreeMap::new();
        set_size_annotations(&mut annotations, spec);
        let known = set.metadata.annotations.as_ref();
        let stale = annotations
            .iter()
            .any(|(key, value)| known.and_then(|k| k.get(key)) != Some(value));
        if before == target && !(stale && target > 0) {
            return Ok(());
        }
        let body = json!({"metadata": {"annotations": annotations}, "spec": {"replicas": target}});
        *set = Arc::new(self.patch_set(set, body).await?);
        if before != target {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            let way = if before < target { "up" } else { "down" };
            let message = format!("Scaled {way} replica set {name} from {before} to {target}");
            self.recorder
                .normal(deployment, "ScalingReplicaSet", message);
        }
        Ok(())
    }

    /// Deletes the oldest empty sets beyond `revisionHistoryLimit`.
    async fn clean_up(
        &self,
        spec: &DeploymentSpec,
        own: &[Arc<ReplicaSet>],
        newest: Option<&Arc<ReplicaSet>>,
    ) -> Result<(), Status> {
        let uid = |set: &ReplicaSet| set.metadata.uid.clone();
        let newest_uid = newest.and_then(|set| uid(set));
        let complete = newest.is_some_and(|set| {
            let status = set.status.as_ref();
            status
                .and_then(|status| status.available_replicas)
                .unwrap_or(0)
                >= replicas_of(set)
        });
        if !complete {
            return Ok(());
        }
        let mut empty: Vec<_> = own
            .iter()
            .filter(|set| uid(set) != newest_uid && set.metadata.deletion_timestamp.is_none())
            .filter(|set| replicas_of(set) == 0)
            .filter(|set| {
                set.status
                    .as_ref()
                    .is_none_or(|status| status.replicas == 0)
            })
            .collect();
        empty.sort_by_key(|set| revision_of(set));
        let keep = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
        for set in empty.iter().take(empty.len().saturating_sub(keep)) {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            let options = DeleteOptions::uid(set.metadata.uid.as_deref().unwrap_or_default());
            match self
                .client
                .beside(set.as_ref())
                .delete(name, &options)
                .await
            {
                Ok(()) => {}
                Err(status) if status.is_not_found() => {}
                Err(status) => return Err(status),
            }
        }
        Ok(())
    }

    /// Writes the status, and says when to look again.
    async fn finish(
        &self,
        deployment: &Deployment,
        spec: &DeploymentSpec,
        own: &[Arc<ReplicaSet>],
    ) -> Result<Outcome, Status> {
        let newest = own.iter().find(|set| has_template(set, &spec.template));
        let (status, again_in) =
            rollout_status::of(deployment, spec, own, newest, Timestamp::now());
        if deployment.status.as_ref() != Some(&status) {
            self.write_status(deployment, status).await?;
        }
        Ok(again_in.map_or(Outcome::Done, |seconds| {
            Outcome::After(Duration::from_secs(seconds.unsigned_abs()))
        }))
    }

    /// Notes the revision on the deployment, which then is the newer one.
    async fn write_revision(
        &self,
        deployment: &mut Arc<Deployment>,
        revision: i64,
    ) -> Result<(), Status> {
        let annotations = deployment.metadata.annotations.as_ref();
        let revision = revision.to_string();
        if annotations.and_then(|map| map.get(REVISION)) == Some(&revision) {
            return Ok(());
        }
        let mut changed = Deployment::clone(deployment);
        let annotations = changed.metadata.annotations.get_or_insert_default();
        annotations.insert(REVISION.into(), revision);
        let written = self.client.beside(&changed).replace(&changed).await?;
        self.deployments.absorb(written.clone());
        *deployment = Arc::new(written);
        Ok(())
    }

    async fn write_status(
        &self,
        deployment: &Deployment,
        status: DeploymentStatus,
    ) -> Result<(), Status> {
        let changed = Deployment {
            status: Some(status),
            ..deployment.clone()
        };
        write_status(&self.client, &self.deployments, &changed).await
    }

    async fn patch_set(
        &self,
        set: &ReplicaSet,
        body: serde_json::Value,
    ) -> Result<ReplicaSet, Status> {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let api = self.client.beside(set);
        let patched = api
            .patch(name, &Patch::Strategic(body), &WriteOptions::default())
            .await?;
        self.sets.absorb(patched.clone());
        Ok(patched)
    }
}

fn set_for(deployment: &Deployment, spec: &DeploymentSpec, collisions: i32) -> ReplicaSet {
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template.clone();
    let labels = template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default();
    labels.insert(HASH_LABEL.into(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector
        .match_labels
        .get_or_insert_default()
        .insert(HASH_LABEL.into(), hash.clone());
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{hash}")),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(handed_down(deployment)),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: Some(0),
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

fn handed_down(deployment: &Deployment) -> BTreeMap<String, String> {
    let annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    let kept = |(key, _): &(String, String)| !OWN_ANNOTATIONS.contains(&key.as_str());
    annotations.into_iter().filter(kept).collect()
}

fn set_size_annotations(annotations: &mut BTreeMap<String, String>, spec: &DeploymentSpec) {
    let desired = spec.replicas.unwrap_or(1);
    let surge = rollout::bounds(spec).max_surge;
    annotations.insert(DESIRED.into(), desired.to_string());
    annotations.insert(MAX.into(), (desired + surge).to_string());
}

/// The annotations the newest set should have, when they differ from those it has.
fn annotations_for(
    deployment: &Deployment,
    set: &ReplicaSet,
    revision: i64,
) -> Option<BTreeMap<String, String>> {
    let known = set.metadata.annotations.clone().unwrap_or_default();
    let mut wanted = known.clone();
    wanted.extend(handed_down(deployment));
    let old = revision_of(set);
    if old < revision {
        if old > 0 {
            let history = wanted.entry(REVISION_HISTORY.into()).or_default();
            if !history.is_empty() {
                history.push(',');
            }
            history.push_str(&old.to_string());
        }
        wanted.insert(REVISION.into(), revision.to_string());
    }
    (wanted != known).then_some(wanted)
}
