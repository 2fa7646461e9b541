//! Which pods the node takes, and who makes room for whom.

use serde_json::{Value, json};

use crate::rig::{IMAGE, NODE, Rig, condition, wait};

fn asking(fields: Value) -> Value {
    let mut container = json!({"name": "main", "image": IMAGE});
    for (key, value) in fields.as_object().unwrap() {
        container[key] = value.clone();
    }
    json!({ "containers": [container] })
}

async fn rejected(rig: &Rig, name: &str, reason: &str, message: &str) {
    let pod = rig.wait_phase(name, "Failed").await;
    let status = &pod["status"];
    assert_eq!(status["reason"], reason);
    assert_eq!(status["message"], format!("Pod was rejected: {message}"));
    wait("the event", || {
        let told = rig.api.events_of(reason);
        told.iter().any(|told| told == message).then_some(())
    })
    .await;
}

#[tokio::test]
async fn pods_that_came_past_the_scheduler_must_fit() {
    let rig = Rig::new().await;
    let port = |number: i32| {
        asking(json!({"ports": [{"containerPort": 80, "hostPort": number, "protocol": "TCP"}]}))
    };
    rig.create("first", port(8080));
    rig.wait_phase("first", "Running").await;
    rig.create("same", port(8080));
    rejected(
        &rig,
        "same",
        "NodePorts",
        "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
    )
    .await;
    rig.create("other", port(8081));
    rig.wait_phase("other", "Running").await;
    rig.create("far", json!({"nodeSelector": {"zone": "elsewhere"}}));
    rejected(
        &rig,
        "far",
        "NodeAffinity",
        "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
    )
    .await;
    rig.create(
        "near",
        json!({"nodeSelector": {"kubernetes.io/hostname": NODE}}),
    );
    rig.wait_phase("near", "Running").await;
    rig.create("foreign", json!({"os": {"name": "windows"}}));
    rejected(
        &rig,
        "foreign",
        "PodOSNotSupported",
        "Failed to admit pod as the OS field doesn't match node OS",
    )
    .await;
    // A port is free again when its pod is gone.
    rig.delete("first", 1);
    wait("the end", || rig.pod("first").is_null().then_some(())).await;
    rig.create("next", port(8080));
    rig.wait_phase("next", "Running").await;
}

#[tokio::test]
async fn a_critical_pod_puts_out_as_few_as_it_needs() {
    let rig = Rig::new().await;
    let node = wait("node", || rig.api.get(&format!("/api/v1/nodes/{NODE}"))).await;
    let cpus: i64 = node["status"]["allocatable"]["cpu"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let milli =
        |amount: i64| asking(json!({"resources": {"requests": {"cpu": format!("{amount}m")}}}));
    rig.create("small", milli(50));
    rig.create("large", milli(cpus * 1_000 - 50));
    rig.wait_phase("small", "Running").await;
    rig.wait_phase("large", "Running").await;
    let mut vital = milli(50);
    vital["priority"] = 2_000_000_000.into();
    rig.create("vital", vital.clone());
    rig.wait_phase("vital", "Running").await;
    let small = rig.wait_phase("small", "Failed").await;
    assert_eq!(small["status"]["reason"], "Preempting");
    let message = "Preempted in order to admit critical pod";
    assert_eq!(small["status"]["message"], message);
    assert_eq!(condition(&small, "DisruptionTarget"), "True");
    assert_eq!(rig.pod("large")["status"]["phase"], "Running");
    // What nobody could make room for is refused all the same.
    vital["containers"][0]["resources"]["requests"]["cpu"] = (cpus + 1).into();
    rig.create("huge", vital);
    let huge = rig.wait_phase("huge", "Failed").await;
    assert_eq!(huge["status"]["reason"], "UnexpectedAdmissionError");
    assert_eq!(rig.pod("large")["status"]["phase"], "Running");
}

#[tokio::test]
async fn the_status_tells_what_the_whole_pod_has() {
    let rig = Rig::new().await;
    let mut spec = asking(json!({"resources": {"requests": {"cpu": "100m", "memory": "20Mi"}}}));
    spec["resources"] = json!({"requests": {"cpu": "200m"}, "limits": {"memory": "64Mi"}});
    rig.create("web", spec);
    let pod = rig.wait_phase("web", "Running").await;
    let status = &pod["status"];
    assert_eq!(
        status["allocatedResources"],
        json!({"cpu": "200m", "memory": "20Mi"})
    );
    assert_eq!(
        status["resources"],
        json!({"requests": {"cpu": "200m", "memory": "20Mi"}, "limits": {"memory": "64Mi"}})
    );
    // Where a container has no limit, the pod's is its own.
    let main = rig.runtime.running("main").unwrap();
    assert_eq!(main.config.resources.memory_limit_bytes, 64 << 20);
}

#[tokio::test]
async fn the_lease_of_a_node_goes_with_it() {
    let rig = Rig::new().await;
    let node = wait("node", || rig.api.get(&format!("/api/v1/nodes/{NODE}"))).await;
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NODE}");
    let lease = wait("lease", || rig.api.get(&path)).await;
    let owner = &lease["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["uid"]),
        (&json!("Node"), &node["metadata"]["uid"])
    );
}
