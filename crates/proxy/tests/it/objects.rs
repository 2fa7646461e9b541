//! Builders of Services and EndpointSlices, and a node to try them on.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::Key;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use node_api::{PodNetwork, PodNetworkConfig};
use proxy::{Config, Engine};
use serde_json::{Value, json};

use crate::lab::{Namespace, sh};

pub(crate) fn config() -> Config {
    Config {
        node_name: "node-1".to_owned(),
        zone: None,
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/12".parse().unwrap(),
    }
}

/// A service on `ip` with TCP and UDP port 80; `more` goes into its spec.
pub(crate) fn service(name: &str, ip: &str, more: Value) -> Service {
    let mut spec = json!({
        "clusterIP": ip,
        "type": "ClusterIP",
        "ports": [
            {"name": "http", "port": 80, "targetPort": 8080},
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 5353},
        ],
    });
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    let metadata = json!({"namespace": "default", "name": name});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

/// A NodePort service.
pub(crate) fn node_port(name: &str, ip: &str, port: u16, more: Value) -> Service {
    let mut service = service(name, ip, more);
    let spec = service.spec.as_mut().unwrap();
    spec.type_ = Some("NodePort".to_owned());
    for entry in spec.ports.iter_mut().flatten() {
        entry.node_port = Some(i32::from(port));
    }
    service
}

/// An endpoint, ready and on this node.
pub(crate) fn here(address: &str) -> Value {
    json!({"addresses": [address], "conditions": {"ready": true}, "nodeName": "node-1"})
}

/// An endpoint, ready and on another node.
pub(crate) fn there(address: &str) -> Value {
    json!({"addresses": [address], "conditions": {"ready": true}, "nodeName": "node-2"})
}

/// An endpoint of this node in the given condition.
pub(crate) fn state(address: &str, ready: bool, serving: bool, terminating: bool) -> Value {
    let conditions = json!({"ready": ready, "serving": serving, "terminating": terminating});
    json!({"addresses": [address], "conditions": conditions, "nodeName": "node-1"})
}

pub(crate) fn slice(service: &str, endpoints: &[Value]) -> EndpointSlice {
    serde_json::from_value(json!({
        "metadata": {
            "namespace": "default",
            "name": format!("{service}-abc"),
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [
            {"name": "http", "port": 8080, "protocol": "TCP"},
            {"name": "dns", "port": 5353, "protocol": "UDP"},
        ],
        "endpoints": endpoints,
    }))
    .unwrap()
}

/// An engine with what it was told, to tell it to another.
pub(crate) struct Told {
    pub(crate) engine: Engine,
    all: BTreeMap<Key, (Service, EndpointSlice)>,
}

impl Told {
    pub(crate) fn new() -> Told {
        let engine = Engine::open(config()).unwrap();
        Told {
            engine,
            all: BTreeMap::new(),
        }
    }

    /// Sets a service and commits.
    pub(crate) fn set(&mut self, service: Service, endpoints: &[Value]) {
        let slice = slice(service.metadata.name.as_deref().unwrap(), endpoints);
        let key = Key::of(&service);
        self.engine.set(&key, Some(&service), [&slice]);
        self.all.insert(key, (service, slice));
        self.engine.commit().unwrap();
    }

    pub(crate) fn remove(&mut self, name: &str) {
        let key = Key::new("default", name);
        self.all.remove(&key);
        self.engine.set(&key, None, []);
        self.engine.commit().unwrap();
    }

    /// Another engine, as after a restart, told the same.
    pub(crate) fn restarted(&self) -> Told {
        let mut fresh = Told::new();
        for (key, (service, slice)) in &self.all {
            fresh.engine.set(key, Some(service), [slice]);
        }
        fresh.engine.commit().unwrap();
        fresh.all = self.all.clone();
        fresh
    }
}

/// A node with a pod network, in the calling thread's namespace.
pub(crate) struct Node {
    _folder: tempfile::TempDir,
    network: Arc<dyn PodNetwork>,
    pub(crate) own: Namespace,
}

impl Node {
    pub(crate) async fn new(bridge_filter: bool) -> Node {
        let path = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        if std::path::Path::new(path).exists() {
            std::fs::write(path, if bridge_filter { "1" } else { "0" }).unwrap();
        }
        network::bring_up_loopback().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = network::Config::new(folder.path().to_owned());
        let network = network::open(config).await.unwrap();
        Node {
            _folder: folder,
            network,
            own: Namespace::current(),
        }
    }

    /// A pod that tells its name on TCP 8080 and UDP 5353.
    pub(crate) async fn pod(&self, name: &str) -> (Namespace, String) {
        let netns = Namespace::new();
        let config = PodNetworkConfig {
            sandbox_id: name.to_owned(),
            netns: netns.path(),
            interface: "eth0".to_owned(),
            pod_namespace: "default".to_owned(),
            pod_name: name.to_owned(),
            pod_uid: name.to_owned(),
            port_mappings: Vec::new(),
        };
        let address = self.network.add(&config).await.unwrap().ips[0].to_string();
        netns.serve(name, &format!("{address}:8080"));
        netns.serve_udp(name, &format!("{address}:5353"));
        (netns, address)
    }
}

pub(crate) fn table() -> String {
    sh("nft -n list table ip sampan-proxy")
}
