//! Acts on what the graph found worth a look. What it says of an absent owner may be stale, so
//! nothing is deleted before the API was asked, and then only the very object that was looked at.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use client::Client;
use futures::future::BoxFuture;
use meta::Status;
use parking_lot::{Mutex, RwLock};
use reconcile::{Outcome, Queue};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::graph::{FOREGROUND, Graph, ORPHAN, Standing, Task};
use crate::cluster::discovery::Resource;
use crate::cluster::monitor::{Item, ItemMeta, Owner};
use crate::cluster::worker::Work;

/// Owners remembered to be absent, so that many dependents of one ask only once.
const ABSENT_MAX: usize = 4096;
const MERGE_PATCH: &str = "application/merge-patch+json";

/// The collector's state, shared by monitors and workers.
pub(super) struct Collector {
    pub client: Client,
    pub graph: RwLock<Graph>,
    pub queue: Queue<Task>,
    /// Resources by group and kind.
    pub kinds: RwLock<HashMap<(String, String), Arc<Resource>>>,
    /// Raised when what is served may have changed.
    pub rediscover: Notify,
    pub absent: Mutex<Absent>,
    /// Owners whose dependents were let go: a dependent that is seen only later, since each resource
    /// has a watch of its own, must not be taken for one that lost its owner.
    pub released: Mutex<Absent>,
}

/// Uids that no object has any more, by the namespace in which they were looked for.
#[derive(Default)]
pub(super) struct Absent {
    known: HashSet<(String, String)>,
    order: VecDeque<(String, String)>,
}

impl Absent {
    fn add(&mut self, uid: &str, namespace: &str) {
        let entry = (uid.to_owned(), namespace.to_owned());
        if self.known.insert(entry.clone()) {
            self.order.push_back(entry);
        }
        while self.order.len() > ABSENT_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    fn contains(&self, uid: &str, namespace: &str) -> bool {
        self.known.contains(&(uid.to_owned(), namespace.to_owned()))
    }
}

/// An object as the API has it now.
struct Live {
    path: String,
    tree: Value,
    meta: ItemMeta,
}

/// An object's owners by how they stand.
#[derive(Default)]
struct Owners {
    solid: usize,
    /// Uids of owners that do not exist.
    dangling: Vec<String>,
    /// Uids of owners that wait for this object to go.
    waiting: Vec<String>,
}

impl Work<Task> for Collector {
    fn work<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            match task {
                Task::Judge(uid) => self.judge(uid).await?,
                Task::Orphan(uid) => self.orphan(uid).await?,
            }
            Ok(Outcome::Done)
        })
    }
}

impl Collector {
    /// Adds what a change of the graph made worth a look.
    pub(super) fn enqueue(&self, tasks: Vec<Task>) {
        for task in tasks {
            self.queue.add(task);
        }
    }

    async fn judge(&self, uid: &str) -> Result<(), Status> {
        let foreground = {
            let graph = self.graph.read();
            match graph.node(uid) {
                None => return Ok(()),
                Some(node) if node.foreground => true,
                Some(node) if node.deleting || graph.is_held(node) => return Ok(()),
                Some(_) => false,
            }
        };
        let Some(live) = self.live(uid).await? else {
            let tasks = self.graph.write().remove(uid);
            self.enqueue(tasks);
            return Ok(());
        };
        if foreground {
            return self.finish_foreground(uid, &live).await;
        }
        if live.meta.deletion_timestamp.is_some() {
            return Ok(());
        }
        let released = self.released_owners(&live.meta);
        if !released.is_empty() {
            return self.drop_owners(&live, &released).await;
        }
        let Some(owners) = self.classify(&live.meta).await? else {
            return Ok(());
        };
        self.decide(uid, &live, &owners).await
    }

    fn released_owners(&self, meta: &ItemMeta) -> Vec<String> {
        let released = self.released.lock();
        let owners = meta.owner_references.iter();
        owners
            .filter(|owner| released.contains(&owner.uid, ""))
            .map(|owner| owner.uid.clone())
            .collect()
    }

