//! What pods and the machine itself use right now.

use std::collections::BTreeMap;
use std::fs;

use node_api::{ContainerStats, ContainerStatus, PodSandboxStats, RuntimeError, SandboxState};

use crate::machine;
use crate::pod::PodExt;
use crate::pods::PodView;
use crate::shared::Shared;
use crate::swap;

/// Clock ticks a second, in which the kernel counts for everybody.
const TICK_NANOS: u64 = 10_000_000;

/// A pod and what it uses.
pub(super) struct PodUse {
    pub(super) view: PodView,
    /// Of the pod as a whole; `None` where the runtime does not tell.
    pub(super) sandbox: Option<PodSandboxStats>,
    /// Of its running containers.
    pub(super) containers: Vec<ContainerStats>,
}

impl PodUse {
    /// The pod as a whole: its cgroup where that is known, else the sum of its containers.
    pub(super) fn total(&self) -> ContainerStats {
        if let Some(sandbox) = self.sandbox.as_ref().filter(|own| own.total.timestamp > 0) {
            return sandbox.total.clone();
        }
        let mut total = ContainerStats::default();
        for one in &self.containers {
            total.timestamp = total.timestamp.max(one.timestamp);
            total.cpu_usage_core_nanos += one.cpu_usage_core_nanos;
            total.memory_usage_bytes += one.memory_usage_bytes;
            total.memory_working_set_bytes += one.memory_working_set_bytes;
            total.memory_rss_bytes += one.memory_rss_bytes;
            total.process_count += one.process_count;
            total.page_faults += one.page_faults;
            total.major_page_faults += one.major_page_faults;
            total.swap_bytes += one.swap_bytes;
        }
        total
    }

    /// How much memory a container may have, if that is limited.
    pub(super) fn memory_limit(&self, stats: &ContainerStats) -> Option<u64> {
        let limit = self.status(stats)?.config.resources.memory_limit_bytes;
        u64::try_from(limit).ok().filter(|limit| *limit > 0)
    }

    /// How much swap a container may have, if that is limited.
    pub(super) fn swap_limit(&self, stats: &ContainerStats) -> Option<u64> {
        swap::limit_of(&self.status(stats)?.config.resources)
    }

    /// What the runtime says of a container.
    pub(super) fn status(&self, stats: &ContainerStats) -> Option<&ContainerStatus> {
        self.view.containers.values().find(|own| own.id == stats.id)
    }
}

/// All pods, by namespace and name.
pub(super) async fn pods(shared: &Shared) -> Result<Vec<PodUse>, RuntimeError> {
    let mut by_pod: BTreeMap<String, Vec<ContainerStats>> = BTreeMap::new();
    for stats in shared.runtime.list_container_stats().await? {
        by_pod.entry(stats.pod_uid.clone()).or_default().push(stats);
    }
    let mut pods = Vec::new();
    for view in shared.pods.all() {
        let mut sandboxes = view.sandboxes.values();
        let ready = sandboxes.find(|own| own.state == SandboxState::Ready);
        let sandbox = match ready {
            Some(own) => shared.runtime.pod_sandbox_stats(&own.id).await.ok(),
            None => None,
        };
        let mut containers = by_pod.remove(view.pod.uid()).unwrap_or_default();
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        pods.push(PodUse {
            view,
            sandbox,
            containers,
        });
    }
    let name = |pod: &PodUse| {
        (
            pod.view.pod.namespace().to_owned(),
            pod.view.pod.name().to_owned(),
        )
    };
    pods.sort_by_cached_key(name);
    Ok(pods)
}

/// The machine as a whole, as its kernel counts.
pub(super) fn machine() -> ContainerStats {
    let memory = |key: &str| u64::try_from(machine::memory(key)).unwrap_or(0);
    let used = memory("MemTotal:").saturating_sub(memory("MemFree:"));
    let counters = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let counter = |name: &str| {
        let mut lines = counters.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = lines.find(|(key, _)| *key == name)?;
        value.parse().ok()
    };
    ContainerStats {
        timestamp: i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0),
        cpu_usage_core_nanos: busy(&fs::read_to_string("/proc/stat").unwrap_or_default()),
        memory_usage_bytes: used,
        memory_working_set_bytes: used.saturating_sub(memory("Inactive(file):")),
        memory_rss_bytes: memory("AnonPages:"),
        process_count: machine::process_ids().map_or(0, |(_, taken)| taken.unsigned_abs()),
        page_faults: counter("pgfault").unwrap_or(0),
        major_page_faults: counter("pgmajfault").unwrap_or(0),
        swap_bytes: memory("SwapTotal:").saturating_sub(memory("SwapFree:")),
        ..ContainerStats::default()
    }
}

/// How long processors worked: all but idle and waiting for disks; what guests used is in `user`.
fn busy(stat: &str) -> u64 {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "));
    let ticks = line.unwrap_or_default().split_whitespace().take(8);
    let ticks = ticks.enumerate().filter(|(at, _)| !matches!(at, 3 | 4));
    let ticks: u64 = ticks.filter_map(|(_, word)| word.parse::<u64>().ok()).sum();
    ticks * TICK_NANOS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_that_wait_do_not_work() {
        let stat = "cpu  10 1 5 1000 50 2 3 4 9 9\ncpu0 1 1 1 1\n";
        assert_eq!(busy(stat), (10 + 1 + 5 + 2 + 3 + 4) * TICK_NANOS);
        assert_eq!(busy(""), 0);
    }

    #[test]
    fn the_machine_is_measured() {
        let all = machine();
        assert!(all.cpu_usage_core_nanos > 0 && all.timestamp > 0);
        assert!(all.memory_working_set_bytes > 0);
        assert!(all.memory_working_set_bytes <= all.memory_usage_bytes);
    }
}
