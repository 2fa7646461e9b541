//! ReplicaSet: keeps a number of pods of one template. ReplicationController does the same.

use std::sync::Arc;

use client::{Client, Informer, Key, Kind};
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use meta::Status;
use reconcile::owners::{controller_of, controllers, is_controlled_by};
use reconcile::{Outcome, Reconcile, feed};

use super::control::{PodControl, settle, write_status};
use super::replica_plan::{Plan, failure_condition, plan};
use crate::context::Context;
use crate::pods;

const WORKERS: usize = 5;

/// A kind that keeps a number of pods, seen as a ReplicaSet.
pub(crate) trait Replicated: Kind {
    /// The controller's service account, by which events name it too.
    const ACCOUNT: &'static str;

    /// As a ReplicaSet, with the same metadata.
    fn as_set(this: &Arc<Self>) -> Arc<ReplicaSet>;

    /// With another status.
    fn with_status(&self, status: ReplicaSetStatus) -> Self;
}

impl Replicated for ReplicaSet {
    const ACCOUNT: &'static str = "replicaset-controller";

    fn as_set(this: &Arc<ReplicaSet>) -> Arc<ReplicaSet> {
        this.clone()
    }

    fn with_status(&self, status: ReplicaSetStatus) -> ReplicaSet {
        ReplicaSet {
            status: Some(status),
            ..self.clone()
        }
    }
}

struct Controller<K> {
    client: Client,
    sets: Informer<K>,
    control: PodControl,
}

/// Starts the controller of ReplicaSets.
pub(crate) fn start(context: &Context) {
    run::<ReplicaSet>(context);
}

/// Starts the controller of one kind.
pub(crate) fn run<K: Replicated>(context: &Context) {
    let queue = context.queue();
    let controller = Controller::<K> {
        client: context.client(K::ACCOUNT),
        sets: context.hub.informer(),
        control: PodControl::new(context, K::ACCOUNT, context.recorder(K::ACCOUNT)),
    };
    let (sets, pods) = (controller.sets.clone(), controller.control.pods.clone());
    feed(K::ACCOUNT, &sets, &queue, &context.crew, |change| {
        vec![change.key.clone()]
    });
    let known = sets.clone();
    feed(K::ACCOUNT, &pods, &queue, &context.crew, move |change| {
        let keys = controllers(change, K::KIND);
        let mut orphans = change.new.iter();
        let Some(orphan) = orphans.find(|pod| controller_of(&pod.metadata).is_none()) else {
            return keys;
        };
        let nearby = known.list_in(&change.key.namespace).into_iter();
        let matching = nearby.filter(|set| selects(&K::as_set(set), orphan));
        keys.into_iter()
            .chain(matching.map(|set| Key::of(set.as_ref())))
            .collect()
    });
    let synced = async move {
        sets.synced().await;
        pods.synced().await;
    };
    context.drive(Arc::new(controller), &queue, WORKERS, synced);
}

fn selects(set: &ReplicaSet, pod: &Pod) -> bool {
    let spec = set.spec.as_ref();
    let selector = spec.and_then(|spec| pods::selector(&spec.selector));
    selector.is_some_and(|selector| pods::matches(&selector, &pod.metadata))
}

impl<K: Replicated> Reconcile for Controller<K> {
    fn name(&self) -> &'static str {
        K::ACCOUNT
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(object) = self.sets.get_key(key) else {
                return Ok(Outcome::Done);
            };
            let set = K::as_set(&object);
            let candidates = self.control.candidates(&set.metadata);
            let plan = plan(&set, &candidates, Timestamp::now());
            let acted = settle(self.act(object.as_ref(), &set, &plan).await);
            let mut status = plan.status.clone();
            status.conditions = failure_condition(status.conditions, &plan, acted.as_ref().err());
            // Compared as the kind has it: not every kind has every field.
            let changed = Arc::new(object.with_status(status));
            if K::as_set(&changed).status != set.status {
                write_status(&self.client, &self.sets, changed.as_ref()).await?;
            }
            acted?;
            Ok(plan.again_in.map_or(Outcome::Done, Outcome::After))
        })
    }
}

impl<K: Replicated> Controller<K> {
    async fn act(&self, owner: &K, set: &ReplicaSet, plan: &Plan) -> Result<(), Status> {
        self.control.settle_claims(owner, &plan.claims).await?;
        let spec = set.spec.as_ref();
        if let Some(template) = spec.and_then(|spec| spec.template.as_ref()) {
            let made = vec![pods::from_template(template, owner); plan.create];
            self.control.create_all(owner, &made).await?;
        }
        self.control.delete_all(owner, &plan.delete).await
    }
}

/// Whether `pod` counts for `set`.
pub(crate) fn owns(set: &ReplicaSet, pod: &Pod) -> bool {
    is_controlled_by(
        &pod.metadata,
        set.metadata.uid.as_deref().unwrap_or_default(),
    )
}
