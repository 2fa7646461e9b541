//! The node's part of the summary.

use std::fs;

use node_api::{ContainerStats, FilesystemUsage, InterfaceStats, TrafficStats, Waits};
use serde_json::{Value, json};

use super::super::gather::{self, PodUse};
use super::{file_system, measured, network, psi, time};
use crate::machine;
use crate::shared::Shared;

/// Clock ticks a second, in which the kernel counts for everybody.
const TICK_NANOS: u64 = 10_000_000;

/// The node as a whole.
pub(super) async fn node(shared: &Shared, pods: &[PodUse], brief: bool) -> Value {
    let all = gather::machine();
    let memory = u64::try_from(shared.machine.memory_bytes).ok();
    let mut tree = measured(shared, "/", &all, memory);
    let swap = machine::memory("SwapFree:");
    tree["swap"]["swapAvailableBytes"] = swap.into();
    tree["nodeName"] = shared.config.node_name.as_str().into();
    tree["startTime"] = time(booted()).into();
    tree["systemContainers"] = system_containers(shared, pods);
    if brief {
        return tree;
    }
    for (resource, path) in [
        ("cpu", "/proc/pressure/cpu"),
        ("memory", "/proc/pressure/memory"),
        ("io", "/proc/pressure/io"),
    ] {
        if let Ok(text) = fs::read_to_string(path) {
            tree[resource]["time"] = time(all.timestamp).into();
            tree[resource]["psi"] = pressure(resource, &text);
        }
    }
    if let Some(network) = network(interfaces(), all.timestamp) {
        tree["network"] = network;
    }
    let disk = machine::disk(&shared.config.root_dir).unwrap_or_default();
    let whole = |number: i64| u64::try_from(number).unwrap_or(0);
    let used = FilesystemUsage {
        used_bytes: whole(disk.total - disk.available),
        inodes_used: whole(disk.inodes - disk.inodes_free),
        ..FilesystemUsage::default()
    };
    tree["fs"] = file_system(shared, &used);
    if let Some((images, containers)) = shared.measures.images(shared).await {
        tree["runtime"] = json!({
            "imageFs": file_system(shared, &images),
            "containerFs": file_system(shared, &containers),
        });
    }
    if let Some((most, taken)) = machine::process_ids() {
        tree["rlimit"] = json!({"time": time(0), "maxpid": most, "curproc": taken});
    }
    tree
}

/// This process, which is kubelet and runtime in one, and all pods together.
fn system_containers(shared: &Shared, pods: &[PodUse]) -> Value {
    let mut all = ContainerStats::default();
    for total in pods.iter().map(PodUse::total) {
        all.timestamp = all.timestamp.max(total.timestamp);
        all.cpu_usage_core_nanos += total.cpu_usage_core_nanos;
        all.memory_usage_bytes += total.memory_usage_bytes;
        all.memory_working_set_bytes += total.memory_working_set_bytes;
        all.memory_rss_bytes += total.memory_rss_bytes;
        all.page_faults += total.page_faults;
        all.major_page_faults += total.major_page_faults;
        all.swap_bytes += total.swap_bytes;
    }
    let named = |name: &str, stats: &ContainerStats| {
        let mut tree = measured(shared, name, stats, None);
        tree["name"] = name.into();
        tree["startTime"] = time(booted()).into();
        tree
    };
    json!([named("kubelet", &own_process()), named("pods", &all)])
}

fn own_process() -> ContainerStats {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in brackets, may hold anything.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let words: Vec<u64> = rest
        .split_whitespace()
        .skip(1)
        .map(|word| word.parse().unwrap_or(0))
        .collect();
    let word = |at: usize| words.get(at).copied().unwrap_or(0);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kibibytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        number.unwrap_or(0) * 1024
    };
    ContainerStats {
        timestamp: i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0),
        cpu_usage_core_nanos: (word(10) + word(11)) * TICK_NANOS,
        memory_usage_bytes: kibibytes("VmRSS:"),
        memory_working_set_bytes: kibibytes("VmRSS:"),
        memory_rss_bytes: kibibytes("RssAnon:"),
        page_faults: word(6),
        major_page_faults: word(8),
        swap_bytes: kibibytes("VmSwap:"),
        ..ContainerStats::default()
    }
}

/// When the machine began, in nanoseconds since the epoch.
fn booted() -> i64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
    let seconds = line.and_then(|text| text.trim().parse::<i64>().ok());
    seconds.unwrap_or(0) * 1_000_000_000
}

/// The machine's own interfaces: neither its loopback nor those that lead to pods.
fn interfaces() -> Vec<InterfaceStats> {
    let text = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let mut found: Vec<InterfaceStats> = text.lines().filter_map(interface).collect();
    found.retain(|own| own.name != "lo" && !own.name.starts_with("veth"));
    found
}

/// A line of `/proc/net/dev`.
fn interface(line: &str) -> Option<InterfaceStats> {
    let (name, counters) = line.split_once(':')?;
    let counters = counters.split_whitespace();
    let counters: Vec<u64> = counters.filter_map(|word| word.parse().ok()).collect();
    let traffic = |from: usize| {
        Some(TrafficStats {
            bytes: *counters.get(from)?,
            packets: *counters.get(from + 1)?,
            errors: *counters.get(from + 2)?,
            dropped: *counters.get(from + 3)?,
        })
    };
    Some(InterfaceStats {
        name: name.trim().to_owned(),
        receive: traffic(0)?,
        transmit: traffic(8)?,
    })
}

/// How long tasks waited for a resource, as the kernel writes it.
fn pressure(resource: &'static str, text: &str) -> Value {
    let own = linux::cgroup::Pressure::parse(resource, text);
    let shown = |waits: linux::cgroup::Waits| {
        psi(Waits {
            total_micros: waits.total,
            averages: waits.averages,
        })
    };
    json!({"some": shown(own.some), "full": shown(own.full)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_as_the_kernel_writes_it() {
        let text = "some avg10=0.50 avg60=1.00 avg300=2.25 total=123\n";
        let tree = pressure("cpu", text);
        assert_eq!(
            tree["some"],
            json!({"total": 123, "avg10": 0.5, "avg60": 1.0, "avg300": 2.25})
        );
        assert_eq!(tree["full"]["total"], 0);
    }

    #[test]
    fn this_process_is_measured() {
        let own = own_process();
        assert!(own.memory_rss_bytes > 0 && own.memory_working_set_bytes > own.memory_rss_bytes);
        assert!(own.page_faults > 0 && booted() > 0);
    }
}
