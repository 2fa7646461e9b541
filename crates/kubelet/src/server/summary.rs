//! `/stats/summary`: use of the node, its pods and their containers (`stats.k8s.io/v1alpha1`).

mod node;

use http::{Response, StatusCode};
use node_api::{ContainerStats, FilesystemUsage, InterfaceStats, Waits};
use serde_json::{Map, Value, json};

use super::gather::{self, PodUse};
use super::{Body, json as answer, text};
use crate::machine;
use crate::pod::{PodExt, instant};
use crate::shared::Shared;

/// Answers; `brief` leaves out all but processors, memory and swap.
pub(super) async fn summary(shared: &Shared, brief: bool) -> Response<Body> {
    let pods = match gather::pods(shared).await {
        Ok(pods) => pods,
        Err(fault) => return text(StatusCode::INTERNAL_SERVER_ERROR, fault.to_string()),
    };
    let node = node::node(shared, &pods, brief).await;
    let mut shown = Vec::new();
    for pod in &pods {
        shown.push(of_pod(shared, pod, brief).await);
    }
    answer(&json!({"node": node, "pods": shown}))
}

async fn of_pod(shared: &Shared, pod: &PodUse, brief: bool) -> Value {
    let view = &pod.view;
    let total = pod.total();
    let mut disk = FilesystemUsage::default();
    let mut containers = Vec::new();
    for stats in &pod.containers {
        let mut tree = measured(shared, &stats.id, stats, pod.memory_limit(stats));
        if let Some(limit) = pod.swap_limit(stats) {
            let left = limit.saturating_sub(stats.swap_bytes);
            tree["swap"]["swapAvailableBytes"] = left.into();
        }
        tree["name"] = stats.name.as_str().into();
        let begun = pod.status(stats).map_or(0, |status| status.started_at);
        tree["startTime"] = time(begun).into();
        if !brief {
            let layer = shared.measures.layer(shared, &stats.id).await;
            let logs = shared
                .config
                .log_dir
                .join(view.pod.log_folder())
                .join(&stats.name);
            let logs = shared.measures.folder(&logs).await;
            add(&mut disk, &layer);
            add(&mut disk, &logs);
            tree["rootfs"] = file_system(shared, &layer);
            tree["logs"] = file_system(shared, &logs);
        }
        containers.push(tree);
    }
    let mut tree = measured(shared, view.pod.uid(), &total, None);
    tree["podRef"] = json!({
        "name": view.pod.name(), "namespace": view.pod.namespace(), "uid": view.pod.uid(),
    });
    tree["startTime"] = json!(view.status.start_time);
    tree["containers"] = containers.into();
    if brief {
        return tree;
    }
    tree["process_stats"] = json!({"process_count": total.process_count});
    let interfaces = pod.sandbox.iter().flat_map(|own| &own.interfaces);
    if let Some(network) = network(interfaces.cloned().collect(), total.timestamp) {
        tree["network"] = network;
    }
    let mut volumes = Vec::new();
    for (volume, usage) in volumes_of(shared, pod).await {
        let mut own = file_system(shared, &usage);
        own["name"] = volume.name.as_str().into();
        if let Some(claim) = &volume.persistent_volume_claim {
            own["pvcRef"] = json!({"name": claim.claim_name, "namespace": view.pod.namespace()});
        }
        if volume
            .empty_dir
            .as_ref()
            .is_some_and(|own| own.medium.is_none())
        {
            add(&mut disk, &usage);
        }
        volumes.push(own);
    }
    if !volumes.is_empty() {
        tree["volume"] = volumes.into();
    }
    tree["ephemeral-storage"] = file_system(shared, &disk);
    tree
}

fn add(to: &mut FilesystemUsage, more: &FilesystemUsage) {
    to.used_bytes += more.used_bytes;
    to.inodes_used += more.inodes_used;
}

