//! Removes pods that nobody else will: those of vanished nodes, those that were deleted before
//! they had a node, and the oldest of too many that have ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use client::{Change, Client, DeleteOptions, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod};
use meta::Status;
use reconcile::{Outcome, Queue};

use super::disruption_target::{self, Target};
use super::worker::{Work, employ};
use super::{BY_NODE, node_of, pods_by_node};
use crate::context::Context;
use crate::pods;

const NAME: &str = "pod-garbage-collector";
const WORKERS: usize = 4;
/// So many pods that have ended are kept.
const ENDED_MAX: usize = 12_500;
/// A node must be gone for this long before its pods are.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Surplus is removed in batches.
const SURPLUS_DELAY: Duration = Duration::from_secs(5);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Task {
    /// Is this node gone for good?
    Node(String),
    /// Is this pod forgotten?
    Pod(Key),
    /// Have too many pods ended?
    Surplus,
}

#[derive(Clone)]
struct Controller {
    client: Client,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    ended: Arc<AtomicUsize>,
    queue: Queue<Task>,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let controller = Controller {
        client: context.client(NAME),
        nodes: context.hub.informer(),
        pods: pods_by_node(context),
        ended: Arc::default(),
        queue: Queue::new(context.crew.stop()),
    };
    let crew = context.crew.clone();
    context.crew.spawn(NAME, async move {
        controller.nodes.synced().await;
        controller.pods.synced().await;
        let (on_pods, on_nodes) = (controller.clone(), controller.clone());
        crew.spawn(format!("{NAME} sees Pod"), async move {
            let mut changes = on_pods.pods.subscribe();
            while let Some(change) = changes.next().await {
                on_pods.see_pod(&change);
            }
        });
        crew.spawn(format!("{NAME} sees Node"), async move {
            let mut changes = on_nodes.nodes.subscribe();
            while let Some(change) = changes.next().await {
                on_nodes.see_node(&change);
            }
        });
        let queue = controller.queue.clone();
        employ(NAME, &Arc::new(controller), &queue, WORKERS, &crew);
    });
}

/// The oldest of those that have ended beyond `limit`, evicted ones first. Pure.
fn surplus(mut ended: Vec<Arc<Pod>>, limit: usize) -> Vec<Arc<Pod>> {
    let count = ended.len().saturating_sub(limit);
    let order = |pod: &Arc<Pod>| {
        let status = pod.status.as_ref();
        let evicted = status.and_then(|status| status.reason.as_deref()) == Some("Evicted");
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (!evicted, created, pod.metadata.name.clone())
    };
    if count > 0 {
        ended.sort_by_cached_key(order);
    }
    ended.truncate(count);
    ended
}

/// Whether an administrator has declared that nothing runs on the node any more.
fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    let mut conditions = conditions.unwrap_or_default().iter();
    let ready = conditions.any(|one| one.type_ == "Ready" && one.status == "True");
    !ready
        && taints
            .unwrap_or_default()
            .iter()
            .any(|taint| taint.key == OUT_OF_SERVICE)
}

fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

impl Controller {
    fn see_pod(&self, change: &Change<Pod>) {
        let ended = |pod: &Option<Arc<Pod>>| pod.as_deref().is_some_and(pods::is_terminal);
        match (ended(&change.old), ended(&change.new)) {
            (false, true) if self.ended.fetch_add(1, Ordering::Relaxed) >= ENDED_MAX => {
                self.queue.add_after(Task::Surplus, SURPLUS_DELAY);
            }
            (true, false) => {
                self.ended.fetch_sub(1, Ordering::Relaxed);
            }
            _ => {}
        }
        let Some(pod) = change.new.as_deref() else {
            return;
        };
        match node_of(pod).map(|name| (name, self.nodes.get("", name))) {
            Some((name, None)) => self.queue.add_after(Task::Node(name.into()), QUARANTINE),
            Some((_, Some(node))) if is_terminating(pod) && is_out_of_service(&node) => {
                self.queue.add(Task::Pod(change.key.clone()));
            }
            None if is_terminating(pod) => self.queue.add(Task::Pod(change.key.clone())),
            _ => {}
        }
    }

