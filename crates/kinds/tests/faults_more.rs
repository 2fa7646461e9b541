//! Upstream's words for what users get wrong in storage, devices, budgets and registrations.

use meta::Faults;
use serde_json::{Value, json};

fn row_of(group: &str, kind: &str) -> &'static kinds::Row {
    kinds::row(group, kind).expect("a built-in kind")
}

fn check(group: &str, kind: &str, mut object: Value, expected: &[&str]) {
    let row = row_of(group, kind);
    row.strategy.default(&mut object);
    let mut faults = Faults::new();
    row.strategy.validate_create(&object, &mut faults);
    let found: Vec<_> = faults.0.iter().map(ToString::to_string).collect();
    assert_eq!(found, expected, "{kind}");
}

fn check_update(group: &str, kind: &str, mut old: Value, mut new: Value, expected: &[&str]) {
    let row = row_of(group, kind);
    row.strategy.default(&mut old);
    row.strategy.default(&mut new);
    let mut faults = Faults::new();
    row.strategy.validate_update(&new, &old, &mut faults);
    let found: Vec<_> = faults.0.iter().map(ToString::to_string).collect();
    assert_eq!(found, expected, "{kind}");
}

const STORAGE: &str = "storage.k8s.io";

#[test]
fn storage() {
    check(
        STORAGE,
        "CSINode",
        json!({"spec": {"drivers": [{"name": "a.b", "nodeID": "n"}, {"name": "a.b"}]}}),
        &[
            "spec.drivers[1].nodeID: Required value",
            "spec.drivers[1].name: Duplicate value: \"a.b\"",
        ],
    );
    let node = |id: &str, count: i64| {
        let driver = json!({"name": "a.b", "nodeID": id, "allocatable": {"count": count}});
        json!({"spec": {"drivers": [driver]}})
    };
    check_update(STORAGE, "CSINode", node("n", 1), node("n", 2), &[]);
    check_update(
        STORAGE,
        "CSINode",
        node("n", 1),
        node("m", 1),
        &[
            "spec.drivers: Invalid value: {\"Name\":\"a.b\",\"NodeID\":\"m\",\"TopologyKeys\":null,\
             \"Allocatable\":null}: field is immutable",
        ],
    );
    check(
        STORAGE,
        "VolumeAttributesClass",
        json!({"driverName": "a.b"}),
        &["parameters: Required value: must contain at least one key/value pair"],
    );
    check(
        STORAGE,
        "CSIDriver",
        json!({"spec": {"tokenRequests": [{"audience": "a", "expirationSeconds": 1},
            {"audience": "a"}]}}),
        &[
            "spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration \
             less than 10 minutes",
            "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
        ],
    );
    check(
        STORAGE,
        "StorageClass",
        json!({"provisioner": "a/b", "allowedTopologies": [
            {"matchLabelExpressions": [{"key": "zone", "values": []}]}]}),
        &["allowedTopologies[0].matchLabelExpressions[0].values: Required value"],
    );
    let capacity = |class: &str| json!({"storageClassName": class, "capacity": "1Gi"});
    check_update(
        STORAGE,
        "CSIStorageCapacity",
        capacity("a"),
        capacity("b"),
        &["storageClassName: Invalid value: \"b\": field is immutable"],
    );
}

