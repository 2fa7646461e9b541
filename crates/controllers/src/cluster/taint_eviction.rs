//! Deletes pods that do not, or no longer, tolerate a `NoExecute` taint of their node.
//!
//! Patience is counted from when this process first saw the pod under the taint, as upstream
//! does: after a restart nodes get the time to come back before their pods are given up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, DeleteOptions, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use meta::Status;
use parking_lot::Mutex;
use reconcile::{Outcome, Queue, Reconcile, Recorder, feed};
use tokio::time::Instant;

use super::disruption_target::{self, Target};
use super::{BY_NODE, node_of, pods_by_node};
use crate::context::Context;

const NAME: &str = "taint-eviction-controller";
/// The service account, as upstream has it.
const ACCOUNT: &str = "node-controller";
const WORKERS: usize = 8;

/// How long a pod may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    Forever,
    /// Counted from when the taints were first seen.
    For(Duration),
}

/// How long a pod with these tolerations stays under these taints. Pure.
fn patience(taints: &[Taint], tolerations: &[Toleration]) -> Patience {
    let mut shortest = Patience::Forever;
    for taint in taints.iter().filter(|taint| executes(taint)) {
        // The first that fits counts, as in upstream.
        let Some(toleration) = tolerations.iter().find(|one| fit::tolerates(one, taint)) else {
            return Patience::For(Duration::ZERO);
        };
        let Some(seconds) = toleration.toleration_seconds else {
            continue;
        };
        let this = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        shortest = match shortest {
            Patience::For(known) => Patience::For(known.min(this)),
            Patience::Forever => Patience::For(this),
        };
    }
    shortest
}

fn executes(taint: &Taint) -> bool {
    taint.effect == "NoExecute"
}

fn taints_of(node: &Node) -> Vec<&Taint> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
    let taints = taints.unwrap_or_default().iter();
    taints.filter(|taint| executes(taint)).collect()
}

/// Pods that are on their way out: their uid, and since when.
type Leaving = Arc<Mutex<HashMap<Key, (String, Instant)>>>;

struct Controller {
    client: Client,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    recorder: Recorder,
    leaving: Leaving,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let queue = context.queue();
    let client = context.client(ACCOUNT);
    let controller = Controller {
        client: client.clone(),
        nodes: context.hub.informer(),
        pods: pods_by_node(context),
        recorder: Recorder::start(client, NAME, "", &context.crew),
        leaving: Leaving::default(),
    };
    watch(context, &controller, &queue);
    let (nodes, pods) = (controller.nodes.clone(), controller.pods.clone());
    context.drive(Arc::new(controller), &queue, WORKERS, async move {
        nodes.synced().await;
        pods.synced().await;
    });
}

fn watch(context: &Context, controller: &Controller, queue: &Queue<Key>) {
    let pods = controller.pods.clone();
    feed(
        NAME,
        &controller.nodes,
        queue,
        &context.crew,
        move |change| {
            let taints = |node: &Option<Arc<Node>>| -> Vec<Taint> {
                let taints = node.as_deref().map(taints_of).unwrap_or_default();
                taints.into_iter().cloned().collect()
            };
            if taints(&change.old) == taints(&change.new) {
                return Vec::new();
            }
            let there = pods.by_index(BY_NODE, &change.key.name);
            there.iter().map(|pod| Key::of(pod.as_ref())).collect()
        },
    );
    let (nodes, leaving) = (controller.nodes.clone(), controller.leaving.clone());
    feed(
        NAME,
        &controller.pods,
        queue,
        &context.crew,
        move |change| {
            let tainted = change.new.as_deref().and_then(node_of).is_some_and(|name| {
                let node = nodes.get("", name);
                node.is_some_and(|node| !taints_of(&node).is_empty())
            });
            let concerned = tainted || leaving.lock().contains_key(&change.key);
            concerned.then(|| change.key.clone()).into_iter().collect()
        },
    );
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(pod) = self.pods.get_key(key) else {
                self.leaving.lock().remove(key);
                return Ok(Outcome::Done);
            };
            if pod.metadata.deletion_timestamp.is_some() {
                self.leaving.lock().remove(key);
                return Ok(Outcome::Done);
            }
            let node = node_of(&pod).and_then(|name| self.nodes.get("", name));
            let taints = node
                .as_ref()
                .and_then(|node| node.spec.as_ref()?.taints.clone());
            let spec = pod.spec.as_ref();
            let tolerations = spec.and_then(|spec| spec.tolerations.as_deref());
            match patience(&taints.unwrap_or_default(), tolerations.unwrap_or_default()) {
                Patience::Forever => {
                    self.stays(key, &pod);
                    Ok(Outcome::Done)
                }
                Patience::For(patience) => {
                    let left = patience.saturating_sub(self.since(key, &pod).elapsed());
                    if !left.is_zero() {
                        return Ok(Outcome::After(left));
                    }
                    self.evict(key, &pod).await?;
                    Ok(Outcome::Done)
                }
            }
        })
    }
}

