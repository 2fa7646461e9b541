//! Which processors a container gets: whole nodes and sockets, then whole cores, then what is left,
//! each time where fewest are free.

use std::collections::BTreeSet;

use crate::cpu_set::CpuSet;
use crate::machine::{Cpu, Machine};

pub(super) type Key = fn(&Cpu) -> usize;

pub(super) const NODE: Key = |cpu| cpu.node;
const SOCKET: Key = |cpu| cpu.socket;
const CORE: Key = |cpu| cpu.core;
const CACHE: Key = |cpu| cpu.cache;

/// What of the static policy's options decides which processors are taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct How {
    /// `prefer-align-cpus-by-uncorecache`.
    pub(crate) by_cache: bool,
    /// `distribute-cpus-across-cores`: one thread of each core first.
    pub(crate) across_cores: bool,
    /// `distribute-cpus-across-numa`, in groups of so many processors.
    pub(crate) across_nodes: Option<usize>,
}

#[derive(Clone, Copy)]
enum Level {
    Node,
    Socket,
}

struct Taker<'m> {
    machine: &'m Machine,
    free: CpuSet,
    needed: usize,
    taken: CpuSet,
    /// Nodes are larger than sockets.
    nodes_first: bool,
    /// Nodes and sockets, the larger first.
    outer: Key,
    inner: Key,
}

/// Takes so many of the free processors.
pub(crate) fn take(
    machine: &Machine,
    free: &CpuSet,
    count: usize,
    how: How,
) -> Result<CpuSet, String> {
    match how.across_nodes {
        Some(group) => super::spread::take(machine, free, count, group, how),
        None => packed(machine, free, count, how),
    }
}

/// The nodes of free processors, the least free first.
pub(super) fn by_node(machine: &Machine, free: &CpuSet) -> Vec<usize> {
    Taker::new(machine, free, 0).sorted(Level::Node)
}

/// Takes processors as near to each other as may be.
pub(super) fn packed(
    machine: &Machine,
    free: &CpuSet,
    count: usize,
    how: How,
) -> Result<CpuSet, String> {
    if count > free.len() {
        return Err(format!(
            "not enough cpus available to satisfy request: requested={count}, available={}",
            free.len()
        ));
    }
    let mut taker = Taker::new(machine, free, count);
    taker.take_whole(taker.outer, taker.groups(taker.outer, None));
    taker.take_whole(taker.inner, taker.nested());
    if how.by_cache {
        taker.take_caches();
    }
    let (key, groups) = match how.across_cores {
        // By their numbers: first threads of cores come before second ones.
        true => (SOCKET, taker.sorted(Level::Socket)),
        false => {
            taker.take_whole(CORE, taker.cores());
            (CORE, taker.cores())
        }
    };
    for group in groups {
        for cpu in taker.free_of(key, group).iter() {
            if taker.needed > 0 {
                taker.claim(&CpuSet::from_iter([cpu]));
            }
        }
    }
    Ok(taker.taken)
}

