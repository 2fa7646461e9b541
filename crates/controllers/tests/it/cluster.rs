//! Nodes, quotas, budgets and roles.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::World;

const PODS: &str = "/api/v1/namespaces/default/pods";
const NODES: &str = "/api/v1/nodes";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

async fn node(world: &World, name: &str, ready: &str) {
    world
        .post(
            NODES,
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}),
        )
        .await;
    say(world, name, ready).await;
}

/// Posts a status as a kubelet does.
async fn say(world: &World, name: &str, ready: &str) {
    let condition = json!({"type": "Ready", "status": ready, "reason": "Kubelet",
        "lastHeartbeatTime": meta::time::now(), "lastTransitionTime": meta::time::now()});
    let path = format!("{NODES}/{name}/status");
    world
        .patch(&path, json!({"status": {"conditions": [condition]}}))
        .await;
}

fn taints(node: Option<&Value>) -> Vec<String> {
    let taints = node.and_then(|node| node["spec"]["taints"].as_array());
    let text = |taint: &Value, field: &str| taint[field].as_str().unwrap().to_owned();
    taints
        .into_iter()
        .flatten()
        .map(|taint| format!("{}:{}", text(taint, "key"), text(taint, "effect")))
        .collect()
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    let mut found = conditions
        .into_iter()
        .flatten()
        .filter(|one| one["type"] == kind);
    found.next().unwrap_or(&Value::Null)
}

async fn pod(world: &World, name: &str, node: Option<&str>, tolerations: Value) {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i"}], "tolerations": tolerations}});
    if let Some(node) = node {
        pod["spec"]["nodeName"] = node.into();
    }
    world.post(PODS, pod).await;
}

async fn run(world: &World, name: &str) {
    let ready = json!({"type": "Ready", "status": "True"});
    let path = format!("{PODS}/{name}/status");
    world
        .patch(
            &path,
            json!({"status": {"phase": "Running", "conditions": [ready]}}),
        )
        .await;
}

fn is_leaving(pod: Option<&Value>) -> bool {
    pod.is_none_or(|pod| pod["metadata"]["deletionTimestamp"].is_string())
}

#[tokio::test]
async fn a_node_is_open_once_it_is_ready() {
    let world = World::start().await;
    world
        .post(
            NODES,
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}}),
        )
        .await;
    let path = format!("{NODES}/a");
    let node = world.get(&path).await;
    assert_eq!(
        taints(node.as_ref()),
        ["node.kubernetes.io/not-ready:NoSchedule"]
    );
    say(&world, "a", "True").await;
    // Two controllers see to it, in any order.
    let is_done =
        |node: &Value| taints(Some(node)).is_empty() && node["spec"]["podCIDR"].is_string();
    let node = world.until(&path, |node| node.is_some_and(is_done)).await;
    assert_eq!(node["spec"]["podCIDR"], "10.244.0.0/24");
    world
        .patch(&path, json!({"spec": {"unschedulable": true}}))
        .await;
    world
        .until(&path, |node| {
            taints(node) == ["node.kubernetes.io/unschedulable:NoSchedule"]
        })
        .await;
    world.stop().await;
}

#[tokio::test]
async fn a_silent_node_loses_its_pods() {
    let world = World::start().await;
    node(&world, "a", "True").await;
    node(&world, "b", "True").await;
    for name in ["a", "b"] {
        let path = format!("{NODES}/{name}");
        world.until(&path, |node| taints(node).is_empty()).await;
    }
    pod(&world, "web", Some("a"), json!([])).await;
    run(&world, "web").await;
    world.pass(Duration::from_secs(30)).await;
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "b"}, "spec": {"holderIdentity": "b"}});
    world.post(LEASES, lease).await;
    world.pass(Duration::from_secs(21)).await;
    let path = format!("{NODES}/a");
    let wanted = [
        "node.kubernetes.io/unreachable:NoSchedule",
        "node.kubernetes.io/unreachable:NoExecute",
    ];
    let silent = world.until(&path, |node| taints(node) == wanted).await;
    let ready = condition(&silent, "Ready");
    assert_eq!(ready["status"], "Unknown");
    assert_eq!(ready["reason"], "NodeStatusUnknown");
    assert_eq!(ready["message"], "Kubelet stopped posting node status.");
    let other = world.get(&format!("{NODES}/b")).await;
    assert!(
        taints(other.as_ref()).is_empty(),
        "a lease is enough to be alive"
    );
    let web = format!("{PODS}/web");
    let pod = world
        .until(&web, |pod| {
            condition(pod.unwrap(), "Ready")["status"] == "False"
        })
        .await;
    assert!(
        !is_leaving(Some(&pod)),
        "it tolerates an unreachable node for a while"
    );
    // Were both silent, the fault would be taken for ours and nobody be driven away.
    for _ in 0..8 {
        let renewal = json!({"spec": {"renewTime": meta::time::now_micro()}});
        world.patch(&format!("{LEASES}/b"), renewal).await;
        world.pass(Duration::from_secs(40)).await;
    }
    let pod = world.until(&web, is_leaving).await;
    assert_eq!(
        condition(&pod, "DisruptionTarget")["reason"],
        "DeletionByTaintManager"
    );
    world.stop().await;
}

