//! A container runtime in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use linux::cgroup::Limits;
use node_api::*;
use parking_lot::Mutex;
use tokio::sync::mpsc;

#[derive(Default)]
struct State {
    next: u32,
    sandboxes: BTreeMap<String, PodSandboxStatus>,
    containers: BTreeMap<String, ContainerStatus>,
    images: HashMap<String, Image>,
    listeners: Vec<mpsc::Sender<ContainerEvent>>,
    calls: Vec<String>,
    /// Exit codes of commands run by exec, by the first word.
    exec: HashMap<String, i32>,
    /// Containers (by name) that end by themselves at once with this code.
    ends: HashMap<String, i32>,
    pull_error: Option<String>,
    /// Each image asked for, and as whom: `image user:password`, or `image -`.
    pulls: Vec<String>,
    /// Who may pull images whose names begin so: `user:password`.
    logins: HashMap<String, String>,
    sandbox_error: Option<String>,
    /// Containers write logs.
    logs: bool,
    /// What groups that are no pod's were limited to last.
    groups: BTreeMap<String, Limits>,
    /// Why groups cannot be limited, by their paths.
    stubborn: HashMap<String, String>,
    /// How far the machine's clock was set forward.
    ahead: SignedDuration,
}

impl State {
    fn now(&self) -> i64 {
        i64::try_from((Timestamp::now() + self.ahead).as_nanosecond()).unwrap()
    }
}

#[derive(Clone, Default)]
pub(crate) struct FakeRuntime {
    state: Arc<Mutex<State>>,
}

fn waits(resource: &'static str) -> Pressure {
    Pressure {
        resource,
        some: Waits {
            total_micros: 12,
            averages: [150, 25, 0],
        },
        full: Waits::default(),
    }
}

fn missing(id: &str) -> RuntimeError {
    RuntimeError::NotFound(format!("{id} not found"))
}

impl FakeRuntime {
    pub(crate) fn with_image(name: &str) -> FakeRuntime {
        let runtime = FakeRuntime::default();
        runtime.add_image(name);
        runtime
    }

    /// An image that is not to be removed.
    pub(crate) fn pin_image(&self, name: &str) {
        self.add_image(name);
        let mut state = self.state.lock();
        let image = state.images.get_mut(name).unwrap();
        image.pinned = true;
    }

    /// The names of all images, in their order.
    pub(crate) fn image_names(&self) -> Vec<String> {
        self.state.lock().images.keys().cloned().collect()
    }

    /// Removes an image.
    pub(crate) fn drop_image(&self, name: &str) {
        self.state.lock().images.remove(name);
    }

    pub(crate) fn add_image(&self, name: &str) {
        let image = Image {
            id: format!("sha256:{name}"),
            repo_tags: vec![name.into()],
            size: 42,
            uid: Some(0),
            ..Image::default()
        };
        self.state.lock().images.insert(name.into(), image);
    }

    /// Sets the machine's clock forward, or back.
    pub(crate) fn step_clock(&self, hours: i64) {
        self.state.lock().ahead += SignedDuration::from_hours(hours);
    }

    /// What the machine's clock says.
    pub(crate) fn clock(&self) -> kubelet::Clock {
        let runtime = self.clone();
        kubelet::Clock::new(move || Timestamp::now() + runtime.state.lock().ahead)
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().calls.clone()
    }

    /// As after a reboot: images are on disk still, nothing else is.
    pub(crate) fn reboot(&self) {
        let mut state = self.state.lock();
        state.sandboxes.clear();
        state.containers.clear();
        state.listeners.clear();
    }

    pub(crate) fn forget_calls(&self) {
        self.state.lock().calls.clear();
    }

    pub(crate) fn set_exec(&self, command: &str, code: i32) {
        self.state.lock().exec.insert(command.into(), code);
    }

    pub(crate) fn set_ends(&self, name: &str, code: Option<i32>) {
        let mut state = self.state.lock();
        match code {
            Some(code) => drop(state.ends.insert(name.into(), code)),
            None => drop(state.ends.remove(name)),
        }
    }

    pub(crate) fn set_pull_error(&self, error: Option<&str>) {
        self.state.lock().pull_error = error.map(str::to_owned);
    }

    /// Whether containers write logs.
    pub(crate) fn set_logs(&self, on: bool) {
        self.state.lock().logs = on;
    }

    /// Images whose names begin so can be pulled by `user:password` only.
    pub(crate) fn set_login(&self, prefix: &str, login: &str) {
        let mut state = self.state.lock();
        state.logins.insert(prefix.into(), login.into());
    }

    /// The images asked for, each with `user:password` or `-`.
    pub(crate) fn pulls(&self) -> Vec<String> {
        self.state.lock().pulls.clone()
    }

