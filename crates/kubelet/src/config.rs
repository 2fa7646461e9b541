//! What a kubelet is told, and what it stands on.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Taint;
use meta::Quantity;
use node_api::{ImageService, RuntimeService};

use crate::cgroup_facts::CgroupFacts;
use crate::clock::Clock;
use crate::dead_containers::DeadContainers;
use crate::eviction::EvictionConfig;
use crate::machine_cgroups::Cgroups;
use crate::memory_qos::MemoryQos;
use crate::shutdown::ShutdownConfig;

/// What a kubelet stands on.
#[derive(Clone)]
pub struct Parts {
    pub cgroups: Arc<dyn Cgroups>,
    pub runtime: Arc<dyn RuntimeService>,
    pub images: Arc<dyn ImageService>,
}

/// What feature gates switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `DisableCPUQuotaWithExclusiveCPUs`.
    pub no_quota_with_exclusive_cpus: bool,
    /// `PodReadyToStartContainersCondition`.
    pub ready_to_start_condition: bool,
    /// `ResourceHealthStatus`.
    pub resource_health: bool,
}

impl Default for Features {
    fn default() -> Features {
        Features {
            no_quota_with_exclusive_cpus: true,
            ready_to_start_condition: true,
            resource_health: true,
        }
    }
}

/// The configuration; [`Config::new`] gives upstream's defaults.
#[derive(Clone)]
pub struct Config {
    pub node_name: String,
    /// The first is the primary one.
    pub node_ips: Vec<IpAddr>,
    /// Like `/var/lib/kubelet`: `pods/<uid>` with volumes below.
    pub root_dir: PathBuf,
    /// Like `/var/log/pods`.
    pub log_dir: PathBuf,
    /// Where links to the logs of containers are, like `/var/log/containers`; `None`: there are none.
    pub log_links: Option<PathBuf>,
    /// Folder of static pods' manifests; watched.
    pub static_pod_path: Option<PathBuf>,
    /// Where a server describes more of them.
    pub static_pod_url: Option<crate::StaticPodUrl>,
    /// Servers that pods with `ClusterFirst` ask.
    pub cluster_dns: Vec<IpAddr>,
    /// Such as `cluster.local`.
    pub cluster_domain: String,
    /// The node's own resolver configuration.
    pub resolv_conf: PathBuf,
    pub max_pods: u32,
    /// The node's pod range, when whoever runs us allocates it.
    pub pod_cidrs: Vec<String>,
    pub provider_id: Option<String>,
    /// Labels and taints of a new node; later changes in the API stand.
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    /// Subtracted from the capacity.
    pub reserved: BTreeMap<String, Quantity>,
    /// Whether the node's object is made when there is none.
    pub register_node: bool,
    /// How often the node looks whether its status changed.
    pub status_check_interval: Duration,
    /// Images named in the status; `None`: all.
    pub images_shown_max: Option<usize>,
    /// Where node status is refreshed although nothing changed.
    pub status_report_interval: Duration,
    pub lease_duration: Duration,
    pub lease_interval: Duration,
    /// Parallel image pulls of this node.
    pub image_pulls_max: usize,
    /// Who is asked for credentials of images.
    pub credential_providers: Option<crate::CredentialProviders>,
    /// Which images that are there a pod must have the credentials for; `None`: none, and nobody
    /// notes who pulled them.
    pub image_verification: Option<crate::ImageVerification>,
    /// Parent of all pods' cgroups, such as `/kubepods`; empty: the runtime's own.
    pub cgroup_root: String,
    /// Each pod has a group, in that of its quality of service.
    pub cgroups_per_qos: bool,
    /// Pods together have no more than the capacity without what is reserved.
    pub enforce_allocatable: bool,
    /// The machine's services that have no more than what is reserved for them.
    pub reserved_groups: Vec<ReservedGroup>,
    /// How the runtime wants pods' cgroups to be named.
    pub cgroup_driver: node_api::CgroupDriver,
    /// What limits can be set here.
    pub cgroups: CgroupFacts,
    /// Burstable containers have a part of the machine's swap, where version 2 limits it.
    pub limited_swap: bool,
    /// Where memory runs out, all processes of a container end, not one; on version 2.
    pub die_together: bool,
    /// The percentage of the memory that pods of better classes ask for which those of others cannot
    /// have; `None`: they have all there is.
    pub qos_reserved_memory: Option<i64>,
    /// What is kept of memory, and who is slowed down; on version 2.
    pub memory_qos: Option<MemoryQos>,
    /// Containers get a CPU quota by their limit.
    pub cpu_cfs_quota: bool,
    /// Over which time a quota counts, in microseconds.
    pub cpu_period: i64,
    /// The first wait before a container that keeps ending is started again.
    pub restart_pause_first: Duration,
    /// The longest wait before a container that keeps ending is started again.
    pub restart_pause_max: Duration,
    /// Containers that name no seccomp profile run under the runtime's.
    pub seccomp_default: bool,
    pub pod_pids_limit: i64,
    pub log_bytes_max: u64,
    pub log_files_max: usize,
    /// How often the sizes of logs are looked at.
    pub log_check_interval: Duration,
    /// Sysctls beyond the safe ones, such as `net.core.*`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Image garbage collection starts above this share of the disk, and stops below the other.
    pub image_gc_high_percent: u8,
    pub image_gc_low_percent: u8,
    /// An unused image is kept at least so long.
    pub image_age_min: Duration,
    /// And at most so long; zero: as long as there is room.
    pub image_age_max: Duration,
    /// Which ended containers stay.
    pub dead_containers: DeadContainers,
    /// Whether room on the disk is counted, pod by pod.
    pub local_storage_isolation: bool,
    /// When pods have to go because the node runs out of something.
    pub eviction: EvictionConfig,
    /// Which devices, processors and memory containers have for themselves.
    pub placement: placement::Config,
    /// What is watched to find what is wrong with the machine.
    pub problems: problems::Config,
    /// How pods end when the machine goes down.
    pub shutdown: ShutdownConfig,
    /// `None`: no server.
    pub server: Option<ServerConfig>,
    /// What `/logs/` shows; `None`: nothing.
    pub system_logs: Option<SystemLogs>,
    /// Where `/healthz` is served without TLS; `None`: nowhere.
    pub healthz: Option<SocketAddr>,
    /// Where numbers and pods are served to everybody, without TLS; `None`: nowhere.
    pub read_only: Option<SocketAddr>,
    /// What `/configz` shows.
    pub shown: serde_json::Value,
    pub features: Features,
    /// What says the time of day.
    pub clock: Clock,
    /// Reported as `nodeInfo.kubeletVersion`.
    pub version: String,
}