impl<'m> Taker<'m> {
    fn new(machine: &'m Machine, free: &CpuSet, needed: usize) -> Taker<'m> {
        let nodes_first = machine.count(SOCKET) >= machine.count(NODE);
        let (outer, inner) = match nodes_first {
            true => (NODE, SOCKET),
            false => (SOCKET, NODE),
        };
        Taker {
            machine,
            free: free.clone(),
            needed,
            taken: CpuSet::default(),
            nodes_first,
            outer,
            inner,
        }
    }

    /// All nodes, or all sockets, the least free first.
    fn sorted(&self, level: Level) -> Vec<usize> {
        match (level, self.nodes_first) {
            (Level::Node, true) | (Level::Socket, false) => self.groups(self.outer, None),
            _ => self.nested(),
        }
    }

    fn free_of(&self, key: Key, id: usize) -> CpuSet {
        self.machine.cpus_of(key, id).common(&self.free)
    }

    /// What the free processors belong to, the least free first.
    fn groups(&self, key: Key, within: Option<(Key, usize)>) -> Vec<usize> {
        let cpus = self.free.iter().filter_map(|id| self.machine.cpus.get(&id));
        let cpus = cpus.filter(|cpu| within.is_none_or(|(key, id)| key(cpu) == id));
        let ids: BTreeSet<usize> = cpus.map(key).collect();
        let mut ids: Vec<usize> = ids.into_iter().collect();
        ids.sort_by_key(|id| (self.free_of(key, *id).len(), *id));
        ids
    }

    fn nested(&self) -> Vec<usize> {
        self.within(self.groups(self.outer, None), self.outer, self.inner)
    }

    fn cores(&self) -> Vec<usize> {
        self.within(self.nested(), self.inner, CORE)
    }

    fn within(&self, ids: Vec<usize>, outer: Key, inner: Key) -> Vec<usize> {
        let mut found = Vec::new();
        for id in ids {
            for group in self.groups(inner, Some((outer, id))) {
                if !found.contains(&group) {
                    found.push(group);
                }
            }
        }
        found
    }

    fn claim(&mut self, cpus: &CpuSet) {
        self.free = self.free.without(cpus);
        self.taken = self.taken.union(cpus);
        self.needed -= cpus.len();
    }

    /// Takes groups of which everything is free, as long as they fit.
    fn take_whole(&mut self, key: Key, ids: Vec<usize>) {
        let free = |id: &usize| self.free_of(key, *id) == self.machine.cpus_of(key, *id);
        let free: Vec<usize> = ids.into_iter().filter(free).collect();
        for id in free {
            let whole = self.machine.cpus_of(key, id);
            // A socket may lie across nodes of which one was taken before.
            if self.needed >= whole.len() && whole.common(&self.free) == whole {
                self.claim(&whole);
            }
        }
    }

    fn take_caches(&mut self) {
        let caches = self.within(self.sorted(Level::Node), NODE, CACHE);
        let usual = self.machine.cpus.len() / self.machine.count(CACHE);
        for cache in caches.clone() {
            if self.needed >= usual.max(1) {
                self.take_whole(CACHE, caches.clone());
            }
            if self.needed > 0 {
                self.take_part(cache);
            }
        }
    }

    /// Takes what is needed of one cache, if it has that much.
    fn take_part(&mut self, cache: usize) {
        let threads = self.machine.threads();
        let wanted = self.needed.div_ceil(threads);
        let free = self.free_of(CACHE, cache);
        let cores = free.iter().filter_map(|id| self.machine.cpus.get(&id));
        let cores: BTreeSet<usize> = cores.map(CORE).collect();
        let cores = cores.into_iter().take(wanted);
        let mut cpus: Vec<usize> = cores
            .flat_map(|core| self.free_of(CORE, core).iter().collect::<Vec<_>>())
            .collect();
        cpus.sort_unstable();
        if !self.needed.is_multiple_of(2) && threads > 1 && cpus.len() > self.needed {
            cpus.pop();
        }
        if cpus.len() == self.needed {
            self.claim(&cpus.into_iter().collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::machine;

    fn check(machine: &Machine, free: &str, count: usize, expected: &str) {
        let free = CpuSet::parse(free).unwrap();
        let taken = take(machine, &free, count, How::default()).unwrap();
        assert_eq!(taken.to_string(), expected, "{count} of {free}");
    }

    #[test]
    fn whole_nodes_and_cores_come_first() {
        // Node 0: cores 0-3 with threads 0-3 and 8-11; node 1 the others.
        let machine = machine(2, 4);
        check(&machine, "0-15", 8, "0-3,8-11");
        check(&machine, "0-15", 2, "0,8");
        check(&machine, "0-15", 3, "0-1,8");
        check(&machine, "0-15", 10, "0-4,8-12");
        // Whole cores come before halves, wherever they are.
        check(&machine, "0-7,12-15", 2, "4,12");
        check(&machine, "1-15", 2, "1,9");
        check(&machine, "1-15", 1, "8");
        assert_eq!(
            take(&machine, &CpuSet::parse("1-2").unwrap(), 3, How::default()).unwrap_err(),
            "not enough cpus available to satisfy request: requested=3, available=2"
        );
    }

    #[test]
    fn caches_are_not_shared_where_that_is_asked_for() {
        // Caches of two cores each: 0-1 with 8-9, 2-3 with 10-11, …
        let machine = machine(2, 4);
        let free = CpuSet::parse("1-15").unwrap();
        let of = |count, by_cache| {
            let how = How {
                by_cache,
                ..How::default()
            };
            take(&machine, &free, count, how).unwrap().to_string()
        };
        assert_eq!(of(4, true), "2-3,10-11");
        assert_eq!(of(4, false), "1-2,9-10");
        assert_eq!(of(2, true), "2,10");
    }

    #[test]
    fn threads_of_a_core_are_not_taken_together_where_that_is_asked_for() {
        let machine = machine(2, 4);
        let how = How {
            across_cores: true,
            ..How::default()
        };
        let of = |count| {
            let all = machine.all();
            take(&machine, &all, count, how).unwrap().to_string()
        };
        assert_eq!(of(3), "0-2");
        assert_eq!(of(5), "0-3,8");
        // A whole node is still one.
        assert_eq!(of(9), "0-4,8-11");
    }
}
