//! What fronts other than CRI ask of the engine: containers whose own files outlive them, single
//! signals, pauses, sessions that begin before the program does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use linux::cgroup::{Abilities, DeviceRule, RareLimits};
use node_api::{
    ContainerConfig, ContainerState, ExecRequest, ExecSession, LinuxResources, PodSandboxConfig,
    PodSandboxStatus, RuntimeError,
};

use super::{Engine, blocking, fresh_id, internal};
use crate::hooks::Hooks;
use crate::protocol::Call;
use crate::spec::{DeviceNode, ExecOptions, LogRotation, Rlimit, Tmpfs};

/// Leases whose names begin so belong to a front, which renews and ends them itself.
pub(super) const FOREIGN_LEASE: &str = "front-";

/// What a container may have beyond CRI's words.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Keeps the container's own files here, beyond its removal.
    pub writable: Option<PathBuf>,
    pub tmpfs: Vec<Tmpfs>,
    pub rlimits: Vec<Rlimit>,
    /// Instead of the image that the configuration names: one that is not in the store, though its
    /// layers are.
    pub image: Option<oci::ImageRecord>,
    /// Whose process ids it has: a process of the node.
    pub pids_of: Option<i32>,
    /// Whose shared memory it has.
    pub shm_of: Option<i32>,
    /// More groups its first process is in, by the names of its own `/etc/group` or numbers.
    pub groups: Vec<String>,
    /// Devices it may use beyond those it has.
    pub device_rules: Vec<DeviceRule>,
    pub oom_kill_disable: bool,
    pub rare: RareLimits,
    /// The supervisor itself keeps the log small, and not whoever reads it.
    pub log_rotation: Option<LogRotation>,
    /// The caller keeps the image's layers by a lease of its own, as long as there is the container.
    pub leased: bool,
    /// It may make cgroups below its own.
    pub writable_cgroups: bool,
    /// Before those that its devices bring along.
    pub hooks: Hooks,
    /// Its id, told before by [`Engine::draft_container`].
    pub id: Option<String>,
    pub device_nodes: Vec<DeviceNode>,
    /// Variables and mount points that image and engine would give it, and it does not get.
    pub without_env: Vec<String>,
    pub without_mounts: Vec<PathBuf>,
}

/// Who is asked of a sandbox that is up, before anybody sees it. A refusal takes it down again.
#[async_trait]
pub trait Gate: Send + Sync + std::fmt::Debug {
    /// `pid` is that of a process in the sandbox's namespaces.
    async fn pass(&self, sandbox: &PodSandboxStatus, pid: i32) -> Result<(), RuntimeError>;
}

/// What a sandbox may have beyond CRI's words.
#[derive(Clone, Debug, Default)]
pub struct SandboxExtras {
    /// Sandboxes whose namespaces it joins instead of having its own.
    pub network_of: Option<String>,
    pub ipc_of: Option<String>,
    /// A process whose user namespace it joins, one with the ids that its configuration says.
    pub user_of: Option<i32>,
    /// The node's host name.
    pub node_hostname: bool,
    pub gate: Option<Arc<dyn Gate>>,
}

impl Engine {
    /// As CRI's, with more wishes.
    pub async fn run_pod_sandbox_with(
        &self,
        config: PodSandboxConfig,
        extras: SandboxExtras,
    ) -> Result<String, RuntimeError> {
        self.run_sandbox(config, extras).await
    }

    /// As CRI's, with more wishes.
    pub async fn create_container_with(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
        extras: Extras,
    ) -> Result<String, RuntimeError> {
        self.create(sandbox_id, config, extras).await
    }

    /// Runs a command that may differ in more than its words; the number is its process's id on the
    /// node.
    pub async fn exec_with(
        &self,
        request: ExecRequest,
        options: ExecOptions,
    ) -> Result<(ExecSession, i32), RuntimeError> {
        self.open_exec_known(request, options).await
    }

