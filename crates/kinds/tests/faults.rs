//! Upstream's words for what users get wrong, kind by kind.

use meta::Faults;
use serde_json::{Value, json};

fn row_of(group: &str, kind: &str) -> &'static kinds::Row {
    kinds::row(group, kind).expect("a built-in kind")
}

/// Faults of a new object, defaulted and prepared as the server does it.
fn create(group: &str, kind: &str, mut object: Value) -> Vec<String> {
    let row = row_of(group, kind);
    fill(row, &mut object);
    row.strategy.default(&mut object);
    row.strategy.prepare_create(&mut object);
    let mut faults = Faults::new();
    kinds::metadata::validate_create(&row.names, &object, &*row.strategy, &mut faults);
    row.strategy.validate_create(&object, &mut faults);
    faults.0.iter().map(ToString::to_string).collect()
}

/// Faults of changing `old` into `new`.
fn update(group: &str, kind: &str, mut old: Value, mut new: Value) -> Vec<String> {
    let row = row_of(group, kind);
    for object in [&mut old, &mut new] {
        fill(row, object);
        row.strategy.default(object);
    }
    row.strategy.prepare_update(&mut new, &old);
    let mut faults = Faults::new();
    kinds::metadata::validate_update(&row.names, &new, &old, &*row.strategy, true, &mut faults);
    row.strategy.validate_update(&new, &old, &mut faults);
    faults.0.iter().map(ToString::to_string).collect()
}

fn fill(row: &kinds::Row, object: &mut Value) {
    let metadata = &mut object["metadata"];
    for (field, value) in [("name", "web"), ("uid", "u-1")] {
        if metadata.get(field).is_none() {
            metadata[field] = json!(value);
        }
    }
    if row.names.is_namespaced() && metadata.get("namespace").is_none() {
        metadata["namespace"] = json!("default");
    }
}

fn check(group: &str, kind: &str, object: Value, expected: &[&str]) {
    assert_eq!(create(group, kind, object), expected, "{kind}");
}

fn check_update(group: &str, kind: &str, old: Value, new: Value, expected: &[&str]) {
    assert_eq!(update(group, kind, old, new), expected, "{kind}");
}

fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "a", "image": "nginx:1"}]}})
}

fn selector() -> Value {
    json!({"matchLabels": {"a": "b"}})
}

