//! The machine this node is: what it has, and what it runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use meta::Quantity;

use crate::config::Config;
use crate::eviction::Signal;

/// Facts that hold as long as the process runs.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) milli_cpus: i64,
    pub(crate) memory_bytes: i64,
    pub(crate) disk_bytes: i64,
    /// Bytes in huge pages by their size (`2Mi`).
    pub(crate) huge_pages: BTreeMap<String, i64>,
    pub(crate) kernel: String,
    pub(crate) os_image: String,
    pub(crate) machine_id: String,
    pub(crate) boot_id: String,
    pub(crate) system_uuid: String,
}

impl Machine {
    /// Looks around.
    pub(crate) fn look(root_dir: &Path) -> Machine {
        let line = |path: &str| {
            fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Machine {
            milli_cpus: i64::try_from(cpus).unwrap_or(1) * 1_000,
            memory_bytes: memory("MemTotal:"),
            disk_bytes: disk(root_dir).map_or(0, |disk| disk.total),
            huge_pages: huge_pages(),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_image(),
            machine_id: line("/etc/machine-id"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            system_uuid: line("/sys/class/dmi/id/product_uuid"),
        }
    }

    /// Resources by name.
    pub(crate) fn capacity(&self, config: &Config) -> BTreeMap<String, Quantity> {
        let mut capacity = BTreeMap::from([
            ("cpu".to_owned(), Quantity::from_milli(self.milli_cpus)),
            ("memory".to_owned(), kibibytes(self.memory_bytes)),
            ("ephemeral-storage".to_owned(), kibibytes(self.disk_bytes)),
            (
                "pods".to_owned(),
                Quantity::from_units(i64::from(config.max_pods)),
            ),
        ]);
        if !config.local_storage_isolation {
            capacity.remove("ephemeral-storage");
        }
        for (size, bytes) in &self.huge_pages {
            capacity.insert(format!("hugepages-{size}"), Quantity::from_bytes(*bytes));
        }
        capacity
    }

    /// What pods may be promised of it: without what is reserved, and without that below which
    /// they would have to go again.
    pub(crate) fn allocatable(&self, config: &Config) -> BTreeMap<String, Quantity> {
        let mut rest = self.unreserved(config);
        let hard = config.eviction.thresholds.iter();
        for threshold in hard.filter(|threshold| threshold.grace.is_zero()) {
            let (name, capacity) = match threshold.signal {
                Signal::Memory => ("memory", self.memory_bytes),
                Signal::NodeDisk => ("ephemeral-storage", self.disk_bytes),
                _ => continue,
            };
            let kept = Quantity::from_bytes(threshold.amount.of(capacity));
            subtract(&mut rest, name, kept);
        }
        // Nobody gets these pages as plain memory.
        for bytes in self.huge_pages.values() {
            subtract(&mut rest, "memory", Quantity::from_bytes(*bytes));
        }
        rest
    }

    /// What is left to pods of what nothing else needs.
    pub(crate) fn unreserved(&self, config: &Config) -> BTreeMap<String, Quantity> {
        let mut rest = self.capacity(config);
        for (name, reserved) in &config.reserved {
            subtract(&mut rest, name, *reserved);
        }
        rest
    }
}

fn subtract(from: &mut BTreeMap<String, Quantity>, name: &str, amount: Quantity) {
    if let Some(rest) = from.get_mut(name) {
        let left = *rest - amount;
        *rest = if left.is_negative() {
            Quantity::ZERO
        } else {
            left
        };
    }
}

fn kibibytes(bytes: i64) -> Quantity {
    Quantity::from_bytes(bytes / 1024 * 1024)
}

/// One line of `/proc/meminfo`, in bytes.
pub(crate) fn memory(key: &str) -> i64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<i64>().ok());
    number.unwrap_or(0) * 1024
}

/// How many process ids there are, and how many are taken.
pub(crate) fn process_ids() -> Option<(i64, i64)> {
    let number = |path: &str| -> Option<i64> { fs::read_to_string(path).ok()?.trim().parse().ok() };
    let most = number("/proc/sys/kernel/pid_max")?;
    let threads = number("/proc/sys/kernel/threads-max")?;
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    let (_, taken) = load.split_whitespace().nth(3)?.split_once('/')?;
    Some((most.min(threads), taken.parse().ok()?))
}

/// Size of a file system, in bytes and inodes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) total: i64,
    pub(crate) available: i64,
    pub(crate) inodes: i64,
    pub(crate) inodes_free: i64,
}

/// The file system a path is on.
pub(crate) fn disk(path: &Path) -> Option<Disk> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(stat.fragment_size())).ok();
    Some(Disk {
        total: bytes(stat.blocks())?,
        available: bytes(stat.blocks_available())?,
        inodes: i64::try_from(stat.files()).ok()?,
        inodes_free: i64::try_from(stat.files_free()).ok()?,
    })
}

/// Where a block device is below `/dev`; its numbers where it is not, as of file systems without one.
pub(crate) fn device(major: u64, minor: u64) -> String {
    let numbers = format!("{major}:{minor}");
    let text = fs::read_to_string(format!("/sys/dev/block/{numbers}/uevent")).unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map_or(numbers, |name| format!("/dev/{name}"))
}

fn huge_pages() -> BTreeMap<String, i64> {
    let folders = fs::read_dir("/sys/kernel/mm/hugepages")
        .into_iter()
        .flatten()
        .flatten();
    folders
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let kib: i64 = name
                .strip_prefix("hugepages-")?
                .strip_suffix("kB")?
                .parse()
                .ok()?;
            let count = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
            let bytes = count.trim().parse::<i64>().ok()? * kib * 1024;
            Some((Quantity::from_bytes(kib * 1024).to_string(), bytes))
        })
        .collect()
}

fn os_image() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or("Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// The machine's architecture as Go names it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}
