//! Limits written to a control group, in the words of both versions.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::{Cgroup, RareLimits, write};

/// What may be limited. Zero or an empty text means: leave as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    pub cpu_period: i64,
    pub cpu_quota: i64,
    pub cpu_shares: i64,
    pub memory_bytes: i64,
    /// Memory and swap together; not set, a limit of memory leaves no swap.
    #[serde(default)]
    pub swap_bytes: i64,
    /// What it may keep when memory runs short elsewhere.
    #[serde(default)]
    pub memory_low_bytes: i64,
    pub pids: i64,
    pub cpus: String,
    pub memory_nodes: String,
    /// By page size, such as `2MB`.
    pub huge_pages: BTreeMap<String, i64>,
    /// Files of version 2 and what to write to them.
    #[serde(default)]
    pub unified: BTreeMap<String, String>,
    /// When memory runs out, all processes of the group die, not one of them. Version 2 only.
    pub die_together: bool,
    /// Nobody dies when memory runs out; who wants more waits. Version 1 only.
    #[serde(default)]
    pub oom_kill_disable: bool,
    #[serde(default)]
    pub rare: RareLimits,
}

impl Limits {
    /// The shares in version 2's words.
    pub fn cpu_weight(&self) -> i64 {
        weight(self.cpu_shares)
    }
}

impl Cgroup {
    /// Writes every limit that is set. A controller the machine does not have is no error
    /// but named in the returned list.
    pub fn limit(&self, limits: &Limits) -> io::Result<Vec<String>> {
        let mut missing = Vec::new();
        let mut on = |controller: &str, wanted: bool, v1: Writer<'_>, v2: Writer<'_>| {
            if !wanted {
                return Ok(());
            }
            if let Some(folder) = self.v1(controller) {
                return v1(&folder);
            }
            match self
                .v2()
                .filter(|folder| has_controller(folder, controller))
            {
                Some(folder) => v2(&folder),
                None => {
                    missing.push(controller.to_owned());
                    Ok(())
                }
            }
        };
        on(
            "cpu",
            limits.cpu_shares > 0 || limits.cpu_quota != 0,
            &|folder| cpu_v1(folder, limits),
            &|folder| cpu_v2(folder, limits),
        )?;
        on(
            "memory",
            limits.memory_bytes != 0
                || limits.swap_bytes != 0
                || limits.memory_low_bytes != 0
                || limits.oom_kill_disable,
            &|folder| memory_v1(folder, limits),
            &|folder| memory_v2(folder, limits),
        )?;
        let pids = |folder: &Path| write(folder, "pids.max", &or_max(limits.pids));
        on("pids", limits.pids != 0, &pids, &pids)?;
        let cpuset = |folder: &Path| cpuset(folder, limits);
        let wanted = !limits.cpus.is_empty() || !limits.memory_nodes.is_empty();
        on("cpuset", wanted, &cpuset, &cpuset)?;
        on(
            "hugetlb",
            !limits.huge_pages.is_empty(),
            &|folder| huge_pages(folder, limits, "limit_in_bytes"),
            &|folder| huge_pages(folder, limits, "max"),
        )?;
        self.write_unified(&limits.unified)?;
        missing.extend(self.limit_rarely(&limits.rare)?);
        Ok(missing)
    }
}

