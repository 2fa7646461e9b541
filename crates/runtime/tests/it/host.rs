//! What every test stands on: an engine in a temporary folder, an image with
//! one static program, and a pod network that does nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use node_api::{
    ContainerConfig, ContainerState, ContainerStatus, NamespaceMode, NamespaceOptions, PodNetwork,
    PodNetworkConfig, PodNetworkResult, PodSandboxConfig, RuntimeError, RuntimeService,
    SecurityContext,
};
use runtime::Engine;

/// A pod network without a network.
struct NoNetwork;

#[async_trait]
impl PodNetwork for NoNetwork {
    async fn add(&self, config: &PodNetworkConfig) -> Result<PodNetworkResult, RuntimeError> {
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
        assert_ne!(
            std::fs::read_link(&config.netns).unwrap(),
            ours,
            "the pod has a network namespace of its own"
        );
        Ok(PodNetworkResult {
            ips: vec!["10.0.0.1".parse().unwrap()],
            host_interface: String::new(),
        })
    }

    async fn del(&self, _sandbox_id: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn gc(&self, _live_sandbox_ids: &[String]) -> Result<(), RuntimeError> {
        Ok(())
    }
}

/// An engine, its folders and its cgroups.
pub(crate) struct Host {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) cgroup_root: String,
    pub(crate) image: String,
    pub(crate) engine: Option<Arc<Engine>>,
    crew: base::Crew,
}

pub(crate) const BUSYBOX: &str = "/bin/busybox";

impl Host {
    /// A fresh engine; fails where containers cannot be tested.
    pub(crate) async fn new() -> Host {
        let able = nix::unistd::getuid().is_root() && Path::new(BUSYBOX).exists();
        assert!(
            able,
            "needs root and a static {BUSYBOX}, which `make setup-test` installs"
        );
        let folder = tempfile::tempdir().unwrap();
        let unique = folder
            .path()
            .file_name()
            .unwrap()
            .to_string_lossy()
            .replace('.', "");
        let mut host = Host {
            cgroup_root: format!("/sampan-test-{unique}"),
            folder,
            image: String::new(),
            engine: None,
            crew: base::Crew::new(),
        };
        host.open().await;
        let wishes = oci::BinaryImage {
            path: "/bin/busybox".to_owned(),
            links: [
                "sh", "sleep", "cat", "echo", "id", "env", "ls", "stty", "wc", "nc", "hostname",
                "ps", "kill", "dd", "tail", "mount", "touch", "mknod", "pwd", "grep", "chroot",
                "unshare", "tr",
            ]
            .map(|name| format!("/bin/{name}"))
            .to_vec(),
            entrypoint: vec!["/bin/sh".to_owned()],
            ..Default::default()
        };
        let store = host.engine().images().clone();
        let image =
            oci::image_from_binary(&store, Path::new(BUSYBOX), "test/busybox", &wishes).unwrap();
        host.image = image.id.to_string();
        host
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        self.engine.as_ref().unwrap()
    }

    pub(crate) fn config(&self) -> runtime::Config {
        runtime::Config {
            supervisor_exe: PathBuf::from(env!("CARGO_BIN_EXE_supervise")),
            ..runtime::Config::below(self.folder.path(), &self.cgroup_root)
        }
    }

    pub(crate) async fn open(&mut self) {
        self.reopen_with(Host::config).await;
    }

    pub(crate) async fn reopen_with(&mut self, config: impl Fn(&Host) -> runtime::Config) {
        self.crew = base::Crew::new();
        let engine = runtime::open(config(self), Arc::new(NoNetwork), &self.crew)
            .await
            .unwrap();
        self.engine = Some(engine);
    }

    /// As if the server were killed: every task and the engine are gone.
    pub(crate) async fn lose_engine(&mut self) {
        self.crew.stop().raise();
        self.crew.finished().await.unwrap();
        self.engine = None;
    }

    pub(crate) async fn pod(&self) -> String {
        self.engine()
            .run_pod_sandbox(self.pod_config())
            .await
            .unwrap()
    }

    pub(crate) fn pod_config(&self) -> PodSandboxConfig {
        PodSandboxConfig {
            name: "pod".to_owned(),
            uid: "uid-1".to_owned(),
            namespace: "default".to_owned(),
            hostname: "podhost".to_owned(),
            log_directory: self.folder.path().join("logs"),
            cgroup_parent: "/kubepods/pod1".to_owned(),
            namespaces: own_pids(),
            ..Default::default()
        }
    }

    pub(crate) fn shell(&self, script: &str) -> ContainerConfig {
        ContainerConfig {
            name: "c".to_owned(),
            image: self.image.clone(),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            log_path: "c/0.log".into(),
            security: SecurityContext {
                namespaces: own_pids(),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    /// Creates and starts.
    pub(crate) async fn start(&self, pod: &str, config: ContainerConfig) -> String {
        let id = self.engine().create_container(pod, config).await.unwrap();
        self.engine().start_container(&id).await.unwrap();
        id
    }

    pub(crate) async fn ended(&self, id: &str) -> ContainerStatus {
        let mut events = self.engine().events();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let status = self.engine().container_status(id).await.unwrap();
            if status.state == ContainerState::Exited {
                return status;
            }
            tokio::time::timeout_at(deadline, events.recv())
                .await
                .expect("container ends in time");
        }
    }

    /// Runs a script in a pod of its own; its end and its log without times.
    pub(crate) async fn run(&self, script: &str) -> (ContainerStatus, String) {
        self.run_config(self.shell(script)).await
    }

    pub(crate) async fn run_config(&self, config: ContainerConfig) -> (ContainerStatus, String) {
        let pod = self.pod().await;
        let id = self.start(&pod, config).await;
        let status = self.ended(&id).await;
        let log = log_of(&status.log_path);
        self.engine().remove_pod_sandbox(&pod).await.unwrap();
        std::fs::remove_file(&status.log_path).unwrap();
        (status, log)
    }

    /// Stops all and checks that nothing stays behind.
    pub(crate) async fn close(mut self) {
        for pod in self.engine().list_pod_sandboxes().await.unwrap() {
            self.engine().remove_pod_sandbox(&pod.id).await.unwrap();
        }
        self.lose_engine().await;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let folder = self.folder.path().to_str().unwrap();
        assert!(!mounts.contains(folder), "no mount stays behind");
        let groups = linux::cgroup::Hierarchies::of_this_machine().unwrap();
        let root = groups.group(&self.cgroup_root).unwrap();
        assert!(root.processes().is_empty());
        root.remove().unwrap();
    }
}

pub(crate) fn own_pids() -> NamespaceOptions {
    NamespaceOptions {
        pid: NamespaceMode::Container,
        ..Default::default()
    }
}

/// A test that fails leaves nothing behind either.
impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.crew.stop().raise();
            if let Err(error) = runtime::clean_up(&self.config()) {
                println!("{error}");
            }
        }
    }
}

/// `stdout F line` without the times, joined by line ends.
pub(crate) fn log_of(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.split_once(' ').unwrap().1)
        .collect();
    lines.join("\n")
}
