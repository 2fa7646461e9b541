//! A small cluster to ask about.

use std::net::IpAddr;
use std::sync::Arc;

use dns::Records;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

pub(crate) fn services() -> Vec<Value> {
    let service = |name: &str, spec: Value| json!({"metadata": {"namespace": "shop", "name": name, "uid": name, "resourceVersion": "3"}, "spec": spec});
    let ports = json!([
        {"name": "http", "port": 80, "targetPort": 8080},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]);
    let external = |target: &str| json!({"type": "ExternalName", "externalName": target});
    vec![
        service("web", json!({"clusterIP": "10.96.0.10", "ports": ports})),
        service(
            "dual",
            json!({"clusterIP": "10.96.0.11", "clusterIPs": ["10.96.0.11", "fd00:96::b"], "ports": []}),
        ),
        service(
            "db",
            json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]}),
        ),
        service(
            "early",
            json!({"clusterIP": "None", "publishNotReadyAddresses": true}),
        ),
        service("nobody", json!({"clusterIP": "None"})),
        service("abroad", external("WWW.example.org")),
        service("alias", external("web.shop.svc.cluster.local")),
        service("loop", external("loop.shop.svc.cluster.local")),
    ]
}

pub(crate) fn slices() -> Vec<Value> {
    let slice = |service: &str, ports: Value, endpoints: Value| {
        json!({
            "metadata": {
                "namespace": "shop", "name": format!("{service}-1"), "uid": service, "resourceVersion": "3",
                "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
        })
    };
    let sql = json!([{"name": "sql", "port": 5432, "protocol": "TCP"}]);
    vec![
        slice(
            "web",
            json!([{"name": "http", "port": 8080}]),
            json!([
                {"addresses": ["10.244.0.9"], "conditions": {"ready": true}},
            ]),
        ),
        slice(
            "db",
            sql.clone(),
            json!([
                {"addresses": ["10.244.0.5"], "hostname": "db-0", "conditions": {"ready": true}},
                {"addresses": ["10.244.0.6"], "hostname": "db-1", "conditions": {}},
                {"addresses": ["10.244.0.7"], "hostname": "db-2", "conditions": {"ready": false}},
                {"addresses": ["10.244.0.8"]},
            ]),
        ),
        slice(
            "early",
            sql,
            json!([
                {"addresses": ["10.244.0.20"], "hostname": "early-0", "conditions": {"ready": false}},
            ]),
        ),
    ]
}

/// The world as plain values.
pub(crate) struct World;

impl World {
    fn all(&self) -> Vec<Arc<Service>> {
        let decode = |value| Arc::new(serde_json::from_value(value).unwrap());
        services().into_iter().map(decode).collect()
    }

    fn all_slices(&self) -> Vec<Arc<EndpointSlice>> {
        let decode = |value| Arc::new(serde_json::from_value(value).unwrap());
        slices().into_iter().map(decode).collect()
    }
}

impl Records for World {
    fn namespace_exists(&self, name: &str) -> bool {
        matches!(name, "shop" | "empty")
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        let all = self.all().into_iter();
        let mut here = all.filter(|_| namespace == "shop");
        here.find(|service| service.metadata.name.as_deref() == Some(name))
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        let of = |slice: &EndpointSlice| {
            slice.metadata.labels.as_ref().unwrap()["kubernetes.io/service-name"].clone()
        };
        let all = self
            .all_slices()
            .into_iter()
            .filter(|_| namespace == "shop");
        all.filter(|slice| of(slice) == service).collect()
    }

    fn services_at(&self, address: IpAddr) -> Vec<Arc<Service>> {
        let text = Some(address.to_string());
        let has = |service: &Service| {
            let spec = service.spec.as_ref().unwrap();
            spec.cluster_ip == text
                || spec
                    .cluster_ips
                    .iter()
                    .flatten()
                    .any(|ip| Some(ip) == text.as_ref())
        };
        self.all()
            .into_iter()
            .filter(|service| has(service))
            .collect()
    }

    fn slices_at(&self, address: IpAddr) -> Vec<Arc<EndpointSlice>> {
        let text = address.to_string();
        let has = |slice: &EndpointSlice| {
            slice
                .endpoints
                .iter()
                .flatten()
                .any(|e| e.addresses.contains(&text))
        };
        self.all_slices()
            .into_iter()
            .filter(|slice| has(slice))
            .collect()
    }
}
