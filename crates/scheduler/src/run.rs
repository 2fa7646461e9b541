//! The loop: changes in, decisions out.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base::Crew;
use client::{Change, Client, Hub, Patch, Selection, Subscription, WriteOptions};
use k8s_openapi::api::core::v1::{Node, Pod};
use meta::Status;
use reconcile::Recorder;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cycle::{self, Failure};
use crate::node::NodeView;
use crate::plugins::PLUGINS;
use crate::queue::{Event, Queue};

/// Bindings under way at once; more wait, and with them the cycles.
const BINDINGS_MAX: usize = 64;

/// Settings of a scheduler.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pods whose `spec.schedulerName` is this are ours.
    pub scheduler_name: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            scheduler_name: "default-scheduler".into(),
        }
    }
}

/// How a binding ended.
struct Bound {
    pod: Arc<Pod>,
    node: String,
    outcome: Result<(), Status>,
}

struct Scheduler {
    client: Client,
    config: Config,
    crew: Crew,
    recorder: Recorder,
    nodes: BTreeMap<String, NodeView>,
    /// Which node each pod is counted on, by uid.
    placed: HashMap<String, String>,
    pending: HashMap<String, Arc<Pod>>,
    queue: Queue,
    bound: mpsc::Sender<Bound>,
    bindings: usize,
    rotation: usize,
}

/// Schedules until the crew stops.
pub async fn run(client: Client, config: Config, crew: &Crew) {
    let hub = Hub::new(client.clone(), crew);
    let nodes = hub.informer::<Node>();
    // Ended pods use nothing and want nothing.
    let alive = "status.phase!=Succeeded,status.phase!=Failed";
    let pods = hub.informer_of::<Pod>(Selection {
        field_selector: Some(alive.into()),
        ..Selection::default()
    });
    nodes.synced().await;
    pods.synced().await;
    let (sender, receiver) = mpsc::channel(BINDINGS_MAX);
    let scheduler = Scheduler {
        recorder: Recorder::start(client.clone(), "default-scheduler", "", crew),
        client,
        config,
        crew: crew.clone(),
        nodes: BTreeMap::new(),
        placed: HashMap::new(),
        pending: HashMap::new(),
        queue: Queue::default(),
        bound: sender,
        bindings: 0,
        rotation: 0,
    };
    scheduler
        .work(nodes.subscribe(), pods.subscribe(), receiver)
        .await;
}