    pub(crate) fn set_sandbox_error(&self, error: Option<&str>) {
        self.state.lock().sandbox_error = error.map(str::to_owned);
    }

    /// What a group that is no pod's was limited to last.
    pub(crate) fn group(&self, path: &str) -> Option<Limits> {
        self.state.lock().groups.get(path).cloned()
    }

    pub(crate) fn forget_groups(&self) {
        self.state.lock().groups.clear();
    }

    /// Has a group refuse its limits.
    pub(crate) fn set_stubborn(&self, path: &str, why: &str) {
        let mut state = self.state.lock();
        state.stubborn.insert(path.into(), why.into());
    }

    /// The running container of a name.
    pub(crate) fn running(&self, name: &str) -> Option<ContainerStatus> {
        let state = self.state.lock();
        let mut all = state.containers.values();
        all.find(|c| c.config.name == name && c.state == ContainerState::Running)
            .cloned()
    }

    /// The running container of a pod.
    pub(crate) fn running_of(&self, pod: &str) -> Option<ContainerStatus> {
        let state = self.state.lock();
        let mut all = state.containers.values();
        let of_pod = |c: &&ContainerStatus| {
            c.config.labels["io.kubernetes.pod.name"] == pod && c.state == ContainerState::Running
        };
        all.find(of_pod).cloned()
    }

    pub(crate) fn sandbox_of(&self, container: &ContainerStatus) -> PodSandboxStatus {
        self.state.lock().sandboxes[&container.sandbox_id].clone()
    }

    pub(crate) fn container_count(&self) -> usize {
        self.state.lock().containers.len()
    }

    pub(crate) fn sandbox_count(&self) -> usize {
        self.state.lock().sandboxes.len()
    }

    /// Ends a running container from inside.
    pub(crate) fn end(&self, id: &str, code: i32) {
        let mut state = self.state.lock();
        let now = state.now();
        let status = state.containers.get_mut(id).unwrap();
        status.state = ContainerState::Exited;
        status.exit_code = code;
        status.finished_at = now;
        status.reason = if code == 0 { "Completed" } else { "Error" }.into();
        let status = status.clone();
        tell(&mut state, &status, ContainerEventKind::Stopped);
    }
}

fn tell(state: &mut State, status: &ContainerStatus, kind: ContainerEventKind) {
    let event = ContainerEvent {
        sandbox_id: status.sandbox_id.clone(),
        container_id: status.id.clone(),
        pod_uid: status.config.labels["io.kubernetes.pod.uid"].clone(),
        kind,
    };
    state
        .listeners
        .retain(|listener| listener.try_send(event.clone()).is_ok());
}

