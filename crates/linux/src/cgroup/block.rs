//! Block devices, real-time processor time and swapping: limits of a control group that few ask for.

use std::io;
use std::path::Path;

use super::{Cgroup, write};

/// What the kernel takes for all real-time tasks of a group in a period, when none is named.
const RT_PERIOD: u64 = 1_000_000;

/// A device with what is said of it: bytes or operations a second, or a weight.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BlockRate {
    pub major: u64,
    pub minor: u64,
    /// As a limit, 0 takes away what was set.
    pub rate: u64,
}

/// Limits that few ask for. What is empty or 0 is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct RareLimits {
    /// From 10 to 1000.
    pub weight: u64,
    pub weights: Vec<BlockRate>,
    pub read_bytes: Vec<BlockRate>,
    pub write_bytes: Vec<BlockRate>,
    pub read_operations: Vec<BlockRate>,
    pub write_operations: Vec<BlockRate>,
    /// Microseconds, version 1 only.
    pub rt_period: u64,
    pub rt_runtime: i64,
    /// Percent, version 1 only.
    pub swappiness: Option<u8>,
}

/// Which of these limits, and others that depend on the machine, a group can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    pub block_weight: bool,
    pub block_weight_device: bool,
    pub block_rates: bool,
    pub real_time: bool,
    pub swappiness: bool,
    pub oom_kill_disable: bool,
    pub memory: bool,
    pub swap: bool,
    pub cpu_quota: bool,
    pub cpuset: bool,
    pub pids: bool,
}

impl RareLimits {
    fn rates(&self) -> [(&'static str, &'static str, &[BlockRate]); 4] {
        [
            ("read_bps_device", "rbps", &self.read_bytes),
            ("write_bps_device", "wbps", &self.write_bytes),
            ("read_iops_device", "riops", &self.read_operations),
            ("write_iops_device", "wiops", &self.write_operations),
        ]
    }

    fn concerns_blocks(&self) -> bool {
        self.weight > 0
            || !self.weights.is_empty()
            || self.rates().iter().any(|(_, _, rates)| !rates.is_empty())
    }
}

impl Cgroup {
    /// Writes them; returns the controllers that the machine does not have.
    pub(super) fn limit_rarely(&self, limits: &RareLimits) -> io::Result<Vec<String>> {
        let mut missing = Vec::new();
        if limits.concerns_blocks() {
            if let Some(folder) = self.v1("blkio") {
                blocks_v1(&folder, limits)?;
            } else if let Some(folder) = self.v2().filter(|folder| folder.join("io.max").exists()) {
                blocks_v2(&folder, limits)?;
            } else {
                missing.push("io".to_owned());
            }
        }
        if limits.rt_runtime != 0 || limits.rt_period != 0 {
            match self.v1("cpu") {
                Some(folder) => self.real_time(&folder, limits)?,
                None => missing.push("cpu real-time".to_owned()),
            }
        }
        if let (Some(swappiness), Some(folder)) = (limits.swappiness, self.v1("memory")) {
            write(&folder, "memory.swappiness", &swappiness.to_string())?;
        }
        Ok(missing)
    }

