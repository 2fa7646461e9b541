//! The objects that every cluster has at first: two of each kind mandatory, the others suggested.

use serde_json::{Value, json};

/// Names of mandatory schemas and levels: they are as they are, and always there.
pub const MANDATORY: [&str; 2] = ["exempt", "catch-all"];

/// Says whether the server keeps an object as the defaults have it.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec})
}

/// All PriorityLevelConfigurations.
pub fn priority_levels() -> Vec<Value> {
    let limited = |name, shares: u32, lendable: u32, response: Value| {
        let limited = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable,
            "limitResponse": response});
        let spec = json!({"type": "Limited", "limited": limited});
        object("PriorityLevelConfiguration", name, spec)
    };
    let queue = |queues: u32, hand: u32| {
        json!({"type": "Queue",
            "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}})
    };
    let exempt = json!({"type": "Exempt",
        "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    vec![
        object("PriorityLevelConfiguration", "exempt", exempt),
        limited("catch-all", 5, 0, json!({"type": "Reject"})),
        limited("system", 30, 33, queue(64, 6)),
        limited("node-high", 40, 25, queue(64, 6)),
        limited("leader-election", 10, 0, queue(16, 4)),
        limited("workload-high", 40, 50, queue(128, 6)),
        limited("workload-low", 100, 90, queue(128, 6)),
        limited("global-default", 20, 50, queue(128, 6)),
    ]
}

fn groups(names: &[&str]) -> Vec<Value> {
    let group = |name: &&str| json!({"kind": "Group", "group": {"name": name}});
    names.iter().map(group).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    let user = |name: &&str| json!({"kind": "User", "user": {"name": name}});
    names.iter().map(user).collect()
}

fn resources(verbs: &[&str], groups: &[&str], resources: &[&str], cluster_scope: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": groups, "resources": resources,
        "namespaces": ["*"]});
    if cluster_scope {
        rule["clusterScope"] = true.into();
    }
    rule
}

fn everything(subjects: Vec<Value>) -> Value {
    json!({"subjects": subjects, "resourceRules": [resources(&["*"], &["*"], &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]})
}

fn schema(name: &str, level: &str, precedence: u32, method: &str, rule: Value) -> Value {
    let mut spec = json!({"priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence, "rules": [rule]});
    if !method.is_empty() {
        spec["distinguisherMethod"] = json!({"type": method});
    }
    object("FlowSchema", name, spec)
}

/// All FlowSchemas.
pub fn flow_schemas() -> Vec<Value> {
    let all = ["system:unauthenticated", "system:authenticated"];
    let accounts = vec![json!({"kind": "ServiceAccount",
        "serviceAccount": {"name": "*", "namespace": "kube-system"}})];
    let (manager, scheduler) = ("system:kube-controller-manager", "system:kube-scheduler");
    let leases = |verbs: &[&str]| resources(verbs, &["coordination.k8s.io"], &["leases"], false);
    let probes = json!({"subjects": groups(&all), "nonResourceRules": [{"verbs": ["get"],
        "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]});
    let mut leaders = users(&[manager, scheduler]);
    leaders.extend(accounts.clone());
    let election = json!({"subjects": leaders,
        "resourceRules": [leases(&["get", "create", "update"])]});
    let nodes = json!({"subjects": groups(&["system:nodes"]), "resourceRules": [
        resources(&["*"], &[""], &["nodes", "nodes/status"], true), leases(&["*"])]});
    let (by_user, by_namespace) = ("ByUser", "ByNamespace");
    vec![
        schema(
            "exempt",
            "exempt",
            1,
            "",
            everything(groups(&["system:masters"])),
        ),
        schema(
            "catch-all",
            "catch-all",
            10000,
            by_user,
            everything(groups(&all)),
        ),
        schema(
            "system-nodes",
            "system",
            500,
            by_user,
            everything(groups(&["system:nodes"])),
        ),
        schema("system-node-high", "node-high", 400, by_user, nodes),
        schema("probes", "exempt", 2, "", probes),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            by_user,
            election,
        ),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            by_namespace,
            everything(users(&[manager])),
        ),
        schema(
            "kube-scheduler",
            "workload-high",
            800,
            by_namespace,
            everything(users(&[scheduler])),
        ),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            by_namespace,
            everything(accounts),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            by_user,
            everything(groups(&["system:serviceaccounts"])),
        ),
        schema(
            "global-default",
            "global-default",
            9900,
            by_user,
            everything(groups(&all)),
        ),
    ]
}