    async fn decide(&self, uid: &str, live: &Live, owners: &Owners) -> Result<(), Status> {
        let lost = owners.dangling.len() + owners.waiting.len();
        if lost == 0 {
            return Ok(());
        }
        if owners.solid > 0 {
            let without = [owners.dangling.as_slice(), owners.waiting.as_slice()].concat();
            return self.drop_owners(live, &without).await;
        }
        let dependents = self.graph.read().dependents(uid);
        if owners.waiting.is_empty() || dependents.is_empty() {
            let has = |name: &str| live.meta.finalizers.iter().any(|one| one == name);
            let policy = match () {
                () if has(ORPHAN) => "Orphan",
                () if has(FOREGROUND) => "Foreground",
                () => "Background",
            };
            return self.delete(live, policy).await;
        }
        let circular = {
            let graph = self.graph.read();
            let waits = |uid: &Arc<str>| graph.node(uid).is_some_and(|node| node.foreground);
            dependents.iter().any(waits)
        };
        if circular {
            // The owner waits for this object and this object for the owner: it must not block.
            self.stop_blocking(live).await?;
            let fresh = self.live(uid).await?;
            return match fresh {
                Some(fresh) => self.delete(&fresh, "Foreground").await,
                None => Ok(()),
            };
        }
        self.delete(live, "Foreground").await
    }

    /// How each owner stands; `None` when that cannot be told from the references.
    async fn classify(&self, meta: &ItemMeta) -> Result<Option<Owners>, Status> {
        let mut owners = Owners::default();
        for reference in &meta.owner_references {
            let mut standing = self.graph.read().standing(reference, &meta.namespace);
            if standing == Standing::Unknown {
                let Some(resource) = self.kind_of(reference)? else {
                    return Ok(None);
                };
                if resource.namespaced && meta.namespace.is_empty() {
                    tracing::debug!(name = %meta.name, owner = %reference.name,
                        "an object of the whole cluster cannot have an owner in a namespace");
                    return Ok(None);
                }
                standing = self.ask(&resource, reference, &meta.namespace).await?;
            }
            match standing {
                Standing::Solid => owners.solid += 1,
                Standing::Waiting => owners.waiting.push(reference.uid.clone()),
                Standing::Unknown => owners.dangling.push(reference.uid.clone()),
            }
        }
        Ok(Some(owners))
    }

    fn kind_of(&self, owner: &Owner) -> Result<Option<Arc<Resource>>, Status> {
        let key = (owner.group().to_owned(), owner.kind.clone());
        if let Some(resource) = self.kinds.read().get(&key) {
            return Ok(Some(resource.clone()));
        }
        self.rediscover.notify_one();
        let (version, kind) = (&owner.api_version, &owner.kind);
        Err(Status::internal(format!(
            "no matches for kind {kind:?} in version {version:?}"
        )))
    }

    /// Asks the API for an owner; unknown means that there is none.
    async fn ask(
        &self,
        resource: &Resource,
        owner: &Owner,
        namespace: &str,
    ) -> Result<Standing, Status> {
        let namespace = if resource.namespaced { namespace } else { "" };
        if self.absent.lock().contains(&owner.uid, namespace) {
            return Ok(Standing::Unknown);
        }
        let path = format!("{}/{}", resource.path(namespace), owner.name);
        let found = match self.client.get_value(&path).await {
            Ok(tree) => Some(meta_of(&tree)?),
            Err(status) if status.is_not_found() => None,
            Err(status) => return Err(status),
        };
        match found.filter(|found| found.uid == owner.uid) {
            Some(found) => {
                let waits = found.deletion_timestamp.is_some()
                    && found.finalizers.iter().any(|one| one == FOREGROUND);
                Ok(if waits {
                    Standing::Waiting
                } else {
                    Standing::Solid
                })
            }
            None => {
                self.absent.lock().add(&owner.uid, namespace);
                Ok(Standing::Unknown)
            }
        }
    }

