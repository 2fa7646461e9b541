//! The CPU manager: containers of guaranteed pods that ask for whole processors have them alone,
//! everybody else shares the rest.

mod spread;
mod take;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::OpenError;
use crate::checkpoint::{self, Checkpoint};
use crate::cpu_set::CpuSet;
use crate::hints::{Hint, Hints, Policy};
use crate::machine::{Cpu, Machine};
use crate::numa::Mask;
use crate::wish::{ContainerWish, PodWish, Role};
use take::How;

/// The file of assignments, in the kubelet's folder.
const STATE: &str = "cpu_manager_state";

/// `cpuManagerPolicy` and what belongs to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuConfig {
    /// `static`; else containers share all processors.
    pub exclusive: bool,
    /// Processors that nobody has alone; as many as [`CpuConfig::reserved_count`] where it is empty.
    pub reserved: CpuSet,
    pub reserved_count: usize,
    /// `full-pcpus-only`: no two containers on one core.
    pub full_cores_only: bool,
    /// `strict-cpu-reservation`: those who share stay away from the reserved ones, too.
    pub strict_reservation: bool,
    /// `prefer-align-cpus-by-uncorecache`.
    pub align_by_cache: bool,
    /// `align-by-socket`: processors on other nodes of the same socket are near enough.
    pub align_by_socket: bool,
    /// `distribute-cpus-across-numa`: where one node is not enough, several give the same.
    pub across_nodes: bool,
    /// `distribute-cpus-across-cores`: threads of different cores come first.
    pub across_cores: bool,
}

impl CpuConfig {
    fn how(&self, machine: &Machine) -> How {
        let group = match self.full_cores_only {
            true => machine.threads(),
            false => 1,
        };
        How {
            by_cache: self.align_by_cache,
            across_cores: self.across_cores,
            across_nodes: self.across_nodes.then_some(group),
        }
    }

    /// Options that the machine, or the topology policy, does not bear.
    fn fault(&self, machine: &Machine, policy: Policy) -> Option<&'static str> {
        let more_sockets = machine.count(|cpu| cpu.socket) > machine.count(|cpu| cpu.node);
        match self.exclusive && self.align_by_socket {
            true if policy == Policy::SingleNumaNode => Some(
                "Topolgy manager single-numa-node policy is incompatible with CPUManager \
                 align-by-socket policy option",
            ),
            true if more_sockets => Some(
                "Align by socket is not compatible with hardware where number of sockets are \
                 more than number of NUMA",
            ),
            _ => None,
        }
    }
}

/// What is written down, with upstream's names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    policy_name: String,
    default_cpu_set: String,
    #[serde(default)]
    entries: BTreeMap<String, BTreeMap<String, String>>,
}

impl Checkpoint for File {
    const WHO: &'static str = "";

    fn policy(&self) -> &str {
        &self.policy_name
    }
}

/// Processors by pod and container.
type Assignments = BTreeMap<String, BTreeMap<String, CpuSet>>;

/// The manager; whoever holds it gives to one container after the other.
#[derive(Debug)]
pub(crate) struct Cpus {
    config: CpuConfig,
    reserved: CpuSet,
    shared: CpuSet,
    assigned: Assignments,
    path: PathBuf,
}

/// Processors refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoCpus {
    Alignment(String),
    Other(String),
}