/// A group of services of the machine.
#[derive(Clone, Debug, PartialEq)]
pub struct ReservedGroup {
    /// `System` or `Kube`.
    pub name: &'static str,
    /// Such as `/system.slice`; it must be there.
    pub path: String,
    pub amounts: BTreeMap<String, Quantity>,
    /// Only what can be taken away again is limited: processors.
    pub compressible: bool,
}

/// Logs of the machine itself.
#[derive(Clone, Debug)]
pub struct SystemLogs {
    /// Like `/var/log`.
    pub folder: PathBuf,
    /// Whether services may be asked for (`enableSystemLogQuery`).
    pub query: bool,
    /// The program that reads the journal.
    pub journalctl: PathBuf,
}

impl Default for SystemLogs {
    fn default() -> SystemLogs {
        SystemLogs {
            folder: PathBuf::from("/var/log"),
            query: false,
            journalctl: PathBuf::from("journalctl"),
        }
    }
}

/// The server on port 10250.
#[derive(Clone)]
pub struct ServerConfig {
    pub address: SocketAddr,
    pub tls: Arc<rustls::ServerConfig>,
    pub guard: Arc<dyn Guard>,
    /// Whether logs, exec, attach and port forwarding are served.
    pub debugging: bool,
}

/// A request to the server, as a [`Guard`] sees it.
#[derive(Debug)]
pub struct GuardRequest<'a> {
    /// DER of the client's certificate; the handshake has verified it.
    pub certificate: Option<&'a [u8]>,
    /// Bearer token.
    pub token: Option<&'a str>,
    /// `get`, `create`, … by the HTTP method.
    pub verb: &'a str,
    pub path: &'a str,
    /// Subresources of `nodes` that stand for the path, such as `healthz` and `proxy`: who may use
    /// any of them may pass.
    pub subresources: &'a [&'a str],
}

/// Why a request may not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("Unauthorized")]
    Unauthorized,
    #[error("{0}")]
    Forbidden(String),
}

/// Decides who may use the server.
#[async_trait]
pub trait Guard: Send + Sync + 'static {
    /// Lets a request pass or says why not.
    async fn admit(&self, request: &GuardRequest<'_>) -> Result<(), Refusal>;
}

impl Config {
    /// Upstream's defaults around the few things that have none.
    pub fn new(node_name: &str, node_ip: IpAddr, root_dir: PathBuf, log_dir: PathBuf) -> Config {
        Config {
            node_name: node_name.to_owned(),
            node_ips: vec![node_ip],
            placement: placement::Config::below(&root_dir),
            root_dir,
            log_links: Some(log_dir.with_file_name("containers")),
            log_dir,
            static_pod_path: None,
            static_pod_url: None,
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            max_pods: 110,
            pod_cidrs: Vec::new(),
            provider_id: None,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            reserved: BTreeMap::new(),
            register_node: true,
            status_check_interval: Duration::from_secs(10),
            images_shown_max: Some(50),
            status_report_interval: Duration::from_secs(300),
            lease_duration: Duration::from_secs(40),
            lease_interval: Duration::from_secs(10),
            image_pulls_max: 4,
            credential_providers: None,
            image_verification: Some(crate::ImageVerification::NeverPreloaded),
            cgroup_root: "/kubepods".into(),
            cgroups_per_qos: true,
            enforce_allocatable: true,
            reserved_groups: Vec::new(),
            cgroup_driver: node_api::CgroupDriver::Cgroupfs,
            cgroups: CgroupFacts::default(),
            limited_swap: false,
            die_together: true,
            qos_reserved_memory: None,
            memory_qos: None,
            cpu_cfs_quota: true,
            cpu_period: 100_000,
            restart_pause_first: Duration::from_secs(10),
            restart_pause_max: Duration::from_secs(300),
            seccomp_default: false,
            pod_pids_limit: 0,
            log_bytes_max: 10 << 20,
            log_files_max: 5,
            log_check_interval: Duration::from_secs(10),
            allowed_unsafe_sysctls: Vec::new(),
            image_gc_high_percent: 85,
            image_gc_low_percent: 80,
            image_age_min: Duration::from_secs(120),
            image_age_max: Duration::ZERO,
            dead_containers: DeadContainers::default(),
            local_storage_isolation: true,
            eviction: EvictionConfig::default(),
            problems: problems::Config::default(),
            shutdown: ShutdownConfig::default(),
            server: None,
            system_logs: Some(SystemLogs::default()),
            healthz: None,
            read_only: None,
            shown: serde_json::Value::Null,
            features: Features::default(),
            clock: Clock::default(),
            version: "v1.36.2+sampan".into(),
        }
    }

    /// The primary address.
    pub(crate) fn node_ip(&self) -> Option<IpAddr> {
        self.node_ips.first().copied()
    }
}
