//! What kubectl shows of objects, cell by cell. The expected texts are kubectl's own.

use serde_json::{Value, json};

const NOW: &str = "2026-01-31T12:00:00Z";

fn row_of(group: &str, kind: &str) -> &'static kinds::Row {
    kinds::row(group, kind).expect("a built-in kind")
}

fn cells(group: &str, kind: &str, object: &Value) -> Vec<String> {
    let row = row_of(group, kind);
    let now = NOW.parse().expect("a time");
    let text = |cell: Value| match cell {
        Value::String(text) => text,
        other => other.to_string(),
    };
    row.strategy
        .cells(object, now)
        .into_iter()
        .map(text)
        .collect()
}

/// Compares the cells of an object named `web`, five minutes old.
fn check(group: &str, kind: &str, mut object: Value, expected: &[&str]) {
    let metadata = &mut object["metadata"];
    metadata["name"] = json!("web");
    metadata["creationTimestamp"] = json!("2026-01-31T11:55:00Z");
    assert_eq!(cells(group, kind, &object), expected, "{object}");
}

fn status(name: &str, state: Value) -> Value {
    json!({"name": name, "restartCount": 0, "ready": false, "state": state})
}

fn check_pod(spec: Value, status: Value, ready: &str, reason: &str, restarts: &str) {
    let object = json!({"metadata": {"name": "web"}, "spec": spec, "status": status});
    assert_eq!(
        cells("", "Pod", &object)[1..4],
        [ready, reason, restarts],
        "{object}"
    );
}

#[test]
fn pods_that_run() {
    let running = json!({"name": "a", "restartCount": 2, "ready": true, "state": {"running": {}},
        "lastState": {"terminated": {"finishedAt": "2026-01-31T11:55:00Z"}}});
    let spec = json!({"containers": [{"name": "a"}], "nodeName": "node-1",
        "readinessGates": [{"conditionType": "x"}]});
    let status = json!({"phase": "Running", "podIPs": [{"ip": "10.1.0.7"}],
        "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [running]});
    check(
        "",
        "Pod",
        json!({"spec": spec, "status": status}),
        &[
            "web",
            "1/1",
            "Running",
            "2 (5m ago)",
            "5m",
            "10.1.0.7",
            "node-1",
            "<none>",
            "0/1",
        ],
    );
}

#[test]
fn pods_in_trouble() {
    let spec = json!({"containers": [{"name": "a"}]});
    let with =
        |state: Value| json!({"phase": "Running", "containerStatuses": [status("a", state)]});
    let waiting = with(json!({"waiting": {"reason": "CrashLoopBackOff"}}));
    check_pod(spec.clone(), waiting, "0/1", "CrashLoopBackOff", "0");
    let killed = with(json!({"terminated": {"reason": "OOMKilled", "exitCode": 137}}));
    check_pod(spec.clone(), killed, "0/1", "OOMKilled", "0");
    let signalled = with(json!({"terminated": {"exitCode": 137, "signal": 9}}));
    check_pod(spec.clone(), signalled, "0/1", "Signal:9", "0");
    let exited = with(json!({"terminated": {"exitCode": 3}}));
    check_pod(spec.clone(), exited, "0/1", "ExitCode:3", "0");
    let done = json!({"phase": "Succeeded", "containerStatuses": [
        status("a", json!({"terminated": {"reason": "Completed", "exitCode": 0}}))]});
    check_pod(spec.clone(), done, "0/1", "Completed", "0");
    let gated = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "reason": "SchedulingGated"}]});
    check_pod(spec.clone(), gated, "0/1", "SchedulingGated", "0");
    check_pod(
        spec,
        json!({"phase": "Failed", "reason": "Evicted"}),
        "0/1",
        "Evicted",
        "0",
    );
}

