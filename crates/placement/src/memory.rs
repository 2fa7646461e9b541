//! The memory manager: containers of guaranteed pods have their memory and huge pages on NUMA
//! nodes that are counted as theirs.

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::OpenError;
use crate::checkpoint::{self, Checkpoint};
use crate::cpu_set::CpuSet;
use crate::hints::{Hint, Hints};
use crate::machine::Machine;
use crate::numa::Mask;
use crate::wish::{ContainerWish, PodWish, Role};
pub use table::MemoryBlock;
use table::{Amounts, Nodes};

/// The file of assignments, in the kubelet's folder.
const STATE: &str = "memory_manager_state";

/// `memoryManagerPolicy` and what belongs to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryConfig {
    /// `Static`; else memory comes from anywhere.
    pub exclusive: bool,
    /// `reservedMemory`: bytes by node, of `memory` and `hugepages-…`.
    pub reserved: BTreeMap<usize, Amounts>,
    /// What is kept from pods on the whole node; must be the same.
    pub reserved_in_all: Amounts,
}

/// What is written down, with upstream's names.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    policy_name: String,
    #[serde(default)]
    machine_state: Nodes,
    #[serde(default)]
    entries: Assignments,
}

impl Checkpoint for File {
    const WHO: &'static str = "[memorymanager] ";

    fn policy(&self) -> &str {
        &self.policy_name
    }
}

/// Blocks by pod and container.
type Assignments = BTreeMap<String, BTreeMap<String, Vec<MemoryBlock>>>;

/// The manager; whoever holds it gives to one container after the other.
#[derive(Debug)]
pub(crate) struct Memory {
    config: MemoryConfig,
    nodes: Nodes,
    assigned: Assignments,
    /// What init containers of the pod that came last leave to those after them.
    reusable: (String, BTreeMap<(Mask, String), i64>),
    path: PathBuf,
}

impl Memory {
    /// Takes up what was written down; a file of another policy or machine is refused.
    pub(crate) fn open(
        config: MemoryConfig,
        machine: &Machine,
        folder: &Path,
    ) -> Result<Memory, OpenError> {
        let path = folder.join(STATE);
        let policy = if config.exclusive { "Static" } else { "None" };
        let file = checkpoint::read(&path, policy);
        let file = file.map_err(|what| OpenError::MemoryState {
            path: path.clone(),
            what,
        })?;
        let mut memory = Memory {
            nodes: Nodes::default(),
            assigned: Assignments::new(),
            reusable: Default::default(),
            path,
            config,
        };
        if !memory.config.exclusive {
            return Ok(memory);
        }
        memory.check_reserved(machine).map_err(OpenError::Memory)?;
        memory.nodes = Nodes::of_machine(machine, &memory.config.reserved);
        match file {
            Some(file) => memory.restore(file)?,
            None => memory.save(),
        }
        Ok(memory)
    }

    fn check_reserved(&self, machine: &Machine) -> Result<(), String> {
        let mut totals = Amounts::new();
        for (node, amounts) in &self.config.reserved {
            if !machine.nodes.contains_key(node) {
                return Err(format!(
                    "the reserved memory configuration references a NUMA node {node} that does \
                     not exist on this machine"
                ));
            }
            for (kind, amount) in amounts {
                *totals.entry(kind.clone()).or_default() += amount;
            }
        }
        let in_all = &self.config.reserved_in_all;
        let kinds: BTreeSet<&String> = totals.keys().chain(in_all.keys()).collect();
        for kind in kinds {
            let of = |amounts: &Amounts| amounts.get(kind).copied().unwrap_or(0);
            let (own, expected) = (of(&totals), of(in_all));
            if own != expected {
                return Err(format!(
                    "the total amount \"{own}\" of type {kind:?} is not equal to the value \
                     \"{expected}\" determined by Node Allocatable feature"
                ));
            }
        }
        match totals.get("memory") {
            Some(amount) if *amount > 0 => Ok(()),
            _ => Err("[memorymanager] you should specify the system reserved memory".into()),
        }
    }