    /// Other limits for a container that may run; what is 0 or empty stays as it is.
    pub async fn update_with(
        &self,
        id: &str,
        resources: LinuxResources,
        rare: RareLimits,
    ) -> Result<(), RuntimeError> {
        self.update(id, resources, Some(rare)).await
    }

    /// Which limits the cgroups of this machine have.
    pub fn abilities(&self) -> Result<Abilities, RuntimeError> {
        let path = format!("{}/{}", self.config.cgroup_root, fresh_id());
        let group = self.group(&path)?;
        group.create().map_err(internal)?;
        let able = group.abilities();
        group.remove().map_err(internal)?;
        Ok(able)
    }

    /// As CRI's attach, but also before the container starts: then nothing of its output is missed.
    pub async fn attach_early(&self, request: ExecRequest) -> Result<ExecSession, RuntimeError> {
        self.open_attach(request, true).await
    }

    /// Sends one signal to a container's first process.
    pub async fn signal_container(&self, id: &str, signal: i32) -> Result<(), RuntimeError> {
        let entry = self.entry(id)?;
        if entry.state() != ContainerState::Running {
            let message = format!("container {id} is not running");
            return Err(RuntimeError::FailedPrecondition(message));
        }
        let sandbox = entry.record.read().sandbox_id.clone();
        let call = Call::Signal {
            container: id.to_owned(),
            signal,
            everything: false,
        };
        self.link(&sandbox)?.call(call, Vec::new()).await?;
        Ok(())
    }

    /// Sets the size of a container's terminal.
    pub async fn resize_container(
        &self,
        id: &str,
        size: node_api::TerminalSize,
    ) -> Result<(), RuntimeError> {
        let sandbox = self.entry(id)?.record.read().sandbox_id.clone();
        let call = Call::Resize {
            container: id.to_owned(),
            width: size.width,
            height: size.height,
        };
        self.link(&sandbox)?.call(call, Vec::new()).await?;
        Ok(())
    }

    /// Stops all processes of a container where they are, or lets them go on.
    pub async fn freeze_container(&self, id: &str, frozen: bool) -> Result<(), RuntimeError> {
        let cgroup = self.entry(id)?.record.read().cgroup.clone();
        let group = self.group(&cgroup)?;
        blocking(move || group.freeze(frozen).map_err(internal)).await
    }

    /// Ids, on the node, of a container's processes.
    pub fn container_processes(&self, id: &str) -> Result<Vec<i32>, RuntimeError> {
        let cgroup = self.entry(id)?.record.read().cgroup.clone();
        let pids = self.group(&cgroup)?.processes();
        Ok(pids.into_iter().map(nix::unistd::Pid::as_raw).collect())
    }

    /// Keeps an image's layers on disk under a name of the caller's, until [`Engine::release_image`].
    pub fn lease_image(&self, name: &str, image: &oci::ImageRecord) -> Result<(), RuntimeError> {
        let lease = format!("{FOREIGN_LEASE}{name}");
        self.store
            .lease(&lease, &[image])
            .map_err(super::images::explain)
    }

    /// Ends such a lease.
    pub fn release_image(&self, name: &str) -> Result<(), RuntimeError> {
        let lease = format!("{FOREIGN_LEASE}{name}");
        self.store.release(&lease).map_err(super::images::explain)
    }

    /// Names of all such leases.
    pub fn image_leases(&self) -> Result<Vec<String>, RuntimeError> {
        let names = self.store.leases().map_err(super::images::explain)?;
        let ours = names
            .iter()
            .filter_map(|name| name.strip_prefix(FOREIGN_LEASE));
        Ok(ours.map(str::to_owned).collect())
    }

    /// How registries are spoken to.
    pub fn registries(&self) -> &oci::RegistryOptions {
        &self.registries
    }

    /// The folder that everything lasting is below.
    pub fn root(&self) -> &Path {
        &self.config.root
    }
}