#[test]
fn pods_that_start_and_stop() {
    let spec = json!({"containers": [{"name": "a"}], "initContainers": [
        {"name": "i"}, {"name": "s", "restartPolicy": "Always"}]});
    let with = |first: Value, second: Value| {
        json!({"phase": "Pending", "initContainerStatuses": [first, second],
            "containerStatuses": [status("a", json!({"waiting": {"reason": "PodInitializing"}}))]})
    };
    let idle = || json!({"waiting": {"reason": "PodInitializing"}});
    let first = with(status("i", json!({"running": {}})), status("s", idle()));
    check_pod(spec.clone(), first, "0/2", "Init:0/2", "0");
    let failed = json!({"terminated": {"reason": "Error", "exitCode": 1}});
    check_pod(
        spec.clone(),
        with(status("i", failed), status("s", idle())),
        "0/2",
        "Init:Error",
        "0",
    );
    let done = status("i", json!({"terminated": {"exitCode": 0}}));
    let sidecar = json!({"name": "s", "started": true, "ready": true, "restartCount": 1,
        "state": {"running": {}}});
    check_pod(spec, with(done, sidecar), "1/2", "PodInitializing", "1");
    let deleted = json!({"metadata": {"deletionTimestamp": NOW}, "spec": {"containers": [{}]},
        "status": {"phase": "Running"}});
    assert_eq!(cells("", "Pod", &deleted)[2], "Terminating");
}

#[test]
fn workloads() {
    let template = json!({"spec": {"containers": [
        {"name": "a", "image": "nginx:1"}, {"name": "b", "image": "busybox"}]}});
    let selector = json!({"matchLabels": {"b": "2", "a": "1"}});
    check(
        "apps",
        "Deployment",
        json!({"spec": {"replicas": 3, "template": template, "selector": selector},
            "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1}}),
        &[
            "web",
            "1/3",
            "2",
            "1",
            "5m",
            "a,b",
            "nginx:1,busybox",
            "a=1,b=2",
        ],
    );
    check(
        "apps",
        "ReplicaSet",
        json!({"spec": {"replicas": 3, "template": template, "selector": selector},
            "status": {"replicas": 3, "readyReplicas": 1}}),
        &[
            "web",
            "3",
            "3",
            "1",
            "5m",
            "a,b",
            "nginx:1,busybox",
            "a=1,b=2",
        ],
    );
    check(
        "apps",
        "StatefulSet",
        json!({"spec": {"replicas": 3, "template": template}, "status": {"readyReplicas": 1}}),
        &["web", "1/3", "5m", "a,b", "nginx:1,busybox"],
    );
    check(
        "apps",
        "DaemonSet",
        json!({"spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}},
            "status": {"desiredNumberScheduled": 2, "numberReady": 1}}),
        &[
            "web", "2", "0", "1", "0", "0", "disk=ssd", "5m", "", "", "<none>",
        ],
    );
}

#[test]
fn jobs() {
    let spec =
        json!({"completions": 3, "parallelism": 1, "template": {"spec": {"containers": []}}});
    check(
        "batch",
        "Job",
        json!({"spec": spec, "status": {"succeeded": 3, "startTime": "2026-01-31T11:55:00Z",
            "completionTime": "2026-01-31T11:55:42Z",
            "conditions": [{"type": "Complete", "status": "True"}]}}),
        &["web", "Complete", "3/3", "42s", "5m", "", "", "<none>"],
    );
    check(
        "batch",
        "Job",
        json!({"spec": {"parallelism": 4}, "status": {}}),
        &["web", "Running", "0/1 of 4", "", "5m", "", "", "<none>"],
    );
    check(
        "batch",
        "CronJob",
        json!({"spec": {"schedule": "*/5 * * * *", "suspend": false}, "status": {"active": [{}]}}),
        &[
            "web",
            "*/5 * * * *",
            "<none>",
            "False",
            "1",
            "<none>",
            "5m",
            "",
            "",
            "<none>",
        ],
    );
}

#[test]
fn network() {
    check(
        "",
        "Service",
        json!({"spec": {"type": "NodePort", "clusterIPs": ["10.43.0.9"], "selector": {"a": "b"},
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"},
                {"port": 53, "protocol": "UDP"}]}}),
        &[
            "web",
            "NodePort",
            "10.43.0.9",
            "<none>",
            "80:30080/TCP,53/UDP",
            "5m",
            "a=b",
        ],
    );
    check(
        "",
        "Service",
        json!({"spec": {"type": "LoadBalancer", "externalIPs": ["192.0.2.1"]},
            "status": {"loadBalancer": {"ingress": [{"hostname": "b"}, {"ip": "1.2.3.4"}]}}}),
        &[
            "web",
            "LoadBalancer",
            "<none>",
            "1.2.3.4,b,192.0.2.1",
            "<none>",
            "5m",
            "<none>",
        ],
    );
    check(
        "",
        "Endpoints",
        json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
            "ports": [{"port": 80}, {"port": 443}]}]}),
        &[
            "web",
            "10.0.0.1:80,10.0.0.2:80,10.0.0.1:443 + 1 more...",
            "5m",
        ],
    );
    check(
        "discovery.k8s.io",
        "EndpointSlice",
        json!({"addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}]}),
        &["web", "IPv4", "80", "10.0.0.1,10.0.0.2", "5m"],
    );
    check(
        "networking.k8s.io",
        "Ingress",
        json!({"spec": {"ingressClassName": "nginx", "tls": [{}], "rules": [{"host": "a"}, {}]}}),
        &["web", "nginx", "a", "", "80, 443", "5m"],
    );
}

#[test]
fn cluster() {
    check(
        "",
        "Node",
        json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": "",
                "kubernetes.io/role": "master"}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.36.2", "osImage": "Debian", "kernelVersion":
                    "6.1", "architecture": "amd64", "containerRuntimeVersion": "sampan://0.1"}}}),
        &[
            "web",
            "Ready,SchedulingDisabled",
            "control-plane,master",
            "5m",
            "v1.36.2",
            "10.0.0.1",
            "<none>",
            "Debian",
            "6.1 (amd64)",
            "sampan://0.1",
        ],
    );
    check(
        "",
        "Namespace",
        json!({"status": {"phase": "Active"}}),
        &["web", "Active", "5m"],
    );
    check(
        "",
        "Event",
        json!({"lastTimestamp": "2026-01-31T11:59:50Z", "firstTimestamp": "2026-01-31T11:50:00Z",
            "count": 4, "type": "Warning", "reason": "BackOff", "message": " slow down ",
            "involvedObject": {"kind": "Pod", "name": "p"},
            "source": {"component": "kubelet", "host": "node-1"}}),
        &[
            "10s",
            "Warning",
            "BackOff",
            "pod/p",
            "",
            "kubelet, node-1",
            "slow down",
            "10m",
            "4",
            "web",
        ],
    );
    check(
        "rbac.authorization.k8s.io",
        "RoleBinding",
        json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [
            {"kind": "User", "name": "ann"}, {"kind": "User", "name": "bob"},
            {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]}),
        &["web", "Role/r", "5m", "ann, bob", "", "n/s"],
    );
    check(
        "",
        "ResourceQuota",
        json!({"status": {"hard": {"cpu": "4", "limits.cpu": "8", "pods": "10"},
            "used": {"cpu": "500m", "pods": "3"}}}),
        &["web", "cpu: 500m/4, pods: 3/10", "limits.cpu: 0/8", "5m"],
    );
}