impl Cpus {
    /// Takes up what was written down; a file of another policy or machine is refused.
    pub(crate) fn open(
        config: CpuConfig,
        machine: &Machine,
        topology: Policy,
        folder: &Path,
    ) -> Result<Cpus, OpenError> {
        let path = folder.join(STATE);
        if let Some(fault) = config.fault(machine, topology) {
            return Err(OpenError::Options(fault));
        }
        let policy = if config.exclusive { "static" } else { "none" };
        let file = checkpoint::read(&path, policy);
        let file = file.map_err(|what| OpenError::State {
            path: path.clone(),
            what,
        })?;
        let mut cpus = Cpus {
            reserved: config.reserved.clone(),
            shared: CpuSet::default(),
            assigned: Assignments::new(),
            path,
            config,
        };
        if !cpus.config.exclusive {
            return Ok(cpus);
        }
        let all = machine.all();
        if cpus.reserved.is_empty() {
            if cpus.config.reserved_count == 0 {
                return Err(OpenError::NoReservation);
            }
            let how = cpus.config.how(machine);
            let taken = take::take(machine, &all, cpus.config.reserved_count, how);
            cpus.reserved = taken.map_err(OpenError::Reservation)?;
        }
        if !cpus.reserved.without(&all).is_empty() {
            return Err(OpenError::Reservation(format!(
                "the machine has no processors {}",
                cpus.reserved.without(&all)
            )));
        }
        match file {
            Some(file) => cpus.restore(&file, &all)?,
            None => {
                cpus.shared = match cpus.config.strict_reservation {
                    true => all.without(&cpus.reserved),
                    false => all,
                };
                cpus.save();
            }
        }
        Ok(cpus)
    }

    fn restore(&mut self, file: &File, all: &CpuSet) -> Result<(), OpenError> {
        let fault = |what: String| OpenError::State {
            path: self.path.clone(),
            what,
        };
        let parse =
            |text: &str| CpuSet::parse(text).ok_or_else(|| fault(format!("not a set: {text}")));
        let shared = parse(&file.default_cpu_set)?;
        let mut known = shared.clone();
        let mut assigned = Assignments::new();
        for (uid, containers) in &file.entries {
            for (name, text) in containers {
                let cpus = parse(text)?;
                if !shared.is_disjoint(&cpus) {
                    return Err(fault(format!(
                        "pod: {uid}, container: {name} cpuset: {text:?} overlaps with default cpuset {:?}",
                        file.default_cpu_set
                    )));
                }
                known = known.union(&cpus);
                assigned
                    .entry(uid.clone())
                    .or_default()
                    .insert(name.clone(), cpus);
            }
        }
        let strict = self.config.strict_reservation;
        let kept = shared.common(&self.reserved);
        if (strict && !kept.is_empty()) || (!strict && kept != self.reserved) {
            return Err(fault(format!(
                "reserved cpus {:?} do not fit the default cpuset {:?}",
                self.reserved.to_string(),
                file.default_cpu_set
            )));
        }
        let expected = if strict {
            all.without(&self.reserved)
        } else {
            all.clone()
        };
        if known != expected {
            return Err(fault(format!(
                "current set of available CPUs {:?} doesn't match with CPUs in state {:?}",
                expected.to_string(),
                known.to_string()
            )));
        }
        (self.shared, self.assigned) = (shared, assigned);
        Ok(())
    }

    /// Writes the state down; it counts for the next process.
    fn save(&self) {
        let text = |containers: &BTreeMap<String, CpuSet>| {
            let all = containers.iter();
            all.map(|(name, cpus)| (name.clone(), cpus.to_string()))
                .collect()
        };
        let file = File {
            policy_name: "static".into(),
            default_cpu_set: self.shared.to_string(),
            entries: self
                .assigned
                .iter()
                .map(|(uid, all)| (uid.clone(), text(all)))
                .collect(),
        };
        checkpoint::write(&self.path, &file);
    }

    /// Whole processors that a container has alone.
    pub(crate) fn wanted(&self, pod: &PodWish, container: &ContainerWish) -> usize {
        let whole = container.milli_cpus % 1_000 == 0;
        if !self.config.exclusive || !pod.guaranteed || pod.pod_level || !whole {
            return 0;
        }
        usize::try_from(container.milli_cpus / 1_000).unwrap_or(0)
    }

    fn free(&self) -> CpuSet {
        self.shared.without(&self.reserved)
    }

    /// What a pod's init containers had and nobody of the pod that lasts has.
    fn reusable(&self, pod: &PodWish) -> CpuSet {
        let mut reusable = CpuSet::default();
        for container in &pod.containers {
            let of_pod = self.assigned.get(&pod.uid);
            let Some(cpus) = of_pod.and_then(|all| all.get(&container.name)) else {
                continue;
            };
            reusable = match container.role {
                Role::Init => reusable.union(cpus),
                Role::Sidecar | Role::Main => reusable.without(cpus),
            };
        }
        reusable
    }

