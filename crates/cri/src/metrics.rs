//! Metrics of pods as CRI passes them on: named, labelled, and each the row of a table.

mod rows;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use node_api::{
    BlockIo, ContainerFigures, ContainerStats, ContainerStatus, FilesystemUsage, InterfaceStats,
    LinuxResources, PodSandboxStatus,
};
use tonic::Status;

use crate::{Service, refused, wire};
use rows::CONTAINER;
use wire::MetricType as Kind;

/// Labels of every metric; those of its own follow.
const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// Values of a metric's own labels, and its number.
type Values = Vec<(Vec<String>, u64)>;

/// One metric.
struct Row {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    /// Beyond those of every metric.
    labels: &'static [&'static str],
    values: fn(&Sample) -> Values,
}

/// All that is known of a container in one moment.
struct Sample {
    container: ContainerStatus,
    stats: ContainerStats,
    figures: ContainerFigures,
    written: FilesystemUsage,
    disk: Disk,
}

/// The file system a container writes to.
#[derive(Default)]
struct Disk {
    device: String,
    bytes: u64,
    inodes: u64,
    inodes_free: u64,
}

impl Disk {
    fn of(folder: &Path) -> Disk {
        let Ok(told) = nix::sys::statvfs::statvfs(folder) else {
            return Disk::default();
        };
        let device = std::fs::metadata(folder).map_or(0, |metadata| metadata.dev());
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        Disk {
            device: device_name(major, minor),
            bytes: told.blocks() * told.fragment_size(),
            inodes: told.files(),
            inodes_free: told.files_free(),
        }
    }
}

/// The node's path of a device; its numbers where it has none.
fn device_name(major: u64, minor: u64) -> String {
    let text = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent"));
    let text = text.unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map_or_else(|| format!("{major}:{minor}"), |name| format!("/dev/{name}"))
}

impl Sample {
    /// A setting of the container; what is not set, or without limit, is 0.
    fn set(&self, of: fn(&LinuxResources) -> i64) -> u64 {
        u64::try_from(of(&self.container.config.resources)).unwrap_or(0)
    }
}

fn seconds(nanos: u64) -> u64 {
    nanos / 1_000_000_000
}

fn one(value: u64) -> Values {
    vec![(Vec::new(), value)]
}

/// Only where there is anything.
fn some(value: u64) -> Values {
    match value {
        0 => Vec::new(),
        value => one(value),
    }
}

fn with(label: &str, value: u64) -> Values {
    vec![(vec![label.to_owned()], value)]
}

fn block(s: &Sample, of: fn(&BlockIo) -> u64) -> Values {
    let value = |io: &BlockIo| {
        let operation = if io.write { "Write" } else { "Read" };
        let labels = vec![
            device_name(io.major, io.minor),
            io.major.to_string(),
            io.minor.to_string(),
            operation.to_owned(),
        ];
        (labels, of(io))
    };
    s.figures.block_io.iter().map(value).collect()
}

fn devices(s: &Sample, write: bool, of: fn(&BlockIo) -> u64) -> Values {
    let wanted = s.figures.block_io.iter().filter(|io| io.write == write);
    let value = |io: &BlockIo| (vec![device_name(io.major, io.minor)], of(io));
    wanted.map(value).collect()
}

fn pages(s: &Sample, of: fn(&(String, u64, u64)) -> u64) -> Values {
    let pages = s.figures.huge_pages.iter();
    pages.map(|page| (vec![page.0.clone()], of(page))).collect()
}

fn faults(s: &Sample) -> Values {
    let own = |kind: &str, count| (vec![kind.to_owned(), "container".to_owned()], count);
    vec![
        own("pgfault", s.stats.page_faults),
        own("pgmajfault", s.stats.major_page_faults),
    ]
}

