//! Counts what namespaces with quotas use, whenever something in them comes, goes or grows.
//!
//! Namespaces without quotas cost nothing: pods come from the shared cache, other resources are
//! followed only once a quota counts them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use admission::quota;
use base::Crew;
use client::{Change, Client, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use meta::{Object, Status};
use parking_lot::Mutex;
use reconcile::{Outcome, Queue, Reconcile, feed};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::discovery::{self, Resource};
use super::monitor::{self, ItemMeta, Sink};
use crate::context::Context;
use crate::pods;

const NAME: &str = "resourcequota-controller";
const WORKERS: usize = 5;
/// Changes that come together are counted together.
const GATHER: Duration = Duration::from_millis(100);
/// Safety net: some usage ends by the clock alone.
const RECOUNT: Duration = Duration::from_secs(300);
/// Between two looks at what is served, for names of quotas that nothing serves.
const REDISCOVER: Duration = Duration::from_secs(30);
const PODS: &str = "pods";
/// Resources whose objects take more than their number.
const WEIGHED: [&str; 2] = ["services", "persistentvolumeclaims"];

struct Controller {
    client: Client,
    quotas: Informer<ResourceQuota>,
    pods: Informer<Pod>,
    served: Mutex<Served>,
    followed: Mutex<HashSet<String>>,
    bell: Arc<Bell>,
    crew: Crew,
}

/// Resources by `plural.group`, as of some time.
#[derive(Default)]
struct Served {
    resources: HashMap<String, Arc<Resource>>,
    at: Option<Instant>,
}

/// Rings for a namespace when an object of a followed resource changes in it.
struct Bell {
    quotas: Informer<ResourceQuota>,
    queue: Queue<Key>,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let queue = context.queue();
    let quotas: Informer<ResourceQuota> = context.hub.informer();
    let bell = Arc::new(Bell {
        quotas: quotas.clone(),
        queue: queue.clone(),
    });
    let controller = Controller {
        client: context.client(NAME),
        quotas: quotas.clone(),
        pods: context.hub.informer(),
        served: Mutex::default(),
        followed: Mutex::default(),
        bell: bell.clone(),
        crew: context.crew.clone(),
    };
    feed(NAME, &quotas, &queue, &context.crew, |change| {
        let spec = |quota: &Option<Arc<ResourceQuota>>| quota.as_ref()?.spec.clone();
        let changed = change.old.is_none() || spec(&change.old) != spec(&change.new);
        let namespace = changed.then(|| Key::new("", change.key.namespace.clone()));
        namespace.into_iter().collect()
    });
    feed(
        NAME,
        &controller.pods,
        &queue,
        &context.crew,
        move |change| {
            if weighs_otherwise(change) {
                bell.ring(&change.key.namespace);
            }
            Vec::new()
        },
    );
    let pods = controller.pods.clone();
    context.drive(Arc::new(controller), &queue, WORKERS, async move {
        quotas.synced().await;
        pods.synced().await;
    });
}

/// Whether a change of a pod can change what it counts for.
fn weighs_otherwise(change: &Change<Pod>) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else {
        return true;
    };
    let leaving = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
    old.metadata.uid != new.metadata.uid
        || pods::is_terminal(old) != pods::is_terminal(new)
        || leaving(old) != leaving(new)
        || old.spec != new.spec
}

impl Bell {
    fn ring(&self, namespace: &str) {
        if !self.quotas.list_in(namespace).is_empty() {
            self.queue.add_after(Key::new("", namespace), GATHER);
        }
    }

    fn ring_all(&self) {
        let quotas = self.quotas.list();
        let namespaces = quotas
            .iter()
            .filter_map(|quota| quota.metadata.namespace.as_deref());
        for namespace in namespaces.collect::<BTreeSet<_>>() {
            self.queue.add_after(Key::new("", namespace), GATHER);
        }
    }
}

impl Sink for Bell {
    fn replace(&self, _: &Arc<Resource>, _: Vec<ItemMeta>) {
        self.ring_all();
    }

    fn put(&self, _: &Arc<Resource>, item: ItemMeta) {
        self.ring(&item.namespace);
    }

    fn remove(&self, _: &Arc<Resource>, item: ItemMeta) {
        self.ring(&item.namespace);
    }
}

/// What the objects of each resource take from a quota: `status.used`. Pure.
fn used(quota: &Object, objects: &HashMap<String, Vec<Object>>) -> BTreeMap<String, Quantity> {
    let mut sum = BTreeMap::new();
    for (resource, objects) in objects {
        let taken = quota::used(quota, resource, objects);
        sum.extend(
            taken
                .into_iter()
                .map(|(name, amount)| (name, Quantity(amount.to_string()))),
        );
    }
    sum
}

