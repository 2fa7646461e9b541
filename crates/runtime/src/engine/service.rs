//! CRI's `RuntimeService`, verb by verb.

use std::time::Duration;

use async_trait::async_trait;
use node_api::{
    CgroupDriver, ContainerConfig, ContainerEvent, ContainerFigures, ContainerStats,
    ContainerStatus, Duplex, ExecRequest, ExecResult, ExecSession, FilesystemUsage, LinuxResources,
    PodSandboxConfig, PodSandboxStats, PodSandboxStatus, RuntimeError, RuntimeHandler,
    RuntimeService, RuntimeStatus,
};
use tokio::sync::mpsc;

use super::{Engine, translate};

#[async_trait]
impl RuntimeService for Engine {
    fn version(&self) -> (String, String) {
        ("sampan".to_owned(), env!("CARGO_PKG_VERSION").to_owned())
    }

    fn cgroup_driver(&self) -> CgroupDriver {
        self.config.cgroup_driver
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<String, RuntimeError> {
        self.run_sandbox(config, super::SandboxExtras::default())
            .await
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        self.stop_sandbox(id).await
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        self.remove_sandbox(id).await
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus, RuntimeError> {
        Ok(self.pod(id)?.status())
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<PodSandboxStatus>, RuntimeError> {
        Ok(self.pods.read().values().map(|pod| pod.status()).collect())
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
    ) -> Result<String, RuntimeError> {
        self.create(sandbox_id, config, super::Extras::default())
            .await
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        self.start(id).await
    }

    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<(), RuntimeError> {
        self.stop(id, timeout).await
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        self.remove_entry(id).await
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError> {
        Ok(self.entry(id)?.status())
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        Ok(self
            .containers
            .read()
            .values()
            .map(|entry| entry.status())
            .collect())
    }

    async fn update_container_resources(
        &self,
        id: &str,
        resources: LinuxResources,
    ) -> Result<(), RuntimeError> {
        self.update(id, resources, None).await
    }

    async fn update_pod_sandbox_resources(
        &self,
        id: &str,
        resources: LinuxResources,
    ) -> Result<(), RuntimeError> {
        self.update_sandbox(id, resources).await
    }

    async fn reopen_container_log(&self, id: &str) -> Result<(), RuntimeError> {
        self.reopen_log(id).await
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<ExecResult, RuntimeError> {
        self.run_to_end(id, command, timeout).await
    }

    async fn exec(&self, request: ExecRequest) -> Result<ExecSession, RuntimeError> {
        self.open_exec(request, Default::default()).await
    }

    async fn attach(&self, request: ExecRequest) -> Result<ExecSession, RuntimeError> {
        self.open_attach(request, false).await
    }

    async fn port_forward(
        &self,
        sandbox_id: &str,
        port: u16,
    ) -> Result<Box<dyn Duplex>, RuntimeError> {
        self.forward(sandbox_id, port).await
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats, RuntimeError> {
        self.stats_of(id)
    }

    async fn list_container_stats(&self) -> Result<Vec<ContainerStats>, RuntimeError> {
        self.all_stats()
    }

    async fn container_figures(&self, id: &str) -> Result<ContainerFigures, RuntimeError> {
        self.figures(id).await
    }

    async fn writable_layer(&self, id: &str) -> Result<FilesystemUsage, RuntimeError> {
        self.written(id).await
    }

    async fn pod_sandbox_stats(&self, id: &str) -> Result<PodSandboxStats, RuntimeError> {
        self.pod_stats(id).await
    }

    fn events(&self) -> mpsc::Receiver<ContainerEvent> {
        self.listeners.add()
    }

    async fn status(&self) -> RuntimeStatus {
        let state = &self.config.state;
        let not_ready =
            (!state.is_dir()).then(|| format!("state folder {} is gone", state.display()));
        let handlers = translate::HANDLERS.map(|name| RuntimeHandler {
            name: name.to_owned(),
            recursive_read_only_mounts: true,
            user_namespaces: true,
        });
        RuntimeStatus {
            not_ready,
            handlers: handlers.into(),
            supplemental_groups_policy: true,
            user_namespaces_host_network: true,
        }
    }
}
