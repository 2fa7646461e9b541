//! CRI v1's `RuntimeService` and `ImageService` as traits. Field names and
//! meanings are CRI's; what no user of Kubernetes on Linux can set is left out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

type Map = BTreeMap<String, String>;

/// What a runtime can refuse. The variants are the gRPC codes CRI clients tell apart.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    AlreadyExists(String),
    #[error("{0}")]
    InvalidArgument(String),
    #[error("{0}")]
    FailedPrecondition(String),
    #[error("{0}")]
    DeadlineExceeded(String),
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Internal(String),
}

/// Whose namespace a pod's processes share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// One per pod.
    #[default]
    Pod,
    /// One per container.
    Container,
    /// The node's.
    Node,
    /// That of the named container of the same pod.
    Target(String),
}

/// Ids of a user namespace and what they are on the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    pub host_id: u32,
    pub container_id: u32,
    pub length: u32,
}

/// A user namespace of a pod's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamespace {
    pub uids: Vec<IdMapping>,
    pub gids: Vec<IdMapping>,
}

impl IdMapping {
    /// What an id of a user namespace is on the node; `None` for one that it does not have.
    pub fn on_node(mappings: &[IdMapping], id: u32) -> Option<u32> {
        let within = |mapping: &IdMapping| {
            let offset = id.checked_sub(mapping.container_id)?;
            (offset < mapping.length).then_some(mapping.host_id + offset)
        };
        mappings.iter().find_map(within)
    }

    /// What an id of the node is in a user namespace, where it is anything.
    pub fn inside(mappings: &[IdMapping], id: u32) -> Option<u32> {
        let within = |mapping: &IdMapping| {
            let offset = id.checked_sub(mapping.host_id)?;
            (offset < mapping.length).then_some(mapping.container_id + offset)
        };
        mappings.iter().find_map(within)
    }
}

impl UserNamespace {
    /// What a user and a group of it are on the node.
    pub fn on_node(&self, (uid, gid): (u32, u32)) -> Option<(u32, u32)> {
        IdMapping::on_node(&self.uids, uid).zip(IdMapping::on_node(&self.gids, gid))
    }

    /// Why ids cannot be these.
    pub fn check(&self) -> Result<(), String> {
        for (what, mappings) in [("uid", &self.uids), ("gid", &self.gids)] {
            if let Some(fault) = fault_of(mappings) {
                return Err(format!("user namespace: the {what} mapping {fault}"));
            }
        }
        Ok(())
    }
}

fn fault_of(mappings: &[IdMapping]) -> Option<&'static str> {
    let mut next = 0u32;
    for one in mappings {
        match one.container_id == next {
            true => {}
            false if next == 0 => return Some("does not map id 0"),
            false => return Some("has ranges that do not follow one another"),
        }
        if one.length == 0 {
            return Some("is empty");
        }
        if one.host_id.checked_add(one.length).is_none() {
            return Some("ends beyond the last id");
        }
        next = next.saturating_add(one.length);
    }
    let mut outside: Vec<_> = mappings.iter().map(|m| (m.host_id, m.length)).collect();
    outside.sort_unstable();
    let overlap = outside.windows(2).any(|two| two[0].0 + two[0].1 > two[1].0);
    match mappings {
        [] => Some("is missing"),
        _ if overlap => Some("gives an id of the node twice"),
        _ => None,
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceOptions {
    pub network: NamespaceMode,
    pub pid: NamespaceMode,
    pub ipc: NamespaceMode,
    /// `None` is the node's user namespace.
    #[serde(default)]
    pub user: Option<UserNamespace>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    pub container_port: u16,
    pub host_port: u16,
    pub host_ip: Option<IpAddr>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

/// CRI `PodSandboxConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSandboxConfig {
    pub name: String,
    pub uid: String,
    pub namespace: String,
    pub attempt: u32,
    pub hostname: String,
    /// Folder in which container logs are created.
    pub log_directory: PathBuf,
    /// `None` with the host network means the node's own resolv.conf.
    pub dns: Option<DnsConfig>,
    pub port_mappings: Vec<PortMapping>,
    pub labels: Map,
    pub annotations: Map,
    /// Parent cgroup, relative to the root of each hierarchy, such as `/kubepods/burstable/pod<uid>`.
    pub cgroup_parent: String,
    pub namespaces: NamespaceOptions,
    pub sysctls: Map,
    /// Limits of the pod's cgroup as a whole; `None` leaves it unlimited.
    pub resources: Option<LinuxResources>,
    /// The handler that was asked for; empty is the default.
    #[serde(default)]
    pub runtime_handler: String,
    /// Containers in it may be privileged.
    #[serde(default)]
    pub privileged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    Ready,
    NotReady,
}

/// CRI `PodSandboxStatus`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSandboxStatus {
    pub id: String,
    pub config: PodSandboxConfig,
    pub state: SandboxState,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Addresses of the pod; empty with the host network.
    pub ips: Vec<IpAddr>,
}

