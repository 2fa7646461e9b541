//! What a pod asks for, as far as this crate has to know.

use std::collections::BTreeMap;

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next; what it had, later containers may have.
    Init,
    /// Starts among the init containers and keeps running.
    Sidecar,
    Main,
}

/// One container's share of the wish.
#[derive(Clone, Debug)]
pub struct ContainerWish {
    pub name: String,
    pub role: Role,
    /// Its request for processors, in thousandths.
    pub milli_cpus: i64,
    /// Bytes by `memory` and `hugepages-…`, as requested.
    pub memory: BTreeMap<String, i64>,
    /// Whole numbers of extended resources, as limited.
    pub extended: BTreeMap<String, i64>,
}

/// A pod's wish.
#[derive(Clone, Debug)]
pub struct PodWish {
    pub uid: String,
    /// Its class is Guaranteed.
    pub guaranteed: bool,
    /// It asks for processors and memory as a whole.
    pub pod_level: bool,
    /// Init containers and sidecars first, each in order.
    pub containers: Vec<ContainerWish>,
}

impl PodWish {
    /// The most of something the pod needs at one time.
    pub(crate) fn peak(&self, of: impl Fn(&ContainerWish) -> i64) -> i64 {
        let (mut peak, mut sidecars, mut running) = (0, 0, 0);
        for container in &self.containers {
            let amount = of(container);
            match container.role {
                Role::Init => peak = peak.max(sidecars + amount),
                Role::Sidecar => sidecars += amount,
                Role::Main => running += amount,
            }
        }
        peak.max(running + sidecars)
    }
}
