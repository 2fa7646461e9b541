//! What devices there are, how they are, and whose they are: plain data, without plugins.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use serde::{Deserialize, Serialize};

use crate::hints::Hint;
use crate::numa::Mask;
use crate::wire::device_plugin::{ContainerAllocateResponse, Device, DevicePluginOptions, HEALTHY};

/// Stands for no NUMA node in particular.
pub(crate) const NO_NODE: i64 = -1;

/// Names of devices.
pub(crate) type Ids = BTreeSet<String>;

/// All devices of one resource.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resource {
    pub(crate) devices: BTreeMap<String, Device>,
    /// Its plugin answers; otherwise no device is healthy.
    pub(crate) connected: bool,
    /// Its plugin has been away for too long: the node has none of it.
    pub(crate) retired: bool,
    pub(crate) options: DevicePluginOptions,
    /// Tells plugins that registered one after the other apart.
    pub(crate) generation: u64,
}

/// Devices of one resource that a container has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Allocation {
    /// By NUMA node; a device of two nodes is with both.
    pub(crate) devices: BTreeMap<i64, Vec<String>>,
    pub(crate) response: ContainerAllocateResponse,
}

impl Allocation {
    pub(crate) fn ids(&self) -> Ids {
        self.devices.values().flatten().cloned().collect()
    }
}

/// The table: resources by name, allocations by pod, container and resource.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) resources: BTreeMap<String, Resource>,
    pub(crate) allocations: BTreeMap<String, BTreeMap<String, BTreeMap<String, Allocation>>>,
}

/// The file that outlives us, with upstream's names.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Checkpoint {
    data: Data,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    pod_device_entries: Vec<Entry>,
    registered_devices: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    #[serde(rename = "PodUID")]
    pod_uid: String,
    #[serde(rename = "ContainerName")]
    container_name: String,
    #[serde(rename = "ResourceName")]
    resource_name: String,
    #[serde(rename = "DeviceIDs")]
    device_ids: BTreeMap<i64, Vec<String>>,
    #[serde(rename = "AllocResp")]
    response: String,
}

/// NUMA nodes of a device.
pub(crate) fn nodes(device: &Device) -> Vec<usize> {
    let nodes = device.topology.iter().flat_map(|info| &info.nodes);
    nodes
        .filter_map(|node| usize::try_from(node.id).ok())
        .collect()
}

impl Resource {
    /// Devices that may be given out.
    pub(crate) fn healthy(&self) -> Ids {
        if !self.connected {
            return Ids::new();
        }
        let well = self
            .devices
            .iter()
            .filter(|(_, device)| device.health == HEALTHY);
        well.map(|(id, _)| id.clone()).collect()
    }

    /// Whether its devices say on which NUMA nodes they are.
    pub(crate) fn is_aligned(&self) -> bool {
        self.devices
            .values()
            .any(|device| !nodes(device).is_empty())
    }

    /// Devices with the nodes they are on.
    pub(crate) fn by_node(&self, ids: &Ids) -> BTreeMap<i64, Vec<String>> {
        let mut by_node: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for id in ids {
            let on = self.devices.get(id).map(nodes).unwrap_or_default();
            let on: Vec<i64> = match on.is_empty() {
                true => vec![NO_NODE],
                false => on
                    .iter()
                    .filter_map(|node| i64::try_from(*node).ok())
                    .collect(),
            };
            for node in on {
                by_node.entry(node).or_default().push(id.clone());
            }
        }
        by_node
    }

    /// On which nodes so many devices could be given, of those that are free or may be used again.
    pub(crate) fn hints(
        &self,
        machine: &[usize],
        available: &Ids,
        reusable: &Ids,
        request: usize,
    ) -> Vec<Hint> {
        let known = self.devices.values().flat_map(nodes);
        let known: BTreeSet<usize> = known.filter(|node| machine.contains(node)).collect();
        let mut known: Vec<usize> = known.into_iter().collect();
        if known.is_empty() {
            known = machine.to_vec();
        }
        let on = |mask: Mask, id: &String| {
            let device = self.devices.get(id);
            device.is_some_and(|device| mask.contains_any(nodes(device)))
        };
        let mut least = u32::try_from(known.len()).unwrap_or(u32::MAX);
        let mut fitting = Vec::new();
        for mask in Mask::combinations(&known) {
            let there = self.devices.keys().filter(|id| on(mask, id)).count();
            if there >= request {
                least = least.min(mask.len());
            }
            let placed = |id: &&String| {
                let device = self.devices.get(*id);
                device.is_some_and(|device| !nodes(device).is_empty())
            };
            if !reusable.iter().filter(placed).all(|id| on(mask, id)) {
                continue;
            }
            let again = reusable.iter().filter(placed).count();
            let free = available.iter().filter(|id| on(mask, id)).count();
            if again + free >= request {
                fitting.push(mask);
            }
        }
        let hint = |mask: Mask| Hint {
            affinity: Some(mask),
            preferred: mask.len() == least,
        };
        fitting.into_iter().map(hint).collect()
    }
}