#[test]
fn metadata() {
    check("", "ConfigMap", json!({"metadata": {"name": "a.b-c"}}), &[]);
    check(
        "",
        "ConfigMap",
        json!({"metadata": {"name": ""}}),
        &["metadata.name: Required value: name or generateName is required"],
    );
    check(
        "",
        "ConfigMap",
        json!({"metadata": {"name": "A_b", "generateName": "x-", "namespace": "N"}}),
        &[
            "metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must consist \
             of lower case alphanumeric characters, '-' or '.', and must start and end with an \
             alphanumeric character (e.g. 'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "metadata.namespace: Invalid value: \"N\": a lowercase RFC 1123 label must consist \
             of lower case alphanumeric characters or '-', and must start and end with an \
             alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ],
    );
    check(
        "",
        "Namespace",
        json!({"metadata": {"namespace": "n"}}),
        &["metadata.namespace: Forbidden: not allowed on this type"],
    );
    check(
        "",
        "ConfigMap",
        json!({"metadata": {"labels": {"a": "sp ace"}, "finalizers": ["/x"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]}}),
        &[
            "metadata.labels: Invalid value: \"sp ace\": a valid label must be an empty string \
             or consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
             an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used \
             for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty",
            "metadata.finalizers: Invalid value: \"/x\": prefix part must be non-empty",
        ],
    );
    check(
        "",
        "ConfigMap",
        json!({"metadata": {"annotations": {"a": "x".repeat(300 << 10)}}}),
        &["metadata.annotations: Too long: may not be more than 262144 bytes"],
    );
}

#[test]
fn metadata_that_changes() {
    check_update(
        "",
        "ConfigMap",
        json!({"metadata": {"uid": "a", "generation": 2}}),
        json!({"metadata": {"uid": "b", "generation": 1}}),
        &[
            "metadata.generation: Invalid value: 1: must not be decremented",
            "metadata.uid: Invalid value: \"b\": field is immutable",
            // As upstream, which looks twice.
            "metadata.generation: Invalid value: 1: must not be decremented",
            "metadata.uid: Invalid value: \"b\": field is immutable",
        ],
    );
    check_update(
        "",
        "ConfigMap",
        json!({"metadata": {"deletionTimestamp": "2026-01-31T12:00:00Z"}}),
        json!({"metadata": {"deletionTimestamp": "2026-01-31T12:00:00Z", "finalizers": ["a/b"]}}),
        &[
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is \
             being deleted, found new finalizers []string{\"a/b\"}",
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is \
             being deleted, found new finalizers []string{\"a/b\"}",
        ],
    );
}

#[test]
fn config_maps_and_secrets() {
    check(
        "",
        "ConfigMap",
        json!({"data": {"a b": "x", "c": "y"}, "binaryData": {"c": "eQ=="}}),
        &[
            "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric \
             characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex \
             used for validation is '[-._a-zA-Z0-9]+')",
            "data[c]: Invalid value: \"c\": duplicate of key present in binaryData",
        ],
    );
    check_update(
        "",
        "ConfigMap",
        json!({"immutable": true, "data": {"a": "1"}}),
        json!({"data": {"a": "2"}}),
        &[
            "immutable: Forbidden: field is immutable when `immutable` is set",
            "data: Forbidden: field is immutable when `immutable` is set",
        ],
    );
    check(
        "",
        "Secret",
        json!({"type": "kubernetes.io/tls", "stringData": {"tls.crt": "x"}}),
        &["data[tls.key]: Required value"],
    );
    check_update(
        "",
        "Secret",
        json!({"type": "Opaque"}),
        json!({"type": "other"}),
        &["type: Invalid value: \"other\": field is immutable"],
    );
    check(
        "",
        "Secret",
        json!({"data": {"a": "A".repeat(3 << 20)}}),
        &["data: Too long: may not be more than 1048576 bytes"],
    );
}

#[test]
fn deployments() {
    let sound = || json!({"spec": {"selector": selector(), "template": template()}});
    check("apps", "Deployment", sound(), &[]);
    let mut other = sound();
    other["spec"]["template"]["metadata"]["labels"] = json!({"a": "c"});
    check(
        "apps",
        "Deployment",
        other.clone(),
        &[
            "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match \
           template `labels`",
        ],
    );
    check(
        "apps",
        "Deployment",
        json!({"spec": {"replicas": -1, "template": template(), "strategy": {"type": "Magic"}}}),
        &[
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            "spec.selector: Required value",
            "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match \
             template `labels`",
            "spec.strategy: Unsupported value: {\"Type\":\"Magic\",\"RollingUpdate\":null}: \
             supported values: \"Recreate\", \"RollingUpdate\"",
        ],
    );
    other["spec"]["selector"] = json!({"matchLabels": {"a": "c"}});
    check_update(
        "apps",
        "Deployment",
        sound(),
        other,
        &["spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"c\"}}: field is immutable"],
    );
    let mut never = sound();
    never["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    check(
        "apps",
        "Deployment",
        never,
        &[
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \
           \"Always\"",
        ],
    );
}

#[test]
fn sets() {
    let sound = || {
        json!({"spec": {"selector": selector(), "template": template(), "serviceName": "web",
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}})
    };
    let mut mounted = sound();
    mounted["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/data"}]);
    check("apps", "StatefulSet", mounted, &[]);
    let mut renamed = sound();
    renamed["spec"]["serviceName"] = json!("other");
    check_update(
        "apps",
        "StatefulSet",
        sound(),
        renamed,
        &[
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', \
           'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', \
           'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ],
    );
    let mut more = sound();
    more["spec"]["replicas"] = json!(5);
    check_update("apps", "StatefulSet", sound(), more, &[]);
    check(
        "apps",
        "DaemonSet",
        json!({"spec": {"selector": selector(), "template": template(), "updateStrategy": {
            "type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}}}}),
        &[
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when \
           maxSurge is 0",
        ],
    );
    check(
        "apps",
        "ReplicaSet",
        json!({"spec": {"selector": selector(), "template": template()}}),
        &[],
    );
}

#[test]
fn jobs() {
    let job = |policy: &str| {
        let mut job = json!({"spec": {"template": template()}});
        job["spec"]["template"]["spec"]["restartPolicy"] = json!(policy);
        job
    };
    check("batch", "Job", job("Never"), &[]);
    check(
        "batch",
        "Job",
        job("Always"),
        &[
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \
           \"Never\"",
        ],
    );
    let mut foreign = job("Never");
    foreign["spec"]["template"]["metadata"]["labels"]["job-name"] = json!("mine");
    check(
        "batch",
        "Job",
        foreign,
        &[
            "spec.template.metadata.labels[job-name]: Invalid value: {\"a\":\"b\",\
             \"batch.kubernetes.io/controller-uid\":\"u-1\",\
             \"batch.kubernetes.io/job-name\":\"web\",\"controller-uid\":\"u-1\",\
             \"job-name\":\"mine\"}: must be 'web'",
        ],
    );
    let cron =
        |schedule: &str| json!({"spec": {"schedule": schedule, "jobTemplate": job("Never")}});
    check("batch", "CronJob", cron("*/5 * * * *"), &[]);
    check(
        "batch",
        "CronJob",
        cron("* * * *"),
        &[
            "spec.schedule: Invalid value: \"* * * *\": expected exactly 5 fields, found 4: \
           [* * * *]",
        ],
    );
    let mut zoned = cron("@daily");
    zoned["spec"]["timeZone"] = json!("Nowhere/Land");
    check(
        "batch",
        "CronJob",
        zoned,
        &["spec.timeZone: Invalid value: \"Nowhere/Land\": unknown time zone Nowhere/Land"],
    );
}

#[test]
fn services() {
    check(
        "",
        "Service",
        json!({"spec": {}}),
        &["spec.ports: Required value"],
    );
    check(
        "",
        "Service",
        json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}}),
        &[],
    );
    check(
        "",
        "Service",
        json!({"spec": {"ports": [{"port": 80}, {"port": 80, "name": "b"}]}}),
        &[
            "spec.ports[0].name: Required value",
            "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\
             \"AppProtocol\":null,\"Port\":80,\"TargetPort\":0,\"NodePort\":0}",
        ],
    );
    check(
        "",
        "Service",
        json!({"spec": {"ports": [{"port": 0, "targetPort": 80, "nodePort": 30000}]}}),
        &[
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ],
    );
    check(
        "",
        "Service",
        json!({"spec": {"type": "ExternalName"}}),
        &["spec.externalName: Required value"],
    );
    check_update(
        "",
        "Service",
        json!({"spec": {"ports": [{"port": 80}], "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}}),
        json!({"spec": {"ports": [{"port": 80}], "clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.2"]}}),
        &["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"],
    );
}

#[test]
fn service_types_may_change() {
    let ports = json!([{"port": 80}]);
    check_update(
        "",
        "Service",
        json!({"spec": {"type": "LoadBalancer", "ports": ports}}),
        json!({"spec": {"type": "ClusterIP", "ports": ports, "externalTrafficPolicy": "Cluster",
            "allocateLoadBalancerNodePorts": true}}),
        &[],
    );
}

#[test]
fn roles() {
    check(
        "rbac.authorization.k8s.io",
        "Role",
        json!({"rules": [{"apiGroups": [""]}, {"verbs": ["get"], "nonResourceURLs": ["/x"]}]}),
        &[
            "rules[0].verbs: Required value: verbs must contain at least one value",
            "rules[0].resources: Required value: resource rules must supply at least one resource",
            "rules[1].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to \
             non-resource URLs",
        ],
    );
    let binding = |role: &str| {
        json!({"roleRef": {"kind": "Role", "name": role},
            "subjects": [{"kind": "User", "name": "ann"}]})
    };
    check(
        "rbac.authorization.k8s.io",
        "RoleBinding",
        binding("a"),
        &[],
    );
    check_update(
        "rbac.authorization.k8s.io",
        "RoleBinding",
        binding("a"),
        binding("b"),
        &[
            "roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"Role\",\
           \"Name\":\"b\"}: cannot change roleRef",
        ],
    );
    check(
        "rbac.authorization.k8s.io",
        "ClusterRoleBinding",
        json!({"roleRef": {"kind": "Role", "name": "a"},
            "subjects": [{"kind": "ServiceAccount", "name": "s"}]}),
        &[
            "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
            "subjects[0].namespace: Required value",
        ],
    );
}

#[test]
fn limits_and_claims() {
    check(
        "",
        "ResourceQuota",
        json!({"spec": {"hard": {"pods": "1500m", "gpu": "1"}}}),
        &[
            "spec.hard[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully \
             qualified",
            "spec.hard[gpu]: Invalid value: \"gpu\": must be a standard resource for quota",
            "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
        ],
    );
    check(
        "",
        "LimitRange",
        json!({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "1"}, "min": {"cpu": "2"}}]}}),
        &["spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"],
    );
    check(
        "",
        "PersistentVolumeClaim",
        json!({"spec": {"accessModes": ["Sometimes"]}}),
        &[
            "spec.accessModes: Unsupported value: \"Sometimes\": supported values: \
             \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
            "spec.resources[storage]: Required value",
        ],
    );
    check(
        "",
        "PersistentVolume",
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}}),
        &["spec: Required value: must specify a volume type"],
    );
}

