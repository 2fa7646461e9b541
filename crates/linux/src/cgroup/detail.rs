//! What a control group tells beyond its main figures.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::Cgroup;
use super::usage::{field, number};

/// Clock ticks a second, in which version 1 counts; the kernel tells no other number to anybody.
const TICKS: u64 = 100;
/// The controllers that know how long processes waited.
const PRESSURES: [&str; 3] = ["cpu", "memory", "io"];

/// Figures of one moment; what the machine does not count is 0 or missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    pub cpu_user_nanos: u64,
    pub cpu_system_nanos: u64,
    pub cpu_periods: u64,
    pub cpu_throttled_periods: u64,
    pub cpu_throttled_nanos: u64,
    pub memory_cache_bytes: u64,
    pub memory_mapped_file_bytes: u64,
    pub memory_max_usage_bytes: u64,
    pub memory_kernel_bytes: u64,
    /// How often the limit was hit.
    pub memory_failures: u64,
    pub huge_pages: Vec<HugePages>,
    pub block_io: Vec<BlockIo>,
    pub pressure: Vec<Pressure>,
    /// 0 is without limit.
    pub tasks_max: u64,
}

/// Huge pages of one size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HugePages {
    /// Such as `2MB`.
    pub size: String,
    pub bytes: u64,
    /// The most there were.
    pub max_bytes: u64,
}

/// Reads or writes of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockIo {
    pub major: u64,
    pub minor: u64,
    pub write: bool,
    pub bytes: u64,
    pub operations: u64,
}

/// How long processes waited for a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    pub resource: &'static str,
    /// Some of them.
    pub some: Waits,
    /// All of them.
    pub full: Waits,
}

/// Times of waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Microseconds.
    pub total: u64,
    /// Hundredths of a percent of the last 10, 60 and 300 seconds.
    pub averages: [u32; 3],
}

impl Cgroup {
    /// Reads the figures.
    pub fn detail(&self) -> Detail {
        let mut detail = Detail::default();
        self.cpu_detail(&mut detail);
        self.memory_detail(&mut detail);
        if let Some(folder) = self.v1("pids").or_else(|| self.v2()) {
            // The word for "no limit" is no number.
            detail.tasks_max = number(&folder, "pids.max");
        }
        self.block_io_detail(&mut detail);
        detail.pressure = self.pressure();
        detail
    }

    /// How long its processes waited, where the kernel counts that.
    pub fn pressure(&self) -> Vec<Pressure> {
        let Some(folder) = self.v2() else {
            return Vec::new();
        };
        let read = |resource| {
            let text = fs::read_to_string(folder.join(format!("{resource}.pressure"))).ok()?;
            Some(Pressure::parse(resource, &text))
        };
        PRESSURES.into_iter().filter_map(read).collect()
    }

    fn cpu_detail(&self, detail: &mut Detail) {
        if let Some(folder) = self.v1("cpuacct") {
            let ticks = |name| field(&folder, "cpuacct.stat", name) * (1_000_000_000 / TICKS);
            detail.cpu_user_nanos = ticks("user");
            detail.cpu_system_nanos = ticks("system");
        } else if let Some(folder) = self.v2() {
            detail.cpu_user_nanos = field(&folder, "cpu.stat", "user_usec") * 1000;
            detail.cpu_system_nanos = field(&folder, "cpu.stat", "system_usec") * 1000;
        }
        let (folder, nanos, unit) = match self.v1("cpu") {
            Some(folder) => (Some(folder), "throttled_time", 1),
            None => (self.v2(), "throttled_usec", 1000),
        };
        if let Some(folder) = folder {
            detail.cpu_periods = field(&folder, "cpu.stat", "nr_periods");
            detail.cpu_throttled_periods = field(&folder, "cpu.stat", "nr_throttled");
            detail.cpu_throttled_nanos = field(&folder, "cpu.stat", nanos) * unit;
        }
    }

    fn memory_detail(&self, detail: &mut Detail) {
        if let Some(folder) = self.v1("memory") {
            detail.memory_cache_bytes = field(&folder, "memory.stat", "total_cache");
            detail.memory_mapped_file_bytes = field(&folder, "memory.stat", "total_mapped_file");
            detail.memory_max_usage_bytes = number(&folder, "memory.max_usage_in_bytes");
            detail.memory_kernel_bytes = number(&folder, "memory.kmem.usage_in_bytes");
            detail.memory_failures = number(&folder, "memory.failcnt");
        } else if let Some(folder) = self.v2() {
            detail.memory_cache_bytes = field(&folder, "memory.stat", "file");
            detail.memory_mapped_file_bytes = field(&folder, "memory.stat", "file_mapped");
            detail.memory_max_usage_bytes = number(&folder, "memory.peak");
            detail.memory_kernel_bytes = field(&folder, "memory.stat", "kernel");
            detail.memory_failures = field(&folder, "memory.events", "max");
        }
        let (folder, used, most) = match self.v1("hugetlb") {
            Some(folder) => (Some(folder), "usage_in_bytes", "max_usage_in_bytes"),
            None => (self.v2(), "current", "max_usage_in_bytes"),
        };
        let Some(folder) = folder else {
            return;
        };
        for size in huge_page_sizes(&folder, used) {
            detail.huge_pages.push(HugePages {
                bytes: number(&folder, &format!("hugetlb.{size}.{used}")),
                max_bytes: number(&folder, &format!("hugetlb.{size}.{most}")),
                size,
            });
        }
    }

