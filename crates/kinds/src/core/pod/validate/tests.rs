//! Upstream's words for what users get wrong in pods.

use meta::Faults;
use serde_json::{Value, json};

use super::*;

/// A sound pod.
fn sound() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "containers": [{"name": "a", "image": "nginx:1", "ports": [{"containerPort": 80}]}],
            "serviceAccountName": "default",
        },
    })
}

/// The faults of a sound pod with `value` at the JSON pointer `at`.
fn faults(at: &str, value: Value) -> Vec<String> {
    let mut pod = sound();
    put(&mut pod, at, value);
    crate::core::pod::defaults::default_pod(&mut pod);
    let mut faults = Faults::new();
    validate_create(&pod, &mut faults);
    faults.0.iter().map(ToString::to_string).collect()
}

fn put(tree: &mut Value, at: &str, value: Value) {
    let (parent, name) = at.rsplit_once('/').unwrap();
    match tree.pointer_mut(parent).unwrap() {
        Value::Array(list) => list.push(value),
        parent => parent[name] = value,
    }
}

fn check(at: &str, value: Value, expected: &[&str]) {
    assert_eq!(faults(at, value), expected, "{at}");
}

#[test]
fn a_sound_pod_has_no_faults() {
    check("/spec/nodeName", json!("node-1"), &[]);
}

