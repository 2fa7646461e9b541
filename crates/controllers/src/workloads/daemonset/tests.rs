//! Tables of what a DaemonSet does next.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::plan::{Plan, plan};

const NOW: &str = "2026-01-01T00:01:00Z";

fn set(rolling: Value) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": {"name": "log", "uid": "u1", "generation": 4},
        "spec": {"selector": {"matchLabels": {"app": "log"}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
            "template": {"metadata": {"labels": {"app": "log"}}, "spec": {"containers": []}}}
    }))
    .unwrap()
}

fn node(text: &str) -> Arc<Node> {
    let (name, taint) = text.split_once(' ').unwrap_or((text, ""));
    let taints = match taint {
        "" => json!([]),
        effect => json!([{"key": "k", "effect": effect}]),
    };
    let tree = json!({"metadata": {"name": name}, "spec": {"taints": taints}});
    Arc::new(serde_json::from_value(tree).unwrap())
}

/// `name node state hash`: state is ready, broken, failed or leaving.
fn pod(text: &str) -> Arc<Pod> {
    let words: Vec<_> = text.split(' ').collect();
    let phase = if words[2] == "failed" {
        "Failed"
    } else {
        "Running"
    };
    let ready = if words[2] == "ready" { "True" } else { "False" };
    let mut tree = json!({
        "metadata": {"name": words[0], "labels": {"controller-revision-hash": words[3]}},
        "spec": {"nodeName": words[1], "containers": []},
        "status": {"phase": phase, "conditions": [
            {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
    });
    if words[2] == "leaving" {
        tree["metadata"]["deletionTimestamp"] = json!(NOW);
    }
    Arc::new(serde_json::from_value(tree).unwrap())
}

fn planned(rolling: Value, nodes: &[&str], pods: &[&str]) -> Plan {
    let set = set(rolling);
    let nodes: Vec<_> = nodes.iter().map(|text| node(text)).collect();
    let pods: Vec<_> = pods.iter().map(|text| pod(text)).collect();
    let template = set.spec.as_ref().unwrap().template.clone();
    let now: Timestamp = NOW.parse().unwrap();
    plan(&set, &template, "new", &nodes, &pods, now)
}

fn check(rolling: Value, nodes: &[&str], pods: &[&str], create: &[&str], delete: &[&str]) {
    let plan = planned(rolling, nodes, pods);
    assert_eq!(plan.create, create, "create for {pods:?}");
    let deleted: Vec<_> = plan
        .delete
        .iter()
        .filter_map(|pod| pod.metadata.name.as_deref())
        .collect();
    assert_eq!(deleted, delete, "delete for {pods:?}");
}

#[test]
fn every_eligible_node_has_one_pod() {
    check(
        json!({}),
        &["n1", "n2", "n3 NoSchedule"],
        &[],
        &["n1", "n2"],
        &[],
    );
    check(
        json!({}),
        &["n1"],
        &["a n1 ready new", "b n1 ready new"],
        &[],
        &["b"],
    );
    check(json!({}), &["n1 NoSchedule"], &["a n1 ready new"], &[], &[]);
    check(
        json!({}),
        &["n1 NoExecute"],
        &["a n1 ready new"],
        &[],
        &["a"],
    );
    check(json!({}), &["n1"], &["a n1 leaving new"], &[], &[]);
}

#[test]
fn a_pod_that_ended_is_reported_not_counted() {
    let plan = planned(json!({}), &["n1"], &["a n1 failed new"]);
    assert_eq!(plan.ended.len(), 1);
    assert!(plan.create.is_empty() && plan.delete.is_empty());
}

#[test]
fn a_rollout_keeps_within_max_unavailable() {
    let nodes = ["n1", "n2", "n3"];
    let old = ["a n1 ready old", "b n2 ready old", "c n3 ready old"];
    check(json!({}), &nodes, &old, &[], &["a"]);
    check(json!({"maxUnavailable": 2}), &nodes, &old, &[], &["a", "b"]);
    check(
        json!({}),
        &nodes,
        &["a n1 broken new", "b n2 ready old", "c n3 ready old"],
        &[],
        &[],
    );
    check(
        json!({}),
        &nodes,
        &["a n1 ready new", "b n2 broken old", "c n3 ready old"],
        &[],
        &["b"],
    );
}

#[test]
fn surging_makes_the_new_pod_before_the_old_one_goes() {
    let rolling = || json!({"maxSurge": 1, "maxUnavailable": 0});
    let nodes = ["n1", "n2"];
    let old = ["a n1 ready old", "b n2 ready old"];
    check(rolling(), &nodes, &old, &["n1"], &[]);
    check(
        rolling(),
        &nodes,
        &["a n1 ready old", "b n2 ready old", "c n1 broken new"],
        &[],
        &[],
    );
    check(
        rolling(),
        &nodes,
        &["a n1 ready old", "b n2 ready old", "c n1 ready new"],
        &[],
        &["a"],
    );
}

#[test]
fn the_status_counts_nodes() {
    let pods = ["a n1 ready new", "b n2 broken old", "c n4 ready new"];
    let nodes = ["n1", "n2", "n3", "n4 NoSchedule"];
    let status = planned(json!({}), &nodes, &pods).status;
    assert_eq!(
        (
            status.desired_number_scheduled,
            status.current_number_scheduled,
            status.number_misscheduled,
            status.number_ready
        ),
        (3, 2, 1, 1)
    );
    assert_eq!(
        (status.updated_number_scheduled, status.number_unavailable),
        (Some(1), Some(2))
    );
}
