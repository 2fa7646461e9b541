//! Figures of containers and pods.

use std::path::Path;
use std::time::{Duration, Instant};

use linux::cgroup::{Cgroup, Usage};
use node_api::{
    BlockIo, ContainerFigures, ContainerState, ContainerStats, FilesystemUsage, InterfaceStats,
    NamespaceMode, PodSandboxStats, Pressure, RuntimeError, TrafficStats, Waits,
};

use super::{Engine, Entry, Pod, blocking, internal};
use crate::spec::{file, now_nanos};
use crate::units;

/// Folders within each other that are walked to measure what a container wrote; deeper ones are
/// left out.
const DEPTH_MAX: usize = 256;

/// How long it counts what all containers wrote.
const WRITTEN_FOR: Duration = Duration::from_secs(10);

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
        let group = self.group(&record.cgroup)?;
        let pod = self.pod(&record.sandbox_id)?;
        Ok(ContainerStats {
            id: record.id.clone(),
            name: record.config.name.clone(),
            pod_uid: pod.record.config.uid.clone(),
            pressure: pressure(&group),
            ..stats(&group.usage())
        })
    }

    pub(super) async fn pod_stats(&self, id: &str) -> Result<PodSandboxStats, RuntimeError> {
        let pod = self.pod(id)?;
        let mut groups = self.groups_of(&pod)?;
        if groups.len() > 1 && !pod.record.config.cgroup_parent.is_empty() {
            // Its slice knows of what has ended, too.
            let slice = units::slice_of(&pod.record.cgroup).to_owned();
            groups = vec![(slice.clone(), self.group(&slice)?)];
        }
        blocking(move || {
            let mut usage = Usage::default();
            groups.iter().for_each(|(_, group)| usage += group.usage());
            // Times of several do not add up.
            let waits = match groups.as_slice() {
                [(_, group)] => pressure(group),
                _ => Vec::new(),
            };
            Ok(PodSandboxStats {
                total: ContainerStats {
                    id: pod.record.id.clone(),
                    name: pod.record.config.name.clone(),
                    pod_uid: pod.record.config.uid.clone(),
                    pressure: waits,
                    ..stats(&usage)
                },
                interfaces: interfaces(&pod),
            })
        })
        .await
    }

    pub(super) async fn figures(&self, id: &str) -> Result<ContainerFigures, RuntimeError> {
        let entry = self.entry(id)?;
        let (group, pid) = (
            self.group(&entry.record.read().cgroup)?,
            entry.status.borrow().pid,
        );
        blocking(move || {
            let detail = group.detail();
            let mut figures = ContainerFigures {
                cpu_user_nanos: detail.cpu_user_nanos,
                cpu_system_nanos: detail.cpu_system_nanos,
                cpu_periods: detail.cpu_periods,
                cpu_throttled_periods: detail.cpu_throttled_periods,
                cpu_throttled_nanos: detail.cpu_throttled_nanos,
                memory_cache_bytes: detail.memory_cache_bytes,
                memory_mapped_file_bytes: detail.memory_mapped_file_bytes,
                memory_max_usage_bytes: detail.memory_max_usage_bytes,
                memory_kernel_bytes: detail.memory_kernel_bytes,
                memory_failures: detail.memory_failures,
                out_of_memory_kills: group.out_of_memory_kills(),
                threads_max: detail.tasks_max,
                open_files_limit: open_files_limit(pid),
                ..ContainerFigures::default()
            };
            let pages = detail.huge_pages.into_iter();
            figures.huge_pages = pages.map(|p| (p.size, p.bytes, p.max_bytes)).collect();
            let waits = detail.pressure.into_iter();
            figures.pressure = waits
                .map(|p| (p.resource, p.some.total, p.full.total))
                .collect();
            figures.block_io = detail.block_io.into_iter().map(block_io).collect();
            for process in group.processes() {
                count_process(process.as_raw(), &mut figures);
            }
            Ok(figures)
        })
        .await
    }

    pub(super) async fn written(&self, id: &str) -> Result<FilesystemUsage, RuntimeError> {
        self.entry(id)?;
        let folder = self.writable(id);
        blocking(move || Ok(disk_usage(&folder, &folder.join("upper")))).await
    }

    /// What all containers wrote. Their files are walked, so the answer is good for a while.
    pub(super) async fn all_written(&self) -> Result<FilesystemUsage, RuntimeError> {
        let known = self.written.lock().clone();
        if let Some((at, usage)) = known
            && at.elapsed() < WRITTEN_FOR
        {
            return Ok(usage);
        }
        let usage = self.walk_all().await?;
        *self.written.lock() = Some((Instant::now(), usage.clone()));
        Ok(usage)
    }

    async fn walk_all(&self) -> Result<FilesystemUsage, RuntimeError> {
        let folder = self.config.root.join("containers");
        blocking(move || {
            let mut total = FilesystemUsage {
                mountpoint: folder.clone(),
                ..FilesystemUsage::default()
            };
            for entry in std::fs::read_dir(&folder).map_err(internal)?.flatten() {
                let one = disk_usage(&folder, &entry.path().join("upper"));
                total.used_bytes += one.used_bytes;
                total.inodes_used += one.inodes_used;
            }
            Ok(total)
        })
        .await
    }
}

