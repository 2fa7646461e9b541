//! A scheduler and a kubelet in one, for tests: pods run at once, or do what annotation
//! `test/outcome` says: `Succeeded`, `Failed`, or `Stuck` (running, never ready).

use base::Crew;
use client::{Change, Client, DeleteOptions, Hub};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

/// Starts it; it lives as long as the crew.
pub(crate) fn start(client: &Client, crew: &Crew) {
    let hub = Hub::new(client.clone(), crew);
    let mut changes = hub.informer::<Pod>().subscribe();
    let client = client.clone();
    crew.spawn("test node", async move {
        while let Some(change) = changes.next().await {
            follow(&client, change).await;
        }
    });
}

async fn follow(client: &Client, change: Change<Pod>) {
    let Some(pod) = change.new else { return };
    let name = change.key.name.as_str();
    let api = client.namespaced::<Pod>(&change.key.namespace);
    let bound = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.node_name.is_some());
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if pod.metadata.deletion_timestamp.is_some() {
        // What a finalizer holds is ended, not gone.
        let held = pod
            .metadata
            .finalizers
            .as_ref()
            .is_some_and(|list| !list.is_empty());
        let grace = pod.metadata.deletion_grace_period_seconds;
        if !held || grace != Some(0) {
            let now = DeleteOptions {
                grace_period_seconds: Some(0),
                ..DeleteOptions::default()
            };
            // Gone already is as good.
            drop(api.delete(name, &now).await);
        }
    } else if !bound {
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
            "target": {"kind": "Node", "name": node_for(&pod)}});
        drop(api.create_subresource(name, "binding", &binding).await);
    } else if phase == Some("Pending") {
        let outcome = outcome(&pod);
        let ready = if outcome == "Running" {
            "True"
        } else {
            "False"
        };
        let phase = if outcome == "Stuck" {
            "Running"
        } else {
            outcome
        };
        let mut changed = Pod::clone(&pod);
        changed.status = serde_json::from_value(json!({"phase": phase, "conditions": [
            {"type": "Ready", "status": ready, "lastTransitionTime": meta::time::now()}]}))
        .ok();
        drop(api.replace_status(&changed).await);
    }
}

fn outcome(pod: &Pod) -> &str {
    let annotations = pod.metadata.annotations.as_ref();
    let said = annotations.and_then(|annotations| annotations.get("test/outcome"));
    said.map_or("Running", String::as_str)
}

/// The node a daemon's pod is meant for, or any.
fn node_for(pod: &Pod) -> String {
    let tree = serde_json::to_value(pod).unwrap_or_default();
    let path = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution\
        /nodeSelectorTerms/0/matchFields/0/values/0";
    let name = tree.pointer(path).and_then(serde_json::Value::as_str);
    name.unwrap_or("anywhere").to_owned()
}