#[test]
fn devices() {
    let group = "resource.k8s.io";
    let claim = |request: Value| json!({"spec": {"devices": {"requests": [request]}}});
    check(
        group,
        "ResourceClaim",
        claim(json!({"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com"}})),
        &[],
    );
    check(
        group,
        "ResourceClaim",
        claim(json!({"name": "gpu"})),
        &[
            "spec.devices.requests[0]: Required value: exactly one of `exactly` or \
             `firstAvailable` is required",
        ],
    );
    let mut constrained = claim(json!({"name": "a", "firstAvailable": [
        {"name": "b", "deviceClassName": "c", "count": -1}]}));
    constrained["spec"]["devices"]["constraints"] =
        json!([{"requests": ["a/b", "a/x"], "matchAttribute": "model"}]);
    let reference = "must be the name of a request in the claim or the name of a request and a \
                     subrequest separated by '/'";
    check(
        group,
        "ResourceClaim",
        constrained,
        &[
            "spec.devices.requests[0].firstAvailable[0].count: Invalid value: -1: must be greater \
             than zero",
            &format!(
                "spec.devices.constraints[0].requests[1]: Invalid value: \"a/x\": {reference}"
            ),
            "spec.devices.constraints[0].matchAttribute: Invalid value: \"model\": a fully \
             qualified name must be a domain and a name separated by a slash",
        ],
    );
    let slice = json!({"driver": "d.example.com",
        "pool": {"name": "p", "resourceSliceCount": 1, "generation": 1}});
    check(
        group,
        "ResourceSlice",
        json!({"spec": slice}),
        &[
            "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, \
             `perDeviceNodeSelection` is required",
        ],
    );
    check(
        group,
        "DeviceClass",
        json!({"spec": {"extendedResourceName": "cpu", "config": [{}]}}),
        &[
            "spec.config[0].opaque: Required value",
            "spec.extendedResourceName: Invalid value: \"cpu\": must be a valid extended resource \
             name",
        ],
    );
}

#[test]
fn registrations() {
    check(
        "apiregistration.k8s.io",
        "APIService",
        json!({"metadata": {"name": "v1.x"}, "spec": {"group": "a.b", "version": "v1",
            "groupPriorityMinimum": 0, "versionPriority": 1, "caBundle": "YWJj"}}),
        &[
            "metadata.name: Invalid value: \"v1.x\": must be `spec.version+\".\"+spec.group`: \
             \"v1.a.b\"",
            "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
            "spec.caBundle: Invalid value: \"3 bytes\": local APIServices may not have a caBundle",
        ],
    );
}

