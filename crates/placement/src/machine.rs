//! The machine's processors, caches and memory, as `/sys` tells them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::cpu_set::CpuSet;
use crate::numa::Mask;

/// One processor as the scheduler of the kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// The lowest processor of its core.
    pub core: usize,
    pub socket: usize,
    pub node: usize,
    /// The last level cache it shares.
    pub cache: usize,
}

/// Memory near some processors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub memory_bytes: i64,
    /// Bytes in huge pages by their size in KiB.
    pub huge_pages: BTreeMap<i64, i64>,
    /// How far it is to each node of the machine, itself included, as the firmware says.
    pub distances: BTreeMap<usize, u64>,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub cpus: BTreeMap<usize, Cpu>,
    pub nodes: BTreeMap<usize, Node>,
}

impl Machine {
    /// Reads a tree like `/sys/devices/system`. What it does not tell is taken to be one: one node,
    /// one socket, a core for each processor.
    pub fn read(system: &Path, memory_bytes: i64) -> Machine {
        let set = |path: &str| {
            let text = fs::read_to_string(system.join(path)).ok()?;
            CpuSet::parse(&text).filter(|set| !set.is_empty())
        };
        let online = set("cpu/online").unwrap_or_else(|| CpuSet::from_iter([0]));
        let mut machine = Machine::default();
        let nodes = set("node/online").unwrap_or_else(|| CpuSet::from_iter([0]));
        let mut of_cpu = BTreeMap::new();
        for node in nodes.iter() {
            let cpus = set(&format!("node/node{node}/cpulist")).unwrap_or_default();
            of_cpu.extend(cpus.iter().map(|cpu| (cpu, node)));
            let folder = system.join(format!("node/node{node}"));
            machine.nodes.insert(node, read_node(&folder, &nodes));
        }
        if machine.nodes.values().all(|node| node.memory_bytes == 0) {
            let first = machine.nodes.values_mut().next();
            first
                .into_iter()
                .for_each(|node| node.memory_bytes = memory_bytes);
        }
        for cpu in online.iter() {
            let number = |file: &str| -> Option<usize> {
                let path = system.join(format!("cpu/cpu{cpu}/{file}"));
                fs::read_to_string(path).ok()?.trim().parse().ok()
            };
            let siblings = set(&format!("cpu/cpu{cpu}/topology/thread_siblings_list"));
            let core = siblings.and_then(|all| all.iter().next()).unwrap_or(cpu);
            let socket = number("topology/physical_package_id").unwrap_or(0);
            let found = Cpu {
                core,
                socket,
                node: of_cpu.get(&cpu).copied().unwrap_or(0),
                cache: number("cache/index3/id").unwrap_or(socket),
            };
            machine.cpus.insert(cpu, found);
        }
        machine
    }

    /// All processors.
    pub fn all(&self) -> CpuSet {
        self.cpus.keys().copied().collect()
    }

    /// The numbers of the nodes.
    pub fn node_ids(&self) -> Vec<usize> {
        self.nodes.keys().copied().collect()
    }

    /// The processors that are alike in something.
    pub(crate) fn cpus_of(&self, key: impl Fn(&Cpu) -> usize, id: usize) -> CpuSet {
        let all = self.cpus.iter().filter(|(_, cpu)| key(cpu) == id);
        all.map(|(id, _)| *id).collect()
    }

    /// How many of something there are.
    pub(crate) fn count(&self, key: impl Fn(&Cpu) -> usize) -> usize {
        let all: BTreeSet<usize> = self.cpus.values().map(key).collect();
        all.len().max(1)
    }

    /// How far some nodes are from each other on average.
    pub(crate) fn distance(&self, mask: Mask) -> f64 {
        let pairs = mask.nodes().flat_map(|one| {
            let node = self.nodes.get(&one);
            mask.nodes()
                .map(move |other| node.and_then(|node| node.distances.get(&other)).copied())
        });
        let sum: u64 = pairs.map(Option::unwrap_or_default).sum();
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let sum = sum as f64;
        sum / f64::from(mask.len().max(1).pow(2))
    }

