//! What a control group has used.

use std::fs;
use std::path::Path;

use super::Cgroup;

/// Figures of one moment; what the machine does not count is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu_nanos: u64,
    pub memory_bytes: u64,
    /// Memory that cannot be given back by dropping clean file pages.
    pub working_set_bytes: u64,
    pub rss_bytes: u64,
    pub processes: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub swap_bytes: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        self.cpu_nanos += other.cpu_nanos;
        self.memory_bytes += other.memory_bytes;
        self.working_set_bytes += other.working_set_bytes;
        self.rss_bytes += other.rss_bytes;
        self.processes += other.processes;
        self.page_faults += other.page_faults;
        self.major_page_faults += other.major_page_faults;
        self.swap_bytes += other.swap_bytes;
    }
}

impl Cgroup {
    /// Reads the figures.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        if let Some(folder) = self.v1("cpuacct") {
            usage.cpu_nanos = number(&folder, "cpuacct.usage");
        } else if let Some(folder) = self.v2() {
            usage.cpu_nanos = field(&folder, "cpu.stat", "usage_usec") * 1000;
        }
        let (faults, major_faults) = match self.v1("memory") {
            Some(_) => ("total_pgfault", "total_pgmajfault"),
            None => ("pgfault", "pgmajfault"),
        };
        let (folder, current, inactive, rss) = if let Some(folder) = self.v1("memory") {
            (
                Some(folder),
                "memory.usage_in_bytes",
                "total_inactive_file",
                "total_rss",
            )
        } else {
            (self.v2(), "memory.current", "inactive_file", "anon")
        };
        if let Some(folder) = folder {
            usage.memory_bytes = number(&folder, current);
            let inactive = field(&folder, "memory.stat", inactive);
            usage.working_set_bytes = usage.memory_bytes.saturating_sub(inactive);
            usage.rss_bytes = field(&folder, "memory.stat", rss);
            usage.page_faults = field(&folder, "memory.stat", faults);
            usage.major_page_faults = field(&folder, "memory.stat", major_faults);
            usage.swap_bytes = match self.v1("memory") {
                Some(folder) => field(&folder, "memory.stat", "total_swap"),
                None => number(&folder, "memory.swap.current"),
            };
        }
        if let Some(folder) = self.v1("pids").or_else(|| self.v2()) {
            usage.processes = number(&folder, "pids.current");
        }
        usage
    }

    /// How many processes the kernel has killed in it for want of memory.
    pub fn out_of_memory_kills(&self) -> u64 {
        if let Some(folder) = self.v1("memory") {
            return field(&folder, "memory.oom_control", "oom_kill");
        }
        self.v2()
            .map_or(0, |folder| field(&folder, "memory.events", "oom_kill"))
    }
}

pub(super) fn number(folder: &Path, file: &str) -> u64 {
    let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

pub(super) fn field(folder: &Path, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
    let value = |line: &str| {
        line.strip_prefix(name)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    };
    text.lines().find_map(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::{Hierarchies, Hierarchy};
    use super::*;

    #[test]
    fn version_2_figures() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("x");
        fs::create_dir(&own).unwrap();
        for (file, text) in [
            ("cpu.stat", "usage_usec 12\nuser_usec 7\n"),
            ("memory.current", "5000\n"),
            ("memory.stat", "anon 3000\ninactive_file 1500\n"),
            ("pids.current", "3\n"),
            ("memory.events", "oom 2\noom_kill 1\n"),
        ] {
            fs::write(own.join(file), text).unwrap();
        }
        let all = Hierarchies(vec![Hierarchy {
            controllers: Vec::new(),
            folder: folder.path().into(),
            unified: true,
        }]);
        let group = all.group("x").unwrap();
        let expected = Usage {
            cpu_nanos: 12_000,
            memory_bytes: 5000,
            working_set_bytes: 3500,
            rss_bytes: 3000,
            processes: 3,
            ..Usage::default()
        };
        assert_eq!(group.usage(), expected);
        assert_eq!(group.out_of_memory_kills(), 1);
    }
}
