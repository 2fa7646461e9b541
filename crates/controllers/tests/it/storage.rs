//! What protects storage and the ranges of services.

use serde_json::{Value, json};

use crate::world::World;

const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const PODS: &str = "/api/v1/namespaces/default/pods";
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const SERVICES: &str = "/api/v1/namespaces/default/services";

fn is_leaving(object: Option<&Value>) -> bool {
    object.is_some_and(|object| object["metadata"].get("deletionTimestamp").is_some())
}

#[tokio::test]
async fn a_claim_stays_while_a_pod_uses_it() {
    let world = World::start().await;
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    let made = world.post(CLAIMS, claim).await;
    let finalizers = json!(["kubernetes.io/pvc-protection"]);
    assert_eq!(made["metadata"]["finalizers"], finalizers);
    let node = json!({"metadata": {"name": "n1"}});
    world.post("/api/v1/nodes", node).await;
    let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": "data"}});
    let pod = json!({"metadata": {"name": "web"}, "spec": {"nodeName": "n1",
        "containers": [{"name": "c", "image": "i"}], "volumes": [volume]}});
    world.post(PODS, pod).await;
    let path = format!("{CLAIMS}/data");
    world.delete(&path, "Background").await;
    assert!(is_leaving(world.get(&path).await.as_ref()));
    let options = json!({"gracePeriodSeconds": 0});
    let pod = format!("{PODS}/web");
    world
        .client
        .delete_value(&pod, Some(options))
        .await
        .unwrap();
    world.until_gone(&path).await;
    world.stop().await;
}

#[tokio::test]
async fn a_volume_stays_while_it_is_bound() {
    let world = World::start().await;
    let volumes = "/api/v1/persistentvolumes";
    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"}}});
    world.post(volumes, volume).await;
    let path = format!("{volumes}/v");
    let phase = |phase: &str| json!({"status": {"phase": phase}});
    let status = format!("{path}/status");
    world.patch(&status, phase("Bound")).await;
    world.delete(&path, "Background").await;
    assert!(is_leaving(world.get(&path).await.as_ref()));
    world.patch(&status, phase("Released")).await;
    world.until_gone(&path).await;
    world.stop().await;
}

#[tokio::test]
async fn a_range_stays_while_a_service_needs_it() {
    let world = World::start().await;
    let range = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.7.0.0/24"]}});
    world.post(RANGES, range).await;
    let path = format!("{RANGES}/more");
    let ready = |range: Option<&Value>, reason: &str, status: &str| {
        let one = range.map(|range| range["status"]["conditions"][0].clone());
        one.is_some_and(|one| one["status"] == status && one["reason"] == reason)
    };
    let range = world.until(&path, |range| ready(range, "", "True")).await;
    let finalizers = json!(["networking.k8s.io/service-cidr-finalizer"]);
    assert_eq!(range["metadata"]["finalizers"], finalizers);
    let service = json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "10.7.0.9",
        "ports": [{"port": 80}]}});
    world.post(SERVICES, service).await;
    world.delete(&path, "Background").await;
    let blocked = |range: Option<&Value>| ready(range, "Terminating", "False");
    world.until(&path, blocked).await;
    world.stop().await;
}
