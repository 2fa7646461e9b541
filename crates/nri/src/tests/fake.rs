//! An engine that keeps what it is told in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::runtime::{Extras, Gate, Outline};
use async_trait::async_trait;
use node_api::*;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::Engine;

#[derive(Default)]
pub(super) struct Fake {
    pub(super) pods: Mutex<BTreeMap<String, PodSandboxStatus>>,
    pub(super) containers: Mutex<BTreeMap<String, ContainerStatus>>,
    /// What the last container was made with.
    pub(super) extras: Mutex<Extras>,
    pub(super) listeners: Listeners,
    ids: Mutex<u32>,
}

fn none<T>(id: &str) -> Result<T, RuntimeError> {
    Err(RuntimeError::NotFound(format!("{id} not found")))
}

impl Fake {
    fn id(&self, kind: &str) -> String {
        let mut ids = self.ids.lock();
        *ids += 1;
        format!("{kind}{ids}")
    }

    fn sandbox(&self, config: PodSandboxConfig) -> PodSandboxStatus {
        PodSandboxStatus {
            id: self.id("pod"),
            config,
            state: SandboxState::Ready,
            created_at: 1,
            ips: Vec::new(),
        }
    }

    /// A container ends by itself.
    pub(super) fn end(&self, id: &str) {
        let mut containers = self.containers.lock();
        let container = containers.get_mut(id).unwrap();
        if container.state == ContainerState::Running {
            container.state = ContainerState::Exited;
            self.tell(id, &container.sandbox_id, ContainerEventKind::Stopped);
        }
    }

    fn tell(&self, id: &str, sandbox: &str, kind: ContainerEventKind) {
        self.listeners.tell(&ContainerEvent {
            sandbox_id: sandbox.to_owned(),
            container_id: id.to_owned(),
            pod_uid: String::new(),
            kind,
        });
    }
}

#[async_trait]
impl Engine for Fake {
    async fn run_gated(
        &self,
        config: PodSandboxConfig,
        gate: Arc<dyn Gate>,
    ) -> Result<String, RuntimeError> {
        let pod = self.sandbox(config);
        gate.pass(&pod, 77).await?;
        let id = pod.id.clone();
        self.pods.lock().insert(id.clone(), pod);
        Ok(id)
    }

    async fn draft(
        &self,
        _: &str,
        config: &ContainerConfig,
    ) -> Result<(String, Outline), RuntimeError> {
        let outline = Outline {
            args: config.command.clone(),
            env: vec!["PATH=/bin".to_owned()],
            ..Outline::default()
        };
        Ok((self.id("container"), outline))
    }

    async fn create_with(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
        extras: Extras,
    ) -> Result<String, RuntimeError> {
        let id = extras.id.clone().unwrap_or_else(|| self.id("container"));
        *self.extras.lock() = extras;
        let container = ContainerStatus {
            id: id.clone(),
            sandbox_id: sandbox_id.to_owned(),
            config,
            state: ContainerState::Created,
            created_at: 2,
            started_at: 0,
            finished_at: 0,
            exit_code: 0,
            image_id: "sha256:1".to_owned(),
            reason: String::new(),
            message: String::new(),
            log_path: "/log".into(),
            pid: 0,
            user: None,
            stop_signal: 15,
        };
        self.containers.lock().insert(id.clone(), container);
        Ok(id)
    }

    async fn outline(&self, _: &str) -> Result<Outline, RuntimeError> {
        Ok(Outline::default())
    }

    fn sandbox_pid(&self, _: &str) -> i32 {
        77
    }

    fn is_stopped(&self, id: &str) -> bool {
        let pods = self.pods.lock();
        (pods.get(id)).is_some_and(|pod| pod.state == SandboxState::NotReady)
    }
}

#[async_trait]
impl RuntimeService for Fake {
    fn version(&self) -> (String, String) {
        ("fake".to_owned(), "1".to_owned())
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<String, RuntimeError> {
        let pod = self.sandbox(config);
        let id = pod.id.clone();
        self.pods.lock().insert(id.clone(), pod);
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        if let Some(pod) = self.pods.lock().get_mut(id) {
            pod.state = SandboxState::NotReady;
        }
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        self.containers.lock().retain(|_, one| one.sandbox_id != id);
        self.pods.lock().remove(id);
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus, RuntimeError> {
        let found = self.pods.lock().get(id).cloned();
        found.map_or_else(|| none(id), Ok)
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<PodSandboxStatus>, RuntimeError> {
        Ok(self.pods.lock().values().cloned().collect())
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
    ) -> Result<String, RuntimeError> {
        self.create_with(sandbox_id, config, Extras::default())
            .await
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        match self.containers.lock().get_mut(id) {
            Some(container) => container.state = ContainerState::Running,
            None => return none(id),
        }
        Ok(())
    }

    async fn stop_container(&self, id: &str, _: Duration) -> Result<(), RuntimeError> {
        if self.containers.lock().contains_key(id) {
            self.end(id);
        }
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        self.containers.lock().remove(id);
        Ok(())
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError> {
        let found = self.containers.lock().get(id).cloned();
        found.map_or_else(|| none(id), Ok)
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        Ok(self.containers.lock().values().cloned().collect())
    }

    async fn update_container_resources(
        &self,
        id: &str,
        resources: LinuxResources,
    ) -> Result<(), RuntimeError> {
        match self.containers.lock().get_mut(id) {
            Some(one) if one.state == ContainerState::Exited => {
                return Err(RuntimeError::FailedPrecondition("it has ended".to_owned()));
            }
            Some(container) => container.config.resources = resources,
            None => return none(id),
        }
        Ok(())
    }

    async fn update_pod_sandbox_resources(
        &self,
        _: &str,
        _: LinuxResources,
    ) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn reopen_container_log(&self, id: &str) -> Result<(), RuntimeError> {
        none(id)
    }

    async fn exec_sync(
        &self,
        id: &str,
        _: Vec<String>,
        _: Option<Duration>,
    ) -> Result<ExecResult, RuntimeError> {
        none(id)
    }

    async fn exec(&self, request: ExecRequest) -> Result<ExecSession, RuntimeError> {
        none(&request.container_id)
    }

    async fn attach(&self, request: ExecRequest) -> Result<ExecSession, RuntimeError> {
        none(&request.container_id)
    }

    async fn port_forward(&self, id: &str, _: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
        none(id)
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats, RuntimeError> {
        none(id)
    }

    async fn list_container_stats(&self) -> Result<Vec<ContainerStats>, RuntimeError> {
        Ok(Vec::new())
    }

    async fn container_figures(&self, id: &str) -> Result<ContainerFigures, RuntimeError> {
        none(id)
    }

    async fn writable_layer(&self, id: &str) -> Result<FilesystemUsage, RuntimeError> {
        none(id)
    }

    async fn pod_sandbox_stats(&self, id: &str) -> Result<PodSandboxStats, RuntimeError> {
        none(id)
    }

    fn events(&self) -> mpsc::Receiver<ContainerEvent> {
        self.listeners.add()
    }

    async fn status(&self) -> RuntimeStatus {
        RuntimeStatus::default()
    }
}
