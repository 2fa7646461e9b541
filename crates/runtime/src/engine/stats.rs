//! Figures of containers.

use node_api::{ContainerState, ContainerStats, RuntimeError};

use super::{Engine, Entry};
use crate::spec::now_nanos;

impl Engine {
    pub(super) fn stats_of(&self, id: &str) -> Result<ContainerStats, RuntimeError> {
        let entry = self.entry(id)?;
        self.measure(&entry)
    }

    pub(super) fn all_stats(&self) -> Result<Vec<ContainerStats>, RuntimeError> {
        let containers = self.containers.read();
        let running = containers
            .values()
            .filter(|entry| entry.state() == ContainerState::Running);
        running.map(|entry| self.measure(entry)).collect()
    }

    fn measure(&self, entry: &Entry) -> Result<ContainerStats, RuntimeError> {
        let record = entry.record.read();
        let usage = self.group(&record.cgroup)?.usage();
        let pod = self.pod(&record.sandbox_id)?;
        Ok(ContainerStats {
            id: record.id.clone(),
            name: record.config.name.clone(),
            pod_uid: pod.record.config.uid.clone(),
            timestamp: now_nanos(),
            cpu_usage_core_nanos: usage.cpu_nanos,
            memory_usage_bytes: usage.memory_bytes,
            memory_working_set_bytes: usage.working_set_bytes,
            memory_rss_bytes: usage.rss_bytes,
            process_count: usage.processes,
        })
    }
}
