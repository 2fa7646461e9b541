//! Objects that a cluster has from its first minute on.

use std::net::IpAddr;

use client::Client;
use meta::Status;
use serde_json::{Value, json};

const MANAGER: &str = "sampan";

/// The DNS service `kube-dns` and where it is answered: by this process, on the pods' gateway.
pub(crate) async fn dns(
    client: &Client,
    cluster_dns: &str,
    answers_at: IpAddr,
) -> Result<(), Status> {
    let labels = json!({"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true",
        "kubernetes.io/name": "CoreDNS"});
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
        "spec": {"clusterIP": cluster_dns, "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53}]},
    });
    apply(
        client,
        "/api/v1/namespaces/kube-system/services/kube-dns",
        &service,
    )
    .await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kube-dns-sampan", "namespace": "kube-system", "labels": {
            "kubernetes.io/service-name": "kube-dns",
            "endpointslice.kubernetes.io/managed-by": "sampan"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [answers_at.to_string()],
            "conditions": {"ready": true, "serving": true, "terminating": false}}],
        "ports": [{"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"}],
    });
    let path = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns-sampan";
    apply(client, path, &slice).await
}

async fn apply(client: &Client, path: &str, object: &Value) -> Result<(), Status> {
    let path = format!("{path}?fieldManager={MANAGER}&force=true");
    let body = serde_json::to_vec(object).map_err(Status::internal)?;
    client
        .patch_value(&path, "application/apply-patch+yaml", body)
        .await
        .map(drop)
}
