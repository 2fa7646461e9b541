//! A runtime with one sandbox and one container, to be asked about.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use node_api::*;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc};

pub(super) const SANDBOX: &str = "5a";
pub(super) const CONTAINER: &str = "c0";

/// Remembers who wants events.
#[derive(Default)]
pub(super) struct Fake {
    pub(super) listeners: parking_lot::Mutex<Vec<mpsc::Sender<ContainerEvent>>>,
    /// Somebody wants events.
    pub(super) listened: Notify,
    /// What sandboxes and containers were to be made.
    pub(super) made: parking_lot::Mutex<(PodSandboxConfig, ContainerConfig)>,
    /// A pull that never ends has begun, and was given up.
    pub(super) pulls: Arc<(Notify, Notify)>,
}

struct GivenUp(Arc<(Notify, Notify)>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.1.notify_one();
    }
}

fn none<T>(id: &str) -> Result<T, RuntimeError> {
    Err(RuntimeError::NotFound(format!("{id} not found")))
}

fn sandbox() -> PodSandboxStatus {
    PodSandboxStatus {
        id: SANDBOX.to_owned(),
        config: PodSandboxConfig {
            name: "pod".to_owned(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            ..PodSandboxConfig::default()
        },
        state: SandboxState::Ready,
        created_at: 1,
        ips: vec!["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()],
    }
}

fn container() -> ContainerStatus {
    ContainerStatus {
        id: CONTAINER.to_owned(),
        sandbox_id: SANDBOX.to_owned(),
        config: ContainerConfig::default(),
        state: ContainerState::Running,
        created_at: 2,
        started_at: 3,
        finished_at: 0,
        exit_code: 0,
        image_id: "sha256:1".to_owned(),
        reason: String::new(),
        message: String::new(),
        log_path: "/log".into(),
        pid: 1,
        user: None,
        stop_signal: 15,
    }
}

#[async_trait]
impl RuntimeService for Fake {
    fn version(&self) -> (String, String) {
        ("fake".to_owned(), "1".to_owned())
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<String, RuntimeError> {
        let id = format!("made {}", config.name);
        self.made.lock().0 = config;
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, _: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn remove_pod_sandbox(&self, _: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus, RuntimeError> {
        match id {
            SANDBOX => Ok(sandbox()),
            id => none(id),
        }
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<PodSandboxStatus>, RuntimeError> {
        Ok(vec![sandbox()])
    }

    async fn create_container(
        &self,
        _: &str,
        config: ContainerConfig,
    ) -> Result<String, RuntimeError> {
        let id = format!("made {} of {}", config.name, config.image);
        self.made.lock().1 = config;
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        none(id)
    }

    async fn stop_container(&self, _: &str, _: Duration) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn remove_container(&self, _: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError> {
        match id {
            CONTAINER => Ok(container()),
            id => none(id),
        }
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        Ok(vec![container()])
    }

    async fn update_container_resources(
        &self,
        _: &str,
        _: LinuxResources,
    ) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn update_pod_sandbox_resources(
        &self,
        _: &str,
        _: LinuxResources,
    ) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn reopen_container_log(&self, _: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn exec_sync(
        &self,
        _: &str,
        command: Vec<String>,
        _: Option<Duration>,
    ) -> Result<ExecResult, RuntimeError> {
        Ok(ExecResult {
            exit_code: 3,
            stdout: command.join(" ").into_bytes(),
            stderr: Vec::new(),
        })
    }

    /// Echoes its input, complains, and ends with 7.
    async fn exec(&self, request: ExecRequest) -> Result<ExecSession, RuntimeError> {
        if request.container_id != CONTAINER {
            return none(&request.container_id);
        }
        let (stdin, mut input) = tokio::io::duplex(64);
        let (stdout, mut output) = tokio::io::duplex(64);
        let (resize, mut sizes) = mpsc::channel::<TerminalSize>(1);
        let (told, exit) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            if let Some(size) = sizes.recv().await {
                let line = format!("{}x{}:", size.width, size.height);
                output.write_all(line.as_bytes()).await.unwrap();
            }
            tokio::io::copy(&mut input, &mut output).await.unwrap();
            told.send(Ok(7))
        });
        Ok(ExecSession {
            stdin: request.stdin.then(|| Box::new(stdin) as Writer),
            stdout: Some(Box::new(stdout)),
            stderr: request.stderr.then(|| Box::new(&b"no"[..]) as Reader),
            resize: request.tty.then_some(resize),
            exit,
        })
    }

    async fn attach(&self, request: ExecRequest) -> Result<ExecSession, RuntimeError> {
        none(&request.container_id)
    }

    /// One port echoes.
    async fn port_forward(&self, id: &str, port: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
        if (id, port) != (SANDBOX, 80) {
            return none(id);
        }
        let (ours, theirs) = tokio::io::duplex(64);
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(theirs);
            tokio::io::copy(&mut reader, &mut writer).await
        });
        Ok(Box::new(ours))
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats, RuntimeError> {
        Ok(ContainerStats {
            id: id.to_owned(),
            cpu_usage_core_nanos: 7,
            pressure: vec![Pressure {
                resource: "io",
                some: Waits {
                    total_micros: 9,
                    averages: [150, 25, 0],
                },
                full: Waits::default(),
            }],
            ..ContainerStats::default()
        })
    }

    async fn list_container_stats(&self) -> Result<Vec<ContainerStats>, RuntimeError> {
        Ok(Vec::new())
    }

    async fn container_figures(&self, _: &str) -> Result<ContainerFigures, RuntimeError> {
        Ok(ContainerFigures::default())
    }

    async fn writable_layer(&self, _: &str) -> Result<FilesystemUsage, RuntimeError> {
        Ok(FilesystemUsage {
            mountpoint: "/".into(),
            ..FilesystemUsage::default()
        })
    }

    async fn pod_sandbox_stats(&self, _: &str) -> Result<PodSandboxStats, RuntimeError> {
        Ok(PodSandboxStats::default())
    }

    fn events(&self) -> mpsc::Receiver<ContainerEvent> {
        let (sender, receiver) = mpsc::channel(8);
        self.listeners.lock().push(sender);
        self.listened.notify_one();
        receiver
    }

    async fn status(&self) -> RuntimeStatus {
        RuntimeStatus {
            not_ready: Some("no network yet".to_owned()),
            handlers: vec![RuntimeHandler::default()],
            ..RuntimeStatus::default()
        }
    }
}

#[async_trait]
impl ImageService for Fake {
    async fn list_images(&self) -> Result<Vec<Image>, RuntimeError> {
        Ok(vec![Image::default()])
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>, RuntimeError> {
        let known = Image {
            id: "sha256:1".to_owned(),
            repo_digests: vec!["web@sha256:2".to_owned()],
            ..Image::default()
        };
        Ok((image == "web" || image == "sha256:1").then_some(known))
    }

    async fn pull_image(&self, _: &str, _: Option<AuthConfig>) -> Result<String, RuntimeError> {
        let _end = GivenUp(Arc::clone(&self.pulls));
        self.pulls.0.notify_one();
        std::future::pending().await
    }

    async fn remove_image(&self, _: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn image_details(&self, _: &str) -> Result<String, RuntimeError> {
        Ok("{}".to_owned())
    }

    async fn image_fs_bytes(&self) -> Result<u64, RuntimeError> {
        Ok(0)
    }

    async fn image_fs_info(&self) -> Result<(FilesystemUsage, FilesystemUsage), RuntimeError> {
        Ok(Default::default())
    }
}
