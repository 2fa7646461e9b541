//! A node and what is on it, as the cycle sees it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::resources::{Resources, requested, scored};

/// A host port in use: protocol, address (`0.0.0.0` for all), port.
pub type HostPort = (String, String, i32);

/// One node with the pods assigned (or about to be assigned) to it.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    /// `None` while only pods that name it are known.
    pub node: Option<Arc<Node>>,
    pub allocatable: Resources,
    pub requested: Resources,
    /// Like `requested`, with assumptions for pods that ask for nothing.
    pub scored: Resources,
    /// How many pods use each host port.
    pub ports: BTreeMap<HostPort, usize>,
    /// Image names and their sizes in bytes.
    pub images: HashMap<String, i64>,
    pods: HashMap<String, Arc<Pod>>,
}

impl NodeView {
    /// Takes over what the node object says.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        self.allocatable = Resources::read(status.and_then(|status| status.allocatable.as_ref()));
        self.images.clear();
        for image in status
            .and_then(|status| status.images.as_ref())
            .into_iter()
            .flatten()
        {
            for name in image.names.iter().flatten() {
                self.images
                    .insert(name.clone(), image.size_bytes.unwrap_or(0));
            }
        }
        self.node = Some(node);
    }

    /// The node's name, or the empty string.
    pub fn name(&self) -> &str {
        self.node
            .as_ref()
            .and_then(|node| node.metadata.name.as_deref())
            .unwrap_or_default()
    }

    /// What selectors look at.
    pub fn place(&self) -> fit::Place<'_> {
        let node = self.node.as_deref();
        node.map(fit::Place::from).unwrap_or_default()
    }

    /// One of the node's labels.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.node
            .as_ref()?
            .metadata
            .labels
            .as_ref()?
            .get(key)
            .map(String::as_str)
    }

    /// Number of pods on the node.
    pub fn pod_count(&self) -> usize {
        self.pods.len()
    }

    /// The pods on the node.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.values()
    }

    /// Counts a pod in; one that is counted already is replaced.
    pub fn add_pod(&mut self, uid: &str, pod: Arc<Pod>) {
        self.remove_pod(uid);
        self.requested.add(&requested(&pod));
        self.scored.add(&scored(&pod));
        for port in host_ports(&pod) {
            *self.ports.entry(port).or_default() += 1;
        }
        self.pods.insert(uid.to_owned(), pod);
    }

    /// Counts a pod out; returns whether it was there.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let Some(pod) = self.pods.remove(uid) else {
            return false;
        };
        self.requested.subtract(&requested(&pod));
        self.scored.subtract(&scored(&pod));
        for port in host_ports(&pod) {
            if let Some(users) = self.ports.get_mut(&port) {
                *users -= 1;
                if *users == 0 {
                    self.ports.remove(&port);
                }
            }
        }
        true
    }
}

/// The host ports a pod asks for.
pub fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|one| one.ports.iter().flatten());
    let host_port = |port: &k8s_openapi::api::core::v1::ContainerPort| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        let address = port.host_ip.clone().filter(|ip| !ip.is_empty());
        Some((
            protocol,
            address.unwrap_or_else(|| "0.0.0.0".into()),
            number,
        ))
    };
    ports.filter_map(host_port).collect()
}
