//! What the device manager tells of its devices.

use std::collections::{BTreeMap, BTreeSet};

use super::table::{self, Allocation, Ids, NO_NODE, Resource, Table};
use super::{Amount, ContainerOptions, Devices, HeldDevice, Reusable};
use crate::hints::Hints;
use crate::wire::device_plugin::HEALTHY;
use crate::wish::{ContainerWish, PodWish};

impl Devices {
    /// What the plugins of all its devices want for a container.
    pub(super) fn combined(&self, uid: &str, container: &str) -> ContainerOptions {
        let table = self.table.lock();
        let resources = table
            .allocations
            .get(uid)
            .and_then(|all| all.get(container));
        let mut options = ContainerOptions::default();
        let (mut envs, mut mounts, mut devices) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for allocation in resources.into_iter().flat_map(BTreeMap::values) {
            let response = &allocation.response;
            for device in &response.cdi_devices {
                if !options.cdi_devices.contains(&device.name) {
                    options.cdi_devices.push(device.name.clone());
                }
            }
            // Of two plugins that say different things the first is heard.
            for (name, value) in &response.envs {
                envs.entry(name.clone()).or_insert_with(|| value.clone());
            }
            for mount in &response.mounts {
                let at = mount.container_path.clone();
                mounts.entry(at).or_insert_with(|| mount.clone());
            }
            for device in &response.devices {
                let at = device.container_path.clone();
                devices.entry(at).or_insert_with(|| device.clone());
            }
            for (name, value) in &response.annotations {
                let known = options.annotations.entry(name.clone());
                known.or_insert_with(|| value.clone());
            }
        }
        options.envs = envs.into_iter().collect();
        options.mounts = mounts.into_values().collect();
        options.devices = devices.into_values().collect();
        options
    }

    /// Where a container's devices could be.
    pub(crate) fn hints(
        &self,
        machine: &[usize],
        uid: &str,
        container: &ContainerWish,
        reuse: &Reusable,
    ) -> Hints {
        let table = self.table.lock();
        let mut hints = Hints::new();
        for (resource, count) in &container.extended {
            let held = table.of_container(uid, &container.name, resource);
            let held = held.map(Allocation::ids).unwrap_or_default();
            let reusable = reuse.get(resource).cloned().unwrap_or_default();
            one_hint(
                &table, machine, resource, *count, held, reusable, &mut hints,
            );
        }
        hints
    }

    /// Where a pod's devices could be.
    pub(crate) fn pod_hints(&self, machine: &[usize], pod: &PodWish) -> Hints {
        let names = pod.containers.iter().flat_map(|one| one.extended.keys());
        let names: BTreeSet<&String> = names.collect();
        let table = self.table.lock();
        let mut hints = Hints::new();
        for resource in names {
            let count = pod.peak(|one| one.extended.get(resource).copied().unwrap_or(0));
            let held = table.of_pod(&pod.uid, resource);
            one_hint(
                &table,
                machine,
                resource,
                count,
                held,
                Ids::new(),
                &mut hints,
            );
        }
        hints
    }

    /// What the node has, by resource; nothing of those whose plugin went for good.
    pub(crate) fn amounts(&self) -> BTreeMap<String, Amount> {
        let table = self.table.lock();
        let amount = |known: &Resource| Amount {
            capacity: known.devices.len(),
            allocatable: known.healthy().len(),
        };
        let all = table.resources.iter();
        all.map(|(name, known)| (name.clone(), amount(known)))
            .collect()
    }

    /// The devices of a container.
    pub(crate) fn held(&self, uid: &str, container: &str) -> Vec<HeldDevice> {
        let table = self.table.lock();
        let resources = table
            .allocations
            .get(uid)
            .and_then(|all| all.get(container));
        let mut held = Vec::new();
        for (resource, allocation) in resources.into_iter().flatten() {
            for id in allocation.ids() {
                let known = table.resources.get(resource);
                let device = known.and_then(|known| known.devices.get(&id));
                held.push(HeldDevice {
                    resource: resource.clone(),
                    healthy: device.is_none_or(|device| device.health == HEALTHY),
                    id,
                });
            }
        }
        held
    }

    /// The devices of a container with their NUMA nodes.
    pub(crate) fn placed(&self, uid: &str, container: &str) -> Vec<(String, String, Vec<i64>)> {
        let table = self.table.lock();
        let resources = table
            .allocations
            .get(uid)
            .and_then(|all| all.get(container));
        let mut placed: BTreeMap<(String, String), Vec<i64>> = BTreeMap::new();
        for (resource, allocation) in resources.into_iter().flatten() {
            for (node, ids) in &allocation.devices {
                for id in ids {
                    let nodes = placed.entry((resource.clone(), id.clone())).or_default();
                    nodes.extend(Some(*node).filter(|node| *node != NO_NODE));
                }
            }
        }
        let all = placed.into_iter();
        all.map(|((resource, id), nodes)| (resource, id, nodes))
            .collect()
    }

    /// All healthy devices with their NUMA nodes.
    pub(crate) fn healthy(&self) -> Vec<(String, String, Vec<i64>)> {
        let table = self.table.lock();
        let mut all = Vec::new();
        for (resource, known) in &table.resources {
            for id in known.healthy() {
                let nodes = known.devices.get(&id).map(table::nodes).unwrap_or_default();
                let nodes = nodes
                    .into_iter()
                    .filter_map(|node| i64::try_from(node).ok());
                all.push((resource.clone(), id, nodes.collect()));
            }
        }
        all
    }
}

fn one_hint(
    table: &Table,
    machine: &[usize],
    resource: &str,
    count: i64,
    held: Ids,
    reusable: Ids,
    hints: &mut Hints,
) {
    if !table.is_managed(resource) || count == 0 {
        return;
    }
    let count = usize::try_from(count).unwrap_or(0);
    let known = table
        .resources
        .get(resource)
        .filter(|known| known.is_aligned());
    let list = known.map(|known| {
        if !held.is_empty() {
            return match held.len() == count {
                true => known.hints(machine, &held, &Ids::new(), count),
                false => Vec::new(),
            };
        }
        let available = table.available(resource);
        match available.union(&reusable).count() < count {
            true => Vec::new(),
            false => known.hints(machine, &available, &reusable, count),
        }
    });
    hints.insert(resource.to_owned(), list);
}
