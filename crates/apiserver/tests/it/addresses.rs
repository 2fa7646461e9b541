//! Addresses of services: where they come from, and the IPAddresses that stand for them.

use base::Crew;
use client::Client;
use serde_json::{Value, json};

use crate::cluster::{Cluster, PODS, pod};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";

fn service(name: &str, ip: Option<&str>) -> Value {
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ports": [{"port": 80}]}});
    if let Some(ip) = ip {
        service["spec"]["clusterIP"] = ip.into();
    }
    service
}

async fn code(client: &Client, path: &str) -> u16 {
    match client.get_value(path).await {
        Ok(_) => 200,
        Err(status) => status.code,
    }
}

#[tokio::test]
async fn addresses_come_and_go_with_their_services() {
    let cluster = Cluster::start().await;
    let own = cluster.get(&format!("{ADDRESSES}/10.96.0.1")).await;
    assert_eq!(own.unwrap()["spec"]["parentRef"]["name"], "kubernetes");
    let made = cluster.post(SERVICES, service("web", None)).await.unwrap();
    let ip = made["spec"]["clusterIP"].as_str().unwrap();
    let path = format!("{ADDRESSES}/{ip}");
    let address = cluster.get(&path).await.unwrap();
    assert_eq!(
        address["metadata"]["labels"],
        json!({"ipaddress.kubernetes.io/ip-family": "IPv4",
            "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"})
    );
    assert_eq!(
        address["spec"]["parentRef"],
        json!({"resource": "services", "namespace": "default", "name": "web"})
    );
    let manager = &address["metadata"]["managedFields"][0]["manager"];
    assert_eq!(manager, "kube-apiserver");
    let named = json!({"spec": {"type": "ExternalName", "externalName": "example.com",
        "clusterIP": null, "clusterIPs": null}});
    let merge = "application/merge-patch+json";
    let body = serde_json::to_vec(&named).unwrap();
    let web = format!("{SERVICES}/web");
    let patched = cluster.client.patch_value(&web, merge, body).await;
    patched.unwrap();
    assert_eq!(code(&cluster.client, &path).await, 404);
    let headless = service("headless", Some("None"));
    cluster.post(SERVICES, headless).await.unwrap();
    let made = cluster.post(SERVICES, service("b", None)).await.unwrap();
    let path = format!(
        "{ADDRESSES}/{}",
        made["spec"]["clusterIP"].as_str().unwrap()
    );
    assert_eq!(code(&cluster.client, &path).await, 200);
    let service = format!("{SERVICES}/b");
    cluster.client.delete_value(&service, None).await.unwrap();
    assert_eq!(code(&cluster.client, &path).await, 404);
    cluster.stop().await;
}

#[tokio::test]
async fn addresses_that_others_claimed_are_taken() {
    let cluster = Cluster::start().await;
    let claim = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {"parentRef":
            {"group": "example.com", "resource": "gateways", "name": "edge"}}})
    };
    cluster.post(ADDRESSES, claim("10.96.7.7")).await.unwrap();
    let refused = cluster
        .post(SERVICES, service("a", Some("10.96.7.7")))
        .await;
    assert_eq!(
        refused.unwrap_err().message,
        "Service \"a\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.7.7\"]: failed to \
         allocate IP 10.96.7.7: provided IP is already allocated"
    );
    let refused = cluster.post(SERVICES, service("a", Some("10.1.0.1"))).await;
    assert_eq!(
        refused.unwrap_err().message,
        "Service \"a\" is invalid: spec.clusterIPs: Invalid value: [\"10.1.0.1\"]: failed to \
         allocate IP 10.1.0.1: the provided network does not match the current range"
    );
    let range = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.1.0.0/24"]}});
    cluster.post(RANGES, range).await.unwrap();
    cluster.get(RANGES).await.unwrap();
    let made = cluster.post(SERVICES, service("a", Some("10.1.0.1"))).await;
    assert_eq!(made.unwrap()["spec"]["clusterIP"], "10.1.0.1");
    cluster.stop().await;
}

#[tokio::test]
async fn a_lost_address_comes_back() {
    let cluster = Cluster::start().await;
    let made = cluster.post(SERVICES, service("web", None)).await.unwrap();
    let ip = made["spec"]["clusterIP"].as_str().unwrap();
    let path = format!("{ADDRESSES}/{ip}");
    let before = cluster.get(&path).await.unwrap();
    cluster.client.delete_value(&path, None).await.unwrap();
    let all = client::Hub::new(cluster.client.clone(), &cluster.crew);
    let all = all.informer::<k8s_openapi::api::networking::v1::IPAddress>();
    let mut changes = all.subscribe();
    let comes = async {
        loop {
            let change = changes.next().await.unwrap();
            let uid = change.new.and_then(|new| new.metadata.uid.clone());
            if change.key.name == ip && uid.is_some_and(|uid| before["metadata"]["uid"] != uid) {
                return;
            }
        }
    };
    let patience = std::time::Duration::from_secs(30);
    tokio::time::timeout(patience, comes).await.unwrap();
    let again = cluster.get(&path).await.unwrap();
    assert_eq!(again["spec"]["parentRef"]["name"], "web");
    cluster.stop().await;
}

#[tokio::test]
async fn addresses_survive_a_restart() {
    let crew = Crew::new();
    let store = store::memory(&crew).await.unwrap();
    let cluster = Cluster::over(std::sync::Arc::clone(&store), crew.clone(), 6443).await;
    let made = cluster.post(SERVICES, service("web", None)).await.unwrap();
    let ip = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let again = Cluster::over(store, crew, 6443).await;
    let refused = again.post(SERVICES, service("b", Some(&ip))).await;
    assert!(refused.unwrap_err().message.ends_with("already allocated"));
    again.stop().await;
}

#[tokio::test]
async fn a_namespace_that_is_not_there_is_told_first() {
    let cluster = Cluster::start().await;
    for collection in ["pods", "configmaps"] {
        let path = PODS
            .replace("default", "absent")
            .replace("pods", collection);
        let body = match collection {
            "pods" => pod("a"),
            _ => json!({"metadata": {"name": "a"}}),
        };
        let refusal = cluster.post(&path, body).await.unwrap_err();
        assert_eq!(
            (refusal.code, refusal.message.as_str()),
            (404, "namespaces \"absent\" not found")
        );
    }
    cluster.stop().await;
}
