//! What the server fills in, kind by kind. Pods have their own tests beside their code.

use serde_json::{Value, json};

fn row_of(group: &str, kind: &str) -> &'static kinds::Row {
    kinds::row(group, kind).expect("a built-in kind")
}

fn defaulted(group: &str, kind: &str, mut object: Value) -> Value {
    let row = row_of(group, kind);
    row.strategy.default(&mut object);
    let mut again = object.clone();
    row.strategy.default(&mut again);
    assert_eq!(object, again, "{kind}: defaulting twice changes nothing");
    object
}

/// Compares the part of a defaulted object at a JSON pointer.
fn check(group: &str, kind: &str, object: Value, at: &str, expected: Value) {
    let object = defaulted(group, kind, object);
    assert_eq!(
        object.pointer(at),
        Some(&expected),
        "{kind} {at} in {object}"
    );
}

#[test]
fn workloads() {
    let deployment = defaulted("apps", "Deployment", json!({"spec": {}}));
    let expected = json!({"type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}});
    assert_eq!(deployment["spec"]["strategy"], expected);
    assert_eq!(deployment["spec"]["replicas"], 1);
    assert_eq!(deployment["spec"]["revisionHistoryLimit"], 10);
    assert_eq!(deployment["spec"]["progressDeadlineSeconds"], 600);
    assert_eq!(
        deployment["spec"]["template"]["spec"]["restartPolicy"],
        "Always"
    );
    check(
        "apps",
        "Deployment",
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
        "/spec/strategy",
        json!({"type": "Recreate"}),
    );
    let set = defaulted("apps", "StatefulSet", json!({"spec": {}}));
    assert_eq!(set["spec"]["podManagementPolicy"], "OrderedReady");
    let expected = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}});
    assert_eq!(set["spec"]["updateStrategy"], expected);
    let expected = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
    assert_eq!(
        set["spec"]["persistentVolumeClaimRetentionPolicy"],
        expected
    );
    check(
        "apps",
        "DaemonSet",
        json!({"spec": {}}),
        "/spec/updateStrategy",
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}),
    );
    // Templates do not fill requests from limits; pods do.
    let limited = json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}]});
    check(
        "apps",
        "ReplicaSet",
        json!({"spec": {"template": {"spec": limited}}}),
        "/spec/template/spec/containers/0/resources",
        json!({"limits": {"cpu": "1"}}),
    );
}

#[test]
fn jobs() {
    let job = defaulted("batch", "Job", json!({"spec": {}}));
    for (field, expected) in [
        ("completions", json!(1)),
        ("parallelism", json!(1)),
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("podReplacementPolicy", json!("TerminatingOrFailed")),
        ("manualSelector", json!(false)),
    ] {
        assert_eq!(job["spec"][field], expected, "{field}");
    }
    let parallel = defaulted("batch", "Job", json!({"spec": {"parallelism": 3}}));
    assert_eq!(parallel["spec"].get("completions"), None);
    let cron = defaulted("batch", "CronJob", json!({"spec": {}}));
    assert_eq!(cron["spec"]["concurrencyPolicy"], "Allow");
    assert_eq!(cron["spec"]["successfulJobsHistoryLimit"], 3);
    assert_eq!(cron["spec"]["failedJobsHistoryLimit"], 1);
}

#[test]
fn a_job_selects_its_pods_by_uid() {
    let row = row_of("batch", "Job");
    let mut job = json!({"metadata": {"name": "web", "uid": "u-1"}, "spec": {}});
    row.strategy.default(&mut job);
    row.strategy.prepare_create(&mut job);
    let expected = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}});
    assert_eq!(job["spec"]["selector"], expected);
    let expected = json!({"batch.kubernetes.io/controller-uid": "u-1", "controller-uid": "u-1",
        "batch.kubernetes.io/job-name": "web", "job-name": "web"});
    assert_eq!(job["spec"]["template"]["metadata"]["labels"], expected);
}

#[test]
fn services() {
    check(
        "",
        "Service",
        json!({"spec": {"ports": [{"port": 80}]}}),
        "/spec",
        json!({"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"}),
    );
    check(
        "",
        "Service",
        json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"}}),
        "/spec",
        json!({"type": "LoadBalancer", "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
            "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster",
            "allocateLoadBalancerNodePorts": true}),
    );
}

#[test]
fn namespaces_and_secrets() {
    let row = row_of("", "Namespace");
    let mut namespace = json!({"metadata": {"name": "web"}});
    row.strategy.default(&mut namespace);
    row.strategy.prepare_create(&mut namespace);
    let labels = json!({"kubernetes.io/metadata.name": "web"});
    assert_eq!(namespace["metadata"]["labels"], labels);
    assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(namespace["status"]["phase"], "Active");
    let secret = defaulted(
        "",
        "Secret",
        json!({"stringData": {"a": "b"}, "data": {"c": "ZA=="}}),
    );
    assert_eq!(
        secret,
        json!({"type": "Opaque", "data": {"a": "Yg==", "c": "ZA=="}})
    );
}

#[test]
fn limits() {
    check(
        "",
        "LimitRange",
        json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"},
            "min": {"memory": "1024Ki"}}]}}),
        "/spec/limits/0",
        json!({"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"},
            "default": {"cpu": "2"}, "defaultRequest": {"cpu": "2", "memory": "1Mi"}}),
    );
}

#[test]
fn network_and_scaling() {
    check(
        "networking.k8s.io",
        "NetworkPolicy",
        json!({"spec": {"egress": [{"ports": [{"port": 53}]}]}}),
        "/spec",
        json!({"egress": [{"ports": [{"port": 53, "protocol": "TCP"}]}],
            "policyTypes": ["Ingress", "Egress"]}),
    );
    check(
        "discovery.k8s.io",
        "EndpointSlice",
        json!({"ports": [{"port": 80}]}),
        "/ports/0",
        json!({"port": 80, "name": "", "protocol": "TCP"}),
    );
    check(
        "autoscaling",
        "HorizontalPodAutoscaler",
        json!({"spec": {"maxReplicas": 3, "behavior": {"scaleDown": {"selectPolicy": "Min"}}}}),
        "/spec",
        json!({"maxReplicas": 3, "minReplicas": 1,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80}}}],
            "behavior": {
                "scaleUp": {"selectPolicy": "Max", "stabilizationWindowSeconds": 0, "policies": [
                    {"type": "Pods", "value": 4, "periodSeconds": 15},
                    {"type": "Percent", "value": 100, "periodSeconds": 15}]},
                "scaleDown": {"selectPolicy": "Min", "policies": [
                    {"type": "Percent", "value": 100, "periodSeconds": 15}]}}}),
    );
    check(
        "rbac.authorization.k8s.io",
        "RoleBinding",
        json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User",
            "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]}),
        "",
        json!({"roleRef": {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"},
            "subjects": [{"kind": "User", "name": "u", "apiGroup": "rbac.authorization.k8s.io"},
                {"kind": "ServiceAccount", "name": "s"}]}),
    );
}

#[test]
fn storage() {
    check(
        "storage.k8s.io",
        "StorageClass",
        json!({"provisioner": "p"}),
        "",
        json!({"provisioner": "p", "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"}),
    );
    check(
        "",
        "PersistentVolumeClaim",
        json!({}),
        "/spec",
        json!({"volumeMode": "Filesystem"}),
    );
    check(
        "",
        "PersistentVolume",
        json!({"spec": {"hostPath": {"path": "/x"}}}),
        "/spec",
        json!({"hostPath": {"path": "/x", "type": ""}, "volumeMode": "Filesystem",
            "persistentVolumeReclaimPolicy": "Retain"}),
    );
}
