//! Decisions of whole cycles, by the public face.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use scheduler::cycle::schedule;
use scheduler::{Failure, NodeView};
use serde_json::{Value, json};

fn node(name: &str, extra: Value) -> NodeView {
    let mut tree = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}}
    });
    merge(&mut tree, extra);
    let node: Node = serde_json::from_value(tree).unwrap();
    let mut view = NodeView::default();
    view.set_node(Arc::new(node));
    view
}

fn pod(extra: Value) -> Pod {
    let mut tree = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}});
    merge(&mut tree, extra);
    serde_json::from_value(tree).unwrap()
}

fn asking(cpu: &str) -> Pod {
    pod(json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}))
}

fn merge(tree: &mut Value, extra: Value) {
    match (tree, extra) {
        (Value::Object(tree), Value::Object(extra)) => {
            for (key, value) in extra {
                merge(tree.entry(key).or_insert(Value::Null), value);
            }
        }
        (tree, extra) => *tree = extra,
    }
}

fn decide(pod: &Pod, nodes: &[NodeView]) -> Result<String, Failure> {
    let nodes: Vec<&NodeView> = nodes.iter().collect();
    schedule(pod, &nodes, 0, |_| 0)
}

#[test]
fn the_emptier_node_wins() {
    let mut full = node("full", json!({}));
    full.add_pod("u", Arc::new(asking("1500m")));
    assert_eq!(
        decide(&asking("100m"), &[full, node("empty", json!({}))]).unwrap(),
        "empty"
    );
}

#[test]
fn refusals_are_counted_as_upstream_words_them() {
    let mut full = node("full", json!({}));
    full.add_pod("u", Arc::new(asking("1500m")));
    let tainted = node(
        "t",
        json!({"spec": {"taints": [
        {"key": "dedicated", "value": "db", "effect": "NoSchedule"}]}}),
    );
    let cordoned = node("c", json!({"spec": {"unschedulable": true}}));
    let failure = decide(&asking("1"), &[full, tainted, cordoned]).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s) \
         {dedicated: db}, 1 node(s) were unschedulable."
    );
}

#[test]
fn without_nodes_the_sentence_is_another() {
    let failure = decide(&asking("1"), &[]).unwrap_err();
    assert_eq!(failure.to_string(), "no nodes available to schedule pods");
}

#[test]
fn selectors_and_affinity_choose_nodes() {
    let nodes = [
        node("a", json!({})),
        node("b", json!({"metadata": {"labels": {"disk": "ssd"}}})),
    ];
    let selecting = pod(json!({"spec": {"nodeSelector": {"disk": "ssd"}}}));
    assert_eq!(decide(&selecting, &nodes).unwrap(), "b");
    let preferring = pod(json!({"spec": {"affinity": {"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 5, "preference":
            {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}}]}}}}));
    assert_eq!(decide(&preferring, &nodes).unwrap(), "b");
    let pinned = pod(json!({"spec": {"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]}}}}}));
    assert_eq!(decide(&pinned, &nodes).unwrap(), "a");
}

#[test]
fn host_ports_are_used_once() {
    let wanting = pod(json!({"spec": {"containers": [{"name": "c",
        "ports": [{"containerPort": 80, "hostPort": 8080}]}]}}));
    let mut taken = node("taken", json!({}));
    taken.add_pod("u", Arc::new(wanting.clone()));
    let failure = decide(&wanting, &[taken.clone()]).unwrap_err();
    assert!(
        failure.to_string().contains("didn't have free ports"),
        "{failure}"
    );
    taken.remove_pod("u");
    assert_eq!(decide(&wanting, &[taken]).unwrap(), "taken");
}

#[test]
fn a_node_takes_no_more_pods_than_it_says() {
    let mut small = node("small", json!({"status": {"allocatable": {"pods": "1"}}}));
    small.add_pod("u", Arc::new(asking("1m")));
    let failure = decide(&asking("1m"), &[small]).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "0/1 nodes are available: 1 Too many pods."
    );
}