#[test]
fn network_rules() {
    check(
        "networking.k8s.io",
        "NetworkPolicy",
        json!({"spec": {"podSelector": {}, "ingress": [{"from": [{}, {"ipBlock": {
            "cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}]}}),
        &[
            "spec.ingress[0].from[0]: Required value: must specify a peer",
            "spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a \
             strict subset of `cidr`",
        ],
    );
    check(
        "networking.k8s.io",
        "Ingress",
        json!({"spec": {"rules": [{"host": "1.2.3.4", "http": {"paths": [
            {"path": "x", "pathType": "Prefix", "backend": {"service": {"name": "web"}}}]}}]}}),
        &[
            "spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
            "spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path",
            "spec.rules[0].http.paths[0].backend: Required value: port name or number is required",
        ],
    );
    check(
        "discovery.k8s.io",
        "EndpointSlice",
        json!({"addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}, {}]}),
        &[
            "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback \
             range (127.0.0.0/8, ::1/128)",
            "endpoints[1].addresses: Required value: must contain at least 1 address",
        ],
    );
}

#[test]
fn cluster_objects() {
    check(
        "scheduling.k8s.io",
        "PriorityClass",
        json!({"value": 2_000_000_000}),
        &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
    );
    check_update(
        "scheduling.k8s.io",
        "PriorityClass",
        json!({"value": 1}),
        json!({"value": 2}),
        &["value: Forbidden: may not be changed in an update."],
    );
    check(
        "",
        "Node",
        json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"},
            {"key": "a", "effect": "NoSchedule"}]}}),
        &[
            "metadata.taints[1]: Duplicate value: {\"Key\":\"a\",\"Value\":\"\",\
             \"Effect\":\"NoSchedule\",\"TimeAdded\":null}: taints must be unique by key and \
             effect pair",
        ],
    );
    check(
        "policy",
        "PodDisruptionBudget",
        json!({"spec": {"minAvailable": "150%", "maxUnavailable": 1}}),
        &[
            "spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":\"150%\"}: minAvailable \
             and maxUnavailable cannot be both set",
            "spec.minAvailable: Invalid value: \"150%\": must not be greater than 100%",
        ],
    );
    check(
        "autoscaling",
        "HorizontalPodAutoscaler",
        json!({"spec": {"minReplicas": 3, "maxReplicas": 2,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}}),
        &["spec.maxReplicas: Invalid value: 2: must be greater than or equal to `minReplicas`"],
    );
    check(
        "coordination.k8s.io",
        "Lease",
        json!({"spec": {"leaseDurationSeconds": 0}}),
        &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
    );
    check(
        "",
        "Event",
        json!({"involvedObject": {"namespace": "other"}}),
        &["involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"],
    );
}

#[test]
fn quotas_and_limits() {
    check(
        "",
        "ResourceQuota",
        json!({"spec": {"hard": {"cpu": "1"}, "scopes": ["BestEffort"], "scopeSelector":
            {"matchExpressions": [{"scopeName": "Terminating", "operator": "In", "values": ["a"]}]}}}),
        &[
            "spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource",
            "spec.scopeSelector.matchExpressions.operator: Invalid value: \"In\": must be 'Exists' \
             when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
             ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
             ResourceQuotaScopeCrossNamespacePodAffinity",
        ],
    );
    check(
        "",
        "LimitRange",
        json!({"spec": {"limits": [{"type": "Pod", "min": {"cpu": "1"}, "max": {"cpu": "2"},
            "maxLimitRequestRatio": {"cpu": "3"}}]}}),
        &[
            "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than \
             max/min = 2.000000",
        ],
    );
}

#[test]
fn unusable_selectors_end_the_search() {
    let broken = json!({"matchExpressions": [{"key": "a", "operator": "In"}]});
    check(
        "apps",
        "ReplicaSet",
        json!({"spec": {"selector": broken, "template": template()}}),
        &[
            "spec.selector.matchExpressions[0].values: Required value: must be specified when \
             `operator` is 'In' or 'NotIn'",
            "spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"a\",\"operator\":\
             \"In\"}]}: invalid label selector",
        ],
    );
}
