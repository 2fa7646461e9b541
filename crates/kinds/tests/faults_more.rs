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
        &["spec.drivers: Invalid value: {\"name\":\"a.b\",\"nodeID\":\"m\"}: field is immutable"],
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
            "scheduling.tolerations[1]: Duplicate value: {\"operator\":\"Exists\"}",
        ],
    );
}