    /// The object of a uid; `None` when it is gone, be it that another has its name.
    async fn live(&self, uid: &str) -> Result<Option<Live>, Status> {
        let path = {
            let graph = self.graph.read();
            let Some(node) = graph.node(uid) else {
                return Ok(None);
            };
            format!("{}/{}", node.resource.path(&node.namespace), node.name)
        };
        match self.client.get_value(&path).await {
            Ok(tree) => {
                let meta = meta_of(&tree)?;
                Ok((meta.uid == uid).then_some(Live { path, tree, meta }))
            }
            Err(status) if status.is_not_found() => Ok(None),
            Err(status) => Err(status),
        }
    }

    async fn finish_foreground(&self, uid: &str, live: &Live) -> Result<(), Status> {
        let blocking = self.graph.read().blocking(uid);
        if blocking.is_empty() {
            return self.drop_finalizer(live, FOREGROUND).await;
        }
        let graph = self.graph.read();
        for dependent in blocking {
            if graph.node(&dependent).is_some_and(|node| !node.foreground) {
                self.queue.add(Task::Judge(dependent));
            }
        }
        Ok(())
    }

    async fn orphan(&self, uid: &str) -> Result<(), Status> {
        let dependents = {
            let graph = self.graph.read();
            match graph.node(uid) {
                Some(node) if node.orphaning => graph.dependents(uid),
                _ => return Ok(()),
            }
        };
        self.released.lock().add(uid, "");
        for dependent in dependents {
            if let Some(live) = self.live(&dependent).await? {
                self.drop_owners(&live, &[uid.to_owned()]).await?;
            }
        }
        match self.live(uid).await? {
            Some(live) => self.drop_finalizer(&live, ORPHAN).await,
            None => Ok(()),
        }
    }

    async fn drop_owners(&self, live: &Live, uids: &[String]) -> Result<(), Status> {
        let known = references(&live.tree);
        let gone = |one: &&Value| {
            one["uid"]
                .as_str()
                .is_some_and(|uid| uids.iter().any(|u| u == uid))
        };
        let left: Vec<&Value> = known.iter().filter(|one| !gone(one)).collect();
        if left.len() == known.len() {
            return Ok(());
        }
        self.patch(live, json!({ "ownerReferences": left })).await
    }

    async fn stop_blocking(&self, live: &Live) -> Result<(), Status> {
        let mut references = references(&live.tree).to_vec();
        for reference in &mut references {
            reference["blockOwnerDeletion"] = false.into();
        }
        self.patch(live, json!({ "ownerReferences": references }))
            .await
    }

    async fn drop_finalizer(&self, live: &Live, finalizer: &str) -> Result<(), Status> {
        let known = live.meta.finalizers.iter();
        let left: Vec<&String> = known.filter(|one| *one != finalizer).collect();
        if left.len() == live.meta.finalizers.len() {
            return Ok(());
        }
        self.patch(live, json!({ "finalizers": left })).await
    }

    /// Merges into the metadata of exactly the object that was read.
    async fn patch(&self, live: &Live, mut metadata: Value) -> Result<(), Status> {
        metadata["uid"] = live.meta.uid.as_str().into();
        metadata["resourceVersion"] = live.meta.resource_version.as_str().into();
        let body =
            serde_json::to_vec(&json!({ "metadata": metadata })).map_err(Status::internal)?;
        match self.client.patch_value(&live.path, MERGE_PATCH, body).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }

    async fn delete(&self, live: &Live, policy: &str) -> Result<(), Status> {
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions",
            "propagationPolicy": policy, "preconditions": {
                "uid": live.meta.uid, "resourceVersion": live.meta.resource_version}});
        tracing::debug!(path = %live.path, policy, "collected");
        match self.client.delete_value(&live.path, Some(options)).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }
}

fn meta_of(tree: &Value) -> Result<ItemMeta, Status> {
    use serde::Deserialize;
    let item = Item::deserialize(tree).map_err(Status::internal)?;
    Ok(item.metadata)
}

fn references(tree: &Value) -> &[Value] {
    let found = tree.pointer("/metadata/ownerReferences");
    found.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