/// CRI `LinuxContainerResources`. Zero means "not set".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxResources {
    pub cpu_period: i64,
    /// Microseconds per period.
    pub cpu_quota: i64,
    pub cpu_shares: i64,
    pub memory_limit_bytes: i64,
    pub oom_score_adj: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    /// Page size (`2MB`) to limit in bytes.
    pub hugepage_limits: BTreeMap<String, i64>,
    pub pids_limit: i64,
    /// Memory and swap together; not set, a limit of memory leaves no swap.
    #[serde(default)]
    pub memory_swap_limit_bytes: i64,
    /// What it may keep when memory runs short elsewhere.
    #[serde(default)]
    pub memory_reservation_bytes: i64,
    /// Files of cgroup version 2 and what to write to them.
    #[serde(default)]
    pub unified: Map,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountPropagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

/// CRI `Mount`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub container_path: PathBuf,
    pub host_path: PathBuf,
    pub readonly: bool,
    pub recursive_read_only: bool,
    pub propagation: MountPropagation,
    /// Shows the files with the ids of the pod's user namespace.
    #[serde(default)]
    pub mapped: bool,
    /// A folder or file below `host_path`, found without leaving that; empty is all of it.
    #[serde(default)]
    pub sub_path: PathBuf,
    /// Mounts an image instead of `host_path`.
    #[serde(default)]
    pub image: Option<ImageMount>,
}

/// An image as a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMount {
    /// The image's id, as `pull_image` returned it.
    pub image: String,
    /// What the user wrote.
    pub user_specified_image: String,
    /// A folder or file of the image; empty mounts all of it.
    pub sub_path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub container_path: PathBuf,
    pub host_path: PathBuf,
    /// Some of `rwm`.
    pub permissions: String,
}

/// Which system call filter applies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeccompProfile {
    #[default]
    Unconfined,
    RuntimeDefault,
    /// Path of a profile in the OCI JSON form.
    Localhost(PathBuf),
}

/// CRI `LinuxContainerSecurityContext`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityContext {
    pub privileged: bool,
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    /// Kept through `execve` by users other than root; added to the others too.
    #[serde(default)]
    pub ambient_capabilities: Vec<String>,
    pub namespaces: NamespaceOptions,
    /// Numeric user; wins over `run_as_username`, and both over the image's.
    pub run_as_user: Option<i64>,
    pub run_as_username: Option<String>,
    pub run_as_group: Option<i64>,
    pub supplemental_groups: Vec<i64>,
    /// `supplementalGroupsPolicy: Strict`: ignore the image's group file.
    pub supplemental_groups_strict: bool,
    pub readonly_rootfs: bool,
    pub no_new_privs: bool,
    /// `None`: the runtime's default lists.
    pub masked_paths: Option<Vec<String>>,
    pub readonly_paths: Option<Vec<String>>,
    pub seccomp: SeccompProfile,
}

