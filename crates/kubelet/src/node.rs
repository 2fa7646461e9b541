//! The node in the API: registered, its status kept true, its lease renewed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, Stop};
use client::{Patch, WriteOptions};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints,
    NodeFeatures, NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus,
    NodeSwapStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use meta::{Quantity, Status};
use node_api::RuntimeHandler;
use serde_json::json;

use crate::events::{Kind, node_reference};
use crate::machine::architecture;
use crate::node_problems;
use crate::places;
use crate::shared::Shared;

/// Namespace of the nodes' leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// How soon it looks again while the runtime is not ready; later and later.
const STARTUP_CHECK: Duration = Duration::from_millis(25);
/// What this node can do that others of this release might not; in order.
const DECLARED_FEATURES: [&str; 3] = [
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
    "RestartAllContainersOnContainerExits",
];
/// Names shown per image.
const IMAGE_NAMES_MAX: usize = 5;

/// Registers the node and keeps its status; ends when the process stops.
pub(crate) async fn keep_status(shared: Arc<Shared>, stop: Stop) {
    // Conditions keep the times at which they changed, also over a restart of ours.
    let before = tokio::select! {
        before = register(&shared) => before,
        () = stop.raised() => return,
    };
    let config = &shared.config;
    let about = node_reference(&config.node_name);
    shared
        .recorder
        .tell(about, Kind::Normal, "Starting", "Starting kubelet.".into());
    let mut reported: Option<(NodeStatus, tokio::time::Instant)> = None;
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let mut startup = Backoff::new(STARTUP_CHECK, config.status_check_interval);
    let mut pressure = shared.pressure.subscribe();
    let mut problems = shared.problems.subscribe();
    let mut going_down = false;
    let mut places = shared.placement.changes();
    loop {
        let known = reported
            .as_ref()
            .map(|(status, _)| status)
            .or(before.as_ref());
        let status = node_status(&shared, known).await;
        let due = reported.as_ref().is_none_or(|(known, at)| {
            changed(known, &status) || at.elapsed() >= config.status_report_interval
        });
        let mut pause = match is_ready(&status) {
            true => config.status_check_interval,
            false => startup.next_delay(),
        };
        if due {
            let was_ready = known.is_some_and(is_ready);
            match report(&shared, &status).await {
                Ok(()) => {
                    tell_ready(&shared, was_ready, is_ready(&status));
                    backoff.reset();
                    reported = Some((status, tokio::time::Instant::now()));
                }
                Err(status) => {
                    tracing::debug!(error = %status, "node status not written");
                    pause = backoff.next_delay();
                    if status.is_not_found() {
                        reported = None;
                        tokio::select! {
                            _ = register(&shared) => {}
                            () = stop.raised() => return,
                        }
                    }
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Ok(()) = pressure.changed() => {}
            Ok(()) = places.changed() => {}
            Ok(()) = problems.changed() => {}
            () = config.shutdown.begun.raised(), if !going_down => going_down = true,
            () = stop.raised() => return,
        }
    }
}

fn tell_ready(shared: &Shared, was_ready: bool, ready: bool) {
    let name = &shared.config.node_name;
    let (reason, word) = match (was_ready, ready) {
        (false, true) => ("NodeReady", "NodeReady"),
        (true, false) => ("NodeNotReady", "NodeNotReady"),
        _ => return,
    };
    let message = format!("Node {name} status is now: {word}");
    shared
        .recorder
        .tell(node_reference(name), Kind::Normal, reason, message);
}

/// Creates the node's object unless it exists; then returns the status it has.
async fn register(shared: &Shared) -> Option<NodeStatus> {
    let nodes = shared.client.all::<Node>();
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        let mut node = new_node(shared);
        node.status = Some(node_status(shared, None).await);
        let outcome = if !shared.config.register_node {
            // Somebody else makes it.
            nodes
                .get(&shared.config.node_name)
                .await
                .map(|node| node.status)
        } else {
            match nodes.create(&node).await {
                Ok(_) => Ok(None),
                Err(status) if status.is_already_exists() => {
                    relabel(shared).await.map(|n| n.status)
                }
                Err(status) => Err(status),
            }
        };
        match outcome {
            Ok(before) => return before,
            Err(status) => tracing::debug!(error = %status, "node not registered"),
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// Sets the labels that are the machine's on a node that exists already.
async fn relabel(shared: &Shared) -> Result<Node, Status> {
    let labels = labels(shared);
    let mut body = json!({"metadata": {"labels": labels}});
    if !shared.config.pod_cidrs.is_empty() {
        body["spec"] = json!({
            "podCIDR": shared.config.pod_cidrs[0], "podCIDRs": shared.config.pod_cidrs,
        });
    }
    let nodes = shared.client.all::<Node>();
    let name = &shared.config.node_name;
    nodes
        .patch(name, &Patch::Merge(body), &WriteOptions::default())
        .await
}

pub(crate) fn labels(shared: &Shared) -> BTreeMap<String, String> {
    let config = &shared.config;
    let own = [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
        ("node.kubernetes.io/instance-type", "sampan"),
    ];
    let own = own
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
    own.chain(config.labels.clone()).collect()
}

fn new_node(shared: &Shared) -> Node {
    let config = &shared.config;
    Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels(shared)),
            annotations: Some(BTreeMap::from([(
                "volumes.kubernetes.io/controller-managed-attach-detach".to_owned(),
                "true".to_owned(),
            )])),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            pod_cidr: config.pod_cidrs.first().cloned(),
            pod_cidrs: (!config.pod_cidrs.is_empty()).then(|| config.pod_cidrs.clone()),
            provider_id: config.provider_id.clone(),
            taints: (!config.taints.is_empty()).then(|| config.taints.clone()),
            ..NodeSpec::default()
        }),
        status: None,
    }
}