#[async_trait]
impl RuntimeService for FakeRuntime {
    fn version(&self) -> (String, String) {
        ("sampan".into(), "0.1.0".into())
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<String, RuntimeError> {
        let mut state = self.state.lock();
        if let Some(error) = state.sandbox_error.clone() {
            return Err(RuntimeError::Internal(error));
        }
        let handler = &config.runtime_handler;
        if !["", "sampan"].contains(&handler.as_str()) {
            let message = format!("no runtime for {handler:?} is configured");
            return Err(RuntimeError::InvalidArgument(message));
        }
        state.next += 1;
        let id = format!("s{}", state.next);
        state.calls.push(format!("run {}", config.name));
        let ip = std::net::Ipv4Addr::new(10, 42, 0, u8::try_from(state.next).unwrap());
        let status = PodSandboxStatus {
            id: id.clone(),
            ips: match config.namespaces.network {
                NamespaceMode::Node => Vec::new(),
                _ => vec![ip.into()],
            },
            config,
            state: SandboxState::Ready,
            created_at: state.now(),
        };
        state.sandboxes.insert(id.clone(), status);
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        state.calls.push("stop sandbox".into());
        if let Some(sandbox) = state.sandboxes.get_mut(id) {
            sandbox.state = SandboxState::NotReady;
        }
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        state.calls.push("remove sandbox".into());
        state.sandboxes.remove(id);
        state.containers.retain(|_, c| c.sandbox_id != id);
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus, RuntimeError> {
        self.state
            .lock()
            .sandboxes
            .get(id)
            .cloned()
            .ok_or_else(|| missing(id))
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<PodSandboxStatus>, RuntimeError> {
        Ok(self.state.lock().sandboxes.values().cloned().collect())
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
    ) -> Result<String, RuntimeError> {
        let mut state = self.state.lock();
        state.next += 1;
        let id = format!("c{}", state.next);
        state.calls.push(format!("create {}", config.name));
        let log_directory = state.sandboxes[sandbox_id].config.log_directory.clone();
        let status = ContainerStatus {
            id: id.clone(),
            sandbox_id: sandbox_id.into(),
            state: ContainerState::Created,
            created_at: state.now(),
            started_at: 0,
            finished_at: 0,
            exit_code: 0,
            image_id: config.image.clone(),
            reason: String::new(),
            message: String::new(),
            log_path: log_directory.join(&config.log_path),
            pid: 0,
            user: None,
            stop_signal: 15,
            config,
        };
        state.containers.insert(id.clone(), status);
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        let status = state.containers.get(id).ok_or_else(|| missing(id))?;
        let name = status.config.name.clone();
        state.calls.push(format!("start {name}"));
        let (ends, logs) = (state.ends.get(&name).copied(), state.logs);
        let now = state.now();
        let status = state.containers.get_mut(id).unwrap();
        if logs {
            std::fs::create_dir_all(status.log_path.parent().unwrap()).unwrap();
            std::fs::write(&status.log_path, "said\n").unwrap();
        }
        status.state = ContainerState::Running;
        status.started_at = now;
        status.pid = 4242;
        if let Some(code) = ends {
            status.state = ContainerState::Exited;
            status.finished_at = now;
            status.exit_code = code;
        }
        let status = status.clone();
        let kind = match ends {
            Some(_) => ContainerEventKind::Stopped,
            None => ContainerEventKind::Started,
        };
        tell(&mut state, &status, kind);
        Ok(())
    }

    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<(), RuntimeError> {
        let running = {
            let mut state = self.state.lock();
            let status = state
                .containers
                .get(id)
                .cloned()
                .ok_or_else(|| missing(id))?;
            let seconds = timeout.as_secs_f64().round();
            state
                .calls
                .push(format!("stop {} {seconds}", status.config.name));
            status.state != ContainerState::Exited
        };
        if running {
            self.end(id, 143);
        }
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        if let Some(status) = state.containers.remove(id) {
            state.calls.push(format!("remove {}", status.config.name));
        }
        Ok(())
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError> {
        self.state
            .lock()
            .containers
            .get(id)
            .cloned()
            .ok_or_else(|| missing(id))
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        Ok(self.state.lock().containers.values().cloned().collect())
    }

    async fn update_container_resources(
        &self,
        id: &str,
        resources: LinuxResources,
    ) -> Result<(), RuntimeError> {
        let mut state = self.state.lock();
        let status = state.containers.get_mut(id).ok_or_else(|| missing(id))?;
        status.config.resources = resources.clone();
        let call = format!(
            "limit {} shares {} memory {}",
            status.config.name, resources.cpu_shares, resources.memory_limit_bytes
        );
        state.calls.push(call);
        Ok(())
    }

    async fn reopen_container_log(&self, id: &str) -> Result<(), RuntimeError> {
        self.state.lock().calls.push(format!("reopen {id}"));
        Ok(())
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        _: Option<Duration>,
    ) -> Result<ExecResult, RuntimeError> {
        let mut state = self.state.lock();
        let name = state
            .containers
            .get(id)
            .ok_or_else(|| missing(id))?
            .config
            .name
            .clone();
        state
            .calls
            .push(format!("exec {name} {}", command.join(" ")));
        let exit_code = state.exec.get(&command[0]).copied().unwrap_or(0);
        Ok(ExecResult {
            exit_code,
            stdout: b"out".to_vec(),
            stderr: Vec::new(),
        })
    }

    async fn exec(&self, request: ExecRequest) -> Result<ExecSession, RuntimeError> {
        let (stdin, mut from_client) = tokio::io::duplex(4096);
        let (stdout, mut to_client) = tokio::io::duplex(4096);
        let (exit, exited) = tokio::sync::oneshot::channel();
        let command = request.command.clone();
        tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            to_client
                .write_all(format!("ran {}\n", command.join(" ")).as_bytes())
                .await
                .ok();
            if request.stdin {
                tokio::io::copy(&mut from_client, &mut to_client).await.ok();
            }
            drop(to_client);
            drop(exit.send(Ok(if command[0] == "false" { 1 } else { 0 })));
        });
        Ok(ExecSession {
            stdin: request.stdin.then(|| Box::new(stdin) as Writer),
            stdout: request.stdout.then(|| Box::new(stdout) as Reader),
            stderr: None,
            resize: None,
            exit: exited,
        })
    }

    async fn attach(&self, request: ExecRequest) -> Result<ExecSession, RuntimeError> {
        self.exec(request).await
    }

    async fn port_forward(&self, _: &str, _: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
        let (near, far) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(far);
            tokio::io::copy(&mut reader, &mut writer).await.ok();
        });
        Ok(Box::new(near))
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats, RuntimeError> {
        Err(missing(id))
    }

    async fn list_container_stats(&self) -> Result<Vec<ContainerStats>, RuntimeError> {
        let state = self.state.lock();
        let now = state.now();
        let running = state.containers.values();
        let running = running.filter(|one| one.state == ContainerState::Running);
        let stats = |one: &ContainerStatus| ContainerStats {
            id: one.id.clone(),
            name: one.config.name.clone(),
            pod_uid: one.config.labels["io.kubernetes.pod.uid"].clone(),
            timestamp: now,
            cpu_usage_core_nanos: 1_500_000_000,
            memory_usage_bytes: 8_192,
            memory_working_set_bytes: 4_096,
            process_count: 2,
            pressure: ["cpu", "io"].map(waits).into(),
            ..ContainerStats::default()
        };
        Ok(running.map(stats).collect())
    }

    async fn container_figures(&self, _: &str) -> Result<ContainerFigures, RuntimeError> {
        Ok(ContainerFigures {
            out_of_memory_kills: 3,
            ..ContainerFigures::default()
        })
    }

    async fn writable_layer(&self, _id: &str) -> Result<FilesystemUsage, RuntimeError> {
        Ok(FilesystemUsage {
            mountpoint: "/".into(),
            used_bytes: 4711,
            inodes_used: 7,
        })
    }

    async fn pod_sandbox_stats(&self, id: &str) -> Result<PodSandboxStats, RuntimeError> {
        let receive = TrafficStats {
            bytes: 77,
            ..TrafficStats::default()
        };
        Ok(PodSandboxStats {
            total: ContainerStats {
                id: id.to_owned(),
                timestamp: self.state.lock().now(),
                cpu_usage_core_nanos: 2_500_000_000,
                ..ContainerStats::default()
            },
            interfaces: vec![InterfaceStats {
                name: "eth0".into(),
                receive,
                ..InterfaceStats::default()
            }],
        })
    }

    async fn update_pod_sandbox_resources(
        &self,
        _: &str,
        resources: LinuxResources,
    ) -> Result<(), RuntimeError> {
        let call = format!(
            "limit pod shares {} memory {}",
            resources.cpu_shares, resources.memory_limit_bytes
        );
        self.state.lock().calls.push(call);
        Ok(())
    }

    fn events(&self) -> mpsc::Receiver<ContainerEvent> {
        let (sender, receiver) = mpsc::channel(256);
        self.state.lock().listeners.push(sender);
        receiver
    }

    async fn status(&self) -> RuntimeStatus {
        RuntimeStatus::default()
    }
}

#[async_trait]
impl kubelet::Cgroups for FakeRuntime {
    async fn limit_pods(&self, path: &str, limits: &Limits) -> Result<(), String> {
        let mut state = self.state.lock();
        if let Some(why) = state.stubborn.get(path) {
            return Err(why.clone());
        }
        state.groups.insert(path.to_owned(), limits.clone());
        Ok(())
    }

