//! Takes the protecting finalizers off deleted claims, volumes and classes of volume attributes
//! once nobody uses them, and puts them on those that lack them.

use std::sync::Arc;

use client::{Change, Client, Informer, Key, Kind, ListOptions};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use meta::Status;
use reconcile::{Outcome, Reconcile, feed, owners};

use crate::context::Context;
use crate::pods::is_terminal;

const CLAIMS: &str = "pvc-protection-controller";
const VOLUMES: &str = "pv-protection-controller";
const CLASSES: &str = "volumeattributesclass-protection-controller";
const WORKERS: usize = 2;
/// Index of claims and volumes by the classes of attributes they have or wait for.
const BY_CLASS: &str = "volume attributes class";

/// Whether somebody uses an object that is to go.
type Used<K> = Box<dyn for<'a> Fn(&'a K) -> BoxFuture<'a, Result<bool, Status>> + Send + Sync>;

struct Protector<K> {
    name: &'static str,
    finalizer: &'static str,
    client: Client,
    objects: Informer<K>,
    used: Used<K>,
}

/// Starts the controller of claims.
pub(crate) fn start_claims(context: &Context) {
    let queue = context.queue();
    let (client, pods) = (context.client(CLAIMS), context.hub.informer::<Pod>());
    let controller = Protector {
        name: CLAIMS,
        finalizer: "kubernetes.io/pvc-protection",
        client: client.clone(),
        objects: context.hub.informer::<PersistentVolumeClaim>(),
        used: Box::new({
            let pods = pods.clone();
            move |claim| Box::pin(claim_used(client.clone(), pods.clone(), claim))
        }),
    };
    controller.feed(&queue, context);
    feed(CLAIMS, &pods, &queue, &context.crew, let_go);
    let claims = controller.objects.clone();
    context.drive(Arc::new(controller), &queue, WORKERS, async move {
        claims.synced().await;
        pods.synced().await;
    });
}

/// Starts the controller of volumes.
pub(crate) fn start_volumes(context: &Context) {
    let queue = context.queue();
    let controller = Protector {
        name: VOLUMES,
        finalizer: "kubernetes.io/pv-protection",
        client: context.client(VOLUMES),
        objects: context.hub.informer::<PersistentVolume>(),
        used: Box::new(|volume| {
            let status = volume.status.as_ref();
            let phase = status.and_then(|status| status.phase.as_deref());
            Box::pin(std::future::ready(Ok(phase == Some("Bound"))))
        }),
    };
    controller.feed(&queue, context);
    let volumes = controller.objects.clone();
    context.drive(Arc::new(controller), &queue, WORKERS, async move {
        volumes.synced().await;
    });
}

/// Starts the controller of classes of volume attributes.
pub(crate) fn start_classes(context: &Context) {
    let queue = context.queue();
    let volumes = context.hub.informer::<PersistentVolume>();
    volumes.add_index(BY_CLASS, volume_classes);
    let claims = context.hub.informer::<PersistentVolumeClaim>();
    claims.add_index(BY_CLASS, claim_classes);
    let controller = Protector {
        name: CLASSES,
        finalizer: "kubernetes.io/vac-protection",
        client: context.client(CLASSES),
        objects: context.hub.informer::<VolumeAttributesClass>(),
        used: Box::new({
            let (volumes, claims) = (volumes.clone(), claims.clone());
            move |class: &VolumeAttributesClass| {
                let name = class.metadata.name.as_deref().unwrap_or_default();
                let used = !volumes.by_index(BY_CLASS, name).is_empty()
                    || !claims.by_index(BY_CLASS, name).is_empty();
                Box::pin(std::future::ready(Ok(used)))
            }
        }),
    };
    controller.feed(&queue, context);
    feed(CLASSES, &volumes, &queue, &context.crew, |change| {
        lost(change, volume_classes)
    });
    feed(CLASSES, &claims, &queue, &context.crew, |change| {
        lost(change, claim_classes)
    });
    let classes = controller.objects.clone();
    context.drive(Arc::new(controller), &queue, WORKERS, async move {
        classes.synced().await;
        volumes.synced().await;
        claims.synced().await;
    });
}

