//! No tree of JSON, however odd, makes a kind panic: neither any tree at all, nor a sensible
//! object with something odd in the middle.

use meta::Faults;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Names that kinds look at, so that random trees are walked into.
const FIELDS: &[&str] = &[
    "metadata",
    "spec",
    "status",
    "name",
    "labels",
    "annotations",
    "containers",
    "initContainers",
    "template",
    "selector",
    "matchLabels",
    "matchExpressions",
    "ports",
    "volumes",
    "resources",
    "limits",
    "requests",
    "replicas",
    "rules",
    "subsets",
    "conditions",
    "type",
    "key",
    "operator",
    "values",
    "schedule",
    "data",
    "metrics",
    "cidrs",
    "subjects",
];

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-5_i64..5).prop_map(Value::from),
        "[a-z0-9./:%*@ -]{0,12}".prop_map(Value::from),
        Just(json!("💥")),
        Just(json!("10.0.0.0/8")),
        Just(json!("1Gi")),
        Just(json!("*/5 * * * *")),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        let field = prop::sample::select(FIELDS).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((field, inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// An object in which many kinds find much to read.
fn full() -> Value {
    let pod = json!({
        "containers": [{
            "name": "a", "image": "nginx", "ports": [{"name": "http", "containerPort": 80}],
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}},
            "livenessProbe": {"httpGet": {"port": "http", "httpHeaders": [{"name": "a"}]}},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "securityContext": {"capabilities": {"add": ["A"]}},
        }],
        "initContainers": [{"name": "i", "image": "b", "restartPolicy": "Always"}],
        "volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}],
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "a",
            "whenUnsatisfiable": "DoNotSchedule"}],
    });
    let mut spec = pod.clone();
    let more = json!({
        "replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "schedule": "* * * * *",
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod},
        "jobTemplate": {"spec": {"template": {"spec": pod}}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
        "updateStrategy": {"type": "RollingUpdate"}, "ports": [{"port": 80, "targetPort": "x"}],
        "clusterIPs": ["10.0.0.1"], "cidrs": ["10.0.0.0/8"], "podCIDRs": ["10.0.0.0/24"],
        "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}],
        "rules": [{"host": "a", "http": {"paths": [{"path": "/", "pathType": "Exact"}]}}],
        "limits": [{"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "2"}}],
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {}}}],
        "behavior": {"scaleUp": {"policies": [{"type": "Pods"}]}},
        "hard": {"cpu": "1"}, "taints": [{"key": "a", "effect": "NoSchedule"}],
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
        "volumeClaimTemplates": [{"metadata": {"name": "v"}, "spec": {}}],
    });
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "u", "labels": {"a": "b"},
            "ownerReferences": [{"controller": true}], "finalizers": ["a/b"]},
        "spec": spec, "data": {"a": "Yg=="}, "stringData": {"c": "d"},
        "subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 1}]}],
        "endpoints": [{"addresses": ["10.0.0.1"]}], "addressType": "IPv4",
        "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
        "roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}],
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 1}}}],
            "initContainerStatuses": [{"name": "i", "state": {"waiting": {}}}]},
    })
}

/// Replaces one of the values in `tree`, counted in depth-first order.
fn put(tree: &mut Value, at: &mut usize, odd: &Value) {
    if *at == 0 {
        *tree = odd.clone();
    }
    *at = at.wrapping_sub(1);
    match tree {
        Value::Array(list) => list.iter_mut().for_each(|item| put(item, at, odd)),
        Value::Object(map) => map.values_mut().for_each(|item| put(item, at, odd)),
        _ => {}
    }
}

fn exercise(row: &kinds::Row, object: &Value, old: &Value) {
    let (strategy, names) = (&*row.strategy, &row.names);
    let now = jiff::Timestamp::UNIX_EPOCH;
    let mut faults = Faults::new();
    let mut tree = object.clone();
    strategy.default(&mut tree);
    strategy.prepare_create(&mut tree);
    strategy.validate_create(&tree, &mut faults);
    kinds::metadata::validate_create(names, &tree, strategy, &mut faults);
    let mut changed = object.clone();
    strategy.prepare_update(&mut changed, old);
    for (new, old) in [(&tree, old), (&changed, old), (old, &tree)] {
        strategy.validate_update(new, old, &mut faults);
        strategy.validate_status(new, old, &mut faults);
        strategy.moves_generation(new, old);
        for subresource in ["status", "ephemeralcontainers", "resize", "approval"] {
            let mut given = new.clone();
            strategy.prepare_subresource(subresource, &mut given, old);
            strategy.validate_subresource(subresource, &given, old, &mut faults);
        }
        kinds::metadata::validate_update(names, new, old, strategy, true, &mut faults);
    }
    for tree in [object, &tree] {
        strategy.cells(tree, now);
        strategy.selectable_fields(tree);
        strategy.warnings(tree);
        strategy.grace_period_seconds(tree, Some(-1));
    }
    assert!(faults.causes().len() == faults.0.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_tree(object in tree(), old in tree()) {
        for row in kinds::rows() {
            exercise(row, &object, &old);
        }
    }

    #[test]
    fn a_sensible_tree_with_something_odd(at in 0_usize..320, odd in tree()) {
        let (mut object, mut at) = (full(), at);
        put(&mut object, &mut at, &odd);
        for row in kinds::rows() {
            exercise(row, &object, &full());
        }
        for view in kinds::views() {
            (view.to_stored)(&mut object);
            (view.from_stored)(&mut object);
        }
    }
}
