//! What the server tells of the node: its pods, their use of resources, its
//! own settings.

use std::collections::BTreeMap;
use std::fmt::Write;

use http::{Response, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use node_api::{ContainerState, ContainerStats};
use serde_json::{Value, json};

use super::{Body, json as answer, text, with_type};
use crate::machine;
use crate::pod::{PodExt, instant};
use crate::shared::Shared;

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `/pods`.
pub(super) fn pods(shared: &Shared) -> Response<Body> {
    let items: Vec<Pod> = shared
        .pods
        .all()
        .into_iter()
        .map(|view| Pod {
            status: Some(view.status),
            ..view.pod.as_ref().clone()
        })
        .collect();
    answer(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// `/configz`.
pub(super) fn configz(shared: &Shared) -> Response<Body> {
    answer(&json!({"kubeletconfig": shared.config.shown}))
}

/// `/stats/summary`.
pub(super) async fn summary(shared: &Shared) -> Response<Body> {
    let stats = match shared.runtime.list_container_stats().await {
        Ok(stats) => stats,
        Err(fault) => return text(StatusCode::INTERNAL_SERVER_ERROR, fault.to_string()),
    };
    let mut by_pod: BTreeMap<&str, Vec<&ContainerStats>> = BTreeMap::new();
    for stat in &stats {
        by_pod.entry(&stat.pod_uid).or_default().push(stat);
    }
    let pods: Vec<Value> = shared
        .pods
        .all()
        .iter()
        .map(|view| {
            let own = by_pod
                .get(view.pod.uid())
                .map(Vec::as_slice)
                .unwrap_or_default();
            json!({
                "podRef": {
                    "name": view.pod.name(), "namespace": view.pod.namespace(),
                    "uid": view.pod.uid(),
                },
                "startTime": view.status.start_time,
                "containers": own.iter().map(|stat| of_container(stat)).collect::<Vec<_>>(),
                "cpu": cpu(own), "memory": memory(own),
            })
        })
        .collect();
    let all: Vec<&ContainerStats> = stats.iter().collect();
    answer(&json!({
        "node": {
            "nodeName": shared.config.node_name,
            "cpu": cpu(&all), "memory": memory(&all),
            "fs": file_system(shared),
        },
        "pods": pods,
    }))
}

fn of_container(stat: &ContainerStats) -> Value {
    json!({"name": stat.name, "cpu": cpu(&[stat]), "memory": memory(&[stat])})
}

fn cpu(stats: &[&ContainerStats]) -> Value {
    let used: u64 = stats.iter().map(|stat| stat.cpu_usage_core_nanos).sum();
    json!({"time": time(stats), "usageCoreNanoSeconds": used})
}

fn memory(stats: &[&ContainerStats]) -> Value {
    let sum = |of: fn(&ContainerStats) -> u64| stats.iter().map(|stat| of(stat)).sum::<u64>();
    json!({
        "time": time(stats),
        "usageBytes": sum(|stat| stat.memory_usage_bytes),
        "workingSetBytes": sum(|stat| stat.memory_working_set_bytes),
        "rssBytes": sum(|stat| stat.memory_rss_bytes),
    })
}

fn time(stats: &[&ContainerStats]) -> String {
    let newest = stats.iter().map(|stat| stat.timestamp).max();
    newest.map_or_else(meta::time::now, |nanos| meta::time::rfc3339(instant(nanos)))
}

fn file_system(shared: &Shared) -> Value {
    let disk = machine::disk(&shared.config.root_dir).unwrap_or_default();
    json!({
        "time": meta::time::now(),
        "capacityBytes": disk.total, "availableBytes": disk.available,
        "usedBytes": disk.total - disk.available,
        "inodes": disk.inodes, "inodesFree": disk.inodes_free,
    })
}

/// `/metrics/resource`.
pub(super) async fn resource_metrics(shared: &Shared) -> Response<Body> {
    let stats = match shared.runtime.list_container_stats().await {
        Ok(stats) => stats,
        Err(fault) => return text(StatusCode::INTERNAL_SERVER_ERROR, fault.to_string()),
    };
    let names: BTreeMap<String, (String, String)> = shared
        .pods
        .all()
        .into_iter()
        .map(|view| {
            let (name, namespace) = (view.pod.name().to_owned(), view.pod.namespace().to_owned());
            (view.pod.uid().to_owned(), (name, namespace))
        })
        .collect();
    let mut out = String::from(
        "# HELP container_cpu_usage_seconds_total Cumulative cpu time consumed by the container in core-seconds\n\
         # TYPE container_cpu_usage_seconds_total counter\n",
    );
    let labels = |stat: &ContainerStats| {
        let (pod, namespace) = names.get(&stat.pod_uid)?;
        Some(format!(
            "container={:?},namespace={namespace:?},pod={pod:?}",
            stat.name
        ))
    };
    for stat in &stats {
        if let Some(labels) = labels(stat) {
            let seconds = stat.cpu_usage_core_nanos as f64 / 1e9;
            let millis = stat.timestamp / 1_000_000;
            let line = writeln!(
                out,
                "container_cpu_usage_seconds_total{{{labels}}} {seconds} {millis}"
            );
            debug_assert!(line.is_ok(), "a string takes all that is written");
        }
    }
    out.push_str(
        "# HELP container_memory_working_set_bytes Current working set of the container in bytes\n\
         # TYPE container_memory_working_set_bytes gauge\n",
    );
    for stat in &stats {
        if let Some(labels) = labels(stat) {
            let (bytes, millis) = (stat.memory_working_set_bytes, stat.timestamp / 1_000_000);
            let line = writeln!(
                out,
                "container_memory_working_set_bytes{{{labels}}} {bytes} {millis}"
            );
            debug_assert!(line.is_ok(), "a string takes all that is written");
        }
    }
    out.push_str("# TYPE resource_scrape_error gauge\nresource_scrape_error 0\n");
    with_type(StatusCode::OK, out, PROMETHEUS)
}

/// `/metrics`.
pub(super) fn metrics(shared: &Shared) -> Response<Body> {
    let views = shared.pods.all();
    let count = |state: ContainerState| {
        let all = views.iter().flat_map(|view| view.containers.values());
        all.filter(|container| container.state == state).count()
    };
    let mut out = format!(
        "# TYPE kubelet_running_pods gauge\nkubelet_running_pods {}\n\
         # TYPE kubelet_running_containers gauge\n\
         kubelet_running_containers{{container_state=\"running\"}} {}\n\
         kubelet_running_containers{{container_state=\"exited\"}} {}\n\
         # TYPE kubelet_node_name gauge\nkubelet_node_name{{node={:?}}} 1\n",
        views.len(),
        count(ContainerState::Running),
        count(ContainerState::Exited),
        shared.config.node_name,
    );
    // Of what this process counts, that which is the kubelet's.
    let counted = base::metrics::page();
    let own = |line: &&str| {
        let comment = line
            .strip_prefix("# HELP ")
            .or(line.strip_prefix("# TYPE "));
        comment.unwrap_or(line).starts_with("kubelet_")
    };
    for line in counted.lines().filter(own) {
        out.push_str(line);
        out.push('\n');
    }
    with_type(StatusCode::OK, out, PROMETHEUS)
}
