//! Keeps the status of disruption budgets: how many pods may be evicted now.

mod plan;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::{Change, Client, Informer, Key, Kind};
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;
use meta::Status;
use parking_lot::Mutex;
use reconcile::owners::controller_of;
use reconcile::{Outcome, Queue, Reconcile, Recorder, feed};

use super::discovery::{self, Resource};
use crate::context::Context;
use crate::pods;
use plan::{Expected, asks_controllers};

const NAME: &str = "disruption-controller";
/// Upstream's name in events.
const COMPONENT: &str = "controllermanager";
const WORKERS: usize = 4;
/// Changes that come together are counted together.
const GATHER: Duration = Duration::from_millis(20);

struct Controller {
    client: Client,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    stateful_sets: Informer<StatefulSet>,
    replication_controllers: Informer<ReplicationController>,
    recorder: Recorder,
    /// Served resources by group and kind, looked up when a controller is of another kind.
    served: Mutex<HashMap<(String, String), Arc<Resource>>>,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let queue = context.queue();
    let client = context.client(NAME);
    let hub = &context.hub;
    let controller = Arc::new(Controller {
        client: client.clone(),
        budgets: hub.informer(),
        pods: hub.informer(),
        deployments: hub.informer(),
        replica_sets: hub.informer(),
        stateful_sets: hub.informer(),
        replication_controllers: hub.informer(),
        recorder: Recorder::start(client, COMPONENT, "", &context.crew),
        served: Mutex::default(),
    });
    feed(NAME, &controller.budgets, &queue, &context.crew, |change| {
        vec![change.key.clone()]
    });
    watch_pods(context, &controller, &queue);
    let budgets = &controller.budgets;
    watch_scale(context, &controller.deployments, budgets, &queue, |one| {
        one.spec.as_ref()?.replicas
    });
    watch_scale(context, &controller.replica_sets, budgets, &queue, |one| {
        one.spec.as_ref()?.replicas
    });
    watch_scale(context, &controller.stateful_sets, budgets, &queue, |one| {
        one.spec.as_ref()?.replicas
    });
    watch_scale(
        context,
        &controller.replication_controllers,
        budgets,
        &queue,
        |one| one.spec.as_ref()?.replicas,
    );
    let synced = controller.clone();
    context.drive(controller, &queue, WORKERS, async move {
        synced.budgets.synced().await;
        synced.pods.synced().await;
        synced.deployments.synced().await;
        synced.replica_sets.synced().await;
        synced.stateful_sets.synced().await;
        synced.replication_controllers.synced().await;
    });
}

fn watch_pods(context: &Context, controller: &Controller, queue: &Queue<Key>) {
    let (budgets, later) = (controller.budgets.clone(), queue.clone());
    feed(
        NAME,
        &controller.pods,
        queue,
        &context.crew,
        move |change| {
            if counts_alike(change) {
                return Vec::new();
            }
            for budget in budgets.list_in(&change.key.namespace) {
                let pods = [&change.old, &change.new].into_iter().flatten();
                if pods.into_iter().any(|pod| covers(&budget, pod)) {
                    later.add_after(Key::of(budget.as_ref()), GATHER);
                }
            }
            Vec::new()
        },
    );
}

/// Whether a pod means the same to every budget before and after a change.
fn counts_alike(change: &Change<Pod>) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else {
        return false;
    };
    let owner = |pod: &Pod| controller_of(&pod.metadata).map(|owner| owner.uid.clone());
    old.metadata.uid == new.metadata.uid
        && old.metadata.labels == new.metadata.labels
        && old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
        && pods::is_ready(old) == pods::is_ready(new)
        && owner(old) == owner(new)
}

/// A changed scale concerns the budgets beside it.
fn watch_scale<K: Kind>(
    context: &Context,
    informer: &Informer<K>,
    budgets: &Informer<PodDisruptionBudget>,
    queue: &Queue<Key>,
    replicas: fn(&K) -> Option<i32>,
) {
    let budgets = budgets.clone();
    feed(NAME, informer, queue, &context.crew, move |change| {
        let scale = |one: &Option<Arc<K>>| one.as_deref().map(replicas);
        if scale(&change.old) == scale(&change.new) {
            return Vec::new();
        }
        let beside = budgets.list_in(&change.key.namespace).into_iter();
        let concerned = beside.filter(|budget| asks_controllers(budget));
        concerned.map(|budget| Key::of(budget.as_ref())).collect()
    });
}

fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    // No selector covers nothing, an empty one everything.
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selector = selector.and_then(pods::selector);
    selector.is_some_and(|selector| pods::matches(&selector, &pod.metadata))
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(budget) = self.budgets.get_key(key) else {
                return Ok(Outcome::Done);
            };
            let mut covered = self.pods.list_in(&key.namespace);
            covered.retain(|pod| covers(&budget, pod));
            if covered.is_empty() {
                let message = "No matching pods found";
                self.recorder.normal(budget.as_ref(), "NoPods", message);
            }
            let now = Timestamp::now();
            let expected = match asks_controllers(&budget) {
                true => self.expected(&key.namespace, &covered).await,
                false => Ok(0),
            };
            let (status, again_in) = match expected {
                Ok(by_controllers) => {
                    plan::plan(&budget, &covered, Expected { by_controllers }, now)
                }
                Err(status) => {
                    let message =
                        format!("Failed to calculate the number of expected pods: {status}");
                    self.recorder.warning(
                        budget.as_ref(),
                        "CalculateExpectedPodCountFailed",
                        message,
                    );
                    let failed = plan::failed(&budget, &status.message, now);
                    self.write(&budget, failed).await?;
                    return Err(status);
                }
            };
            self.write(&budget, status).await?;
            Ok(again_in.map_or(Outcome::Done, Outcome::After))
        })
    }
}