    fn restore(&mut self, file: File) -> Result<(), OpenError> {
        let fault = |what: String| OpenError::MemoryState {
            path: self.path.clone(),
            what,
        };
        let mut expected = self.nodes.clone();
        for (uid, containers) in &file.entries {
            for (name, block) in containers
                .iter()
                .flat_map(|(name, blocks)| blocks.iter().map(move |block| (name, block)))
            {
                for id in &block.nodes {
                    let known = expected.0.get(id).ok_or("the NUMA that does not exist");
                    let known = known.and_then(|node| match node.memory_map.get(&block.kind) {
                        Some(_) => Ok(()),
                        None => Err("memory resource that does not exist"),
                    });
                    known.map_err(|what| {
                        fault(format!(
                            "[memorymanager] (pod: {uid}, container: {name}) the memory \
                             assignment uses {what}"
                        ))
                    })?;
                }
                expected.give(&block.nodes, &block.kind, block.size);
            }
        }
        if !file.machine_state.agree(&expected) {
            return Err(fault(
                "[memorymanager] the expected machine state is different from the real one".into(),
            ));
        }
        (self.nodes, self.assigned) = (file.machine_state, file.entries);
        Ok(())
    }

    /// Writes the state down; it counts for the next process.
    fn save(&self) {
        let file = File {
            policy_name: "Static".into(),
            machine_state: self.nodes.clone(),
            entries: self.assigned.clone(),
        };
        checkpoint::write(&self.path, &file);
    }