/// CRI `ContainerConfig`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    pub name: String,
    pub attempt: u32,
    /// The image's id, as `image_status` or `pull_image` returned it.
    pub image: String,
    /// What the user wrote.
    pub user_specified_image: String,
    /// Replaces the image's entrypoint when not empty.
    pub command: Vec<String>,
    /// Replaces the image's cmd when not empty.
    pub args: Vec<String>,
    pub working_dir: String,
    pub envs: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    /// Devices by names that files of the machine explain, such as `vendor.com/card=one`.
    #[serde(default)]
    pub cdi_devices: Vec<String>,
    pub labels: Map,
    pub annotations: Map,
    /// Relative to the sandbox's log directory, such as `web/0.log`.
    pub log_path: PathBuf,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    pub resources: LinuxResources,
    pub security: SecurityContext,
    /// Overrides the image's stop signal, such as `SIGUSR1`.
    pub stop_signal: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    Created,
    Running,
    Exited,
    Unknown,
}

/// CRI `ContainerStatus`. Times are nanoseconds since the epoch, 0 when not yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    pub id: String,
    pub sandbox_id: String,
    pub config: ContainerConfig,
    pub state: ContainerState,
    pub created_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    pub exit_code: i32,
    /// Image id (digest of its configuration).
    pub image_id: String,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerCannotRun`; empty while it runs.
    pub reason: String,
    pub message: String,
    /// Absolute path of the log file.
    pub log_path: PathBuf,
    /// Process id on the node; 0 when not running.
    pub pid: i32,
    /// Who the first process ran as at its start; `None` before that.
    pub user: Option<ContainerUser>,
    /// What asks it to end, by its number on Linux; 0 when not known.
    #[serde(default)]
    pub stop_signal: i32,
}

/// CRI `LinuxContainerUser`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerUser {
    pub uid: i64,
    pub gid: i64,
    pub supplemental_groups: Vec<i64>,
}

/// Stopped, started or created; what makes an event-driven PLEG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEvent {
    pub sandbox_id: String,
    /// The sandbox's own id for events of the sandbox.
    pub container_id: String,
    pub pod_uid: String,
    pub kind: ContainerEventKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerEventKind {
    Created,
    Started,
    Stopped,
    Deleted,
    /// Events were lost; the receiver must list again.
    Resync,
}

/// What `exec_sync` returns; outputs are cut at 16 MiB each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecResult {
    pub exit_code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// A size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// What to run by `exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    pub container_id: String,
    pub command: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A running exec or attach session.
pub struct ExecSession {
    /// Dropping it closes the process's standard input.
    pub stdin: Option<Writer>,
    pub stdout: Option<Reader>,
    pub stderr: Option<Reader>,
    /// Terminal sizes, when there is a terminal.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// The exit code, once; for attach, when the container ends.
    pub exit: tokio::sync::oneshot::Receiver<Result<i32, RuntimeError>>,
}

/// CRI `ContainerStats`, as far as the stats API and eviction need it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerStats {
    pub id: String,
    pub name: String,
    pub pod_uid: String,
    /// Nanoseconds since the epoch.
    pub timestamp: i64,
    pub cpu_usage_core_nanos: u64,
    pub memory_usage_bytes: u64,
    pub memory_working_set_bytes: u64,
    pub memory_rss_bytes: u64,
    pub process_count: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    /// Swap in use.
    pub swap_bytes: u64,
    /// Where the kernel counts it.
    pub pressure: Vec<Pressure>,
}

/// How long processes waited for a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// `cpu`, `memory` or `io`.
    pub resource: &'static str,
    /// Some of them.
    pub some: Waits,
    /// All of them.
    pub full: Waits,
}

/// Times of waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    pub total_micros: u64,
    /// Hundredths of a percent of the last 10, 60 and 300 seconds.
    pub averages: [u32; 3],
}

/// Figures of a pod as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSandboxStats {
    /// Of the pod's cgroup; `id` is the sandbox's.
    pub total: ContainerStats,
    /// Of its network, the primary first; empty with the host network.
    pub interfaces: Vec<InterfaceStats>,
}

/// Counters of one network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceStats {
    pub name: String,
    pub receive: TrafficStats,
    pub transmit: TrafficStats,
}