/// The volumes that are folders of the pod, with what is in them.
async fn volumes_of<'a>(
    shared: &Shared,
    pod: &'a PodUse,
) -> Vec<(&'a k8s_openapi::api::core::v1::Volume, FilesystemUsage)> {
    let folder = shared.volumes.pod_dir(pod.view.pod.uid()).join("volumes");
    let plugins: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    let mut found = Vec::new();
    for volume in pod.view.pod.spec().volumes.iter().flatten() {
        let mut paths = plugins
            .iter()
            .map(|plugin| plugin.path().join(&volume.name));
        if let Some(path) = paths.find(|path| path.is_dir()) {
            found.push((volume, shared.measures.folder(&path).await));
        }
    }
    found
}

/// Processors, memory and swap of something; `key` tells what was measured before.
fn measured(shared: &Shared, key: &str, stats: &ContainerStats, limit: Option<u64>) -> Value {
    let at = time(stats.timestamp);
    let mut cpu = json!({"time": at, "usageCoreNanoSeconds": stats.cpu_usage_core_nanos});
    if let Some(rate) = shared.measures.nano_cores(key, stats) {
        cpu["usageNanoCores"] = rate.into();
    }
    let mut memory = json!({
        "time": at, "usageBytes": stats.memory_usage_bytes,
        "workingSetBytes": stats.memory_working_set_bytes, "rssBytes": stats.memory_rss_bytes,
        "pageFaults": stats.page_faults, "majorPageFaults": stats.major_page_faults,
    });
    if let Some(limit) = limit {
        memory["availableBytes"] = limit.saturating_sub(stats.memory_working_set_bytes).into();
    }
    let swap = json!({"time": at, "swapUsageBytes": stats.swap_bytes});
    let mut tree = json!({"cpu": cpu, "memory": memory, "swap": swap});
    for own in &stats.pressure {
        tree[own.resource]["time"] = at.as_str().into();
        tree[own.resource]["psi"] = json!({"some": psi(own.some), "full": psi(own.full)});
    }
    tree
}

/// How long something waited.
fn psi(waits: Waits) -> Value {
    let [avg10, avg60, avg300] = waits.averages.map(|one| f64::from(one) / 100.0);
    json!({"total": waits.total_micros, "avg10": avg10, "avg60": avg60, "avg300": avg300})
}

fn time(nanos: i64) -> String {
    match nanos {
        0 => meta::time::now(),
        nanos => meta::time::rfc3339(instant(nanos)),
    }
}

/// Interfaces, the first of which is the main one.
fn network(interfaces: Vec<InterfaceStats>, at: i64) -> Option<Value> {
    let one = |own: &InterfaceStats| {
        Map::from_iter([
            ("name".to_owned(), json!(own.name)),
            ("rxBytes".to_owned(), json!(own.receive.bytes)),
            ("rxErrors".to_owned(), json!(own.receive.errors)),
            ("txBytes".to_owned(), json!(own.transmit.bytes)),
            ("txErrors".to_owned(), json!(own.transmit.errors)),
        ])
    };
    let mut tree = one(interfaces.first()?);
    tree.insert("time".to_owned(), time(at).into());
    let all: Vec<Value> = interfaces.iter().map(|own| one(own).into()).collect();
    tree.insert("interfaces".to_owned(), all.into());
    Some(tree.into())
}

/// What something takes of a file system: the kubelet's, unless it says which.
fn file_system(shared: &Shared, usage: &FilesystemUsage) -> Value {
    let own = &shared.config.root_dir;
    let path = match usage.mountpoint.as_os_str().is_empty() {
        true => own,
        false => &usage.mountpoint,
    };
    let disk = machine::disk(path)
        .or_else(|| machine::disk(own))
        .unwrap_or_default();
    json!({
        "time": meta::time::now(),
        "capacityBytes": disk.total, "availableBytes": disk.available,
        "usedBytes": usage.used_bytes,
        "inodes": disk.inodes, "inodesFree": disk.inodes_free, "inodesUsed": usage.inodes_used,
    })
}
