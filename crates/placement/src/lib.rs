//! Where on a node containers are placed: which devices, processors and memory each one has. The
//! device manager with its plugins, the CPU manager, the memory manager, and the topology manager
//! that has them agree.
//!
//! ```text
//!   device plugins ──gRPC──► registry ► devices ─┐ hints
//!   /sys ──► machine ─────────► cpus and memory ─┼─► policy ► admit: one pod after the other
//!   monitors ──gRPC──► pod_resources             ┘
//! ```
//!
//! Knows nothing of Kubernetes' objects: a kubelet says what a pod asks for ([`PodWish`]).

mod admit;
mod checkpoint;
mod cpu_set;
mod cpus;
mod devices;
mod hints;
mod machine;
mod memory;
mod numa;
mod pod_resources;
pub mod wire;
mod wish;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::Crew;
use parking_lot::Mutex;
use tokio::sync::watch;

pub use ::grpc;
pub use cpu_set::CpuSet;
pub use cpus::CpuConfig;
pub use devices::{Amount, ContainerOptions, HealthListener, HeldDevice};
pub use hints::{Policy, Scope};
pub use machine::{Cpu, Machine, Node};
pub use memory::{MemoryBlock, MemoryConfig};
pub use numa::Mask;
pub use pod_resources::{KnownPod, PodSource};
pub use wish::{ContainerWish, PodWish, Role};

use cpus::Cpus;
use devices::{Devices, Reusable};
use memory::Memory;

/// The nodes of machines that have a topology policy, unless more are allowed.
pub const NODES_MAX: usize = 8;

/// How places are given.
#[derive(Clone, Debug)]
pub struct Config {
    /// Plugins register at `kubelet.sock` in here, and have their own sockets beside it.
    pub device_plugins: PathBuf,
    /// The socket of the pod resources API.
    pub pod_resources: PathBuf,
    /// How long the devices of a plugin that went are counted as the node's.
    pub plugin_grace: Duration,
    /// Where assignments of processors and memory are kept: the kubelet's folder.
    pub state: PathBuf,
    pub machine: Machine,
    pub cpus: CpuConfig,
    pub memory: MemoryConfig,
    /// `topologyManagerPolicy`.
    pub policy: Policy,
    /// `topologyManagerScope`.
    pub scope: Scope,
    /// `prefer-closest-numa-nodes`: of as many nodes, those nearest to each other.
    pub prefer_closest: bool,
    /// `max-allowable-numa-nodes`: machines with more have no policy but none.
    pub nodes_max: usize,
}

impl Config {
    /// Upstream's defaults, with the sockets below a kubelet's folder.
    pub fn below(root: &std::path::Path) -> Config {
        Config {
            device_plugins: root.join("device-plugins"),
            pod_resources: root.join("pod-resources/kubelet.sock"),
            plugin_grace: Duration::from_secs(300),
            state: root.to_owned(),
            machine: Machine::default(),
            cpus: CpuConfig::default(),
            memory: MemoryConfig::default(),
            policy: Policy::None,
            scope: Scope::Container,
            prefer_closest: false,
            nodes_max: NODES_MAX,
        }
    }
}

/// Why the managers cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the static policy requires systemreserved.cpu + kubereserved.cpu to be greater than zero"
    )]
    NoReservation,
    #[error("unable to reserve the required amount of CPUs: {0}")]
    Reservation(String),
    #[error(
        "{what}, please drain this node and delete the CPU manager checkpoint file {path:?} before restarting Kubelet"
    )]
    State { path: PathBuf, what: String },
    #[error("{0}")]
    Options(&'static str),
    #[error("unsupported on machines with more than {0} NUMA Nodes")]
    Nodes(usize),
    #[error("{0}")]
    Memory(String),
    #[error(
        "{what}, please drain this node and delete the memory manager checkpoint file {path:?} before restarting Kubelet"
    )]
    MemoryState { path: PathBuf, what: String },
}

/// Why a pod cannot have what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// As the pod's status shows it.
    pub reason: String,
    pub message: String,
}

impl Refusal {
    fn unexpected(fault: String) -> Refusal {
        Refusal {
            reason: "UnexpectedAdmissionError".into(),
            message: format!("Allocate failed due to {fault}, which is unexpected"),
        }
    }
}

/// All places of a node.
pub struct Placement {
    devices: Arc<Devices>,
    policy: Policy,
    scope: Scope,
    machine: Machine,
    /// The machine's NUMA nodes.
    nodes: Vec<usize>,
    prefer_closest: bool,
    cpus: Mutex<Cpus>,
    memory: Mutex<Memory>,
    /// Counts changes of the processors that containers share.
    pool: watch::Sender<u64>,
    /// Nodes that were agreed on, by pod and container.
    affinities: Mutex<HashMap<String, HashMap<String, Mask>>>,
    admission: tokio::sync::Mutex<()>,
    changed: watch::Sender<u64>,
}

