//! Which processors a container gets: whole nodes and sockets, then whole cores, then what is left,
//! each time where fewest are free.

use std::collections::BTreeSet;

use crate::cpu_set::CpuSet;
use crate::machine::{Cpu, Machine};

type Key = fn(&Cpu) -> usize;

const NODE: Key = |cpu| cpu.node;
const SOCKET: Key = |cpu| cpu.socket;
const CORE: Key = |cpu| cpu.core;
const CACHE: Key = |cpu| cpu.cache;

struct Taker<'m> {
    machine: &'m Machine,
    free: CpuSet,
    needed: usize,
    taken: CpuSet,
    /// Nodes and sockets, the larger first.
    outer: Key,
    inner: Key,
}

/// Takes so many of the free processors.
pub(crate) fn take(
    machine: &Machine,
    free: &CpuSet,
    count: usize,
    by_cache: bool,
) -> Result<CpuSet, String> {
    if count > free.len() {
        return Err(format!(
            "not enough cpus available to satisfy request: requested={count}, available={}",
            free.len()
        ));
    }
    let (outer, inner) = match machine.count(SOCKET) >= machine.count(NODE) {
        true => (NODE, SOCKET),
        false => (SOCKET, NODE),
    };
    let mut taker = Taker {
        machine,
        free: free.clone(),
        needed: count,
        taken: CpuSet::default(),
        outer,
        inner,
    };
    taker.take_whole(outer, taker.groups(outer, None));
    taker.take_whole(inner, taker.nested());
    if by_cache {
        taker.take_caches();
    }
    taker.take_whole(CORE, taker.cores());
    for core in taker.cores() {
        for cpu in taker.free_of(CORE, core).iter() {
            if taker.needed > 0 {
                taker.claim(&CpuSet::from_iter([cpu]));
            }
        }
    }
    Ok(taker.taken)
}

impl Taker<'_> {
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
        let nodes = match self.machine.count(SOCKET) >= self.machine.count(NODE) {
            true => self.groups(NODE, None),
            false => self.nested(),
        };
        let caches = self.within(nodes, NODE, CACHE);
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
        let taken = take(machine, &free, count, false).unwrap();
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
            take(&machine, &CpuSet::parse("1-2").unwrap(), 3, false).unwrap_err(),
            "not enough cpus available to satisfy request: requested=3, available=2"
        );
    }

    #[test]
    fn caches_are_not_shared_where_that_is_asked_for() {
        // Caches of two cores each: 0-1 with 8-9, 2-3 with 10-11, …
        let machine = machine(2, 4);
        let free = CpuSet::parse("1-15").unwrap();
        let of = |count, by_cache| take(&machine, &free, count, by_cache).unwrap().to_string();
        assert_eq!(of(4, true), "2-3,10-11");
        assert_eq!(of(4, false), "1-2,9-10");
        assert_eq!(of(2, true), "2,10");
    }
}