/// One direction of traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficStats {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

/// What a container's processes and cgroup tell beyond [`ContainerStats`], for metrics. What the
/// machine does not count is 0 or missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerFigures {
    pub cpu_user_nanos: u64,
    pub cpu_system_nanos: u64,
    pub cpu_periods: u64,
    pub cpu_throttled_periods: u64,
    pub cpu_throttled_nanos: u64,
    pub memory_cache_bytes: u64,
    pub memory_mapped_file_bytes: u64,
    pub memory_max_usage_bytes: u64,
    pub memory_kernel_bytes: u64,
    /// How often a limit was hit.
    pub memory_failures: u64,
    pub out_of_memory_kills: u64,
    pub threads: u64,
    /// 0 is without limit.
    pub threads_max: u64,
    pub file_descriptors: u64,
    pub sockets: u64,
    /// Soft limit of open files of the first process.
    pub open_files_limit: u64,
    /// By page size (`2MB`): bytes in use, and the most there were.
    pub huge_pages: Vec<(String, u64, u64)>,
    pub block_io: Vec<BlockIo>,
    /// By resource (`cpu`, `memory`, `io`): microseconds some and all processes waited for it.
    pub pressure: Vec<(&'static str, u64, u64)>,
}

/// Reads or writes of one block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockIo {
    pub major: u64,
    pub minor: u64,
    pub write: bool,
    pub bytes: u64,
    pub operations: u64,
}

/// How full something is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesystemUsage {
    /// A folder of the file system.
    pub mountpoint: PathBuf,
    pub used_bytes: u64,
    /// 0 where they are not counted.
    pub inodes_used: u64,
}

/// CRI `RuntimeStatus`, with the features.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeStatus {
    /// `None` when the runtime and the pod network are ready, else what is missing.
    pub not_ready: Option<String>,
    /// Those that classes of runtimes may name; the default has an empty name.
    pub handlers: Vec<RuntimeHandler>,
    /// Whether `supplementalGroupsPolicy` is heeded.
    pub supplemental_groups_policy: bool,
    /// Whether a pod with the node's network may have a user namespace.
    pub user_namespaces_host_network: bool,
}

/// CRI `RuntimeHandler`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeHandler {
    pub name: String,
    pub recursive_read_only_mounts: bool,
    pub user_namespaces: bool,
}

/// What of `/proc` and `/sys` containers do not see, where nobody says otherwise.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// What of it they cannot change.
pub const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Who makes cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    /// Whoever needs them, as folders.
    #[default]
    Cgroupfs,
    /// systemd, as its units: parents of pods are slices.
    Systemd,
}

impl CgroupDriver {
    /// By its name, as in KubeletConfiguration.
    pub fn parse(name: &str) -> Option<CgroupDriver> {
        [CgroupDriver::Cgroupfs, CgroupDriver::Systemd]
            .into_iter()
            .find(|driver| driver.name() == name)
    }

    /// Its name, as in KubeletConfiguration.
    pub fn name(self) -> &'static str {
        match self {
            CgroupDriver::Cgroupfs => "cgroupfs",
            CgroupDriver::Systemd => "systemd",
        }
    }
}