impl Table {
    /// Whether a plugin has, or had, to do with this resource.
    pub(crate) fn is_managed(&self, resource: &str) -> bool {
        let registered = self
            .resources
            .get(resource)
            .is_some_and(|known| !known.retired);
        registered || !self.in_use(resource).is_empty()
    }

    pub(crate) fn of_container(
        &self,
        uid: &str,
        container: &str,
        resource: &str,
    ) -> Option<&Allocation> {
        self.allocations.get(uid)?.get(container)?.get(resource)
    }

    /// Devices that somebody has.
    pub(crate) fn in_use(&self, resource: &str) -> Ids {
        let containers = self.allocations.values().flat_map(BTreeMap::values);
        let all = containers.filter_map(|resources| resources.get(resource));
        all.flat_map(Allocation::ids).collect()
    }

    /// Healthy devices that nobody has.
    pub(crate) fn available(&self, resource: &str) -> Ids {
        let known = self.resources.get(resource);
        let healthy = known.map(Resource::healthy).unwrap_or_default();
        let used = self.in_use(resource);
        healthy.difference(&used).cloned().collect()
    }

    /// All devices of a resource that a pod has.
    pub(crate) fn of_pod(&self, uid: &str, resource: &str) -> Ids {
        let containers = self
            .allocations
            .get(uid)
            .into_iter()
            .flat_map(BTreeMap::values);
        let all = containers.filter_map(|resources| resources.get(resource));
        all.flat_map(Allocation::ids).collect()
    }

    /// The pods that have any of these devices.
    pub(crate) fn holders(&self, resource: &str, ids: &Ids) -> BTreeSet<String> {
        let holds = |containers: &BTreeMap<String, BTreeMap<String, Allocation>>| {
            let mut all = containers
                .values()
                .filter_map(|resources| resources.get(resource));
            all.any(|allocation| !allocation.ids().is_disjoint(ids))
        };
        let pods = self
            .allocations
            .iter()
            .filter(|(_, containers)| holds(containers));
        pods.map(|(uid, _)| uid.clone()).collect()
    }

    /// Writes the state down.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        use base64::Engine;
        let mut entries = Vec::new();
        for (uid, containers) in &self.allocations {
            for (name, resources) in containers {
                for (resource, allocation) in resources {
                    let response = allocation.response.encode_to_vec();
                    entries.push(Entry {
                        pod_uid: uid.clone(),
                        container_name: name.clone(),
                        resource_name: resource.clone(),
                        device_ids: allocation.devices.clone(),
                        response: base64::engine::general_purpose::STANDARD.encode(response),
                    });
                }
            }
        }
        let registered = self.resources.iter().filter(|(_, known)| !known.retired);
        let registered = registered.map(|(name, known)| {
            let healthy = known.healthy().into_iter().collect();
            (name.clone(), healthy)
        });
        Checkpoint {
            data: Data {
                pod_device_entries: entries,
                registered_devices: registered.collect(),
            },
        }
    }

    /// Takes up what was written down: allocations stand, plugins have to come back.
    pub(crate) fn restore(checkpoint: Checkpoint) -> Table {
        use base64::Engine;
        let mut table = Table::default();
        for entry in checkpoint.data.pod_device_entries {
            let engine = base64::engine::general_purpose::STANDARD;
            let bytes = engine.decode(&entry.response).unwrap_or_default();
            let Ok(response) = ContainerAllocateResponse::decode(bytes.as_slice()) else {
                tracing::warn!(
                    pod = entry.pod_uid,
                    "an allocation of devices cannot be read"
                );
                continue;
            };
            let allocation = Allocation {
                devices: entry.device_ids,
                response,
            };
            let containers = table.allocations.entry(entry.pod_uid).or_default();
            let resources = containers.entry(entry.container_name).or_default();
            resources.insert(entry.resource_name, allocation);
        }
        for name in checkpoint.data.registered_devices.into_keys() {
            table.resources.insert(name, Resource::default());
        }
        table
    }
}
