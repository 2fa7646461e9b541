//! What pods ask of `placement`, and what comes of it in the API and in containers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::Crew;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus, ResourceHealth, ResourceStatus};
use meta::Quantity;
use node_api::{ContainerConfig, Device, Mount};
use placement::{
    ContainerOptions, ContainerWish, KnownPod, Machine, OpenError, Placement, PodWish,
};

use crate::admission::Rejection;
use crate::config::{Config, Features};
use crate::pod::{PodExt, Role};
use crate::pods::{PodView, Pods};
use crate::resources::{self, Qos};
use crate::shared::Shared;

/// Where the kernel tells of processors and memory.
const SYSTEM: &str = "/sys/devices/system";

/// Opens the managers, with the node's pods to tell of and to tell to.
pub(crate) fn open(
    config: &Config,
    pods: &Arc<Pods>,
    crew: &Crew,
) -> Result<Arc<Placement>, OpenError> {
    let (all, told) = (pods.clone(), pods.clone());
    let mut config = config.placement.clone();
    if config.machine.cpus.is_empty() {
        let memory = crate::machine::memory("MemTotal:");
        config.machine = Machine::read(Path::new(SYSTEM), memory);
    }
    Placement::open(
        &config,
        Arc::new(move || all.all().iter().map(known).collect()),
        Arc::new(move |uid: &str| told.tell(uid, |news| news.devices = true)),
        crew,
    )
}

/// Gives a new pod its place, or says why it cannot run here.
pub(crate) async fn admit(shared: &Shared, pod: &Pod) -> Result<(), Rejection> {
    let admitted = shared.placement.admit(&wish_of(pod)).await;
    admitted.map_err(|refused| (refused.reason, refused.message))
}

fn known(view: &PodView) -> KnownPod {
    let pod = &view.pod;
    let lasting = pod.all_containers().into_iter();
    let lasting = lasting.filter(|(role, _)| matches!(role, Role::Sidecar | Role::Main));
    KnownPod {
        uid: pod.uid().to_owned(),
        namespace: pod.namespace().to_owned(),
        name: pod.name().to_owned(),
        is_active: !matches!(view.status.phase.as_deref(), Some("Succeeded" | "Failed")),
        containers: lasting.map(|(_, one)| one.name.clone()).collect(),
    }
}

/// What a pod asks for.
fn wish_of(pod: &Pod) -> PodWish {
    let whole = pod.spec().resources.as_ref();
    let containers = pod.all_containers().into_iter();
    PodWish {
        uid: pod.uid().to_owned(),
        guaranteed: resources::qos(pod) == Qos::Guaranteed,
        pod_level: whole.is_some_and(|all| all.limits.is_some() || all.requests.is_some()),
        containers: containers
            .map(|(role, container)| wish_of_container(role, container))
            .collect(),
    }
}

/// What one of its containers does.
pub(crate) fn wish_of_container(role: Role, container: &Container) -> ContainerWish {
    let limits = container
        .resources
        .as_ref()
        .and_then(|all| all.limits.as_ref());
    let limits = limits.into_iter().flatten();
    let extended = limits.filter(|(name, _)| name.contains('/'));
    let amount = |text: &str| Quantity::parse(text).map_or(0, Quantity::value);
    let names = container.resources.iter().flat_map(|all| {
        let requests = all.requests.iter().flatten();
        requests.chain(all.limits.iter().flatten())
    });
    let memory = names.filter(|(name, _)| *name == "memory" || name.starts_with("hugepages-"));
    ContainerWish {
        name: container.name.clone(),
        role: match role {
            Role::Init => placement::Role::Init,
            Role::Sidecar => placement::Role::Sidecar,
            Role::Main | Role::Ephemeral => placement::Role::Main,
        },
        milli_cpus: resources::milli_cpus_of(container),
        memory: memory
            .map(|(name, _)| (name.clone(), resources::request_of(container, name)))
            .collect(),
        extended: extended
            .map(|(name, quantity)| (name.clone(), amount(&quantity.0)))
            .collect(),
    }
}

/// Adds the node's extended resources.
pub(crate) fn count(
    placement: &Placement,
    capacity: &mut BTreeMap<String, Quantity>,
    allocatable: &mut BTreeMap<String, Quantity>,
) {
    let whole = |count: usize| Quantity::from_units(i64::try_from(count).unwrap_or(i64::MAX));
    for (name, amount) in placement.amounts() {
        capacity.insert(name.clone(), whole(amount.capacity));
        allocatable.insert(name, whole(amount.allocatable));
    }
}

/// Gives a container what comes with its devices.
pub(crate) fn equip(config: &mut ContainerConfig, given: ContainerOptions) {
    let mounts = given.mounts.into_iter().map(|mount| Mount {
        container_path: PathBuf::from(mount.container_path),
        host_path: PathBuf::from(mount.host_path),
        readonly: mount.read_only,
        ..Mount::default()
    });
    let own = std::mem::take(&mut config.mounts);
    config.mounts = mounts.chain(own).collect();
    config
        .devices
        .extend(given.devices.into_iter().map(|device| Device {
            container_path: PathBuf::from(device.container_path),
            host_path: PathBuf::from(device.host_path),
            permissions: device.permissions,
        }));
    config.cdi_devices.extend(given.cdi_devices);
    for (name, value) in given.annotations {
        config.annotations.entry(name).or_insert(value);
    }
}

/// Puts a container on its processors and its memory's nodes. Who has processors alone needs no
/// quota.
pub(crate) fn pin(
    placement: &Placement,
    features: Features,
    uid: &str,
    config: &mut ContainerConfig,
) {
    if let Some(cpus) = placement.cpus_of(uid, &config.name) {
        config.resources.cpuset_cpus = cpus.to_string();
    }
    if let Some(nodes) = placement.memory_nodes_of(uid, &config.name) {
        config.resources.cpuset_mems = nodes.to_string();
    }
    if features.no_quota_with_exclusive_cpus && placement.has_exclusive_cpus(uid, &config.name) {
        (config.resources.cpu_quota, config.resources.cpu_period) = (0, 0);
    }
}

/// Tells how the devices of containers are.
pub(crate) fn show_devices(placement: &Placement, pod: &Pod, status: &mut PodStatus) {
    for container in status.container_statuses.iter_mut().flatten() {
        let mut by_resource: BTreeMap<String, Vec<ResourceHealth>> = BTreeMap::new();
        for device in placement.held(pod.uid(), &container.name) {
            let health = if device.healthy {
                "Healthy"
            } else {
                "Unhealthy"
            };
            let list = by_resource.entry(device.resource).or_default();
            list.push(ResourceHealth {
                resource_id: device.id,
                health: Some(health.to_owned()),
                message: None,
            });
        }
        let all = by_resource.into_iter().map(|(name, list)| ResourceStatus {
            name,
            resources: Some(list),
        });
        let all: Vec<_> = all.collect();
        container.allocated_resources_status = (!all.is_empty()).then_some(all);
    }
}