#[tokio::test]
async fn taints_drive_away_who_does_not_tolerate_them() {
    let world = World::start().await;
    node(&world, "a", "True").await;
    let tolerant = json!([{"key": "gone", "operator": "Exists", "effect": "NoExecute"}]);
    let patient = json!([{"key": "gone", "operator": "Exists", "effect": "NoExecute",
        "tolerationSeconds": 60}]);
    pod(&world, "plain", Some("a"), json!([])).await;
    pod(&world, "tolerant", Some("a"), tolerant).await;
    pod(&world, "patient", Some("a"), patient).await;
    let path = format!("{NODES}/a");
    world.until(&path, |node| taints(node).is_empty()).await;
    world
        .patch(
            &path,
            json!({"spec": {"taints": [{"key": "gone", "effect": "NoExecute"}]}}),
        )
        .await;
    world.until(&format!("{PODS}/plain"), is_leaving).await;
    let patient = format!("{PODS}/patient");
    assert!(!is_leaving(world.get(&patient).await.as_ref()));
    world.pass(Duration::from_secs(61)).await;
    world.until(&patient, is_leaving).await;
    assert!(!is_leaving(
        world.get(&format!("{PODS}/tolerant")).await.as_ref()
    ));
    world.stop().await;
}

#[tokio::test]
async fn pods_of_a_vanished_node_are_removed() {
    let world = World::start().await;
    node(&world, "a", "True").await;
    pod(&world, "web", Some("a"), json!([])).await;
    world.delete(&format!("{NODES}/a"), "Background").await;
    world.pass(Duration::from_secs(41)).await;
    world.until_gone(&format!("{PODS}/web")).await;
    world.stop().await;
}

#[tokio::test]
async fn quotas_follow_what_is_used() {
    let world = World::start().await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    world
        .post(
            quotas,
            json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
                "spec": {"hard": {"pods": "2", "configmaps": "5", "count/deployments.apps": "1"}}}),
        )
        .await;
    let path = format!("{quotas}/q");
    let uses = |name: &'static str, amount: &'static str| {
        move |quota: Option<&Value>| quota.unwrap()["status"]["used"][name] == amount
    };
    world.until(&path, uses("pods", "0")).await;
    pod(&world, "one", None, json!([])).await;
    pod(&world, "two", None, json!([])).await;
    world.until(&path, uses("pods", "2")).await;
    let third = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "three"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let refused = world.try_post(PODS, third.clone()).await.unwrap_err();
    assert!(refused.message.contains("exceeded quota: q"), "{refused}");
    world.delete(&format!("{PODS}/one"), "Background").await;
    let quota = world.until(&path, uses("pods", "1")).await;
    assert_eq!(quota["status"]["hard"], quota["spec"]["hard"]);
    world.post(PODS, third).await;
    // `kube-root-ca.crt` is one already.
    world.until(&path, uses("configmaps", "1")).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    world
        .post("/api/v1/namespaces/default/configmaps", map)
        .await;
    world.until(&path, uses("configmaps", "2")).await;
    world
        .delete("/api/v1/namespaces/default/configmaps/m", "Background")
        .await;
    world.until(&path, uses("configmaps", "1")).await;
    world
        .until(&path, uses("count/deployments.apps", "0"))
        .await;
    world.stop().await;
}

#[tokio::test]
async fn budgets_tell_how_many_may_go() {
    let world = World::start().await;
    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    let labels = json!({"app": "web"});
    world
        .post(
            sets,
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web"},
                "spec": {"replicas": 4, "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels},
                        "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
        )
        .await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    world
        .post(
            budgets,
            json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
                "metadata": {"name": "web"},
                "spec": {"maxUnavailable": "25%", "selector": {"matchLabels": labels}}}),
        )
        .await;
    let path = format!("{budgets}/web");
    let status = |field: &'static str, number: i64| {
        move |budget: Option<&Value>| budget.unwrap()["status"][field] == number
    };
    let budget = world.until(&path, status("expectedPods", 4)).await;
    assert_eq!(budget["status"]["desiredHealthy"], 3);
    assert_eq!(
        condition(&budget, "DisruptionAllowed")["reason"],
        "InsufficientPods"
    );
    let pods = world
        .until(PODS, |list| {
            list.unwrap()["items"]
                .as_array()
                .is_some_and(|all| all.len() == 4)
        })
        .await;
    for pod in pods["items"].as_array().unwrap() {
        run(&world, pod["metadata"]["name"].as_str().unwrap()).await;
    }
    let budget = world.until(&path, status("disruptionsAllowed", 1)).await;
    assert_eq!(budget["status"]["currentHealthy"], 4);
    assert_eq!(
        condition(&budget, "DisruptionAllowed")["reason"],
        "SufficientPods"
    );
    world.stop().await;
}

#[tokio::test]
async fn aggregated_roles_gain_and_lose_rules() {
    let world = World::start().await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let label = "rbac.authorization.k8s.io/aggregate-to-view";
    world
        .post(
            roles,
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": "boats", "labels": {label: "true"}},
                "rules": [{"apiGroups": ["example.com"], "resources": ["boats"], "verbs": ["get"]}]}),
        )
        .await;
    let has = |role: Option<&Value>| {
        let rules = role.unwrap()["rules"].as_array();
        rules
            .into_iter()
            .flatten()
            .any(|rule| rule["resources"][0] == "boats")
    };
    world.until(&format!("{roles}/view"), has).await;
    world.delete(&format!("{roles}/boats"), "Background").await;
    world
        .until(&format!("{roles}/view"), |role| !has(role))
        .await;
    world.stop().await;
}