/// The resources that the names of `spec.hard` count.
fn counted(quota: &ResourceQuota) -> BTreeSet<String> {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    let names = hard.into_iter().flat_map(BTreeMap::keys);
    names
        .filter_map(|name| quota::counted_resource(name))
        .collect()
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let quotas = self.quotas.list_in(&key.name);
            if quotas.is_empty() {
                return Ok(Outcome::Done);
            }
            let mut objects = HashMap::new();
            for resource in quotas.iter().flat_map(|quota| counted(quota)) {
                if objects.contains_key(&resource) {
                    continue;
                }
                if let Some(found) = self.objects(&resource, &key.name).await? {
                    objects.insert(resource, found);
                }
            }
            for quota in quotas {
                self.write(&quota, &objects).await?;
            }
            Ok(Outcome::After(RECOUNT))
        })
    }
}

impl Controller {
    async fn write(
        &self,
        quota: &ResourceQuota,
        objects: &HashMap<String, Vec<Object>>,
    ) -> Result<(), Status> {
        let tree = Object(serde_json::to_value(quota).map_err(Status::internal)?);
        let used = used(&tree, objects);
        let mut next = quota.clone();
        let status = next.status.get_or_insert_default();
        status.hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone());
        status.used = Some(used);
        if next.status == quota.status {
            return Ok(());
        }
        match self.client.beside(quota).replace_status(&next).await {
            Ok(written) => self.quotas.absorb(written),
            Err(status) if status.is_not_found() => {}
            Err(status) => return Err(status),
        }
        Ok(())
    }

    /// A namespace's objects of a resource; `None` when nothing of that name is served.
    async fn objects(&self, name: &str, namespace: &str) -> Result<Option<Vec<Object>>, Status> {
        if name == PODS {
            let pods = self.pods.list_in(namespace);
            let trees = pods.iter().map(serde_json::to_value);
            let trees: Result<Vec<Value>, _> = trees.collect();
            let trees = trees.map_err(Status::internal)?;
            return Ok(Some(trees.into_iter().map(Object).collect()));
        }
        let Some(resource) = self.resource(name).await? else {
            return Ok(None);
        };
        self.follow(name, &resource);
        let path = resource.path(namespace);
        if WEIGHED.contains(&name) {
            let trees = monitor::list_whole(&self.client, &path).await?;
            return Ok(Some(trees.into_iter().map(Object).collect()));
        }
        let (items, _) = monitor::list(&self.client, &path).await?;
        // Only their number counts.
        Ok(Some(items.iter().map(|_| Object(json!({}))).collect()))
    }

    async fn resource(&self, name: &str) -> Result<Option<Arc<Resource>>, Status> {
        {
            let served = self.served.lock();
            if let Some(resource) = served.resources.get(name) {
                return Ok(Some(resource.clone()));
            }
            if served.at.is_some_and(|at| at.elapsed() < REDISCOVER) {
                return Ok(None);
            }
        }
        let found = discovery::served(&self.client).await?.resources.into_iter();
        let countable = found.filter(|one| one.namespaced && one.can(&["list", "watch"]));
        let mut served = self.served.lock();
        served.resources = countable.map(|one| (one.group_resource(), one)).collect();
        served.at = Some(Instant::now());
        Ok(served.resources.get(name).cloned())
    }

    fn follow(&self, name: &str, resource: &Arc<Resource>) {
        if self.followed.lock().insert(name.to_owned()) {
            let (client, stop) = (self.client.clone(), self.crew.stop());
            let task = monitor::follow(client, resource.clone(), self.bell.clone(), stop);
            self.crew.spawn(format!("{NAME} follows {name}"), task);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_used_by_all_its_resources() {
        let quota = json!({"spec": {"hard": {"pods": "5", "requests.cpu": "2", "configmaps": "3",
            "count/jobs.batch": "1", "services": "2"}}});
        let pod = || {
            Object(json!({"spec": {"containers": [
                {"name": "c", "resources": {"requests": {"cpu": "250m"}}}]}}))
        };
        let objects = HashMap::from([
            ("pods".to_owned(), vec![pod(), pod()]),
            ("configmaps".to_owned(), vec![Object(json!({}))]),
            ("services".to_owned(), vec![]),
        ]);
        let shown: Vec<String> = used(&Object(quota.clone()), &objects)
            .into_iter()
            .map(|(name, amount)| format!("{name}={}", amount.0))
            .collect();
        assert_eq!(
            shown,
            ["configmaps=1", "pods=2", "requests.cpu=500m", "services=0"]
        );
        let typed: ResourceQuota = serde_json::from_value(quota).unwrap();
        let counted: Vec<String> = counted(&typed).into_iter().collect();
        assert_eq!(counted, ["configmaps", "jobs.batch", "pods", "services"]);
    }

    #[test]
    fn only_what_weighs_is_counted_again() {
        let pod = |phase: &str, ip: &str| {
            let tree = json!({"metadata": {"uid": "1"}, "status": {"phase": phase, "podIP": ip}});
            Some(Arc::new(serde_json::from_value::<Pod>(tree).unwrap()))
        };
        let change = |old, new| {
            weighs_otherwise(&Change {
                key: Key::new("a", "b"),
                old,
                new,
            })
        };
        assert!(!change(pod("Running", "1"), pod("Running", "2")));
        assert!(change(pod("Running", "1"), pod("Failed", "1")));
        assert!(change(None, pod("Running", "1")) && change(pod("Running", "1"), None));
    }
}
