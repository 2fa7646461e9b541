//! Watches over nodes: taints them by their conditions, and notices when one falls silent.
//!
//! A node is heard of when its lease or the heartbeat of its status changes; the time that counts
//! is this process's own, so neither skewed clocks nor a restart make a node look dead. Each node
//! has one deadline, which looks again when it comes.

mod plan;
mod zones;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Change, Client, Informer, Key, Patch, Selection, WriteOptions};
use futures::future::BoxFuture;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use meta::Status;
use parking_lot::Mutex;
use reconcile::{Outcome, Queue, Reconcile, Recorder, feed};
use serde_json::json;
use tokio::time::Instant;

use super::{BY_NODE, pods_by_node};
use crate::context::Context;
use crate::pods;
use plan::{Plan, Readiness, plan, readiness};
use zones::{Pacer, Stand};

/// The service account, as upstream names it.
const NAME: &str = "node-controller";
const LEASES: &str = "kube-node-lease";
/// One at a time: how a node is judged depends on how the others stand.
const WORKERS: usize = 1;

/// What is known of a node beyond its object.
struct Seen {
    heard: Instant,
    /// Whether users were told of the node.
    registered: bool,
    was_ready: bool,
}

impl Default for Seen {
    fn default() -> Seen {
        Seen {
            heard: Instant::now(),
            registered: false,
            was_ready: false,
        }
    }
}

type SeenNodes = Arc<Mutex<HashMap<String, Seen>>>;

struct Controller {
    client: Client,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    recorder: Recorder,
    seen: SeenNodes,
    pacer: Mutex<Pacer>,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let queue = context.queue();
    let controller = Controller {
        client: context.client(NAME),
        nodes: context.hub.informer(),
        pods: pods_by_node(context),
        recorder: context.recorder(NAME),
        seen: SeenNodes::default(),
        pacer: Mutex::default(),
    };
    watch_nodes(context, &controller, &queue);
    let leases: Informer<Lease> = context.hub.informer_of(Selection {
        namespace: Some(LEASES.into()),
        ..Selection::default()
    });
    let seen = controller.seen.clone();
    // A renewal only moves a deadline, which looks here when it comes.
    feed(NAME, &leases, &queue, &context.crew, move |change| {
        let mut seen = seen.lock();
        match &change.new {
            Some(_) => seen.entry(change.key.name.clone()).or_default().heard = Instant::now(),
            None => drop(seen.remove(&change.key.name)),
        }
        Vec::new()
    });
    let (nodes, pods) = (controller.nodes.clone(), controller.pods.clone());
    context.drive(Arc::new(controller), &queue, WORKERS, async move {
        nodes.synced().await;
        pods.synced().await;
        leases.synced().await;
    });
}

fn watch_nodes(context: &Context, controller: &Controller, queue: &Queue<Key>) {
    let (nodes, seen) = (controller.nodes.clone(), controller.seen.clone());
    let sees = move |change: &Change<Node>| {
        let heartbeat = |node: &Option<Arc<Node>>| {
            let conditions = node.as_ref()?.status.as_ref()?.conditions.as_ref()?;
            let ready = conditions.iter().find(|one| one.type_ == "Ready")?;
            ready.last_heartbeat_time.clone()
        };
        if heartbeat(&change.old) != heartbeat(&change.new) {
            let mut seen = seen.lock();
            seen.entry(change.key.name.clone()).or_default().heard = Instant::now();
        }
        let ready = |node: &Option<Arc<Node>>| node.as_deref().map(readiness);
        let mut keys = vec![change.key.clone()];
        if ready(&change.old) != ready(&change.new) {
            // How a zone stands decides what its unready nodes may expect.
            let unready = nodes.list().into_iter();
            let unready = unready.filter(|node| readiness(node) != Readiness::True);
            keys.extend(unready.map(|node| Key::of(node.as_ref())));
        }
        keys
    };
    feed(NAME, &controller.nodes, queue, &context.crew, sees);
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(node) = self.nodes.get_key(key) else {
                self.seen.lock().remove(&key.name);
                return Ok(Outcome::Done);
            };
            let silence = self.greet(&node, &key.name);
            let stand = self.stand(&node);
            let evict = stand != Stand::Lifted;
            let mut plan = plan(&node, silence, evict, Timestamp::now());
            if !plan.conditions.is_empty() {
                // The change comes back here, and then the zone is judged with it.
                self.write_conditions(&node, &plan).await?;
                return Ok(Outcome::Done);
            }
            let wait = self.pace(&node, stand, &mut plan);
            if let Some(taints) = &plan.taints {
                self.write_taints(&node, taints).await?;
            }
            self.follow_readiness(&node, &key.name).await?;
            let again = [plan.again_in, wait].into_iter().flatten().min();
            Ok(again.map_or(Outcome::Done, Outcome::After))
        })
    }
}