    fn see_node(&self, change: &Change<Node>) {
        let name = &change.key.name;
        match change.new.as_deref() {
            None => self.queue.add_after(Task::Node(name.clone()), QUARANTINE),
            Some(node) if is_out_of_service(node) => {
                let there = self.pods.by_index(BY_NODE, name);
                for pod in there.iter().filter(|pod| is_terminating(pod)) {
                    self.queue.add(Task::Pod(Key::of(pod.as_ref())));
                }
            }
            Some(_) => {}
        }
    }

    async fn check_node(&self, name: &str) -> Result<(), Status> {
        if self.nodes.get("", name).is_some() || self.pods.by_index(BY_NODE, name).is_empty() {
            return Ok(());
        }
        if self.client.all::<Node>().get_opt(name).await?.is_some() {
            return Ok(());
        }
        let target = Target {
            reason: "DeletionByPodGC",
            message: "PodGC: node no longer exists",
            fail: true,
        };
        for pod in self.pods.by_index(BY_NODE, name) {
            disruption_target::mark(&self.client, &pod, &target).await?;
            self.delete(&pod).await?;
        }
        Ok(())
    }

    async fn check_pod(&self, key: &Key) -> Result<(), Status> {
        let Some(pod) = self.pods.get_key(key).filter(|pod| is_terminating(pod)) else {
            return Ok(());
        };
        let Some(name) = node_of(&pod) else {
            return self.delete(&pod).await;
        };
        let node = self.nodes.get("", name);
        if node.is_some_and(|node| is_out_of_service(&node)) {
            let target = Target {
                reason: "",
                message: "",
                fail: true,
            };
            disruption_target::mark(&self.client, &pod, &target).await?;
            self.delete(&pod).await?;
        }
        Ok(())
    }

    async fn check_surplus(&self) -> Result<(), Status> {
        let ended = self.pods.list().into_iter();
        let ended = ended.filter(|pod| pods::is_terminal(pod) && !is_terminating(pod));
        for pod in surplus(ended.collect(), ENDED_MAX) {
            self.delete(&pod).await?;
        }
        Ok(())
    }

    /// At once: there is no kubelet that could wait for it.
    async fn delete(&self, pod: &Pod) -> Result<(), Status> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            uid: pod.metadata.uid.clone(),
            ..DeleteOptions::default()
        };
        match self.client.beside(pod).delete(name, &options).await {
            Err(status) if !status.is_not_found() && !status.is_conflict() => Err(status),
            _ => Ok(()),
        }
    }
}

impl Work<Task> for Controller {
    fn work<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            match task {
                Task::Node(name) => self.check_node(name).await?,
                Task::Pod(key) => self.check_pod(key).await?,
                Task::Surplus => self.check_surplus().await?,
            }
            Ok(Outcome::Done)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn evicted_and_old_pods_go_first() {
        let pod = |name: &str, at: &str, reason: &str| {
            let tree = json!({"metadata": {"name": name, "creationTimestamp": at},
                "status": {"phase": "Failed", "reason": reason}});
            Arc::new(serde_json::from_value::<Pod>(tree).unwrap())
        };
        let ended = vec![
            pod("young", "2026-01-03T00:00:00Z", ""),
            pod("old", "2026-01-01T00:00:00Z", ""),
            pod("evicted", "2026-01-04T00:00:00Z", "Evicted"),
        ];
        let names = |limit| -> Vec<_> {
            let gone = surplus(ended.clone(), limit);
            gone.iter()
                .filter_map(|pod| pod.metadata.name.clone())
                .collect()
        };
        assert_eq!(names(1), ["evicted", "old"]);
        assert!(names(3).is_empty());
    }

    #[test]
    fn only_unready_nodes_are_out_of_service() {
        let node = |ready: &str, key: &str| -> Node {
            serde_json::from_value(
                json!({"spec": {"taints": [{"key": key, "effect": "NoExecute"}]},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}}),
            )
            .unwrap()
        };
        assert!(is_out_of_service(&node("Unknown", OUT_OF_SERVICE)));
        assert!(!is_out_of_service(&node("True", OUT_OF_SERVICE)));
        assert!(!is_out_of_service(&node("Unknown", "other")));
    }
}