impl Controller {
    fn since(&self, key: &Key, pod: &Pod) -> Instant {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let mut leaving = self.leaving.lock();
        match leaving.get(key) {
            Some((known, since)) if *known == uid => *since,
            _ => {
                let now = Instant::now();
                leaving.insert(key.clone(), (uid, now));
                now
            }
        }
    }

    fn stays(&self, key: &Key, pod: &Pod) {
        if self.leaving.lock().remove(key).is_some() {
            let message = format!("Cancelling deletion of Pod {key}");
            self.recorder.normal(pod, "TaintManagerEviction", message);
        }
    }

    async fn evict(&self, key: &Key, pod: &Pod) -> Result<(), Status> {
        let message = format!("Marking for deletion Pod {key}");
        self.recorder.normal(pod, "TaintManagerEviction", message);
        let target = Target {
            reason: "DeletionByTaintManager",
            message: "Taint manager: deleting due to NoExecute taint",
            fail: false,
        };
        disruption_target::mark(&self.client, pod, &target).await?;
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let api = self.client.namespaced::<Pod>(&key.namespace);
        match api
            .delete_gracefully(&key.name, &DeleteOptions::uid(uid))
            .await
        {
            Ok(left) => left.into_iter().for_each(|pod| self.pods.absorb(pod)),
            Err(status) if status.is_not_found() || status.is_conflict() => {}
            Err(status) => return Err(status),
        }
        self.leaving.lock().remove(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn stays(tolerations: Value) -> Patience {
        let taints: Vec<Taint> = serde_json::from_value(json!([
            {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},
            {"key": "team", "value": "a", "effect": "NoSchedule"},
            {"key": "gpu", "value": "yes", "effect": "NoExecute"},
        ]))
        .unwrap();
        let tolerations: Vec<Toleration> = serde_json::from_value(tolerations).unwrap();
        patience(&taints, &tolerations)
    }

    #[test]
    fn every_taint_must_be_tolerated() {
        let gpu = json!({"key": "gpu", "operator": "Equal", "value": "yes"});
        let unreachable = json!({"key": "node.kubernetes.io/unreachable", "operator": "Exists",
            "effect": "NoExecute", "tolerationSeconds": 300});
        let seconds = |seconds| Patience::For(Duration::from_secs(seconds));
        assert_eq!(stays(json!([])), seconds(0));
        assert_eq!(stays(json!([gpu])), seconds(0));
        assert_eq!(stays(json!([gpu, unreachable])), seconds(300));
        let wrong = json!({"key": "gpu", "value": "no"});
        assert_eq!(stays(json!([wrong, unreachable])), seconds(0));
        assert_eq!(stays(json!([{"operator": "Exists"}])), Patience::Forever);
        let all = json!({"operator": "Exists", "tolerationSeconds": 20});
        assert_eq!(stays(json!([unreachable, all])), seconds(20));
        let late = json!({"operator": "Exists", "tolerationSeconds": -5});
        assert_eq!(stays(json!([late])), seconds(0));
    }
}