impl Controller {
    /// How long the node has been silent; a node never seen before is announced.
    fn greet(&self, node: &Node, name: &str) -> Duration {
        let mut seen = self.seen.lock();
        let seen = seen.entry(name.to_owned()).or_default();
        if !seen.registered {
            seen.registered = true;
            let message = format!("Node {name} event: Registered Node {name} in Controller");
            self.recorder.normal(node, "RegisteredNode", message);
        }
        seen.heard.elapsed()
    }

    fn stand(&self, node: &Node) -> Stand {
        if readiness(node) == Readiness::True {
            // Nothing to decide, and nothing to count.
            return Stand::Held;
        }
        let nodes = self.nodes.list();
        zones::stand(nodes.iter().map(Arc::as_ref), &zones::zone(node))
    }

    /// Takes back the beginning of an eviction that has no turn yet; returns when it may.
    fn pace(&self, node: &Node, stand: Stand, plan: &mut Plan) -> Option<Duration> {
        if !plan.begins_eviction {
            return None;
        }
        let wait = match stand {
            Stand::Every(every) => {
                let zone = zones::zone(node);
                self.pacer.lock().take(&zone, every, Instant::now()).err()?
            }
            // A node that changes sides wakes all the others.
            Stand::Held | Stand::Lifted => plan::GRACE,
        };
        let known = node.spec.as_ref().and_then(|spec| spec.taints.clone());
        let lesser = plan
            .taints
            .take()
            .map(|taints| plan::without_eviction(&taints));
        plan.taints = lesser.filter(|taints| Some(taints) != known.as_ref());
        Some(wait)
    }

    async fn write_conditions(&self, node: &Node, plan: &Plan) -> Result<(), Status> {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let body = json!({"metadata": {"resourceVersion": node.metadata.resource_version},
            "status": {"conditions": plan.conditions}});
        let api = self.client.all::<Node>();
        let patch = Patch::Strategic(body);
        let written = api
            .patch_status(name, &patch, &WriteOptions::default())
            .await?;
        tracing::info!(node = name, "node fell silent");
        self.nodes.absorb(written);
        Ok(())
    }

    async fn write_taints(&self, node: &Node, taints: &[Taint]) -> Result<(), Status> {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let taints = (!taints.is_empty()).then_some(taints);
        let body = json!({"metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": taints}});
        let api = self.client.all::<Node>();
        let patch = Patch::Merge(body);
        let written = api.patch(name, &patch, &WriteOptions::default()).await?;
        self.nodes.absorb(written);
        Ok(())
    }

    /// A node that is ready no more takes its pods out of service.
    async fn follow_readiness(&self, node: &Node, name: &str) -> Result<(), Status> {
        let (ready, unknown) = match readiness(node) {
            Readiness::Absent => return Ok(()),
            other => (other == Readiness::True, other == Readiness::Unknown),
        };
        let was_ready = self
            .seen
            .lock()
            .get(name)
            .is_some_and(|seen| seen.was_ready);
        // An unready node's kubelet still speaks for its pods, once they were marked; that of an
        // unknown one does not.
        if !ready && (was_ready || unknown) {
            for pod in self.pods.by_index(BY_NODE, name) {
                if pods::is_ready(&pod) {
                    self.mark_not_ready(&pod).await?;
                }
            }
        }
        if was_ready && !ready {
            let message = format!("Node {name} status is now: NodeNotReady");
            self.recorder.normal(node, "NodeNotReady", message);
        }
        if let Some(seen) = self.seen.lock().get_mut(name) {
            seen.was_ready = ready;
        }
        Ok(())
    }

    async fn mark_not_ready(&self, pod: &Pod) -> Result<(), Status> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let body = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [
            {"type": "Ready", "status": "False", "lastTransitionTime": Time(Timestamp::now())}]}});
        let api = self.client.beside(pod);
        let patch = Patch::Strategic(body);
        match api
            .patch_status(name, &patch, &WriteOptions::default())
            .await
        {
            Ok(written) => {
                let message = "Node is not ready";
                self.recorder.warning(pod, "NodeNotReady", message);
                self.pods.absorb(written);
                Ok(())
            }
            // Gone, or replaced by another of its name.
            Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(status) => Err(status),
        }
    }
}
