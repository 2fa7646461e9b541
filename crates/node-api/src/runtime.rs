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

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceOptions {
    pub network: NamespaceMode,
    pub pid: NamespaceMode,
    pub ipc: NamespaceMode,
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
}

/// CRI `RuntimeService`.
#[async_trait]
pub trait RuntimeService: Send + Sync + 'static {
    /// Name and version, such as `("sampan", "0.1.0")`.
    fn version(&self) -> (String, String);

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
    /// Events from now on; bounded, a slow receiver gets [`ContainerEventKind::Resync`].
    fn events(&self) -> mpsc::Receiver<ContainerEvent>;
    /// `None` when the runtime and the pod network are ready, else what is missing.
    async fn not_ready_reason(&self) -> Option<String>;
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
    /// Bytes used by images and snapshots.
    async fn image_fs_bytes(&self) -> Result<u64, RuntimeError>;
}