impl Placement {
    /// Takes up what earlier processes gave out, and opens both sockets.
    pub fn open(
        config: &Config,
        pods: PodSource,
        health: HealthListener,
        crew: &Crew,
    ) -> Result<Arc<Placement>, OpenError> {
        if config.policy != Policy::None && config.machine.nodes.len() > config.nodes_max {
            return Err(OpenError::Nodes(config.nodes_max));
        }
        let (machine, policy) = (&config.machine, config.policy);
        let cpus = Cpus::open(config.cpus.clone(), machine, policy, &config.state)?;
        let memory = Memory::open(config.memory.clone(), &config.machine, &config.state)?;
        let changed = watch::Sender::new(0);
        let devices = Devices::open(
            config.device_plugins.clone(),
            config.plugin_grace,
            changed.clone(),
            health,
            crew,
        );
        let placement = Arc::new(Placement {
            devices,
            policy: config.policy,
            scope: config.scope,
            nodes: config.machine.node_ids(),
            prefer_closest: config.prefer_closest,
            machine: config.machine.clone(),
            cpus: Mutex::new(cpus),
            memory: Mutex::new(memory),
            pool: watch::Sender::new(0),
            affinities: Mutex::default(),
            admission: tokio::sync::Mutex::default(),
            changed,
        });
        pod_resources::start(&placement, &config.pod_resources, pods, crew);
        Ok(placement)
    }

    /// What a container is to be created with.
    pub async fn options(
        &self,
        uid: &str,
        container: &ContainerWish,
    ) -> Result<ContainerOptions, String> {
        if container.extended.is_empty() {
            return Ok(ContainerOptions::default());
        }
        if self.devices.lacks(uid, container) {
            let _held = self.admission.lock().await;
            let mut reuse = Reusable::new();
            let affinity = self.affinity(uid, &container.name);
            let given = self.devices.allocate(uid, container, &mut reuse, affinity);
            given.await?;
        }
        self.devices.options(uid, container).await
    }

    fn affinity(&self, uid: &str, container: &str) -> Option<Mask> {
        let affinities = self.affinities.lock();
        affinities.get(uid)?.get(container).copied()
    }

    /// A pod has ended: what it had is others'.
    pub fn release(&self, uid: &str) {
        self.affinities.lock().remove(uid);
        self.devices.retain(|known| known != uid);
        self.retain_cpus(|known| known != uid);
        self.memory.lock().retain(|known| known != uid);
    }

    fn retain_cpus(&self, is_wanted: impl Fn(&str) -> bool) {
        if self.cpus.lock().retain(is_wanted) {
            self.pool.send_modify(|count| *count += 1);
        }
    }

    /// The processors a container runs on; `None` where it may run on any.
    pub fn cpus_of(&self, uid: &str, container: &str) -> Option<CpuSet> {
        self.cpus.lock().of_container(uid, container)
    }

    /// Whether a container has its processors alone.
    pub fn has_exclusive_cpus(&self, uid: &str, container: &str) -> bool {
        self.cpus.lock().exclusive(uid, container).is_some()
    }

    /// Whether any container of a pod has.
    pub fn any_exclusive_cpus(&self, uid: &str) -> bool {
        self.cpus.lock().any_exclusive(uid)
    }

    /// The processors of all who have none alone; `None` where that is no matter.
    pub fn shared_cpus(&self) -> Option<CpuSet> {
        self.cpus.lock().shared()
    }

    /// Changes when the shared processors do.
    pub fn pool_changes(&self) -> watch::Receiver<u64> {
        self.pool.subscribe()
    }

    /// Takes back what pods have that are not there any more.
    pub fn retain(&self, is_wanted: impl Fn(&str) -> bool) {
        self.affinities.lock().retain(|uid, _| is_wanted(uid));
        self.devices.retain(&is_wanted);
        self.memory.lock().retain(&is_wanted);
        self.retain_cpus(is_wanted);
    }

    /// The NUMA nodes a container's memory comes from; `None` where it may be any.
    pub fn memory_nodes_of(&self, uid: &str, container: &str) -> Option<CpuSet> {
        self.memory.lock().nodes_of(uid, container)
    }

    /// Extended resources of the node; 0 of those whose plugin is gone.
    pub fn amounts(&self) -> BTreeMap<String, Amount> {
        self.devices.amounts()
    }

    /// Changes when the amounts may have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The devices a container has, and how they are.
    pub fn held(&self, uid: &str, container: &str) -> Vec<HeldDevice> {
        self.devices.held(uid, container)
    }
}
