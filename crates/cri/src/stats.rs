//! Figures of containers and pods.

use node_api::{
    ContainerStats, ContainerStatus, FilesystemUsage, InterfaceStats, PodSandboxStatus, Waits,
};
use tonic::Status;

use crate::pods::selects;
use crate::{Service, convert, refused, wire};

/// Nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn value(value: u64) -> Option<wire::UInt64Value> {
    Some(wire::UInt64Value { value })
}

pub(crate) fn filesystem(usage: FilesystemUsage, timestamp: i64) -> wire::FilesystemUsage {
    let inodes = usage.inodes_used;
    wire::FilesystemUsage {
        timestamp,
        fs_id: Some(wire::FilesystemIdentifier {
            mountpoint: usage.mountpoint.display().to_string(),
        }),
        used_bytes: value(usage.used_bytes),
        inodes_used: value(inodes).filter(|_| inodes > 0),
    }
}

fn cpu(stats: &ContainerStats) -> wire::CpuUsage {
    wire::CpuUsage {
        timestamp: stats.timestamp,
        usage_core_nano_seconds: value(stats.cpu_usage_core_nanos),
        psi: psi(stats, "cpu"),
        ..wire::CpuUsage::default()
    }
}

fn psi(stats: &ContainerStats, resource: &str) -> Option<wire::PsiStats> {
    let own = stats.pressure.iter().find(|one| one.resource == resource)?;
    let data = |waits: Waits| {
        let [avg10, avg60, avg300] = waits.averages.map(|one| f64::from(one) / 100.0);
        wire::PsiData {
            total: waits.total_micros,
            avg10,
            avg60,
            avg300,
        }
    };
    Some(wire::PsiStats {
        full: Some(data(own.full)),
        some: Some(data(own.some)),
    })
}

fn memory(stats: &ContainerStats, limit: i64) -> wire::MemoryUsage {
    let limit = u64::try_from(limit).ok().filter(|limit| *limit > 0);
    let available = limit.map(|limit| limit.saturating_sub(stats.memory_working_set_bytes));
    wire::MemoryUsage {
        timestamp: stats.timestamp,
        working_set_bytes: value(stats.memory_working_set_bytes),
        available_bytes: available.and_then(value),
        usage_bytes: value(stats.memory_usage_bytes),
        rss_bytes: value(stats.memory_rss_bytes),
        page_faults: value(stats.page_faults),
        major_page_faults: value(stats.major_page_faults),
        psi: psi(stats, "memory"),
    }
}

fn interface(stats: &InterfaceStats) -> wire::NetworkInterfaceUsage {
    wire::NetworkInterfaceUsage {
        name: stats.name.clone(),
        rx_bytes: value(stats.receive.bytes),
        rx_errors: value(stats.receive.errors),
        tx_bytes: value(stats.transmit.bytes),
        tx_errors: value(stats.transmit.errors),
    }
}

impl Service {
    async fn measured(&self, container: ContainerStatus) -> Result<wire::ContainerStats, Status> {
        let stats = self.runtime.container_stats(&container.id).await;
        let stats = stats.map_err(refused)?;
        let written = self.runtime.writable_layer(&container.id).await;
        let written = written.map_err(refused)?;
        let limit = container.config.resources.memory_limit_bytes;
        Ok(wire::ContainerStats {
            attributes: Some(wire::ContainerAttributes {
                id: container.id,
                metadata: Some(convert::container_metadata(&container.config)),
                labels: container.config.labels,
                annotations: container.config.annotations,
            }),
            cpu: Some(cpu(&stats)),
            memory: Some(memory(&stats, limit)),
            writable_layer: Some(filesystem(written, stats.timestamp)),
            swap: Some(wire::SwapUsage {
                timestamp: stats.timestamp,
                swap_available_bytes: None,
                swap_usage_bytes: value(stats.swap_bytes),
            }),
            io: psi(&stats, "io").map(|psi| wire::IoUsage {
                timestamp: stats.timestamp,
                psi: Some(psi),
            }),
        })
    }