    /// A group has no more of the real-time budget than its parent, and new ones have none: those
    /// above get what is missing.
    fn real_time(&self, folder: &Path, limits: &RareLimits) -> io::Result<()> {
        let set = |folder: &Path, runtime: i64| -> io::Result<()> {
            if limits.rt_period > 0 {
                write(folder, "cpu.rt_period_us", &limits.rt_period.to_string())?;
            }
            write(folder, "cpu.rt_runtime_us", &runtime.to_string())
        };
        if limits.rt_runtime == 0 || set(folder, limits.rt_runtime).is_ok() {
            return match limits.rt_runtime {
                0 => write(folder, "cpu.rt_period_us", &limits.rt_period.to_string()),
                _ => Ok(()),
            };
        }
        let period = match limits.rt_period {
            0 => RT_PERIOD,
            period => period,
        };
        let parts: Vec<&str> = self.path.split('/').collect();
        let mut above = folder.to_owned();
        for _ in &parts {
            above.pop();
        }
        for part in parts.iter().take(parts.len() - 1) {
            above.push(part);
            let number = |file: &str| super::usage::number(&above, file);
            let (own, own_period) = (number("cpu.rt_runtime_us"), number("cpu.rt_period_us"));
            let wanted = u64::try_from(limits.rt_runtime).unwrap_or(0);
            let more = wanted.saturating_mul(own_period.max(1)) / period;
            write(
                &above,
                "cpu.rt_runtime_us",
                &own.saturating_add(more).to_string(),
            )?;
        }
        set(folder, limits.rt_runtime)
    }

    /// What can be limited in this group, which must be there.
    pub fn abilities(&self) -> Abilities {
        let has = |controller: &str, v1: &[&str], v2: &[&str]| match self.v1(controller) {
            Some(folder) => v1.iter().any(|file| folder.join(file).exists()),
            None => self
                .v2()
                .is_some_and(|folder| v2.iter().any(|file| folder.join(file).exists())),
        };
        Abilities {
            block_weight: has(
                "blkio",
                &["blkio.weight", "blkio.bfq.weight"],
                &["io.weight", "io.bfq.weight"],
            ),
            block_weight_device: has(
                "blkio",
                &["blkio.weight_device", "blkio.bfq.weight_device"],
                &["io.weight", "io.bfq.weight"],
            ),
            block_rates: has("blkio", &["blkio.throttle.read_bps_device"], &["io.max"]),
            real_time: has("cpu", &["cpu.rt_runtime_us"], &[]),
            swappiness: has("memory", &["memory.swappiness"], &[]),
            oom_kill_disable: has("memory", &["memory.oom_control"], &[]),
            memory: has("memory", &["memory.limit_in_bytes"], &["memory.max"]),
            swap: has(
                "memory",
                &["memory.memsw.limit_in_bytes"],
                &["memory.swap.max"],
            ),
            cpu_quota: has("cpu", &["cpu.cfs_quota_us"], &["cpu.max"]),
            cpuset: has("cpuset", &["cpuset.cpus"], &["cpuset.cpus"]),
            pids: has("pids", &["pids.max"], &["pids.max"]),
        }
    }
}

fn blocks_v1(folder: &Path, limits: &RareLimits) -> io::Result<()> {
    // The one file or the other, by the scheduler that the kernel has.
    let (weight, weights) = match folder.join("blkio.weight").exists() {
        true => ("blkio.weight", "blkio.weight_device"),
        false => ("blkio.bfq.weight", "blkio.bfq.weight_device"),
    };
    if limits.weight > 0 {
        write(folder, weight, &limits.weight.to_string())?;
    }
    for one in &limits.weights {
        write(folder, weights, &one.line())?;
    }
    for (file, _, rates) in limits.rates() {
        for one in rates {
            write(folder, &format!("blkio.throttle.{file}"), &one.line())?;
        }
    }
    Ok(())
}

fn blocks_v2(folder: &Path, limits: &RareLimits) -> io::Result<()> {
    let bfq = folder.join("io.bfq.weight").exists();
    let (file, scale): (_, fn(u64) -> u64) = match bfq {
        true => ("io.bfq.weight", |weight| weight),
        false => ("io.weight", io_weight),
    };
    if limits.weight > 0 {
        write(folder, file, &format!("default {}", scale(limits.weight)))?;
    }
    for one in &limits.weights {
        let (major, minor) = (one.major, one.minor);
        write(
            folder,
            file,
            &format!("{major}:{minor} {}", scale(one.rate)),
        )?;
    }
    for (_, word, rates) in limits.rates() {
        for one in rates {
            let rate = match one.rate {
                0 => "max".to_owned(),
                rate => rate.to_string(),
            };
            let line = format!("{}:{} {word}={rate}", one.major, one.minor);
            write(folder, "io.max", &line)?;
        }
    }
    Ok(())
}