    /// What a container is to have for itself.
    pub(crate) fn wanted<'a>(
        &self,
        pod: &PodWish,
        container: &'a ContainerWish,
    ) -> Option<&'a Amounts> {
        let counts = self.config.exclusive && pod.guaranteed && !pod.pod_level;
        (counts && !container.memory.is_empty()).then_some(&container.memory)
    }

    fn blocks(&self, uid: &str, container: &str) -> Option<&Vec<MemoryBlock>> {
        self.assigned.get(uid)?.get(container)
    }

    fn reusable(&self, uid: &str, mask: Mask, kind: &str) -> i64 {
        let (of, amounts) = &self.reusable;
        let amount = amounts.get(&(mask, kind.to_owned()));
        amount.copied().filter(|_| of == uid).unwrap_or(0)
    }

    /// Gives a container its memory.
    pub(crate) fn allocate(
        &mut self,
        pod: &PodWish,
        container: &ContainerWish,
        affinity: Option<Mask>,
        preferred: bool,
    ) -> Result<(), String> {
        let Some(wanted) = self.wanted(pod, container) else {
            return Ok(());
        };
        let role = container.role;
        if let Some(known) = self.blocks(&pod.uid, &container.name).cloned() {
            self.note_reusable(&pod.uid, role, &known);
            return Ok(());
        }
        let mask = self.choose(&pod.uid, wanted, affinity, preferred)?;
        let nodes: Vec<usize> = mask.nodes().collect();
        let mut blocks = Vec::new();
        for (kind, size) in wanted {
            let known = self.reusable(&pod.uid, mask, kind);
            self.nodes.give(&nodes, kind, (size - known).max(0));
            blocks.push(MemoryBlock {
                nodes: nodes.clone(),
                kind: kind.clone(),
                size: *size,
            });
        }
        self.note_reusable(&pod.uid, role, &blocks);
        let of_pod = self.assigned.entry(pod.uid.clone()).or_default();
        of_pod.insert(container.name.clone(), blocks.clone());
        self.shrink_before(pod, container, &blocks);
        self.save();
        Ok(())
    }

    /// The nodes to give from: those agreed on, or more of them where they have too little.
    fn choose(
        &self,
        uid: &str,
        wanted: &Amounts,
        affinity: Option<Mask>,
        preferred: bool,
    ) -> Result<Mask, String> {
        let all = self.fitting(uid, wanted);
        let mask = match affinity {
            Some(mask) => mask,
            None => {
                let best = best(&all, |_| true).ok_or(
                    "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with \
                     enough memory is available",
                )?;
                best.0
            }
        };
        let enough = wanted
            .iter()
            .all(|(kind, size)| self.nodes.sum(mask, kind, |table| table.free) >= *size);
        let mask = match enough {
            true => mask,
            false => {
                let wider = best(&all, |wider| mask.and(wider) == mask).ok_or(
                    "[memorymanager] failed to find NUMA nodes to extend the current topology hint",
                )?;
                if !wider.1 && preferred && affinity.is_some() {
                    return Err("[memorymanager] failed to find the extended preferred hint".into());
                }
                wider.0
            }
        };
        match self.nodes.violates(mask) {
            true => Err("[memorymanager] preferred hint violates NUMA node allocation".into()),
            false => Ok(mask),
        }
    }

    /// Sets of nodes that could give what is wanted, and whether each is as small as can be.
    fn fitting(&self, uid: &str, wanted: &Amounts) -> Vec<(Mask, bool)> {
        let ids: Vec<usize> = self.nodes.0.keys().copied().collect();
        let mut least = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let mut found = Vec::new();
        for mask in Mask::combinations(&ids) {
            let has = |of: fn(table::Table) -> i64, more: &dyn Fn(&str) -> i64| {
                let mut all = wanted.iter();
                all.all(|(kind, size)| self.nodes.sum(mask, kind, of) + more(kind) >= *size)
            };
            if !has(|table| table.allocatable, &|_| 0) {
                continue;
            }
            least = least.min(mask.len());
            let mut first = mask.nodes();
            let grouped = mask.len() == 1
                && first.next().is_some_and(|id| {
                    self.nodes
                        .0
                        .get(&id)
                        .is_some_and(|node| node.cells.len() > 1)
                });
            let reusable = |kind: &str| self.reusable(uid, mask, kind);
            if !grouped && !self.nodes.violates(mask) && has(|table| table.free, &reusable) {
                found.push(mask);
            }
        }
        found
            .into_iter()
            .map(|mask| (mask, mask.len() == least))
            .collect()
    }

    /// An init container leaves what it had; the others use that up.
    fn note_reusable(&mut self, uid: &str, role: Role, blocks: &[MemoryBlock]) {
        if self.reusable.0 != uid {
            self.reusable = (uid.to_owned(), BTreeMap::new());
        }
        for block in blocks {
            let mask = Mask::of(block.nodes.iter().copied());
            let key = (mask, block.kind.clone());
            match role {
                Role::Init => {
                    let known = self.reusable.1.entry(key).or_default();
                    *known = block.size.max(*known);
                }
                Role::Sidecar | Role::Main => {
                    if let Some(known) = self.reusable.1.get_mut(&key) {
                        *known = (*known - block.size).max(0);
                    }
                }
            }
        }
    }

    /// What a container took over is counted as its own and no more as that of the init containers
    /// before it.
    fn shrink_before(&mut self, pod: &PodWish, container: &ContainerWish, blocks: &[MemoryBlock]) {
        let Some(of_pod) = self.assigned.get_mut(&pod.uid) else {
            return;
        };
        for block in blocks {
            let mut left = block.size;
            let before = pod.containers.iter();
            for init in before.take_while(|one| one.name != container.name) {
                if init.role != Role::Init {
                    continue;
                }
                let own = of_pod.get_mut(&init.name).into_iter().flatten();
                for known in own.filter(|one| one.kind == block.kind && one.nodes == block.nodes) {
                    let part = left.min(known.size);
                    known.size -= part;
                    left -= part;
                }
            }
        }
    }

    /// Where a container's memory could be.
    pub(crate) fn hints(&self, pod: &PodWish, container: &ContainerWish) -> Hints {
        let Some(wanted) = self.wanted(pod, container) else {
            return Hints::new();
        };
        match self.blocks(&pod.uid, &container.name) {
            Some(known) => again(known, wanted),
            None => self.hints_for(&pod.uid, wanted),
        }
    }

    /// Where a pod's memory could be.
    pub(crate) fn pod_hints(&self, pod: &PodWish) -> Hints {
        let kinds = pod
            .containers
            .iter()
            .filter_map(|one| self.wanted(pod, one));
        let kinds: BTreeSet<&String> = kinds.flat_map(BTreeMap::keys).collect();
        let peak = |kind: &str| pod.peak(|one| one.memory.get(kind).copied().unwrap_or(0));
        let wanted: Amounts = kinds
            .into_iter()
            .map(|kind| (kind.clone(), peak(kind)))
            .collect();
        if wanted.is_empty() {
            return Hints::new();
        }
        let mut known = pod.containers.iter();
        match known.find_map(|one| self.blocks(&pod.uid, &one.name)) {
            Some(known) => again(known, &wanted),
            None => self.hints_for(&pod.uid, &wanted),
        }
    }

    fn hints_for(&self, uid: &str, wanted: &Amounts) -> Hints {
        let hints: Vec<Hint> = self
            .fitting(uid, wanted)
            .into_iter()
            .map(|(mask, preferred)| Hint {
                affinity: Some(mask),
                preferred,
            })
            .collect();
        if hints.is_empty() {
            return Hints::new();
        }
        let all = wanted.keys();
        all.map(|kind| (kind.clone(), Some(hints.clone())))
            .collect()
    }

    /// Takes back what pods have that are not among these.
    pub(crate) fn retain(&mut self, is_wanted: impl Fn(&str) -> bool) {
        let gone: Vec<String> = self
            .assigned
            .keys()
            .filter(|uid| !is_wanted(uid))
            .cloned()
            .collect();
        for uid in &gone {
            for blocks in self.assigned.remove(uid).unwrap_or_default().values() {
                for block in blocks {
                    self.nodes.take_back(block);
                }
            }
        }
        if !gone.is_empty() {
            self.save();
        }
    }

    /// What a container has for itself.
    pub(crate) fn of_container(&self, uid: &str, container: &str) -> Vec<MemoryBlock> {
        let blocks = self.blocks(uid, container).into_iter().flatten();
        blocks.cloned().collect()
    }

    /// The nodes a container's memory comes from; `None`: any.
    pub(crate) fn nodes_of(&self, uid: &str, container: &str) -> Option<CpuSet> {
        let blocks = self.blocks(uid, container)?;
        let nodes: CpuSet = blocks
            .iter()
            .flat_map(|block| block.nodes.clone())
            .collect();
        (!nodes.is_empty()).then_some(nodes)
    }

    /// What containers may have, whether or not somebody has it.
    pub(crate) fn allocatable(&self) -> Vec<MemoryBlock> {
        let nodes = self.nodes.0.iter();
        let all = nodes.flat_map(|(id, node)| {
            let tables = node.memory_map.iter();
            tables.map(|(kind, table)| MemoryBlock {
                nodes: vec![*id],
                kind: kind.clone(),
                size: table.allocatable,
            })
        });
        all.filter(|block| block.size > 0).collect()
    }
}

/// Hints for what is given already.
fn again(known: &[MemoryBlock], wanted: &Amounts) -> Hints {
    let same = |block: &MemoryBlock| wanted.get(&block.kind) == Some(&block.size);
    if known.len() != wanted.len() || !known.iter().all(same) {
        return Hints::new();
    }
    let hint = |block: &MemoryBlock| Hint {
        affinity: Some(Mask::of(block.nodes.iter().copied())),
        preferred: true,
    };
    let all = known.iter();
    all.map(|block| (block.kind.clone(), Some(vec![hint(block)])))
        .collect()
}

/// The preferred and narrowest of some.
fn best(all: &[(Mask, bool)], counts: impl Fn(Mask) -> bool) -> Option<(Mask, bool)> {
    let counted = all.iter().copied().filter(|(mask, _)| counts(*mask));
    counted.reduce(|best, one| {
        let better = match (one.1, best.1) {
            (true, false) => true,
            (false, true) => false,
            _ => one.0.is_narrower_than(best.0),
        };
        if better { one } else { best }
    })
}

#[cfg(test)]
mod tests;
