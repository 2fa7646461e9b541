//! The engine: what the kubelet speaks to. It keeps the records, translates
//! CRI's words into specs, and asks supervisors to act.

mod adopt;
mod bundle;
mod cdi;
mod cleanup;
mod container;
mod events;
mod extra;
mod hooked;
mod images;
mod link;
mod outline;
mod registries;
mod sandbox;
mod service;
mod skeleton;
mod slices;
mod spare;
mod stats;
mod streams;
mod translate;
mod volumes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use linux::cgroup::{Cgroup, Hierarchies};
use node_api::{
    CgroupDriver, ContainerConfig, ContainerState, ContainerStatus, PodNetwork, PodNetworkResult,
    PodSandboxConfig, PodSandboxStatus, RuntimeError, SandboxState,
};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use crate::spec::{Status, file};
use link::Link;

pub use cdi::{kinds as cdi_kinds, propagation};
pub use cleanup::clean_up;
pub use extra::{Extras, Gate, SandboxExtras};
pub use outline::Outline;
pub use registries::read as registries;

/// Where the engine keeps what, and how it starts supervisors.
#[derive(Clone, Debug)]
pub struct Config {
    /// Persistent: images, layers, writable parts of containers.
    pub root: PathBuf,
    /// Sandboxes, containers, sockets. May be on a tmpfs; must survive the server.
    pub state: PathBuf,
    /// All cgroups live below this path of every hierarchy, such as `/sampan-1`.
    pub cgroup_root: String,
    /// The program that is run as `<program> supervise`.
    pub supervisor_exe: PathBuf,
    /// Cgroups that sandboxes name as their parents are somebody else's: they are below the root of
    /// each hierarchy itself, and neither limited nor removed.
    pub foreign_cgroup_parents: bool,
    /// What is said of registries; `registries.yaml` in the root folder where nothing is.
    pub registries: Option<PathBuf>,
    /// Who makes cgroups of sandboxes to come; those that are there know who made them.
    pub cgroup_driver: CgroupDriver,
}

impl Config {
    /// The usual arrangement below one data folder.
    pub fn below(data: &std::path::Path, cgroup_root: &str) -> Config {
        Config {
            root: data.join("containers"),
            state: data.join("run"),
            cgroup_root: cgroup_root.to_owned(),
            supervisor_exe: PathBuf::from("/proc/self/exe"),
            foreign_cgroup_parents: false,
            registries: None,
            cgroup_driver: CgroupDriver::Cgroupfs,
        }
    }
}

/// Why the engine does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("container engine: {0}: {1}")]
    Io(PathBuf, #[source] std::io::Error),
    #[error("container engine: image store: {0}")]
    Images(#[from] oci::ImageError),
    #[error("{0}: {1}")]
    Registries(PathBuf, String),
    #[error("container engine: {0}")]
    Host(String),
}

/// What is remembered of a sandbox, on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SandboxRecord {
    id: String,
    config: PodSandboxConfig,
    created_at: i64,
    /// The sandbox's own cgroup, below the root of each hierarchy.
    cgroup: String,
}

/// A sandbox.
#[derive(Debug)]
struct Pod {
    record: SandboxRecord,
    folder: PathBuf,
    state: Mutex<SandboxState>,
    network: Mutex<PodNetworkResult>,
    link: Mutex<Option<Arc<Link>>>,
    /// The id of its first container, whose cgroup waits for it.
    first: Mutex<Option<String>>,
    /// One change at a time.
    change: tokio::sync::Mutex<()>,
}

/// What is remembered of a container, on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ContainerRecord {
    id: String,
    sandbox_id: String,
    config: ContainerConfig,
    created_at: i64,
    image_id: String,
    log_path: PathBuf,
    cgroup: String,
    stop_signal: i32,
    /// Its spec has hooks.
    #[serde(default)]
    hooked: bool,
}

/// A container.
#[derive(Debug)]
struct Entry {
    record: RwLock<ContainerRecord>,
    folder: PathBuf,
    status: watch::Sender<Status>,
    change: tokio::sync::Mutex<()>,
}