/// Classes that an object had and has no longer.
fn lost<K>(change: &Change<K>, classes: fn(&K) -> Vec<String>) -> Vec<Key> {
    let of = |one: &Option<Arc<K>>| one.as_deref().map(classes).unwrap_or_default();
    let now = of(&change.new);
    let before = of(&change.old).into_iter();
    let gone = before.filter(|name| !now.contains(name));
    gone.map(|name| Key::new("", name)).collect()
}

fn named(names: [Option<&String>; 2]) -> Vec<String> {
    let mut names: Vec<_> = names.into_iter().flatten().cloned().collect();
    names.retain(|name| !name.is_empty());
    names.dedup();
    names
}

fn volume_classes(volume: &PersistentVolume) -> Vec<String> {
    let spec = volume.spec.as_ref();
    named([
        spec.and_then(|spec| spec.volume_attributes_class_name.as_ref()),
        None,
    ])
}

fn claim_classes(claim: &PersistentVolumeClaim) -> Vec<String> {
    let (spec, status) = (claim.spec.as_ref(), claim.status.as_ref());
    let mut names = named([
        spec.and_then(|spec| spec.volume_attributes_class_name.as_ref()),
        status.and_then(|own| own.current_volume_attributes_class_name.as_ref()),
    ]);
    let change = status.and_then(|own| own.modify_volume_status.as_ref());
    let target = change.and_then(|own| own.target_volume_attributes_class_name.clone());
    names.extend(target.filter(|name| !name.is_empty()));
    names
}

/// The claim behind a volume of a pod, and whether it was made for the pod.
fn claim_of(pod: &Pod, volume: &Volume) -> Option<(String, bool)> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some((source.claim_name.clone(), false));
    }
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    volume.ephemeral.as_ref()?;
    Some((format!("{name}-{}", volume.name), true))
}

fn volumes(pod: &Pod) -> &[Volume] {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.volumes.as_deref())
        .unwrap_or_default()
}

fn is_scheduled(pod: &Pod) -> bool {
    crate::cluster::node_of(pod).is_some()
}

/// Whether a kubelet may still have the claim mounted for the pod. Pure.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let metadata = &pod.metadata;
    let shut_down =
        metadata.deletion_timestamp.is_some() && metadata.deletion_grace_period_seconds == Some(0);
    let uid = metadata.uid.as_deref().unwrap_or_default();
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let by = |volume: &Volume| match claim_of(pod, volume) {
        Some((own, false)) => own == name,
        Some((own, true)) => {
            own == name && !shut_down && owners::is_controlled_by(&claim.metadata, uid)
        }
        None => false,
    };
    is_scheduled(pod) && volumes(pod).iter().any(by)
}

/// The claims of a pod that may use them no longer.
fn let_go(change: &Change<Pod>) -> Vec<Key> {
    let of = |pod: &Pod| {
        let claims = volumes(pod).iter().filter_map(|one| claim_of(pod, one));
        let namespace = change.key.namespace.clone();
        claims
            .map(|(name, _)| Key::new(namespace.clone(), name))
            .collect::<Vec<_>>()
    };
    match (&change.old, &change.new) {
        (Some(old), None) => of(old),
        (_, Some(new)) if is_terminal(new) || !is_scheduled(new) => of(new),
        (Some(old), Some(new)) if old.metadata.uid != new.metadata.uid => of(old),
        _ => Vec::new(),
    }
}

/// The caches may lag behind a pod that was just scheduled, so the server has the last word.
async fn claim_used(
    client: Client,
    pods: Informer<Pod>,
    claim: &PersistentVolumeClaim,
) -> Result<bool, Status> {
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let known = pods.list_in(namespace);
    if known.iter().any(|pod| uses(pod, claim)) {
        return Ok(true);
    }
    let live = client.namespaced::<Pod>(namespace);
    let live = live.list(&ListOptions::default()).await?;
    Ok(live.items.iter().any(|pod| uses(pod, claim)))
}