async fn report(shared: &Shared, status: &NodeStatus) -> Result<(), Status> {
    let mut tree = serde_json::to_value(status).map_err(Status::internal)?;
    if let Some(addresses) = tree.get_mut("addresses").and_then(|a| a.as_array_mut()) {
        // Addresses merge by type; what another kubelet left must not stay.
        addresses.insert(0, json!({"$patch": "replace"}));
    }
    if !shared.config.local_storage_isolation {
        // What another kubelet said of it must not stay.
        for of in ["capacity", "allocatable"] {
            tree[of]["ephemeral-storage"] = serde_json::Value::Null;
        }
    }
    let nodes = shared.client.all::<Node>();
    let patch = Patch::Strategic(json!({"status": tree}));
    let name = &shared.config.node_name;
    nodes
        .patch_status(name, &patch, &WriteOptions::default())
        .await
        .map(drop)
}

async fn node_status(shared: &Shared, old: Option<&NodeStatus>) -> NodeStatus {
    let config = &shared.config;
    let runtime = shared.runtime.status().await;
    let missing = match config.shutdown.begun.is_raised() {
        true => Some("node is shutting down".to_owned()),
        false => runtime.not_ready.clone(),
    };
    let port = config
        .server
        .as_ref()
        .map(|server| i32::from(server.address.port()));
    let (mut capacity, mut allocatable) = (shared.machine.capacity(config), shared.allocatable());
    places::count(&shared.placement, &mut capacity, &mut allocatable);
    NodeStatus {
        addresses: Some(addresses(shared)),
        allocatable: Some(quantities(allocatable)),
        capacity: Some(quantities(capacity)),
        conditions: Some(conditions(shared, old, missing)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: port.map(|port| DaemonEndpoint { port }),
        }),
        images: Some(images(shared).await),
        node_info: Some(info(shared)),
        declared_features: Some(DECLARED_FEATURES.map(str::to_owned).to_vec()),
        features: Some(NodeFeatures {
            supplemental_groups_policy: Some(runtime.supplemental_groups_policy),
        }),
        runtime_handlers: Some(runtime.handlers.into_iter().map(handler).collect()),
        ..NodeStatus::default()
    }
}

fn handler(handler: RuntimeHandler) -> NodeRuntimeHandler {
    NodeRuntimeHandler {
        name: (!handler.name.is_empty()).then_some(handler.name),
        features: Some(NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(handler.recursive_read_only_mounts),
            user_namespaces: Some(handler.user_namespaces),
        }),
    }
}

fn quantities(map: BTreeMap<String, Quantity>) -> BTreeMap<String, ApiQuantity> {
    let all = map.into_iter();
    all.map(|(name, quantity)| (name, ApiQuantity(quantity.to_string())))
        .collect()
}

fn addresses(shared: &Shared) -> Vec<NodeAddress> {
    let address = |type_: &str, address: String| NodeAddress {
        type_: type_.to_owned(),
        address,
    };
    let ips = shared.config.node_ips.iter();
    let ips = ips.map(|ip| address("InternalIP", ip.to_string()));
    let name = shared.config.node_name.clone();
    ips.chain([address("Hostname", name)]).collect()
}

/// Kind, truth, reason and message of a condition that says what the node is short of.
fn pressure(
    kind: &'static str,
    truth: bool,
    good: &'static str,
    bad: &'static str,
) -> (&'static str, bool, &'static str, String) {
    let (reason, message) = match (kind, truth) {
        ("MemoryPressure", false) => ("KubeletHasSufficientMemory", good),
        ("MemoryPressure", true) => ("KubeletHasInsufficientMemory", bad),
        ("DiskPressure", false) => ("KubeletHasNoDiskPressure", good),
        ("DiskPressure", true) => ("KubeletHasDiskPressure", bad),
        (_, false) => ("KubeletHasSufficientPID", good),
        (_, true) => ("KubeletHasInsufficientPID", bad),
    };
    (kind, truth, reason, message.to_owned())
}