/// CRI `RuntimeService`.
#[async_trait]
pub trait RuntimeService: Send + Sync + 'static {
    /// Name and version, such as `("sampan", "0.1.0")`.
    fn version(&self) -> (String, String);
    /// What a pod's `cgroup_parent` is to be: a path, or a slice.
    fn cgroup_driver(&self) -> CgroupDriver {
        CgroupDriver::Cgroupfs
    }

    /// Creates and starts a sandbox (namespaces, cgroup, network). Returns its id.
    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<String, RuntimeError>;
    /// Kills what runs in it and frees its network; idempotent.
    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    /// Stops it if need be and removes all its containers and state; idempotent.
    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus, RuntimeError>;
    async fn list_pod_sandboxes(&self) -> Result<Vec<PodSandboxStatus>, RuntimeError>;

    /// Creates a container in a ready sandbox. Returns its id.
    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
    ) -> Result<String, RuntimeError>;
    /// Starts a created container. A command that is not found or not executable is an error here,
    /// and the container is then `Exited` with code 127/126 or 128 and reason `StartError`.
    async fn start_container(&self, id: &str) -> Result<(), RuntimeError>;
    /// Sends the stop signal, and SIGKILL after `timeout`; returns when it has ended. Idempotent.
    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<(), RuntimeError>;
    /// Removes an ended (or kills and removes a running) container; its log stays. Idempotent.
    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError>;
    async fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError>;
    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError>;
    async fn update_container_resources(
        &self,
        id: &str,
        resources: LinuxResources,
    ) -> Result<(), RuntimeError>;
    /// Changes the limits of a pod's cgroup as a whole, where it is the runtime's.
    async fn update_pod_sandbox_resources(
        &self,
        id: &str,
        resources: LinuxResources,
    ) -> Result<(), RuntimeError>;
    /// Asks the log's writer to open its path anew, after the file was renamed.
    async fn reopen_container_log(&self, id: &str) -> Result<(), RuntimeError>;

    /// Runs a command to its end; kills it after `timeout` (`DeadlineExceeded`).
    async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<ExecResult, RuntimeError>;
    async fn exec(&self, request: ExecRequest) -> Result<ExecSession, RuntimeError>;
    async fn attach(&self, request: ExecRequest) -> Result<ExecSession, RuntimeError>;
    /// Connects to a TCP port inside the sandbox's network namespace.
    async fn port_forward(
        &self,
        sandbox_id: &str,
        port: u16,
    ) -> Result<Box<dyn Duplex>, RuntimeError>;

    async fn container_stats(&self, id: &str) -> Result<ContainerStats, RuntimeError>;
    async fn list_container_stats(&self) -> Result<Vec<ContainerStats>, RuntimeError>;
    async fn container_figures(&self, id: &str) -> Result<ContainerFigures, RuntimeError>;
    /// What the container has written to its own file system; walks all of it.
    async fn writable_layer(&self, id: &str) -> Result<FilesystemUsage, RuntimeError>;
    async fn pod_sandbox_stats(&self, id: &str) -> Result<PodSandboxStats, RuntimeError>;
    /// Events from now on; bounded, a slow receiver gets [`ContainerEventKind::Resync`].
    fn events(&self) -> mpsc::Receiver<ContainerEvent>;
    /// How the runtime is, and what it can do.
    async fn status(&self) -> RuntimeStatus;
}

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// CRI `Image`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// `sha256:` of the configuration.
    pub id: String,
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    /// Bytes on disk, unpacked.
    pub size: u64,
    /// Numeric user of the image's configuration.
    pub uid: Option<i64>,
    pub username: String,
    pub pinned: bool,
}

/// Credentials for one pull.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthConfig {
    pub username: String,
    pub password: String,
    pub identity_token: String,
    pub registry_token: String,
}

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// CRI `ImageService`.
#[async_trait]
pub trait ImageService: Send + Sync + 'static {
    async fn list_images(&self) -> Result<Vec<Image>, RuntimeError>;
    /// `None` when no image has this id, tag or digest.
    async fn image_status(&self, image: &str) -> Result<Option<Image>, RuntimeError>;
    /// Pulls and unpacks; returns the image's id.
    async fn pull_image(
        &self,
        image: &str,
        auth: Option<AuthConfig>,
    ) -> Result<String, RuntimeError>;
    async fn remove_image(&self, image: &str) -> Result<(), RuntimeError>;
    /// The configuration of an image in the OCI's JSON form.
    async fn image_details(&self, image: &str) -> Result<String, RuntimeError>;
    /// Bytes used by images and snapshots.
    async fn image_fs_bytes(&self) -> Result<u64, RuntimeError>;
    /// How full the file systems of images and of containers' own files are.
    async fn image_fs_info(&self) -> Result<(FilesystemUsage, FilesystemUsage), RuntimeError>;
}