impl<K> Protector<K>
where
    K: Kind,
{
    fn holds(&self, object: &K) -> bool {
        let finalizers = object.metadata().finalizers.as_deref().unwrap_or_default();
        finalizers.iter().any(|own| own == self.finalizer)
    }

    fn feed(&self, queue: &reconcile::Queue<Key>, context: &Context) {
        let finalizer = self.finalizer;
        feed(
            self.name,
            &self.objects,
            queue,
            &context.crew,
            move |change| {
                let Some(object) = &change.new else {
                    return Vec::new();
                };
                let metadata = object.metadata();
                let finalizers = metadata.finalizers.as_deref().unwrap_or_default();
                let held = finalizers.iter().any(|own| own == finalizer);
                let concerns = held == metadata.deletion_timestamp.is_some();
                concerns.then(|| change.key.clone()).into_iter().collect()
            },
        );
    }

    async fn write(&self, mut object: K, held: bool) -> Result<(), Status> {
        let finalizers = &mut object.metadata_mut().finalizers;
        let mut list = finalizers.take().unwrap_or_default();
        match held {
            true => list.push(self.finalizer.to_owned()),
            false => list.retain(|own| own != self.finalizer),
        }
        *finalizers = Some(list);
        match self.client.beside(&object).replace(&object).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }
}

impl<K> Reconcile for Protector<K>
where
    K: Kind,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(object) = self.objects.get_key(key) else {
                return Ok(Outcome::Done);
            };
            let leaves = object.metadata().deletion_timestamp.is_some();
            match (leaves, self.holds(&object)) {
                (true, true) if !(self.used)(&object).await? => {
                    self.write(object.as_ref().clone(), false).await?;
                }
                (false, false) => self.write(object.as_ref().clone(), true).await?,
                _ => {}
            }
            Ok(Outcome::Done)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read<K: serde::de::DeserializeOwned>(tree: Value) -> K {
        serde_json::from_value(tree).unwrap()
    }

    #[test]
    fn a_claim_is_used_by_scheduled_pods() {
        let check = |metadata: Value, node: &str, volume: Value, expected: bool| {
            let mut metadata = metadata;
            metadata["name"] = "web".into();
            metadata["uid"] = "u".into();
            let pod: Pod = read(json!({"metadata": metadata,
                "spec": {"nodeName": node, "containers": [], "volumes": [volume]}}));
            let own = json!([{"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u",
                "controller": true}]);
            let claim: PersistentVolumeClaim =
                read(json!({"metadata": {"name": "web-v", "ownerReferences": own}}));
            assert_eq!(uses(&pod, &claim), expected, "{volume}");
        };
        let by_name = json!({"name": "v", "persistentVolumeClaim": {"claimName": "web-v"}});
        check(json!({}), "n1", by_name.clone(), true);
        check(json!({}), "", by_name.clone(), false);
        let other = json!({"name": "v", "persistentVolumeClaim": {"claimName": "x"}});
        check(json!({}), "n1", other, false);
        let own = json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}});
        check(json!({}), "n1", own.clone(), true);
        let ending = json!({"deletionTimestamp": "2026-01-01T00:00:00Z",
            "deletionGracePeriodSeconds": 0});
        check(ending.clone(), "n1", own, false);
        check(ending, "n1", by_name, true);
        check(json!({}), "n1", json!({"name": "v", "emptyDir": {}}), false);
    }

    #[test]
    fn classes_are_used_until_the_last_one_left() {
        let claim: PersistentVolumeClaim = read(json!({
            "spec": {"volumeAttributesClassName": "gold"},
            "status": {"currentVolumeAttributesClassName": "gold",
                "modifyVolumeStatus": {"status": "Pending",
                    "targetVolumeAttributesClassName": "iron"}}}));
        assert_eq!(claim_classes(&claim), ["gold", "iron"]);
        let change = |old: Value, new: Option<Value>| Change::<PersistentVolume> {
            key: Key::new("", "v"),
            old: Some(Arc::new(read(old))),
            new: new.map(|new| Arc::new(read(new))),
        };
        let of = |name: &str| json!({"spec": {"volumeAttributesClassName": name}});
        let moved = lost(&change(of("a"), Some(of("b"))), volume_classes);
        assert_eq!(moved, [Key::new("", "a")]);
        assert!(lost(&change(of("a"), Some(of("a"))), volume_classes).is_empty());
        assert_eq!(
            lost(&change(of("a"), None), volume_classes),
            [Key::new("", "a")]
        );
    }
}