fn stats(usage: &Usage) -> ContainerStats {
    ContainerStats {
        timestamp: now_nanos(),
        cpu_usage_core_nanos: usage.cpu_nanos,
        memory_usage_bytes: usage.memory_bytes,
        memory_working_set_bytes: usage.working_set_bytes,
        memory_rss_bytes: usage.rss_bytes,
        process_count: usage.processes,
        page_faults: usage.page_faults,
        major_page_faults: usage.major_page_faults,
        swap_bytes: usage.swap_bytes,
        ..ContainerStats::default()
    }
}

fn pressure(group: &Cgroup) -> Vec<Pressure> {
    let waits = |own: linux::cgroup::Waits| Waits {
        total_micros: own.total,
        averages: own.averages,
    };
    let all = group.pressure().into_iter();
    all.map(|own| Pressure {
        resource: own.resource,
        some: waits(own.some),
        full: waits(own.full),
    })
    .collect()
}

fn block_io(io: linux::cgroup::BlockIo) -> BlockIo {
    BlockIo {
        major: io.major,
        minor: io.minor,
        write: io.write,
        bytes: io.bytes,
        operations: io.operations,
    }
}

/// The supervisor lives in the pod's network.
fn interfaces(pod: &Pod) -> Vec<InterfaceStats> {
    if pod.record.config.namespaces.network == NamespaceMode::Node {
        return Vec::new();
    }
    let pid = std::fs::read_to_string(pod.folder.join(file::PID)).unwrap_or_default();
    let text = std::fs::read_to_string(format!("/proc/{}/net/dev", pid.trim()));
    let mut found = counters(&text.unwrap_or_default());
    found.retain(|interface| interface.name != "lo");
    found
}

/// Reads a table as `/proc/net/dev` has it.
fn counters(text: &str) -> Vec<InterfaceStats> {
    let interface = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let traffic = |from: usize| {
            Some(TrafficStats {
                bytes: *numbers.get(from)?,
                packets: *numbers.get(from + 1)?,
                errors: *numbers.get(from + 2)?,
                dropped: *numbers.get(from + 3)?,
            })
        };
        Some(InterfaceStats {
            name: name.trim().to_owned(),
            receive: traffic(0)?,
            transmit: traffic(8)?,
        })
    };
    text.lines().filter_map(interface).collect()
}

/// Adds what one process has; one that has ended meanwhile has nothing.
fn count_process(pid: i32, figures: &mut ContainerFigures) {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    figures.threads += tasks.into_iter().flatten().flatten().count() as u64;
    let files = std::fs::read_dir(format!("/proc/{pid}/fd"));
    for file in files.into_iter().flatten().flatten() {
        figures.file_descriptors += 1;
        let target = std::fs::read_link(file.path()).unwrap_or_default();
        figures.sockets += u64::from(target.to_string_lossy().starts_with("socket:"));
    }
}

fn open_files_limit(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    soft.unwrap_or(0)
}

/// Bytes and files of a folder with all below it. What is not there any more counts nothing.
fn disk_usage(mountpoint: &Path, folder: &Path) -> FilesystemUsage {
    use std::os::unix::fs::MetadataExt;
    let mut usage = FilesystemUsage {
        mountpoint: mountpoint.to_owned(),
        ..FilesystemUsage::default()
    };
    let mut waiting = vec![(folder.to_owned(), 0)];
    while let Some((path, depth)) = waiting.pop() {
        let Ok(metadata) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        usage.inodes_used += 1;
        usage.used_bytes += metadata.blocks() * 512;
        if metadata.is_dir() && depth < DEPTH_MAX {
            let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
            waiting.extend(entries.map(|entry| (entry.path(), depth + 1)));
        }
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_from_their_table() {
        let text = "Inter-|   Receive                |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed\n  eth0:  10 2 3 4 0 0 0 0  50 6 7 8 0 0 0 0\n";
        let found = counters(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "eth0");
        assert_eq!((found[0].receive.bytes, found[0].receive.dropped), (10, 4));
        assert_eq!((found[0].transmit.bytes, found[0].transmit.errors), (50, 7));
    }

    #[test]
    fn a_folder_is_measured_with_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::write(folder.path().join("a/b"), vec![1u8; 10_000]).unwrap();
        let usage = disk_usage(folder.path(), folder.path());
        assert_eq!(usage.inodes_used, 3);
        assert!(usage.used_bytes >= 10_000);
        assert_eq!(
            disk_usage(folder.path(), &folder.path().join("none")).inodes_used,
            0
        );
    }
}