/// From 10..1000 of version 1 to 1..10000 of version 2.
fn io_weight(weight: u64) -> u64 {
    1 + (weight.clamp(10, 1000) - 10) * 9999 / 990
}

impl BlockRate {
    fn line(&self) -> String {
        format!("{}:{} {}", self.major, self.minor, self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Hierarchies, Hierarchy};
    use super::*;

    fn group(folder: &Path, controllers: &[&str]) -> (Cgroup, std::path::PathBuf) {
        let all = Hierarchies(vec![Hierarchy {
            controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
            folder: folder.into(),
            unified: controllers.is_empty(),
        }]);
        let own = folder.join("a/b");
        std::fs::create_dir_all(&own).unwrap();
        (all.group("/a/b").unwrap(), own)
    }

    fn limits() -> RareLimits {
        let device = |rate| BlockRate {
            major: 8,
            minor: 16,
            rate,
        };
        RareLimits {
            weight: 505,
            weights: vec![device(1000)],
            read_bytes: vec![device(1 << 20)],
            write_operations: vec![device(0)],
            ..RareLimits::default()
        }
    }

    #[test]
    fn both_versions_of_block_limits() {
        let folder = tempfile::tempdir().unwrap();
        let (old, own) = group(folder.path(), &["blkio", "cpu", "memory"]);
        let all = RareLimits {
            rt_runtime: 5000,
            swappiness: Some(7),
            ..limits()
        };
        assert!(old.limit_rarely(&all).unwrap().is_empty());
        let read = |file: &str| std::fs::read_to_string(own.join(file)).unwrap();
        assert_eq!(read("blkio.bfq.weight"), "505");
        assert_eq!(read("blkio.bfq.weight_device"), "8:16 1000");
        assert_eq!(read("blkio.throttle.read_bps_device"), "8:16 1048576");
        assert_eq!(read("blkio.throttle.write_iops_device"), "8:16 0");
        assert_eq!(read("cpu.rt_runtime_us"), "5000");
        assert_eq!(read("memory.swappiness"), "7");
        let folder = tempfile::tempdir().unwrap();
        let (new, own) = group(folder.path(), &[]);
        assert_eq!(new.limit_rarely(&limits()).unwrap(), ["io"]);
        std::fs::write(own.join("io.max"), "").unwrap();
        assert!(new.limit_rarely(&limits()).unwrap().is_empty());
        let read = |file: &str| std::fs::read_to_string(own.join(file)).unwrap();
        assert_eq!(read("io.weight"), "8:16 10000", "the last line written");
        assert_eq!(read("io.max"), "8:16 wiops=max");
        assert_eq!((io_weight(10), io_weight(505)), (1, 5000));
    }

    #[test]
    fn real_time_budgets_come_from_above() {
        let all = Hierarchies::of_this_machine().unwrap();
        let top = format!("/sampan-test-rt-{}", std::process::id());
        let (top, group) = (
            all.group(&top).unwrap(),
            all.group(&format!("{top}/x")).unwrap(),
        );
        group.create().unwrap();
        let able = group.abilities();
        assert!(able.pids && able.memory && able.cpu_quota);
        if able.real_time {
            let wish = RareLimits {
                rt_runtime: 1000,
                ..RareLimits::default()
            };
            group.limit_rarely(&wish).unwrap();
            let folder = group.v1("cpu").unwrap();
            let read = |folder: &Path| super::super::usage::number(folder, "cpu.rt_runtime_us");
            assert_eq!(read(&folder), 1000);
            assert_eq!(read(folder.parent().unwrap()), 1000);
        }
        group.remove().unwrap();
        top.remove().unwrap();
    }
}