    async fn memory_of_pods(&self, _: &str) -> Result<i64, String> {
        Ok(3 << 30)
    }

    async fn limit_reserved(&self, path: &str, limits: &Limits) -> Result<(), String> {
        self.limit_pods(path, limits).await
    }
}

#[async_trait]
impl ImageService for FakeRuntime {
    async fn list_images(&self) -> Result<Vec<Image>, RuntimeError> {
        Ok(self.state.lock().images.values().cloned().collect())
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>, RuntimeError> {
        let state = self.state.lock();
        let found = state
            .images
            .values()
            .find(|i| i.id == image || i.repo_tags.contains(&image.into()));
        Ok(found.cloned())
    }

    async fn pull_image(
        &self,
        image: &str,
        auth: Option<AuthConfig>,
    ) -> Result<String, RuntimeError> {
        let who = auth.map(|auth| format!("{}:{}", auth.username, auth.password));
        let who = who.unwrap_or("-".into());
        {
            let mut state = self.state.lock();
            state.calls.push(format!("pull {image}"));
            state.pulls.push(format!("{image} {who}"));
            if let Some(error) = state.pull_error.clone() {
                return Err(RuntimeError::Unavailable(error));
            }
            let mut logins = state.logins.iter();
            if logins.any(|(prefix, login)| image.starts_with(prefix) && *login != who) {
                return Err(RuntimeError::Unavailable(format!(
                    "{who} may not pull {image}"
                )));
            }
        }
        self.add_image(image);
        Ok(format!("sha256:{image}"))
    }

    async fn remove_image(&self, image: &str) -> Result<(), RuntimeError> {
        self.state.lock().images.retain(|_, i| i.id != image);
        Ok(())
    }

    async fn image_details(&self, image: &str) -> Result<String, RuntimeError> {
        Err(missing(image))
    }

    async fn image_fs_bytes(&self) -> Result<u64, RuntimeError> {
        Ok(0)
    }

    async fn image_fs_info(&self) -> Result<(FilesystemUsage, FilesystemUsage), RuntimeError> {
        let images = FilesystemUsage {
            mountpoint: "/".into(),
            ..FilesystemUsage::default()
        };
        Ok((images, FilesystemUsage::default()))
    }
}