fn waited(s: &Sample, resource: &str, of: fn(&(&'static str, u64, u64)) -> u64) -> Values {
    let known = s.figures.pressure.iter().find(|waits| waits.0 == resource);
    known.map_or_else(Vec::new, |waits| one(of(waits) / 1_000_000))
}

/// A metric of a pod's interfaces.
struct NetworkRow {
    name: &'static str,
    help: &'static str,
    value: fn(&InterfaceStats) -> u64,
}

const NETWORK: [NetworkRow; 8] = [
    NetworkRow {
        name: "container_network_receive_bytes_total",
        help: "Cumulative count of bytes received.",
        value: |i| i.receive.bytes,
    },
    NetworkRow {
        name: "container_network_receive_errors_total",
        help: "Cumulative count of errors encountered while receiving.",
        value: |i| i.receive.errors,
    },
    NetworkRow {
        name: "container_network_receive_packets_dropped_total",
        help: "Cumulative count of packets dropped while receiving.",
        value: |i| i.receive.dropped,
    },
    NetworkRow {
        name: "container_network_receive_packets_total",
        help: "Cumulative count of packets received.",
        value: |i| i.receive.packets,
    },
    NetworkRow {
        name: "container_network_transmit_bytes_total",
        help: "Cumulative count of bytes transmitted.",
        value: |i| i.transmit.bytes,
    },
    NetworkRow {
        name: "container_network_transmit_errors_total",
        help: "Cumulative count of errors encountered while transmitting.",
        value: |i| i.transmit.errors,
    },
    NetworkRow {
        name: "container_network_transmit_packets_dropped_total",
        help: "Cumulative count of packets dropped while transmitting.",
        value: |i| i.transmit.dropped,
    },
    NetworkRow {
        name: "container_network_transmit_packets_total",
        help: "Cumulative count of packets transmitted.",
        value: |i| i.transmit.packets,
    },
];

/// What the lists of metrics consist of.
pub(crate) fn descriptors() -> wire::ListMetricDescriptorsResponse {
    let descriptor = |name: &str, help: &str, own: &[&str]| wire::MetricDescriptor {
        name: name.to_owned(),
        help: help.to_owned(),
        label_keys: LABELS
            .iter()
            .chain(own)
            .map(|key| (*key).to_owned())
            .collect(),
    };
    let of_containers = CONTAINER
        .iter()
        .map(|row| descriptor(row.name, row.help, row.labels));
    let of_pods = NETWORK
        .iter()
        .map(|row| descriptor(row.name, row.help, &["interface"]));
    wire::ListMetricDescriptorsResponse {
        descriptors: of_containers.chain(of_pods).collect(),
    }
}

fn metric(
    name: &str,
    kind: Kind,
    timestamp: i64,
    labels: &[String; 6],
    own: Vec<String>,
    value: u64,
) -> wire::Metric {
    wire::Metric {
        name: name.to_owned(),
        timestamp,
        metric_type: kind.into(),
        label_values: labels.iter().cloned().chain(own).collect(),
        value: Some(wire::UInt64Value { value }),
    }
}

fn container_metrics(sample: &Sample, sandbox: &PodSandboxStatus) -> wire::ContainerMetrics {
    let container = &sample.container;
    let labels = [
        container.config.name.clone(),
        container.id.clone(),
        container.config.user_specified_image.clone(),
        container.id.clone(),
        sandbox.config.namespace.clone(),
        sandbox.config.name.clone(),
    ];
    let mut metrics = Vec::new();
    for row in &CONTAINER {
        for (own, value) in (row.values)(sample) {
            let at = sample.stats.timestamp;
            metrics.push(metric(row.name, row.kind, at, &labels, own, value));
        }
    }
    wire::ContainerMetrics {
        container_id: container.id.clone(),
        metrics,
    }
}

impl Service {
    async fn sample(&self, container: ContainerStatus) -> Result<Sample, Status> {
        let id = &container.id;
        let stats = self.runtime.container_stats(id).await.map_err(refused)?;
        let figures = self.runtime.container_figures(id).await.map_err(refused)?;
        let written = self.runtime.writable_layer(id).await.map_err(refused)?;
        Ok(Sample {
            disk: Disk::of(&written.mountpoint),
            container,
            stats,
            figures,
            written,
        })
    }

    async fn pod_metrics(
        &self,
        sandbox: &PodSandboxStatus,
        containers: Vec<ContainerStatus>,
    ) -> Result<wire::PodSandboxMetrics, Status> {
        let stats = self.runtime.pod_sandbox_stats(&sandbox.id).await;
        let stats = stats.map_err(refused)?;
        let labels = [
            String::new(),
            sandbox.id.clone(),
            String::new(),
            sandbox.id.clone(),
            sandbox.config.namespace.clone(),
            sandbox.config.name.clone(),
        ];
        let mut metrics = Vec::new();
        for row in &NETWORK {
            for interface in &stats.interfaces {
                let (at, own) = (stats.total.timestamp, vec![interface.name.clone()]);
                let value = (row.value)(interface);
                metrics.push(metric(row.name, Kind::Counter, at, &labels, own, value));
            }
        }
        let mut container_metrics = Vec::new();
        for container in containers {
            match self.sample(container).await {
                Err(fault) if fault.code() == tonic::Code::NotFound => {}
                sample => container_metrics.push(self::container_metrics(&sample?, sandbox)),
            }
        }
        Ok(wire::PodSandboxMetrics {
            pod_sandbox_id: sandbox.id.clone(),
            metrics,
            container_metrics,
        })
    }

    pub(crate) async fn list_metrics(&self) -> Result<wire::ListPodSandboxMetricsResponse, Status> {
        let sandboxes = self.runtime.list_pod_sandboxes().await.map_err(refused)?;
        let mut running = self.runtime.list_containers().await.map_err(refused)?;
        running.retain(|container| container.state == node_api::ContainerState::Running);
        let mut pod_metrics = Vec::new();
        for sandbox in sandboxes {
            if sandbox.state != node_api::SandboxState::Ready {
                continue;
            }
            let own = |container: &&ContainerStatus| container.sandbox_id == sandbox.id;
            let containers = running.iter().filter(own).cloned().collect();
            match self.pod_metrics(&sandbox, containers).await {
                Err(fault) if fault.code() == tonic::Code::NotFound => {}
                metrics => pod_metrics.push(metrics?),
            }
        }
        Ok(wire::ListPodSandboxMetricsResponse { pod_metrics })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_as_many_labels_as_its_descriptor() {
        let told = descriptors().descriptors;
        assert_eq!(told.len(), CONTAINER.len() + NETWORK.len());
        let names: std::collections::BTreeSet<_> = told.iter().map(|d| &d.name).collect();
        assert_eq!(names.len(), told.len(), "no name twice");
        let sample = sample();
        for row in &CONTAINER {
            for (own, _) in (row.values)(&sample) {
                assert_eq!(own.len(), row.labels.len(), "{}", row.name);
            }
        }
    }

    fn sample() -> Sample {
        Sample {
            container: ContainerStatus {
                id: "c".to_owned(),
                sandbox_id: "s".to_owned(),
                config: Default::default(),
                state: node_api::ContainerState::Running,
                created_at: 0,
                started_at: 0,
                finished_at: 0,
                exit_code: 0,
                image_id: String::new(),
                reason: String::new(),
                message: String::new(),
                log_path: Default::default(),
                pid: 1,
                user: None,
                stop_signal: 15,
            },
            stats: ContainerStats::default(),
            figures: ContainerFigures {
                huge_pages: vec![("2MB".to_owned(), 1, 2)],
                block_io: vec![BlockIo::default()],
                pressure: vec![("io", 1, 2)],
                ..ContainerFigures::default()
            },
            written: FilesystemUsage::default(),
            disk: Disk::default(),
        }
    }
}
