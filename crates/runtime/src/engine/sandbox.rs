//! Sandboxes: a supervisor, its namespaces and cgroup, and the pod's network.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use linux::cgroup::{Cgroup, DeviceRule};
use node_api::{
    ContainerEventKind, ContainerState, LinuxResources, NamespaceMode, PodNetworkConfig,
    PodNetworkResult, PodSandboxConfig, PodSandboxStatus, RuntimeError, SandboxState,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::link::{Link, News};
use super::slices::limit_pod;
use super::spare::{Place, Spare};
use super::{Engine, Pod, SandboxExtras, SandboxRecord, blocking, fresh_id, internal, translate};
use crate::protocol::Call;
use crate::spec::{SandboxSpec, Status, file, now_nanos, read_json, write_json};
use crate::units;

/// A supervisor that does not end by itself within this time is killed.
const QUIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Different warnings that are told; more are left to the supervisors' own logs.
const WARNING_LIMIT: usize = 64;
/// The pod's own interface.
const INTERFACE: &str = "eth0";

impl Engine {
    /// Makes a sandbox. A caller who goes away meanwhile leaves none behind: what is half made is
    /// finished by a task of its own, and taken down if nobody waits for it.
    pub(super) async fn run_sandbox(
        &self,
        config: PodSandboxConfig,
        extras: SandboxExtras,
    ) -> Result<String, RuntimeError> {
        translate::check_sandbox(&config)?;
        if self.by_systemd() {
            // A parent that is no slice is known before anything is made.
            self.sandbox_cgroup(&config, "")?;
        }
        let gone = || RuntimeError::Unavailable("the container engine ends".to_owned());
        let engine = self.me.upgrade().ok_or_else(gone)?;
        let (done, told) = oneshot::channel();
        let stop = self.crew.stop();
        self.crew.spawn("sandbox", async move {
            let up = tokio::select! {
                up = engine.make_sandbox(config, extras) => up,
                // As if we were killed: the next start finds what is left.
                () = stop.raised() => return,
            };
            if let Err(Ok(id)) = done.send(up)
                && let Err(error) = engine.remove_sandbox(&id).await
            {
                tracing::warn!(%error, sandbox = id, "sandbox that nobody waits for not removed");
            }
        });
        told.await.map_err(|_| gone())?
    }

    async fn make_sandbox(
        &self,
        config: PodSandboxConfig,
        extras: SandboxExtras,
    ) -> Result<String, RuntimeError> {
        let mut spare = self.spares.take();
        let place = spare.as_mut().and_then(Spare::take_place);
        let is_below_ours = config.cgroup_parent.is_empty() && !self.by_systemd();
        self.places.store(is_below_ours, Ordering::Relaxed);
        let (place, unused) = match is_below_ours {
            true => (place, None),
            false => (None, place),
        };
        let has_place = place.is_some();
        let (id, first) = match place {
            Some(place) => (place.id, place.container),
            None => (fresh_id(), None),
        };
        let folder = self.config.state.join(&id);
        let cgroup = self.sandbox_cgroup(&config, &id)?;
        let record = SandboxRecord {
            id: id.clone(),
            config,
            created_at: now_nanos(),
            cgroup,
        };
        let pod = Arc::new(Pod {
            record,
            folder,
            state: Mutex::new(SandboxState::NotReady),
            network: Mutex::default(),
            link: Mutex::default(),
            first: Mutex::new(first),
            change: Default::default(),
        });
        let _change = pod.change.lock().await;
        let mut up = self.bring_up(&pod, &extras, spare, has_place).await;
        if let (Ok(()), Some(gate)) = (&up, &extras.gate) {
            let status = PodSandboxStatus {
                state: SandboxState::Ready,
                ..pod.status()
            };
            up = gate.pass(&status, pod.pid()).await;
        }
        if let (Some(place), Some(engine)) = (unused, self.me.upgrade()) {
            // The supervisor has left its cgroups by now.
            tokio::task::spawn_blocking(move || engine.discard(&place.id));
        }
        match up {
            Ok(()) => {
                *pod.state.lock() = SandboxState::Ready;
                // Nobody sees a sandbox that is half made.
                self.pods.write().insert(id.clone(), Arc::clone(&pod));
                self.announce(&id, &id, ContainerEventKind::Started);
                Ok(id)
            }
            Err(error) => {
                self.take_down(&pod).await.unwrap_or_else(|error| {
                    tracing::warn!(%error, sandbox = id, "failed sandbox not taken down");
                });
                self.remove_files(&pod).await?;
                Err(error)
            }
        }
    }

    pub(super) async fn update_sandbox(
        &self,
        id: &str,
        resources: LinuxResources,
    ) -> Result<(), RuntimeError> {
        let pod = self.pod(id)?;
        match self.own_pod_cgroup(&pod.record.config)? {
            Some((path, whole)) => blocking(move || limit_pod(&path, &whole, &resources)).await,
            // Its owner has changed it already.
            None => Ok(()),
        }
    }

    async fn bring_up(
        &self,
        pod: &Arc<Pod>,
        extras: &SandboxExtras,
        spare: Option<Spare>,
        has_place: bool,
    ) -> Result<(), RuntimeError> {
        self.enter_slice(pod).await?;
        self.prepare(pod, extras, has_place).await?;
        self.spares.start(spare, &pod.folder).await?;
        self.connect(pod).map_err(internal)?;
        if pod.record.config.namespaces.network == NamespaceMode::Node {
            return Ok(());
        }
        let result = match extras.network_of {
            Some(_) => PodNetworkResult::default(),
            None => self.network.add(&network_config(pod)?).await?,
        };
        write_json(&pod.folder.join(file::NETWORK), &result).map_err(internal)?;
        let hosts = translate::hosts(&pod.record.config, &result.ips);
        std::fs::write(pod.folder.join(file::HOSTS), hosts).map_err(internal)?;
        *pod.network.lock() = result;
        Ok(())
    }

    /// When a pod has started and needs no processor just now; to start a process blocks.
    pub(super) fn refill_spares(&self) {
        if let Some(engine) = self.me.upgrade() {
            tokio::task::spawn_blocking(move || engine.spares.refill(|| engine.place()));
        }
    }

    /// Makes what the next pod will need, if it is likely to come below our own cgroup.
    fn place(&self) -> Option<Place> {
        if !self.places.load(Ordering::Relaxed) {
            return None;
        }
        let id = fresh_id();
        let made = || {
            // First the folder, which tells of the rest at the next start.
            std::fs::create_dir_all(self.config.state.join(&id).join(file::CONTAINERS))?;
            let path = format!("/{}/{id}", self.config.cgroup_root.trim_matches('/'));
            let whole = self.hierarchies.group(&path)?;
            let is_pure_unified = whole.is_pure_unified();
            let cgroup = leaf(&whole, path.clone());
            self.hierarchies.group(&cgroup)?.create()?;
            // With version 2 it takes a program of its own to say which devices are let in.
            let container = match is_pure_unified {
                true => None,
                false => Some(self.place_below(&path)?),
            };
            std::io::Result::Ok((cgroup, container))
        };
        match made() {
            Ok((cgroup, container)) => Some(Place {
                id,
                cgroup,
                container,
            }),
            Err(error) => {
                tracing::warn!(%error, "no cgroups for the next pod");
                self.discard(&id);
                None
            }
        }
    }

    /// Makes the cgroups of a container of the pod at `path`, whose id is returned.
    fn place_below(&self, path: &str) -> std::io::Result<String> {
        let id = fresh_id();
        let group = self.hierarchies.group(&format!("{path}/{id}"))?;
        group.create()?;
        group.allow_devices(&DeviceRule::container_default())?;
        Ok(id)
    }

    /// Removes what was made of a sandbox below our own cgroup that is nobody's.
    pub(super) fn discard(&self, id: &str) {
        let folder = self.config.state.join(id);
        let path = format!("{}/{id}", self.config.cgroup_root);
        let removed = (self.hierarchies.group(&path))
            .and_then(|group| group.kill().and_then(|()| group.remove()))
            .and_then(|()| linux::mount::unmount_if_mounted(&folder.join(file::SHM)))
            .and_then(|()| remove_folder(&folder));
        if let Err(error) = removed {
            tracing::warn!(%error, folder = %folder.display(), "unfinished sandbox not removed");
        }
    }

    /// Writes the files a supervisor starts from, and makes its cgroup.
    async fn prepare(
        &self,
        pod: &Arc<Pod>,
        extras: &SandboxExtras,
        has_place: bool,
    ) -> Result<(), RuntimeError> {
        let config = &pod.record.config;
        let leaf = leaf(&self.group(&pod.record.cgroup)?, pod.record.cgroup.clone());
        let own_network = config.namespaces.network != NamespaceMode::Node;
        let spec = SandboxSpec {
            id: pod.record.id.clone(),
            hostname: (own_network && !extras.node_hostname).then(|| translate::hostname(config)),
            own_network,
            own_ipc: config.namespaces.ipc != NamespaceMode::Node,
            shared_pids: config.namespaces.pid == NamespaceMode::Pod,
            sysctls: config.sysctls.clone(),
            cgroup: leaf.clone(),
            user: config.namespaces.user.clone(),
            network_of: self.namespace_of(extras.network_of.as_deref(), "net")?,
            ipc_of: self.namespace_of(extras.ipc_of.as_deref(), "ipc")?,
            user_of: extras
                .user_of
                .map(|pid| PathBuf::from(format!("/proc/{pid}/ns/user"))),
        };
        let is_unit = systemd::is_unit(&leaf);
        let (whole, leaf) = (self.own_pod_cgroup(config)?, self.group(&leaf)?);
        let pod = Arc::clone(pod);
        blocking(move || {
            if !has_place {
                std::fs::create_dir_all(pod.folder.join(file::CONTAINERS)).map_err(internal)?;
            }
            // Units come into being with their first process.
            if !has_place && !is_unit {
                leaf.create().map_err(internal)?;
            }
            let write = |name: &str, text: String| {
                std::fs::write(pod.folder.join(name), text).map_err(internal)
            };
            let config = &pod.record.config;
            write(
                file::HOSTNAME,
                format!("{}\n", spec.hostname.as_ref().unwrap_or(&config.hostname)),
            )?;
            write(file::RESOLV, translate::resolv_conf(config))?;
            write_json(&pod.folder.join(file::SPEC), &spec).map_err(internal)?;
            write_json(&pod.folder.join(file::SANDBOX), &pod.record).map_err(internal)?;
            match (&config.resources, whole) {
                (Some(resources), Some((path, whole))) => limit_pod(&path, &whole, resources),
                _ => Ok(()),
            }
        })
        .await
    }

    /// The file of another sandbox's namespace, which its supervisor lives in.
    fn namespace_of(
        &self,
        sandbox: Option<&str>,
        kind: &str,
    ) -> Result<Option<PathBuf>, RuntimeError> {
        let Some(sandbox) = sandbox else {
            return Ok(None);
        };
        let pod = self.pod(sandbox)?;
        if *pod.state.lock() != SandboxState::Ready {
            let message = format!("sandbox {sandbox} is not ready");
            return Err(RuntimeError::FailedPrecondition(message));
        }
        let pid = std::fs::read_to_string(pod.folder.join(file::PID)).map_err(internal)?;
        Ok(Some(format!("/proc/{}/ns/{kind}", pid.trim()).into()))
    }

    /// Connects to the supervisor and starts to listen to it.
    pub(super) fn connect(&self, pod: &Arc<Pod>) -> std::io::Result<()> {
        let (link, line) = Link::connect(&pod.folder)?;
        let link = Arc::new(link);
        *pod.link.lock() = Some(Arc::clone(&link));
        let (me, pod, stop) = (self.me.clone(), Arc::clone(pod), self.crew.stop());
        self.crew
            .spawn(format!("pod {}", pod.record.id), async move {
                let news = |news| {
                    if let Some(engine) = me.upgrade() {
                        engine.take_news(news);
                    }
                };
                let closed = line.run(stop, news).await;
                drop(link);
                if let (true, Some(engine)) = (closed, me.upgrade()) {
                    engine.supervisor_gone(&pod).await;
                }
            });
        Ok(())
    }

    fn take_news(&self, news: News) {
        match news {
            News::Warning(container, text) => self.warn_once(&container, text),
            News::Started(id, status) => {
                if let Ok(entry) = self.entry(&id)
                    && entry.set_status(status)
                {
                    let sandbox = entry.record.read().sandbox_id.clone();
                    self.announce(&sandbox, &id, ContainerEventKind::Started);
                }
            }
            News::Exited(id, status) => {
                if let Ok(entry) = self.entry(&id)
                    && entry.set_status(status)
                {
                    let sandbox = entry.record.read().sandbox_id.clone();
                    self.announce(&sandbox, &id, ContainerEventKind::Stopped);
                }
            }
            News::ExecExited(id, exit_code) => {
                if let Some(waiting) = self.execs.lock().remove(&id) {
                    // Whoever asked may have lost interest.
                    let _ = waiting.send(exit_code);
                }
            }
        }
    }

    /// What this node lacks it lacks for every container; once is enough.
    fn warn_once(&self, container: &str, text: String) {
        let mut warned = self.warned.lock();
        if warned.len() < WARNING_LIMIT && !warned.contains(&text) {
            tracing::warn!(container, "{text}");
            warned.insert(text);
        }
    }

    /// The socket closed. Unless we asked for it, whatever is left of the pod dies with it.
    async fn supervisor_gone(&self, pod: &Arc<Pod>) {
        let _change = pod.change.lock().await;
        if pod.link.lock().take().is_none() {
            return;
        }
        tracing::warn!(
            sandbox = pod.record.id,
            "the supervisor is gone, ending its containers"
        );
        self.bury(pod).await;
    }

    /// Ends what a dead supervisor left, and records how its containers ended.
    pub(super) async fn bury(&self, pod: &Arc<Pod>) {
        let killed = match self.groups_of(pod) {
            Ok(groups) => {
                let kill = move || groups.iter().try_for_each(|(_, group)| group.kill());
                blocking(move || kill().map_err(internal)).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = killed {
            tracing::error!(%error, sandbox = pod.record.id, "processes of a dead pod not killed");
        }
        *pod.state.lock() = SandboxState::NotReady;
        self.settle_containers(pod);
        self.announce(&pod.record.id, &pod.record.id, ContainerEventKind::Stopped);
    }

    /// Takes over what the supervisor last wrote; who still ran there was killed.
    pub(super) fn settle_containers(&self, pod: &Pod) {
        for entry in self.containers_of(&pod.record.id) {
            let path = entry.folder.join(file::STATUS);
            let written: Status =
                read_json(&path).unwrap_or_else(|_| entry.status.borrow().clone());
            let last = match written.state {
                ContainerState::Running | ContainerState::Unknown => {
                    let last =
                        written.exited(137, "Error", "the container was killed with its pod");
                    if let Err(error) = write_json(&path, &last) {
                        tracing::error!(%error, path = %path.display(), "exit code not recorded");
                    }
                    last
                }
                ContainerState::Created | ContainerState::Exited => written,
            };
            let ended = last.state == ContainerState::Exited;
            if entry.set_status(last) && ended {
                let id = entry.record.read().id.clone();
                self.announce(&pod.record.id, &id, ContainerEventKind::Stopped);
            }
        }
    }

    pub(super) async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let Ok(pod) = self.pod(id) else {
            return Ok(());
        };
        let _change = pod.change.lock().await;
        if self.stop_pod(&pod).await? {
            std::fs::write(pod.folder.join(file::STOPPED), "").map_err(internal)?;
        }
        Ok(())
    }

    /// Whether there was anything to stop.
    async fn stop_pod(&self, pod: &Arc<Pod>) -> Result<bool, RuntimeError> {
        if pod.folder.join(file::STOPPED).exists() {
            return Ok(false);
        }
        self.take_down(pod).await?;
        let id = &pod.record.id;
        self.announce(id, id, ContainerEventKind::Stopped);
        Ok(true)
    }

    /// Ends supervisor and containers, detaches the network. Safe to repeat.
    async fn take_down(&self, pod: &Arc<Pod>) -> Result<(), RuntimeError> {
        *pod.state.lock() = SandboxState::NotReady;
        let link = pod.link.lock().take();
        if let Some(link) = link {
            // The supervisor answers, then ends, and with it what its cgroups are busy with.
            let quit = async {
                let answered = link.call(Call::Quit, Vec::new()).await;
                link.ended().await;
                answered
            };
            if tokio::time::timeout(QUIT_TIMEOUT, quit).await.is_err() {
                tracing::warn!(
                    sandbox = pod.record.id,
                    "the supervisor does not answer, killing it"
                );
            }
        }
        let groups = self.groups_of(pod)?;
        let (ending, shm) = (groups.clone(), pod.folder.join(file::SHM));
        let gone = blocking(move || {
            let mut gone = true;
            for (path, group) in &ending {
                gone &= units::end(path, group).map_err(internal)?;
            }
            linux::mount::unmount_if_mounted(&shm).map_err(internal)?;
            Ok(gone)
        })
        .await?;
        self.settle_containers(pod);
        if pod.record.config.namespaces.network != NamespaceMode::Node {
            self.network.del(&pod.record.id).await?;
            *pod.network.lock() = PodNetworkResult::default();
        }
        if gone {
            return Ok(());
        }
        blocking(move || {
            let mut groups = groups.iter();
            let removed = groups.try_for_each(|(path, group)| units::remove(path, group));
            removed.map_err(internal)
        })
        .await
    }

    pub(super) async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let Ok(pod) = self.pod(id) else {
            return Ok(());
        };
        // Held to the end: nobody sees it stopped but not removed, unless the server dies meanwhile,
        // after which it is stopped once more.
        let _change = pod.change.lock().await;
        if self.pod(id).is_err() {
            return Ok(());
        }
        // Files of those that have ended already go while the supervisor ends.
        let (stopped, removed) =
            tokio::join!(self.stop_pod(&pod), self.remove_ended(&pod.record.id));
        stopped?;
        removed?;
        for entry in self.containers_of(id) {
            let container = entry.record.read().id.clone();
            self.remove_entry(&container).await?;
        }
        self.remove_files(&pod).await?;
        self.announce(id, id, ContainerEventKind::Deleted);
        self.pods.write().remove(id);
        Ok(())
    }

    async fn remove_files(&self, pod: &Arc<Pod>) -> Result<(), RuntimeError> {
        let (folder, path) = (pod.folder.clone(), pod.record.cgroup.clone());
        let group = self.group(&path)?;
        let whole = self.own_pod_cgroup(&pod.record.config)?;
        self.leave_slice(pod).await?;
        blocking(move || {
            linux::mount::unmount_if_mounted(&folder.join(file::SHM)).map_err(internal)?;
            units::remove(&path, &group).map_err(internal)?;
            if let Some((path, whole)) = whole
                && !systemd::is_unit(&path)
            {
                whole.remove_if_empty();
            }
            remove_recorded(&folder, file::SANDBOX).map_err(internal)
        })
        .await
    }
}

/// The supervisor's cgroup: version 2 has processes in leaves only, where it manages resources.
fn leaf(whole: &Cgroup, path: String) -> String {
    match whole.is_pure_unified() && !systemd::is_unit(&path) {
        true => path + "/supervisor",
        false => path,
    }
}

fn network_config(pod: &Pod) -> Result<PodNetworkConfig, RuntimeError> {
    let config = &pod.record.config;
    let pid = std::fs::read_to_string(pod.folder.join(file::PID)).map_err(internal)?;
    Ok(PodNetworkConfig {
        sandbox_id: pod.record.id.clone(),
        // The supervisor lives in the pod's namespace as long as there is one.
        netns: format!("/proc/{}/ns/net", pid.trim()).into(),
        interface: INTERFACE.to_owned(),
        pod_namespace: config.namespace.clone(),
        pod_name: config.name.clone(),
        pod_uid: config.uid.clone(),
        port_mappings: config.port_mappings.clone(),
    })
}

/// Removes the folder of a sandbox or container, its record first: whatever is left when the
/// server dies in between is then taken for unfinished, and removed at the next start.
pub(super) fn remove_recorded(folder: &Path, record: &str) -> std::io::Result<()> {
    match std::fs::remove_file(folder.join(record)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    remove_folder(folder)
}

/// Removes a folder with all in it; absence is no error.
pub(super) fn remove_folder(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