impl Cgroup {
    /// Only where version 2 manages resources; names are of files in the group itself.
    fn write_unified(&self, files: &BTreeMap<String, String>) -> io::Result<()> {
        let Some(folder) = self.v2().filter(|_| self.is_pure_unified()) else {
            return Ok(());
        };
        for (file, value) in files {
            if file.contains('/') {
                let message = format!("cgroup file {file:?} is not a plain name");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
            write(&folder, file, value)?;
        }
        Ok(())
    }
}

type Writer<'a> = &'a dyn Fn(&Path) -> io::Result<()>;

/// In version 2 the files of a controller are there only when the parent hands it down.
fn has_controller(folder: &Path, controller: &str) -> bool {
    let text = std::fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().any(|name| name == controller)
}

fn cpu_v1(folder: &Path, limits: &Limits) -> io::Result<()> {
    if limits.cpu_shares > 0 {
        write(folder, "cpu.shares", &limits.cpu_shares.to_string())?;
    }
    if limits.cpu_quota != 0 {
        if limits.cpu_period > 0 {
            write(folder, "cpu.cfs_period_us", &limits.cpu_period.to_string())?;
        }
        let quota = limits.cpu_quota.max(-1).to_string();
        write(folder, "cpu.cfs_quota_us", &quota)?;
    }
    Ok(())
}

fn cpu_v2(folder: &Path, limits: &Limits) -> io::Result<()> {
    if limits.cpu_shares > 0 {
        write(folder, "cpu.weight", &weight(limits.cpu_shares).to_string())?;
    }
    if limits.cpu_quota != 0 {
        let period = if limits.cpu_period > 0 {
            limits.cpu_period
        } else {
            100_000
        };
        write(
            folder,
            "cpu.max",
            &format!("{} {period}", or_max(limits.cpu_quota)),
        )?;
    }
    Ok(())
}

/// Maps shares (2 to 262144) linearly to weights (1 to 10000).
fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn memory_v1(folder: &Path, limits: &Limits) -> io::Result<()> {
    if limits.memory_low_bytes != 0 {
        let low = limits.memory_low_bytes.max(-1).to_string();
        write(folder, "memory.soft_limit_in_bytes", &low)?;
    }
    if limits.oom_kill_disable {
        write(folder, "memory.oom_control", "1")?;
    }
    if limits.memory_bytes == 0 && limits.swap_bytes == 0 {
        return Ok(());
    }
    let (memory, swap) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
    let sum = match limits.swap_bytes {
        0 => limits.memory_bytes,
        sum => sum,
    };
    let sum = folder.join(swap).exists().then(|| sum.max(-1).to_string());
    let set_memory = || match limits.memory_bytes {
        0 => Ok(()),
        bytes => write(folder, memory, &bytes.max(-1).to_string()),
    };
    // Memory may never exceed memory plus swap, so growing starts with the sum, shrinking ends with it.
    if let Some(sum) = &sum
        && write(folder, swap, sum).is_ok()
    {
        return set_memory();
    }
    set_memory()?;
    if let Some(sum) = &sum {
        write(folder, swap, sum)?;
    }
    Ok(())
}

fn memory_v2(folder: &Path, limits: &Limits) -> io::Result<()> {
    if limits.memory_low_bytes != 0 {
        write(folder, "memory.low", &or_max(limits.memory_low_bytes))?;
    }
    if limits.memory_bytes == 0 && limits.swap_bytes == 0 {
        return Ok(());
    }
    if limits.memory_bytes != 0 {
        write(folder, "memory.max", &or_max(limits.memory_bytes))?;
    }
    let swap = match limits.swap_bytes {
        0 => "0".to_owned(),
        sum if sum < 0 => "max".to_owned(),
        sum => (sum - limits.memory_bytes.max(0)).max(0).to_string(),
    };
    let together = if limits.die_together { "1" } else { "0" };
    for (file, value) in [
        ("memory.swap.max", swap.as_str()),
        ("memory.oom.group", together),
    ] {
        // What is named by its file is not to be something else in between.
        if folder.join(file).exists() && !limits.unified.contains_key(file) {
            write(folder, file, value)?;
        }
    }
    Ok(())
}

fn cpuset(folder: &Path, limits: &Limits) -> io::Result<()> {
    if !limits.cpus.is_empty() {
        write(folder, "cpuset.cpus", &limits.cpus)?;
    }
    if !limits.memory_nodes.is_empty() {
        write(folder, "cpuset.mems", &limits.memory_nodes)?;
    }
    Ok(())
}

fn huge_pages(folder: &Path, limits: &Limits, suffix: &str) -> io::Result<()> {
    for (size, bytes) in &limits.huge_pages {
        write(
            folder,
            &format!("hugetlb.{size}.{suffix}"),
            &bytes.to_string(),
        )?;
    }
    Ok(())
}

fn or_max(value: i64) -> String {
    if value < 0 {
        return "max".to_owned();
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::super::{Hierarchies, Hierarchy};
    use super::*;

    fn limits() -> Limits {
        Limits {
            cpu_quota: 50_000,
            cpu_period: 100_000,
            cpu_shares: 1024,
            memory_bytes: 64 << 20,
            pids: 100,
            cpus: "0-1".to_owned(),
            ..Limits::default()
        }
    }

    fn group(folder: &Path, controllers: &[&str], unified: bool) -> (Cgroup, PathBuf) {
        let all = Hierarchies(vec![Hierarchy {
            controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
            folder: folder.into(),
            unified,
        }]);
        let group = all.group("/x").unwrap();
        let own = folder.join("x");
        fs::create_dir(&own).unwrap();
        (group, own)
    }

    #[test]
    fn version_1_files() {
        let folder = tempfile::tempdir().unwrap();
        let (group, own) = group(folder.path(), &["cpu", "memory", "pids", "cpuset"], false);
        assert!(group.limit(&limits()).unwrap().is_empty());
        let read = |file: &str| fs::read_to_string(own.join(file)).unwrap();
        assert_eq!(read("cpu.shares"), "1024");
        assert_eq!(read("cpu.cfs_quota_us"), "50000");
        assert_eq!(read("memory.limit_in_bytes"), "67108864");
        assert_eq!(read("pids.max"), "100");
        assert_eq!(read("cpuset.cpus"), "0-1");
    }

    #[test]
    fn version_2_files_and_a_missing_controller() {
        let folder = tempfile::tempdir().unwrap();
        let (group, own) = group(folder.path(), &[], true);
        fs::write(own.join("cgroup.controllers"), "cpu memory cpuset").unwrap();
        fs::write(own.join("memory.swap.max"), "max").unwrap();
        assert_eq!(group.limit(&limits()).unwrap(), ["pids"]);
        let read = |file: &str| fs::read_to_string(own.join(file)).unwrap();
        assert_eq!(read("cpu.weight"), "39");
        assert_eq!(read("cpu.max"), "50000 100000");
        assert_eq!(read("memory.max"), "67108864");
        assert_eq!(read("memory.swap.max"), "0");
        let named = ("memory.swap.max".to_owned(), "4096".to_owned());
        let with_swap = Limits {
            unified: BTreeMap::from([named]),
            ..limits()
        };
        group.limit(&with_swap).unwrap();
        assert_eq!(read("memory.swap.max"), "4096");
        let unlimited = Limits {
            swap_bytes: -1,
            ..limits()
        };
        group.limit(&unlimited).unwrap();
        assert_eq!(read("memory.swap.max"), "max");
    }
}