    fn block_io_detail(&self, detail: &mut Detail) {
        if let Some(folder) = self.v1("blkio") {
            detail.block_io = block_io_v1(&folder);
            return;
        }
        let text = self
            .v2()
            .and_then(|folder| fs::read_to_string(folder.join("io.stat")).ok());
        for line in text.iter().flat_map(|text| text.lines()) {
            let mut words = line.split(' ');
            let device = words.next().and_then(|word| word.split_once(':'));
            let Some((Ok(major), Ok(minor))) = device.map(|(a, b)| (a.parse(), b.parse())) else {
                continue;
            };
            let counts: BTreeMap<&str, u64> = words
                .filter_map(|word| word.split_once('='))
                .filter_map(|(name, count)| Some((name, count.parse().ok()?)))
                .collect();
            let count = |name| counts.get(name).copied().unwrap_or(0);
            for (write, bytes, operations) in [(false, "rbytes", "rios"), (true, "wbytes", "wios")]
            {
                detail.block_io.push(BlockIo {
                    major,
                    minor,
                    write,
                    bytes: count(bytes),
                    operations: count(operations),
                });
            }
        }
    }
}

/// Lines such as `8:0 Read 4096`, of bytes in one file and operations in another.
fn block_io_v1(folder: &Path) -> Vec<BlockIo> {
    let mut found: BTreeMap<(u64, u64, bool), (u64, u64)> = BTreeMap::new();
    for (file, of_bytes) in [("io_service_bytes", true), ("io_serviced", false)] {
        let path = folder.join(format!("blkio.throttle.{file}_recursive"));
        let text = fs::read_to_string(path).unwrap_or_default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let device = words.next().and_then(|word| word.split_once(':'));
            let (operation, count) = (words.next(), words.next().and_then(|c| c.parse().ok()));
            let (Some((Ok(major), Ok(minor))), Some(count)) =
                (device.map(|(a, b)| (a.parse(), b.parse())), count)
            else {
                continue;
            };
            let write = match operation {
                Some("Read") => false,
                Some("Write") => true,
                _ => continue,
            };
            let entry = found.entry((major, minor, write)).or_default();
            match of_bytes {
                true => entry.0 = count,
                false => entry.1 = count,
            }
        }
    }
    let one = |((major, minor, write), (bytes, operations))| BlockIo {
        major,
        minor,
        write,
        bytes,
        operations,
    };
    found.into_iter().map(one).collect()
}

fn huge_page_sizes(folder: &Path, suffix: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
        let size = size.strip_suffix('.')?;
        (!size.contains('.')).then(|| size.to_owned())
    };
    let mut sizes: Vec<String> = entries.filter_map(size).collect();
    sizes.sort_unstable();
    sizes
}

impl Pressure {
    /// Reads a file of the kernel's: a line `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and
    /// one of `full`.
    pub fn parse(resource: &'static str, text: &str) -> Pressure {
        let waits = |kind: &str| {
            let line = text.lines().find(|line| line.starts_with(kind));
            let mut waits = Waits::default();
            let words = line.unwrap_or_default().split(' ');
            for (name, value) in words.filter_map(|word| word.split_once('=')) {
                match name {
                    "avg10" => waits.averages[0] = hundredths(value),
                    "avg60" => waits.averages[1] = hundredths(value),
                    "avg300" => waits.averages[2] = hundredths(value),
                    "total" => waits.total = value.parse().unwrap_or(0),
                    _ => {}
                }
            }
            waits
        };
        Pressure {
            resource,
            some: waits("some"),
            full: waits("full"),
        }
    }
}

/// A number with two places after its point.
fn hundredths(text: &str) -> u32 {
    let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
    let number = |text: &str| text.parse::<u32>().unwrap_or(0);
    number(whole).saturating_mul(100) + number(rest).min(99)
}

#[cfg(test)]
mod tests {
    use super::super::{Hierarchies, Hierarchy};
    use super::*;

    #[test]
    fn version_2_details() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("x");
        fs::create_dir(&own).unwrap();
        for (file, text) in [
            (
                "cpu.stat",
                "user_usec 7\nsystem_usec 5\nnr_periods 3\nnr_throttled 2\nthrottled_usec 9\n",
            ),
            ("memory.stat", "file 10\nfile_mapped 4\nkernel 6\n"),
            ("memory.events", "max 8\n"),
            ("pids.max", "max\n"),
            (
                "io.stat",
                "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n",
            ),
            (
                "io.pressure",
                "some avg10=0.50 avg60=1.00 avg300=12.25 total=11\nfull avg10=0.00 total=5\n",
            ),
            ("hugetlb.2MB.current", "4096\n"),
            ("hugetlb.2MB.rsvd.current", "1\n"),
        ] {
            fs::write(own.join(file), text).unwrap();
        }
        let all = Hierarchies(vec![Hierarchy {
            controllers: Vec::new(),
            folder: folder.path().into(),
            unified: true,
        }]);
        let detail = all.group("x").unwrap().detail();
        assert_eq!(
            (detail.cpu_user_nanos, detail.cpu_throttled_nanos),
            (7000, 9000)
        );
        assert_eq!((detail.memory_cache_bytes, detail.memory_failures), (10, 8));
        assert_eq!(detail.tasks_max, 0);
        assert_eq!(detail.huge_pages.len(), 1);
        assert_eq!(detail.huge_pages[0].bytes, 4096);
        assert_eq!(
            (detail.block_io[1].bytes, detail.block_io[1].operations),
            (2, 4)
        );
        let io = Pressure {
            resource: "io",
            some: Waits {
                total: 11,
                averages: [50, 100, 1225],
            },
            full: Waits {
                total: 5,
                averages: [0; 3],
            },
        };
        assert_eq!(detail.pressure, [io]);
    }
}