#[test]
fn statuses() {
    let row = row_of("policy", "PodDisruptionBudget");
    let condition = json!({"type": "Ready", "status": "Yes", "reason": "1",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let object = json!({"status": {"expectedPods": -1, "conditions": [condition]}});
    let mut faults = Faults::new();
    row.strategy.validate_status(&object, &object, &mut faults);
    let found: Vec<_> = faults.0.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(
        found,
        [
            "status.conditions[0].status",
            "status.conditions[0].reason",
            "status.expectedPods",
        ]
    );
}

#[test]
fn runtime_classes() {
    check(
        "node.k8s.io",
        "RuntimeClass",
        json!({"handler": "box", "overhead": {"podFixed": {"cpu": "-1"}},
            "scheduling": {"tolerations": [{"operator": "Exists"}, {"operator": "Exists"}]}}),
        &[
            "overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
            "scheduling.tolerations[1]: Duplicate value: {\"Key\":\"\",\"Operator\":\"Exists\",\
             \"Value\":\"\",\"Effect\":\"\",\"TolerationSeconds\":null}",
        ],
    );
}

#[test]
fn volumes_and_claims() {
    let volume = |spec: Value| {
        let mut spec = spec;
        spec["capacity"] = json!({"storage": "1Gi"});
        spec["accessModes"] = json!(["ReadWriteOnce"]);
        json!({"metadata": {"name": "v"}, "spec": spec})
    };
    check(
        "",
        "PersistentVolume",
        volume(
            json!({"csi": {"driver": "a.b", "nodePublishSecretRef": {"name": "s"}},
            "nodeAffinity": {}, "nfs": {}}),
        ),
        &[
            "spec.nodeAffinity.required: Required value: must specify required node constraints",
            "spec.nfs.server: Required value",
            "spec.nfs.path: Required value",
            "spec.nfs.path: Invalid value: \"\": must be an absolute path",
            "spec.csi: Forbidden: may not specify more than 1 volume type",
        ],
    );
    check(
        "",
        "PersistentVolume",
        volume(json!({"csi": {"driver": "a.b", "nodePublishSecretRef": {"name": "s"}}})),
        &[
            "spec.csi.volumeHandle: Required value",
            "spec.csi.nodePublishSecretRef.namespace: Required value",
        ],
    );
    check(
        "",
        "PersistentVolume",
        volume(
            json!({"hostPath": {"path": "/"}, "volumeAttributesClassName": "",
            "persistentVolumeReclaimPolicy": "Recycle"}),
        ),
        &[
            "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath \
             mount of '/'",
            "spec.volumeAttributesClassName: Required value: an empty string is disallowed",
            "spec.csi: Required value: has to be specified when using volumeAttributesClassName",
        ],
    );
    let driver = |secret: Value| {
        let mut csi = json!({"driver": "a.b", "volumeHandle": "h"});
        csi["controllerExpandSecretRef"] = secret;
        volume(json!({ "csi": csi }))
    };
    let secret = json!({"name": "s", "namespace": "n"});
    check_update(
        "",
        "PersistentVolume",
        driver(Value::Null),
        driver(secret),
        &[],
    );
    let claim = |spec: Value| {
        let mut spec = spec;
        spec["accessModes"] = json!(["ReadWriteOnce"]);
        spec["resources"] = json!({"requests": {"storage": "1Gi"}});
        json!({"metadata": {"name": "c"}, "spec": spec})
    };
    check(
        "",
        "PersistentVolumeClaim",
        claim(
            json!({"dataSource": {"name": "s", "kind": "VolumeSnapshot"},
            "dataSourceRef": {"name": "s", "kind": "X", "apiGroup": "a_b"}}),
        ),
        &[
            "spec.dataSource: Invalid value: \"VolumeSnapshot\": must be 'PersistentVolumeClaim' \
             when referencing the default apiGroup",
            "spec.dataSourceRef.apiGroup: Invalid value: \"a_b\": a lowercase RFC 1123 subdomain \
             must consist of lower case alphanumeric characters, '-' or '.', and must start and \
             end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec: Invalid value: {}: must match dataSourceRef",
        ],
    );
    let mut applied = claim(json!({"volumeAttributesClassName": "gold"}));
    applied["status"] = json!({"phase": "Bound", "currentVolumeAttributesClassName": "gold"});
    let mut without = claim(json!({}));
    without["status"] = applied["status"].clone();
    check_update(
        "",
        "PersistentVolumeClaim",
        applied,
        without,
        &[
            "spec.volumeAttributesClassName: Forbidden: update to nil is forbidden when \
             status.currentVolumeAttributesClassName is not nil",
        ],
    );
}

#[test]
fn services_and_nodes() {
    let service = |kind: &str, ingress: Value| json!({"spec": {"type": kind}, "status": {"loadBalancer": {"ingress": [ingress]}}});
    let check_status = |kind: &str, object: Value, expected: &[&str]| {
        let row = row_of("", kind);
        let mut faults = Faults::new();
        row.strategy
            .validate_status(&object, &json!({}), &mut faults);
        let found: Vec<_> = faults.0.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{object}");
    };
    check_status(
        "Service",
        service("ClusterIP", json!({"ip": "10.0.0.1", "ipMode": "VIP"})),
        &[
            "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is \
             'LoadBalancer'",
        ],
    );
    let balanced = |ingress: Value| service("LoadBalancer", ingress);
    check_status(
        "Service",
        balanced(json!({"ip": "10.0.0.1", "hostname": "10.0.0.2"})),
        &[
            "status.loadBalancer.ingress[0].ipMode: Required value: must be specified when `ip` \
             is set",
            "status.loadBalancer.ingress[0].hostname: Invalid value: \"10.0.0.2\": must be a DNS \
             name, not an IP address",
        ],
    );
    check_status(
        "Node",
        json!({"status": {"declaredFeatures": ["B/c", "B/c", "A", "x"]}}),
        &[
            "status.declaredFeatures[1]: Duplicate value: \"B/c\"",
            "status.declaredFeatures[2]: Invalid value: \"A\": list must be sorted alphabetically",
            "status.declaredFeatures[3]: Invalid value: \"x\": invalid feature name \"x\": must \
             start with an UpperCamelCase segment, with subsequent segments separated by '/' \
             (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric \
             characters and slashes",
        ],
    );
}