fn conditions(
    shared: &Shared,
    old: Option<&NodeStatus>,
    missing: Option<String>,
) -> Vec<NodeCondition> {
    let short = shared.pressure.borrow().clone();
    let (memory, disk) = (
        short.contains("MemoryPressure"),
        short.contains("DiskPressure"),
    );
    let ready = match missing {
        None => (
            "Ready",
            true,
            "KubeletReady",
            "kubelet is posting ready status".to_owned(),
        ),
        Some(missing) => ("Ready", false, "KubeletNotReady", missing),
    };
    let all = [
        pressure(
            "MemoryPressure",
            memory,
            "kubelet has sufficient memory available",
            "kubelet has insufficient memory available",
        ),
        pressure(
            "DiskPressure",
            disk,
            "kubelet has no disk pressure",
            "kubelet has disk pressure",
        ),
        pressure(
            "PIDPressure",
            short.contains("PIDPressure"),
            "kubelet has sufficient PID available",
            "kubelet has insufficient PID available",
        ),
        ready,
    ];
    let now = Time(shared.config.clock.now());
    let known = old.iter().flat_map(|old| old.conditions.iter().flatten());
    let known: Vec<_> = known.collect();
    let condition = |(kind, truth, reason, message): (&str, bool, &str, String)| {
        let status = if truth { "True" } else { "False" };
        let same = known.iter().find(|c| c.type_ == kind && c.status == status);
        let since = same.and_then(|c| c.last_transition_time.clone());
        NodeCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: since.or_else(|| Some(now.clone())),
        }
    };
    let own = all.into_iter().map(condition);
    own.chain(node_problems::conditions(shared, &known, &now))
        .collect()
}

fn is_ready(status: &NodeStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Whether two statuses differ in more than their heartbeat.
fn changed(old: &NodeStatus, new: &NodeStatus) -> bool {
    let still = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    still(old) != still(new)
}

async fn images(shared: &Shared) -> Vec<ContainerImage> {
    let mut images = match shared.images.list_images().await {
        Ok(images) => images,
        Err(error) => {
            tracing::debug!(%error, "images not listed");
            Vec::new()
        }
    };
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let shown_max = shared.config.images_shown_max.unwrap_or(usize::MAX);
    let shown = images.into_iter().take(shown_max).map(|image| {
        let names = image.repo_digests.into_iter().chain(image.repo_tags);
        ContainerImage {
            names: Some(names.take(IMAGE_NAMES_MAX).collect()),
            size_bytes: i64::try_from(image.size).ok(),
        }
    });
    shown.collect()
}

fn info(shared: &Shared) -> NodeSystemInfo {
    let (name, version) = shared.runtime.version();
    let machine = &shared.machine;
    let swap = shared.config.cgroups.swap_bytes;
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: machine.boot_id.clone(),
        container_runtime_version: format!("{name}://{version}"),
        kernel_version: machine.kernel.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: shared.config.version.clone(),
        machine_id: machine.machine_id.clone(),
        operating_system: "linux".to_owned(),
        os_image: machine.os_image.clone(),
        system_uuid: machine.system_uuid.clone(),
        swap: (swap != 0).then_some(NodeSwapStatus {
            capacity: Some(swap),
        }),
    }
}

/// Renews the node's lease; ends when the process stops.
pub(crate) async fn keep_lease(shared: Arc<Shared>, stop: Stop) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(7));
    loop {
        let pause = match renew(&shared).await {
            Ok(()) => {
                backoff.reset();
                shared.config.lease_interval
            }
            Err(status) => {
                tracing::debug!(error = %status, "lease not renewed");
                backoff.next_delay()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.raised() => return,
        }
    }
}

async fn renew(shared: &Shared) -> Result<(), Status> {
    let leases = shared.client.namespaced::<Lease>(LEASE_NAMESPACE);
    let name = &shared.config.node_name;
    let now = meta::time::now_micro();
    let patch = Patch::Merge(json!({"spec": {"renewTime": now}}));
    match leases.patch(name, &patch, &WriteOptions::default()).await {
        Err(status) if status.is_not_found() => {}
        Err(status) => return Err(status),
        Ok(lease) if lease.metadata.owner_references.is_some() => return Ok(()),
        Ok(_) => {
            let owners = json!({"metadata": {"ownerReferences": [owner(shared).await?]}});
            let patch = Patch::Merge(owners);
            let owned = leases.patch(name, &patch, &WriteOptions::default()).await;
            return owned.map(drop);
        }
    }
    // Not before the node itself is there: the lease shall go with it.
    let owner = owner(shared).await?;
    let seconds = i32::try_from(shared.config.lease_duration.as_secs()).unwrap_or(40);
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(LEASE_NAMESPACE.to_owned()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: Some(seconds),
            renew_time: Some(MicroTime(shared.config.clock.now())),
            ..LeaseSpec::default()
        }),
    };
    leases.create(&lease).await.map(drop)
}

async fn owner(shared: &Shared) -> Result<OwnerReference, Status> {
    let name = &shared.config.node_name;
    let node = shared.client.all::<Node>().get(name).await?;
    Ok(OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.clone(),
        uid: node.metadata.uid.unwrap_or_default(),
        ..OwnerReference::default()
    })
}