#[test]
fn containers_are_checked() {
    check(
        "/spec/containers",
        json!([]),
        &["spec.containers: Required value"],
    );
    check(
        "/spec/containers/-",
        json!({"name": "a", "image": "b"}),
        &["spec.containers[1].name: Duplicate value: \"a\""],
    );
    check(
        "/spec/containers/0/name",
        json!("A_b"),
        &[
            "spec.containers[0].name: Invalid value: \"A_b\": a lowercase RFC 1123 label must \
           consist of lower case alphanumeric characters or '-', and must start and end with an \
           alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
           '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ],
    );
    check(
        "/spec/containers/0/image",
        json!(""),
        &["spec.containers[0].image: Required value"],
    );
    check(
        "/spec/containers/0/imagePullPolicy",
        json!("Sometimes"),
        &[
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported \
           values: \"Always\", \"IfNotPresent\", \"Never\"",
        ],
    );
    check(
        "/spec/restartPolicy",
        json!("Maybe"),
        &[
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \
           \"OnFailure\", \"Never\"",
        ],
    );
}

#[test]
fn ports_and_variables_are_checked() {
    check(
        "/spec/containers/0/ports/0/containerPort",
        json!(70000),
        &[
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 \
           and 65535, inclusive",
        ],
    );
    check(
        "/spec/containers/0/env",
        json!([{"name": "a=b"}, {"name": "c", "value": "x", "valueFrom": {
            "fieldRef": {"fieldPath": "status.nothing"}}}]),
        &[
            "spec.containers[0].env[0].name: Invalid value: \"a=b\": a valid environment \
             variable name must consist only of printable ASCII characters other than '='",
            "spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Invalid value: \
             \"status.nothing\": error converting fieldPath: field label not supported: \
             status.nothing",
            "spec.containers[0].env[1].valueFrom: Invalid value: \"\": may not be specified \
             when `value` is not empty",
        ],
    );
}

#[test]
fn resources_are_checked() {
    check(
        "/spec/containers/0/resources",
        json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2", "gpu": "1"}}),
        &[
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or \
             equal to cpu limit of 1",
            "spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a \
             standard resource type or fully qualified",
            "spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a \
             standard resource for containers",
        ],
    );
    check(
        "/spec/containers/0/resources",
        json!({"limits": {"memory": "-1"}}),
        &[
            "spec.containers[0].resources.limits[memory]: Invalid value: \"-1\": must be \
             greater than or equal to 0",
            "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be \
             greater than or equal to 0",
        ],
    );
}

#[test]
fn volumes_and_mounts_are_checked() {
    check(
        "/spec/containers/0/volumeMounts",
        json!([{"name": "data", "mountPath": "/data"}]),
        &["spec.containers[0].volumeMounts[0].name: Not found: \"data\""],
    );
    check(
        "/spec/volumes",
        json!([{"name": "a", "emptyDir": {}, "hostPath": {"path": "/x"}}, {"name": "b",
            "configMap": {}}]),
        &[
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
            "spec.volumes[1].configMap.name: Required value",
        ],
    );
}

#[test]
fn probes_and_hooks_are_checked() {
    check(
        "/spec/containers/0/livenessProbe",
        json!({"successThreshold": 2, "httpGet": {"port": 0, "scheme": "FTP"}}),
        &[
            "spec.containers[0].livenessProbe.httpGet.port: Invalid value: 0: must be between 1 \
             and 65535, inclusive",
            "spec.containers[0].livenessProbe.httpGet.scheme: Unsupported value: \"FTP\": \
             supported values: \"HTTP\", \"HTTPS\"",
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ],
    );
    check(
        "/spec/initContainers",
        json!([{"name": "i", "image": "x", "lifecycle": {}}]),
        &[
            "spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers \
           without restartPolicy=Always",
        ],
    );
    check(
        "/spec/initContainers",
        json!([{"name": "i", "image": "x", "restartPolicy": "Always", "livenessProbe": {}}]),
        &["spec.initContainers[0].livenessProbe: Required value: must specify a handler type"],
    );
}

#[test]
fn scheduling_is_checked() {
    check(
        "/spec/tolerations",
        json!([{"operator": "Equal"}, {"key": "a", "operator": "Exists", "value": "b"}]),
        &[
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists \
             when `key` is empty, which means \"match all values and all keys\"",
            "spec.tolerations[1].operator: Invalid value: \"b\": value must be empty when \
             `operator` is 'Exists'",
        ],
    );
    check(
        "/spec/topologySpreadConstraints",
        json!([{"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "x"}]),
        &[
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than \
             zero",
            "spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty",
            "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"x\": \
             supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
        ],
    );
}

fn update_faults(change: impl Fn(&mut Value)) -> Vec<String> {
    let mut old = sound();
    crate::core::pod::defaults::default_pod(&mut old);
    let mut new = old.clone();
    change(&mut new);
    let mut faults = Faults::new();
    validate_update(&new, &old, &mut faults);
    faults.0.iter().map(ToString::to_string).collect()
}

#[test]
fn little_may_change_in_a_pod() {
    let none: [&str; 0] = [];
    let image = |pod: &mut Value| pod["spec"]["containers"][0]["image"] = json!("nginx:2");
    assert_eq!(update_faults(image), none);
    let more = |pod: &mut Value| pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    assert_eq!(update_faults(more), none);
    let wrong = |pod: &mut Value| {
        pod["spec"]["tolerations"] = json!([{"key": "a", "operator": "x"}]);
    };
    let rule = "spec.tolerations[0].operator: Unsupported value: \"x\": supported values: \
                \"Equal\", \"Exists\"";
    // Upstream looks at the pod, and again at what may be added to it.
    assert_eq!(update_faults(wrong), [rule, rule]);
    let container = |pod: &mut Value| {
        let mut more = pod["spec"]["containers"][0].clone();
        more["name"] = json!("b");
        put(pod, "/spec/containers/-", more);
    };
    assert_eq!(
        update_faults(container),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
    let node = |pod: &mut Value| pod["spec"]["nodeName"] = json!("node-2");
    let faults = update_faults(node);
    assert!(
        faults[0].starts_with(
            "spec: Forbidden: pod updates may not change fields other than \
             `spec.containers[*].image`,`spec.initContainers[*].image`,\
             `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
             tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it \
             was previously negative)\n"
        ),
        "{faults:?}"
    );
    assert_eq!(faults.len(), 1);
}