/// The container engine of one node.
pub struct Engine {
    me: Weak<Engine>,
    config: Config,
    store: oci::Store,
    registries: oci::RegistryOptions,
    network: Arc<dyn PodNetwork>,
    /// The name of the lowest layer.
    skeleton: Option<String>,
    hierarchies: Hierarchies,
    /// Where systemd's own root lies in them.
    systemd_root: String,
    slices: slices::Slices,
    spares: spare::Spares,
    /// Whether the last pod had its cgroups below our own, and the next one is expected there.
    places: AtomicBool,
    crew: base::Crew,
    pods: RwLock<BTreeMap<String, Arc<Pod>>>,
    containers: RwLock<BTreeMap<String, Arc<Entry>>>,
    /// Who waits for the end of an exec.
    execs: Mutex<HashMap<String, oneshot::Sender<i32>>>,
    listeners: node_api::Listeners,
    /// Warnings that were told already.
    warned: Mutex<BTreeSet<String>>,
    /// What all containers wrote when it was last measured.
    written: Mutex<Option<(std::time::Instant, node_api::FilesystemUsage)>>,
    /// Whose turn it is to pull an image, by name.
    pulls: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// Opens the engine: image store, live supervisors, and the end of what ended meanwhile.
pub async fn open(
    config: Config,
    network: Arc<dyn PodNetwork>,
    crew: &base::Crew,
) -> Result<Arc<Engine>, OpenError> {
    for folder in [&config.root, &config.state] {
        make_private_folder(folder).map_err(|error| OpenError::Io(folder.clone(), error))?;
    }
    let containers = config.root.join("containers");
    std::fs::create_dir_all(&containers).map_err(|error| OpenError::Io(containers, error))?;
    let store = oci::Store::open(&config.root.join("images"))?;
    let registries = registries::read(&config.root, config.registries.as_deref())?;
    let driver = config.cgroup_driver;
    let systemd_root = match driver {
        CgroupDriver::Cgroupfs => String::new(),
        CgroupDriver::Systemd => slices::root()?,
    };
    let hierarchies = match driver {
        CgroupDriver::Cgroupfs => Hierarchies::of_this_machine(),
        CgroupDriver::Systemd => Hierarchies::with_systemd(),
    };
    let hierarchies =
        hierarchies.map_err(|error| OpenError::Io("/proc/self/mountinfo".into(), error))?;
    if hierarchies.0.is_empty() {
        return Err(OpenError::Host("no cgroup hierarchy is mounted".to_owned()));
    }
    let skeleton = config.root.join("skeleton");
    let skeleton =
        skeleton::make(&skeleton).map_err(|error| OpenError::Io(skeleton.clone(), error))?;
    let engine = Arc::new_cyclic(|me| Engine {
        me: me.clone(),
        spares: spare::Spares::new(config.supervisor_exe.clone()),
        places: AtomicBool::default(),
        config,
        store,
        registries,
        network,
        skeleton,
        hierarchies,
        systemd_root,
        slices: slices::Slices::default(),
        crew: crew.clone(),
        pods: RwLock::default(),
        containers: RwLock::default(),
        execs: Mutex::default(),
        listeners: node_api::Listeners::default(),
        warned: Mutex::default(),
        written: Mutex::default(),
        pulls: Mutex::default(),
    });
    engine.adopt().await?;
    Ok(engine)
}

impl Engine {
    /// The image store, for commands that work on it directly.
    pub fn images(&self) -> &oci::Store {
        &self.store
    }

    fn pod(&self, id: &str) -> Result<Arc<Pod>, RuntimeError> {
        let missing = || RuntimeError::NotFound(format!("sandbox {id} not found"));
        self.pods.read().get(id).cloned().ok_or_else(missing)
    }

    fn entry(&self, id: &str) -> Result<Arc<Entry>, RuntimeError> {
        let missing = || RuntimeError::NotFound(format!("container {id} not found"));
        self.containers.read().get(id).cloned().ok_or_else(missing)
    }

    fn containers_of(&self, sandbox: &str) -> Vec<Arc<Entry>> {
        let containers = self.containers.read();
        let of_pod = containers
            .values()
            .filter(|entry| entry.record.read().sandbox_id == sandbox);
        of_pod.cloned().collect()
    }

    fn group(&self, path: &str) -> Result<Cgroup, RuntimeError> {
        self.hierarchies.group(path).map_err(internal)
    }

    /// A link to the supervisor of a live sandbox.
    fn link(&self, sandbox: &str) -> Result<Arc<Link>, RuntimeError> {
        let pod = self.pod(sandbox)?;
        let link = pod.link.lock().clone();
        link.ok_or_else(|| {
            RuntimeError::FailedPrecondition(format!("sandbox {sandbox} is not running"))
        })
    }
}

impl Pod {
    fn status(&self) -> PodSandboxStatus {
        PodSandboxStatus {
            id: self.record.id.clone(),
            config: self.record.config.clone(),
            state: *self.state.lock(),
            created_at: self.record.created_at,
            ips: self.network.lock().ips.clone(),
        }
    }

    fn container_folder(&self, id: &str) -> PathBuf {
        self.folder.join(file::CONTAINERS).join(id)
    }
}

impl Entry {
    fn new(record: ContainerRecord, folder: PathBuf, status: Status) -> Entry {
        Entry {
            record: RwLock::new(record),
            folder,
            status: watch::Sender::new(status),
            change: tokio::sync::Mutex::default(),
        }
    }

    /// Takes news in. An ended container stays ended; tells whether anything changed.
    fn set_status(&self, status: Status) -> bool {
        self.status.send_if_modified(|known| {
            if known.state == ContainerState::Exited || *known == status {
                return false;
            }
            *known = status;
            true
        })
    }

    fn state(&self) -> ContainerState {
        self.status.borrow().state
    }

    fn status(&self) -> ContainerStatus {
        let record = self.record.read().clone();
        let status = self.status.borrow().clone();
        ContainerStatus {
            id: record.id,
            sandbox_id: record.sandbox_id,
            config: record.config,
            state: status.state,
            created_at: record.created_at,
            started_at: status.started_at,
            finished_at: status.finished_at,
            exit_code: status.exit_code,
            image_id: record.image_id,
            reason: status.reason,
            message: status.message,
            log_path: record.log_path,
            pid: status.pid,
            user: status.user,
            stop_signal: record.stop_signal,
        }
    }
}

/// Containers' files hold their owners' secrets, and whoever reaches a socket commands a pod.
fn make_private_folder(folder: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(folder)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
}

/// Reads YAML without its types: readers of typed YAML are large, and this way there is one.
fn yaml(text: &str) -> Result<serde_json::Value, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

fn internal(error: impl Display) -> RuntimeError {
    RuntimeError::Internal(error.to_string())
}

/// Runs file system work where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    tokio::task::spawn_blocking(work).await.map_err(internal)?
}

/// A fresh id: 64 hexadecimal digits.
fn fresh_id() -> String {
    let half = || uuid::Uuid::new_v4().simple().to_string();
    half() + &half()
}

/// Registers a descriptor with the runtime. The constructor is deprecated because a type might
/// report another descriptor later; ours own theirs and always report the same. Its successor is
/// unsafe to call.
#[allow(deprecated)]
fn watched<T: std::os::fd::AsRawFd>(fd: T) -> std::io::Result<tokio::io::unix::AsyncFd<T>> {
    tokio::io::unix::AsyncFd::new(fd)
}