    /// Gives a container its processors.
    pub(crate) fn allocate(
        &mut self,
        machine: &Machine,
        pod: &PodWish,
        container: &ContainerWish,
        affinity: Option<Mask>,
    ) -> Result<(), NoCpus> {
        let count = self.wanted(pod, container);
        if count == 0 || self.exclusive(&pod.uid, &container.name).is_some() {
            return Ok(());
        }
        self.check_cores(machine, count)?;
        let free = self.free().union(&self.reusable(pod));
        let mut taken = CpuSet::default();
        let how = self.config.how(machine);
        if let Some(affinity) = affinity {
            let near = self.near(machine, affinity).common(&free);
            let from_near = count.min(near.len());
            taken = take::take(machine, &near, from_near, how).map_err(NoCpus::Other)?;
        }
        let rest = free.without(&taken);
        let rest = take::take(machine, &rest, count - taken.len(), how);
        taken = taken.union(&rest.map_err(NoCpus::Other)?);
        self.shared = self.shared.without(&taken);
        let of_pod = self.assigned.entry(pod.uid.clone()).or_default();
        of_pod.insert(container.name.clone(), taken);
        self.save();
        Ok(())
    }

    /// The processors on some nodes, or on all nodes of their sockets.
    fn near(&self, machine: &Machine, nodes: Mask) -> CpuSet {
        let on = |cpu: &&Cpu| nodes.contains(cpu.node);
        let sockets = machine.cpus.values().filter(on).map(|cpu| cpu.socket);
        let sockets: BTreeSet<usize> = sockets.collect();
        let near = machine.cpus.iter().filter(|(_, cpu)| {
            on(cpu) || (self.config.align_by_socket && sockets.contains(&cpu.socket))
        });
        near.map(|(id, _)| *id).collect()
    }

    fn check_cores(&self, machine: &Machine, count: usize) -> Result<(), NoCpus> {
        let threads = machine.threads();
        if !self.config.full_cores_only {
            return Ok(());
        }
        if !count.is_multiple_of(threads) {
            return Err(NoCpus::Alignment(format!(
                "SMT Alignment Error: requested {count} cpus not multiple cpus per core = {threads}"
            )));
        }
        let reserved = self.reserved.iter().filter_map(|id| machine.cpus.get(&id));
        let reserved = reserved.map(|cpu| machine.cpus_of(|one| one.core, cpu.core));
        let reserved = reserved.fold(CpuSet::default(), |all, core| all.union(&core));
        let available = self.shared.without(&reserved).len();
        if count > available {
            return Err(NoCpus::Alignment(format!(
                "SMT Alignment Error: not enough free physical CPUs: available physical CPUs = {available}, requested CPUs = {count}, CPUs per core = {threads}"
            )));
        }
        Ok(())
    }

    /// Where a container's processors could be.
    pub(crate) fn hints(
        &self,
        machine: &Machine,
        pod: &PodWish,
        container: &ContainerWish,
    ) -> Hints {
        let count = self.wanted(pod, container);
        if count == 0 {
            return Hints::new();
        }
        let list = match self.exclusive(&pod.uid, &container.name) {
            Some(held) if held.len() != count => Vec::new(),
            Some(held) => self.list(machine, &held, &CpuSet::default(), count),
            None => self.list(machine, &self.free(), &self.reusable(pod), count),
        };
        Hints::from([("cpu".to_owned(), Some(list))])
    }