    /// One that goes away meanwhile is left out.
    async fn all_measured(
        &self,
        containers: Vec<ContainerStatus>,
    ) -> Result<Vec<wire::ContainerStats>, Status> {
        let mut all = Vec::new();
        for container in containers {
            match self.measured(container).await {
                Err(fault) if fault.code() == tonic::Code::NotFound => {}
                stats => all.push(stats?),
            }
        }
        Ok(all)
    }

    pub(crate) async fn container_stats(
        &self,
        request: wire::Named,
    ) -> Result<wire::ContainerStatsResponse, Status> {
        let id = self.container_id(request.id).await?;
        let found = self.runtime.container_status(&id).await.map_err(refused)?;
        Ok(wire::ContainerStatsResponse {
            stats: Some(self.measured(found).await?),
        })
    }

    pub(crate) async fn list_container_stats(
        &self,
        request: wire::ListContainerStatsRequest,
    ) -> Result<wire::ListContainerStatsResponse, Status> {
        let filter = request.filter.unwrap_or_default();
        let mut all = self.runtime.list_containers().await.map_err(refused)?;
        all.retain(|container| {
            container.state == node_api::ContainerState::Running
                && container.id.starts_with(&filter.id)
                && container.sandbox_id.starts_with(&filter.pod_sandbox_id)
                && selects(&filter.label_selector, &container.config.labels)
        });
        Ok(wire::ListContainerStatsResponse {
            stats: self.all_measured(all).await?,
        })
    }

    async fn sandbox_measured(
        &self,
        sandbox: PodSandboxStatus,
    ) -> Result<wire::PodSandboxStats, Status> {
        let stats = self.runtime.pod_sandbox_stats(&sandbox.id).await;
        let stats = stats.map_err(refused)?;
        let mut containers = self.runtime.list_containers().await.map_err(refused)?;
        containers.retain(|container| {
            container.sandbox_id == sandbox.id
                && container.state == node_api::ContainerState::Running
        });
        let interfaces: Vec<_> = stats.interfaces.iter().map(interface).collect();
        let timestamp = stats.total.timestamp;
        Ok(wire::PodSandboxStats {
            attributes: Some(wire::PodSandboxAttributes {
                metadata: Some(convert::sandbox_metadata(&sandbox.config)),
                labels: sandbox.config.labels,
                annotations: sandbox.config.annotations,
                id: sandbox.id,
            }),
            linux: Some(wire::LinuxPodSandboxStats {
                cpu: Some(cpu(&stats.total)),
                memory: Some(memory(&stats.total, 0)),
                network: Some(wire::NetworkUsage {
                    timestamp,
                    default_interface: interfaces.first().cloned(),
                    interfaces: interfaces.into_iter().skip(1).collect(),
                }),
                process: Some(wire::ProcessUsage {
                    timestamp,
                    process_count: value(stats.total.process_count),
                }),
                containers: self.all_measured(containers).await?,
                io: None,
            }),
        })
    }

    pub(crate) async fn sandbox_stats(
        &self,
        request: wire::Named,
    ) -> Result<wire::PodSandboxStatsResponse, Status> {
        let id = self.sandbox_id(request.id).await?;
        let found = self
            .runtime
            .pod_sandbox_status(&id)
            .await
            .map_err(refused)?;
        Ok(wire::PodSandboxStatsResponse {
            stats: Some(self.sandbox_measured(found).await?),
        })
    }

    pub(crate) async fn list_sandbox_stats(
        &self,
        request: wire::ListPodSandboxStatsRequest,
    ) -> Result<wire::ListPodSandboxStatsResponse, Status> {
        let filter = request.filter.unwrap_or_default();
        let all = self.runtime.list_pod_sandboxes().await.map_err(refused)?;
        let mut stats = Vec::new();
        for sandbox in all {
            let fits = sandbox.state == node_api::SandboxState::Ready
                && sandbox.id.starts_with(&filter.id)
                && selects(&filter.label_selector, &sandbox.config.labels);
            if !fits {
                continue;
            }
            match self.sandbox_measured(sandbox).await {
                Err(fault) if fault.code() == tonic::Code::NotFound => {}
                one => stats.push(one?),
            }
        }
        Ok(wire::ListPodSandboxStatsResponse { stats })
    }
}