impl Controller {
    async fn write(
        &self,
        budget: &PodDisruptionBudget,
        status: PodDisruptionBudgetStatus,
    ) -> Result<(), Status> {
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut next = budget.clone();
        next.status = Some(status);
        match self.client.beside(budget).replace_status(&next).await {
            Ok(written) => self.budgets.absorb(written),
            Err(status) if status.is_not_found() => {}
            Err(status) => return Err(status),
        }
        Ok(())
    }

    /// How many pods the controllers of `covered` ask for; pods without one do not count.
    async fn expected(&self, namespace: &str, covered: &[Arc<Pod>]) -> Result<i32, Status> {
        let mut known = HashSet::new();
        let mut sum = 0i32;
        for pod in covered {
            let Some(owner) = controller_of(&pod.metadata) else {
                continue;
            };
            if !known.insert(owner.uid.clone()) {
                continue;
            }
            let Some((uid, scale)) = self.scale(namespace, owner).await? else {
                continue;
            };
            // Two replica sets of one deployment ask for its pods together.
            if uid == owner.uid || known.insert(uid) {
                sum = sum.saturating_add(scale);
            }
        }
        Ok(sum)
    }

    /// The uid of what decides about the scale, and the scale; `None` when it is gone.
    async fn scale(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<Option<(String, i32)>, Status> {
        let group = owner
            .api_version
            .split_once('/')
            .map_or("", |(group, _)| group);
        let name = owner.name.as_str();
        let found = match (group, owner.kind.as_str()) {
            ("", "ReplicationController") => {
                let found = self.replication_controllers.get(namespace, name);
                found.map(|one| scale_of(one.as_ref(), one.spec.as_ref().and_then(|s| s.replicas)))
            }
            ("apps", "StatefulSet") => {
                let found = self.stateful_sets.get(namespace, name);
                found.map(|one| scale_of(one.as_ref(), one.spec.as_ref().and_then(|s| s.replicas)))
            }
            ("apps", "ReplicaSet") => {
                let Some(set) = self.replica_sets.get(namespace, name) else {
                    return Ok(None);
                };
                if set.metadata.uid.as_deref() != Some(&owner.uid) {
                    return Ok(None);
                }
                return Ok(Some(self.scale_of_set(namespace, &set)));
            }
            _ => return self.scale_subresource(namespace, group, owner).await,
        };
        Ok(found.filter(|(uid, _)| *uid == owner.uid))
    }

    fn scale_of_set(&self, namespace: &str, set: &ReplicaSet) -> (String, i32) {
        let owner = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment");
        let deployment = owner.and_then(|owner| {
            let found = self.deployments.get(namespace, &owner.name)?;
            (found.metadata.uid.as_deref() == Some(&owner.uid)).then_some(found)
        });
        match deployment {
            Some(one) => scale_of(one.as_ref(), one.spec.as_ref().and_then(|s| s.replicas)),
            None => scale_of(set, set.spec.as_ref().and_then(|spec| spec.replicas)),
        }
    }

    /// Any other controller tells by its subresource `scale`.
    async fn scale_subresource(
        &self,
        namespace: &str,
        group: &str,
        owner: &OwnerReference,
    ) -> Result<Option<(String, i32)>, Status> {
        let key = (group.to_owned(), owner.kind.clone());
        let known = self.served.lock().get(&key).cloned();
        let resource = match known {
            Some(known) => known,
            None => {
                let found = discovery::served(&self.client).await?.resources.into_iter();
                let found = found
                    .map(|one| ((one.group.clone(), one.kind.clone()), one))
                    .collect();
                let mut served = self.served.lock();
                *served = found;
                let kind = &owner.kind;
                let unknown = || Status::internal(format!("no matches for kind {kind:?}"));
                served.get(&key).cloned().ok_or_else(unknown)?
            }
        };
        let path = format!("{}/{}/scale", resource.path(namespace), owner.name);
        let scale = match self.client.get_value(&path).await {
            Ok(scale) => scale,
            Err(status) if status.is_not_found() => {
                let (name, plural) = (&owner.name, &resource.plural);
                return Err(Status::internal(format!(
                    "{plural} {name} does not implement the scale subresource"
                )));
            }
            Err(status) => return Err(status),
        };
        let uid = scale.pointer("/metadata/uid").and_then(|uid| uid.as_str());
        if uid != Some(&owner.uid) {
            return Ok(None);
        }
        let replicas = scale
            .pointer("/spec/replicas")
            .and_then(|number| number.as_i64());
        let replicas = i32::try_from(replicas.unwrap_or(0)).unwrap_or(i32::MAX);
        Ok(Some((owner.uid.clone(), replicas)))
    }
}

fn scale_of<K: Kind>(object: &K, replicas: Option<i32>) -> (String, i32) {
    let uid = object.metadata().uid.clone().unwrap_or_default();
    (uid, replicas.unwrap_or(1))
}