    /// Where a pod's processors could be.
    pub(crate) fn pod_hints(&self, machine: &Machine, pod: &PodWish) -> Hints {
        let wanted = |one: &ContainerWish| i64::try_from(self.wanted(pod, one)).unwrap_or(0);
        let count = usize::try_from(pod.peak(wanted)).unwrap_or(0);
        if count == 0 {
            return Hints::new();
        }
        let held = self
            .assigned
            .get(&pod.uid)
            .into_iter()
            .flat_map(BTreeMap::values);
        let held = held.fold(CpuSet::default(), |all, cpus| all.union(cpus));
        let list = match held.len() == count {
            true => self.list(machine, &held, &CpuSet::default(), count),
            false => self.list(
                machine,
                &self.free(),
                &self.reusable(pod).union(&held),
                count,
            ),
        };
        Hints::from([("cpu".to_owned(), Some(list))])
    }

    /// Takes back what pods have that are not among these. Returns whether more is shared now.
    pub(crate) fn retain(&mut self, is_wanted: impl Fn(&str) -> bool) -> bool {
        let before = self.assigned.len();
        let mut freed = CpuSet::default();
        self.assigned.retain(|uid, containers| {
            let wanted = is_wanted(uid);
            if !wanted {
                freed = containers
                    .values()
                    .fold(freed.clone(), |all, cpus| all.union(cpus));
            }
            wanted
        });
        self.shared = self.shared.union(&freed);
        let changed = self.assigned.len() < before;
        if changed {
            self.save();
        }
        changed
    }

    /// What a container has alone.
    pub(crate) fn exclusive(&self, uid: &str, container: &str) -> Option<CpuSet> {
        self.assigned.get(uid)?.get(container).cloned()
    }

    /// Whether a pod has any processor alone.
    pub(crate) fn any_exclusive(&self, uid: &str) -> bool {
        self.assigned.contains_key(uid)
    }

    /// What a container runs on; `None` where nobody has anything alone by this policy.
    pub(crate) fn of_container(&self, uid: &str, container: &str) -> Option<CpuSet> {
        let exclusive = self.exclusive(uid, container);
        exclusive.or_else(|| self.config.exclusive.then(|| self.shared.clone()))
    }

    pub(crate) fn shared(&self) -> Option<CpuSet> {
        self.config.exclusive.then(|| self.shared.clone())
    }

    /// What containers may have alone, whether or not somebody has it.
    pub(crate) fn allocatable(&self, machine: &Machine) -> CpuSet {
        match self.config.exclusive {
            true => machine.all().without(&self.reserved),
            false => CpuSet::default(),
        }
    }

    fn list(&self, machine: &Machine, free: &CpuSet, reusable: &CpuSet, count: usize) -> Vec<Hint> {
        let nodes = machine.node_ids();
        let on = |mask: Mask, id: usize| {
            let cpu = machine.cpus.get(&id);
            cpu.is_some_and(|cpu| mask.contains(cpu.node))
        };
        let mut least = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        let mut fitting = Vec::new();
        for mask in Mask::combinations(&nodes) {
            let there = machine.cpus.keys().filter(|id| on(mask, **id)).count();
            if there >= count {
                least = least.min(mask.len());
            }
            if !reusable.iter().all(|id| on(mask, id)) {
                continue;
            }
            let all = free.union(reusable);
            if all.iter().filter(|id| on(mask, *id)).count() >= count {
                fitting.push(mask);
            }
        }
        let by_socket = self.config.align_by_socket;
        let hint = |mask: Mask| Hint {
            affinity: Some(mask),
            preferred: mask.len() == least || (by_socket && on_least_sockets(machine, mask, least)),
        };
        fitting.into_iter().map(hint).collect()
    }
}

/// Whether nodes lie on no more sockets than so many nodes must.
fn on_least_sockets(machine: &Machine, mask: Mask, least: u32) -> bool {
    let nodes_of_socket = machine.count(|cpu| cpu.node) / machine.count(|cpu| cpu.socket);
    let here = machine.cpus.values().filter(|cpu| mask.contains(cpu.node));
    let sockets: BTreeSet<usize> = here.map(|cpu| cpu.socket).collect();
    let least = usize::try_from(least).unwrap_or(usize::MAX);
    nodes_of_socket > 0 && sockets.len() == least.div_ceil(nodes_of_socket)
}

#[cfg(test)]
mod tests;