impl Scheduler {
    async fn work(
        mut self,
        mut nodes: Subscription<Node>,
        mut pods: Subscription<Pod>,
        mut bound: mpsc::Receiver<Bound>,
    ) {
        let stop = self.crew.stop();
        while !stop.is_raised() {
            // All news before the next decision.
            while let Some(change) = nodes.try_next() {
                self.node_changed(change);
            }
            while let Some(change) = pods.try_next() {
                self.pod_changed(change);
            }
            while let Ok(end) = bound.try_recv() {
                self.binding_ended(end);
            }
            if self.bindings < BINDINGS_MAX
                && let Some(uid) = self.queue.take(Instant::now())
            {
                self.schedule(&uid);
                tokio::task::yield_now().await;
                continue;
            }
            let due = self.queue.next_due();
            let timer = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(change) = nodes.next() => self.node_changed(change),
                Some(change) = pods.next() => self.pod_changed(change),
                Some(end) = bound.recv() => self.binding_ended(end),
                () = timer => {}
                () = stop.raised() => {}
            }
        }
    }

    fn node_changed(&mut self, change: Change<Node>) {
        let name = change.key.name;
        match change.new {
            Some(node) => {
                let event = match &change.old {
                    None => Some(Event::NodeAdded),
                    Some(old) => matters(old, &node).then_some(Event::NodeChanged),
                };
                self.nodes.entry(name).or_default().set_node(node);
                if let Some(event) = event {
                    self.queue.wake(event, Instant::now());
                }
            }
            None => {
                let view = self.nodes.entry(name.clone()).or_default();
                view.node = None;
                if view.pod_count() == 0 {
                    self.nodes.remove(&name);
                }
            }
        }
    }

    fn pod_changed(&mut self, change: Change<Pod>) {
        for gone in change.old.iter().filter(|old| {
            change
                .new
                .as_ref()
                .is_none_or(|new| new.metadata.uid != old.metadata.uid)
        }) {
            self.forget(uid(gone));
        }
        let Some(pod) = change.new else { return };
        let id = uid(&pod).to_owned();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        match node.filter(|node| !node.is_empty()) {
            Some(node) => {
                self.queue.remove(&id);
                self.pending.remove(&id);
                self.place(&id, &node, pod);
            }
            None if self.is_ours(&pod) => {
                let priority = pod
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.priority)
                    .unwrap_or(0);
                let assumed = self.placed.contains_key(&id);
                let known = self.pending.insert(id.clone(), pod.clone());
                let changed = known.as_ref().is_some_and(|known| known.spec != pod.spec);
                match (assumed, changed) {
                    (true, _) => {}
                    (false, true) => self.queue.update(&id, priority),
                    (false, false) => self.queue.add(&id, priority),
                }
            }
            None => {
                self.pending.remove(&id);
                self.queue.remove(&id);
            }
        }
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return false };
        let name = spec
            .scheduler_name
            .as_deref()
            .unwrap_or("default-scheduler");
        let gated = spec
            .scheduling_gates
            .as_ref()
            .is_some_and(|gates| !gates.is_empty());
        name == self.config.scheduler_name && !gated && pod.metadata.deletion_timestamp.is_none()
    }

    fn place(&mut self, id: &str, node: &str, pod: Arc<Pod>) {
        if self.placed.get(id).is_some_and(|known| known != node) {
            self.unplace(id);
        }
        self.placed.insert(id.to_owned(), node.to_owned());
        self.nodes
            .entry(node.to_owned())
            .or_default()
            .add_pod(id, pod);
    }

    fn unplace(&mut self, id: &str) -> bool {
        let Some(node) = self.placed.remove(id) else {
            return false;
        };
        let Some(view) = self.nodes.get_mut(&node) else {
            return false;
        };
        let removed = view.remove_pod(id);
        if view.node.is_none() && view.pod_count() == 0 {
            self.nodes.remove(&node);
        }
        removed
    }

    fn forget(&mut self, id: &str) {
        self.queue.remove(id);
        self.pending.remove(id);
        if self.unplace(id) {
            self.queue.wake(Event::PodRemoved, Instant::now());
        }
    }

    fn schedule(&mut self, id: &str) {
        let Some(pod) = self.pending.get(id).cloned() else {
            self.queue.remove(id);
            return;
        };
        let nodes: Vec<&NodeView> = self
            .nodes
            .values()
            .filter(|view| view.node.is_some())
            .collect();
        self.rotation = self.rotation.wrapping_add(1);
        let tie = |count: usize| rand::random_range(0..count);
        match cycle::schedule(&pod, &nodes, self.rotation, tie) {
            Ok(node) => self.bind(id, pod, node),
            Err(failure) => self.refuse(id, &pod, &failure),
        }
    }

    /// Counts the pod on its node at once and tells the API in the background.
    fn bind(&mut self, id: &str, pod: Arc<Pod>, node: String) {
        self.place(id, &node, pod.clone());
        self.bindings += 1;
        let (client, sender) = (self.client.clone(), self.bound.clone());
        self.crew.spawn("binding", async move {
            let name = pod.metadata.name.clone().unwrap_or_default();
            let body = json!({
                "apiVersion": "v1", "kind": "Binding",
                "metadata": {"name": name, "namespace": pod.metadata.namespace,
                    "uid": pod.metadata.uid},
                "target": {"apiVersion": "v1", "kind": "Node", "name": node},
            });
            let api = client.beside(pod.as_ref());
            let outcome = api
                .create_subresource(&name, "binding", &body)
                .await
                .map(drop);
            // The receiver lives as long as the loop; without it nobody asks.
            drop(sender.send(Bound { pod, node, outcome }).await);
        });
    }

    fn binding_ended(&mut self, end: Bound) {
        self.bindings -= 1;
        let id = uid(&end.pod).to_owned();
        match end.outcome {
            Ok(()) => {
                let name = client::Key::of(end.pod.as_ref());
                let message = format!("Successfully assigned {name} to {}", end.node);
                self.recorder.normal(end.pod.as_ref(), "Scheduled", message);
                self.queue.remove(&id);
            }
            Err(status) => {
                tracing::debug!(pod = %client::Key::of(end.pod.as_ref()), error = %status, "binding failed");
                let still_waits = self.pending.contains_key(&id);
                self.unplace(&id);
                if still_waits {
                    self.queue.failed(&id, Instant::now());
                }
            }
        }
    }

    fn refuse(&mut self, id: &str, pod: &Arc<Pod>, failure: &Failure) {
        let refusing = PLUGINS
            .iter()
            .filter(|plugin| failure.plugins.contains(&plugin.name()));
        let mut wakes_on: Vec<Event> = refusing
            .flat_map(|plugin| plugin.wakes_on().iter().copied())
            .collect();
        wakes_on.push(Event::NodeAdded);
        self.queue.unschedulable(id, wakes_on, Instant::now());
        let message = failure.to_string();
        self.recorder
            .warning(pod.as_ref(), "FailedScheduling", message.clone());
        let conditions = pod
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        let known = conditions.and_then(|all| all.iter().find(|one| one.type_ == "PodScheduled"));
        if known.is_some_and(|known| known.message.as_deref() == Some(&message)) {
            return;
        }
        let body = json!({"status": {"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": message, "lastTransitionTime": meta::time::now(),
            "observedGeneration": pod.metadata.generation,
        }]}});
        let (client, pod) = (self.client.clone(), pod.clone());
        self.crew.spawn("pod condition", async move {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let api = client.beside(pod.as_ref());
            let patch = Patch::Strategic(body);
            if let Err(status) = api
                .patch_status(name, &patch, &WriteOptions::default())
                .await
            {
                tracing::debug!(pod = name, error = %status, "condition not written");
            }
        });
    }
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Whether a node changed in a way that could let a pod in (heartbeats do not count).
fn matters(old: &Node, new: &Node) -> bool {
    let facts = |node: &Node| {
        let spec = node.spec.clone().unwrap_or_default();
        let allocatable = node
            .status
            .as_ref()
            .and_then(|status| status.allocatable.clone());
        (
            spec.taints,
            spec.unschedulable,
            node.metadata.labels.clone(),
            allocatable,
        )
    };
    facts(old) != facts(new)
}