#[test]
fn storage_and_scaling() {
    check(
        "",
        "PersistentVolumeClaim",
        json!({"spec": {"volumeName": "pv", "volumeMode": "Filesystem", "storageClassName": "fast"},
            "status": {"phase": "Bound", "capacity": {"storage": "1024Mi"},
                "accessModes": ["ReadWriteOnce"]}}),
        &[
            "web",
            "Bound",
            "pv",
            "1Gi",
            "RWO",
            "fast",
            "<unset>",
            "5m",
            "Filesystem",
        ],
    );
    check(
        "storage.k8s.io",
        "StorageClass",
        json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "sampan.dev/local"}),
        &[
            "web (default)",
            "sampan.dev/local",
            "Delete",
            "Immediate",
            "false",
            "5m",
        ],
    );
    check(
        "autoscaling",
        "HorizontalPodAutoscaler",
        json!({"spec": {"minReplicas": 1, "maxReplicas": 5,
            "scaleTargetRef": {"kind": "Deployment", "name": "web"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target":
                {"averageUtilization": 80}}}]}, "status": {"currentReplicas": 2}}),
        &[
            "web",
            "Deployment/web",
            "cpu: <unknown>/80%",
            "1",
            "5",
            "2",
            "5m",
        ],
    );
    check(
        "policy",
        "PodDisruptionBudget",
        json!({"spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 1}}),
        &["web", "50%", "N/A", "1", "5m"],
    );
}

#[test]
fn columns_are_kubectls() {
    let row = row_of("", "Pod");
    let names: Vec<_> = row
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    let expected = [
        "Name",
        "Ready",
        "Status",
        "Restarts",
        "Age",
        "IP",
        "Node",
        "Nominated Node",
        "Readiness Gates",
    ];
    assert_eq!(names, expected);
    let wide = row.columns.iter().filter(|column| column.priority > 0);
    assert_eq!(wide.count(), 4);
    assert_eq!(row.columns[0].format, "name");
}