    /// Processors of a core.
    pub(crate) fn threads(&self) -> usize {
        (self.cpus.len() / self.count(|cpu| cpu.core)).max(1)
    }
}

fn read_node(folder: &Path, nodes: &CpuSet) -> Node {
    let text = fs::read_to_string(folder.join("meminfo")).unwrap_or_default();
    // `Node 0 MemTotal:  16342048 kB`
    let total = text.lines().find_map(|line| line.split_once("MemTotal:"));
    let total = total.and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<i64>().ok());
    let pages = fs::read_dir(folder.join("hugepages"))
        .into_iter()
        .flatten()
        .flatten();
    let pages = pages.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let kib: i64 = name
            .strip_prefix("hugepages-")?
            .strip_suffix("kB")?
            .parse()
            .ok()?;
        let count = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
        Some((kib, count.trim().parse::<i64>().ok()? * kib * 1024))
    });
    // `10 21`, in the order of the nodes.
    let distances = fs::read_to_string(folder.join("distance")).unwrap_or_default();
    let distances = distances.split_whitespace().map(str::parse);
    let distances = nodes.iter().zip(distances.map_while(Result::ok));
    Node {
        memory_bytes: total.unwrap_or(0) * 1024,
        huge_pages: pages.collect(),
        distances: distances.collect(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A machine of `nodes` with so many cores of two threads each; the second threads are counted
    /// after all the first ones, as the kernel usually does.
    pub(crate) fn machine(nodes: usize, cores: usize) -> Machine {
        let all = nodes * cores;
        let cpu = |id: usize| {
            let core = id % all;
            let node = core / cores;
            let found = Cpu {
                core,
                socket: node,
                node,
                cache: core / 2,
            };
            (id, found)
        };
        let node = Node {
            memory_bytes: 8 << 30,
            huge_pages: BTreeMap::from([(2048, 1 << 30)]),
            distances: BTreeMap::new(),
        };
        Machine {
            cpus: (0..2 * all).map(cpu).collect(),
            nodes: (0..nodes).map(|id| (id, node.clone())).collect(),
        }
    }

    #[test]
    fn a_tree_of_two_nodes_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("cpu/online", "0-3\n");
        write("node/online", "0-1\n");
        for (cpu, core, node) in [(0, 0, 0), (1, 1, 1), (2, 0, 0), (3, 1, 1)] {
            let siblings = format!("{core},{}\n", core + 2);
            write(
                &format!("cpu/cpu{cpu}/topology/thread_siblings_list"),
                &siblings,
            );
            write(
                &format!("cpu/cpu{cpu}/topology/physical_package_id"),
                &format!("{node}\n"),
            );
            write(
                &format!("cpu/cpu{cpu}/cache/index3/id"),
                &format!("{node}\n"),
            );
        }
        write("node/node0/cpulist", "0,2\n");
        write("node/node1/cpulist", "1,3\n");
        write(
            "node/node0/meminfo",
            "Node 0 MemTotal:       1024 kB\nNode 0 MemFree: 1 kB\n",
        );
        write("node/node0/distance", "10 21\n");
        write("node/node1/meminfo", "Node 1 MemTotal:       2048 kB\n");
        write("node/node1/hugepages/hugepages-2048kB/nr_hugepages", "3\n");
        let machine = Machine::read(folder.path(), 7);
        let expected = Cpu {
            core: 1,
            socket: 1,
            node: 1,
            cache: 1,
        };
        assert_eq!(machine.cpus[&3], expected);
        assert_eq!(machine.nodes[&0].memory_bytes, 1 << 20);
        assert_eq!(
            machine.nodes[&1].huge_pages,
            BTreeMap::from([(2048, 6 << 20)])
        );
        let distances = BTreeMap::from([(0, 10), (1, 21)]);
        assert_eq!(machine.nodes[&0].distances, distances);
        assert_eq!((machine.threads(), machine.count(|cpu| cpu.node)), (2, 2));
    }

    #[test]
    fn a_bare_tree_is_one_of_everything() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::read(folder.path(), 7);
        assert_eq!((machine.cpus.len(), machine.nodes[&0].memory_bytes), (1, 7));
    }
}
