//! The engine as its users see it, with plugins in between.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::Crew;
use futures::future::join_all;
use node_api::{
    CgroupDriver, ContainerConfig, ContainerEvent, ContainerEventKind, ContainerFigures,
    ContainerState, ContainerStats, ContainerStatus, Duplex, ExecRequest, ExecResult, ExecSession,
    FilesystemUsage, LinuxResources, PodSandboxConfig, PodSandboxStats, PodSandboxStatus,
    RuntimeError, RuntimeService, RuntimeStatus,
};
use runtime::Gate;
use tokio::sync::mpsc;

use crate::apply;
use crate::describe;
use crate::engine::Engine;
use crate::plugins::Plugins;
use crate::wire::{self, Event};

/// An engine with plugins.
pub(crate) struct Plugged {
    engine: Arc<dyn Engine>,
    plugins: Arc<Plugins>,
}

impl Plugged {
    /// Begins to tell plugins of containers that end by themselves.
    pub(crate) fn start(plugins: Arc<Plugins>, crew: &Crew) -> Arc<Plugged> {
        let (followed, stop) = (Arc::clone(&plugins), crew.stop());
        let mut events = plugins.engine.events();
        crew.spawn("NRI events", async move {
            let follow = async {
                while let Some(event) = events.recv().await {
                    follow(&followed, event).await;
                }
            };
            tokio::select! {
                () = follow => {}
                () = stop.raised() => {}
            }
        });
        Arc::new(Plugged {
            engine: Arc::clone(&plugins.engine),
            plugins,
        })
    }

    /// Consults the plugins about a container, and makes it.
    async fn create_adjusted(
        &self,
        pod: &PodSandboxStatus,
        config: ContainerConfig,
    ) -> Result<String, RuntimeError> {
        let (id, outline) = self.engine.draft(&pod.id, &config).await?;
        let status = ContainerStatus {
            id: id.clone(),
            sandbox_id: pod.id.clone(),
            image_id: config.image.clone(),
            config,
            state: ContainerState::Created,
            created_at: 0,
            started_at: 0,
            finished_at: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            log_path: Default::default(),
            pid: 0,
            user: None,
            stop_signal: 0,
        };
        let told = describe::container(&status, &outline);
        let pod_told = describe::pod(pod, self.engine.sandbox_pid(&pod.id));
        let made = self.consult_and_make(&pod_told, &told, status.config).await;
        match &made {
            Ok(_) => {
                if let Some((pod, container)) = self.plugins.container(&id).await {
                    let event = Event::PostCreateContainer;
                    self.plugins.report(event, &pod, Some(&container)).await;
                }
            }
            Err(_) => {
                // Who has heard of it hears that it is gone.
                let plugins = &self.plugins;
                plugins.report_stop(pod_told.clone(), told.clone()).await;
                let event = Event::RemoveContainer;
                plugins.report(event, &pod_told, Some(&told)).await;
            }
        }
        made
    }

    async fn consult_and_make(
        &self,
        pod: &wire::PodSandbox,
        container: &wire::Container,
        mut config: ContainerConfig,
    ) -> Result<String, RuntimeError> {
        let wishes = self.plugins.create(pod, container).await?;
        let adjusted = apply::adjust(wishes.adjust, &mut config);
        let mut extras = adjusted.map_err(RuntimeError::InvalidArgument)?;
        extras.id = Some(container.id.clone());
        self.plugins.apply_some(wishes.updates).await;
        self.engine.create_with(&pod.id, config, extras).await
    }

    /// Ends what runs in a sandbox, and tells of it.
    async fn prepare_stop(&self, id: &str) -> Result<(), RuntimeError> {
        let Some(pod) = self.plugins.pod(id).await else {
            return Ok(());
        };
        if self.engine.is_stopped(id) {
            return Ok(());
        }
        let containers = self.containers_of(id).await?;
        let running = containers
            .iter()
            .filter(|c| c.state == ContainerState::Running);
        let stops = running.map(|c| self.engine.stop_container(&c.id, Duration::ZERO));
        join_all(stops)
            .await
            .into_iter()
            .collect::<Result<(), _>>()?;
        for container in containers {
            if container.state != ContainerState::Created {
                self.plugins.stopped(&container.id).await;
            }
        }
        let plugins = &self.plugins;
        let tell = || plugins.report(Event::StopPodSandbox, &pod, None);
        plugins.once(id, tell).await;
        Ok(())
    }

    async fn containers_of(&self, id: &str) -> Result<Vec<ContainerStatus>, RuntimeError> {
        let mut all = self.engine.list_containers().await?;
        all.retain(|container| container.sandbox_id == id);
        Ok(all)
    }

    async fn tell_of_removal(&self, id: &str) {
        self.plugins.stopped(id).await;
        if let Some((pod, container)) = self.plugins.container(id).await {
            let event = Event::RemoveContainer;
            self.plugins.report(event, &pod, Some(&container)).await;
        }
    }
}

/// Has plugins hear of a container's end.
async fn follow(plugins: &Plugins, event: ContainerEvent) {
    match event.kind {
        ContainerEventKind::Deleted => plugins.forget(&event.container_id),
        _ if !plugins.any() => {}
        ContainerEventKind::Stopped if event.container_id != event.sandbox_id => {
            let _door = plugins.hold_door().await;
            plugins.stopped(&event.container_id).await;
        }
        ContainerEventKind::Resync => {
            let _door = plugins.hold_door().await;
            let all = plugins
                .engine
                .list_containers()
                .await
                .unwrap_or_else(|error| {
                    tracing::warn!(%error, "ends of containers may be missed by NRI plugins");
                    Vec::new()
                });
            for container in all {
                if container.state == ContainerState::Exited {
                    plugins.stopped(&container.id).await;
                }
            }
        }
        _ => {}
    }
}

/// Lets plugins see a pod before anybody else does.
struct Doorway(Arc<Plugins>);

impl std::fmt::Debug for Doorway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Doorway")
    }
}

#[async_trait]
impl Gate for Doorway {
    async fn pass(&self, sandbox: &PodSandboxStatus, pid: i32) -> Result<(), RuntimeError> {
        let pod = describe::pod(sandbox, pid);
        let told = self.0.tell(Event::RunPodSandbox, &pod, None).await;
        if told.is_err() {
            self.0.report(Event::StopPodSandbox, &pod, None).await;
            self.0.report(Event::RemovePodSandbox, &pod, None).await;
        }
        told
    }
}

#[async_trait]
impl RuntimeService for Plugged {
    fn version(&self) -> (String, String) {
        self.engine.version()
    }

    fn cgroup_driver(&self) -> CgroupDriver {
        self.engine.cgroup_driver()
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<String, RuntimeError> {
        let _door = self.plugins.hold_door().await;
        match self.plugins.any() {
            true => {
                let gate = Arc::new(Doorway(Arc::clone(&self.plugins)));
                self.engine.run_gated(config, gate).await
            }
            false => self.engine.run_pod_sandbox(config).await,
        }
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        if self.plugins.any() {
            self.prepare_stop(id).await?;
        }
        self.engine.stop_pod_sandbox(id).await
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        if self.plugins.any()
            && let Some(pod) = self.plugins.pod(id).await
        {
            self.prepare_stop(id).await?;
            self.engine.stop_pod_sandbox(id).await?;
            for container in self.containers_of(id).await? {
                self.tell_of_removal(&container.id).await;
            }
            let event = Event::RemovePodSandbox;
            self.plugins.report(event, &pod, None).await;
        }
        self.engine.remove_pod_sandbox(id).await
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus, RuntimeError> {
        self.engine.pod_sandbox_status(id).await
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<PodSandboxStatus>, RuntimeError> {
        self.engine.list_pod_sandboxes().await
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
    ) -> Result<String, RuntimeError> {
        let _door = self.plugins.hold_door().await;
        if self.plugins.any() {
            let pod = self.engine.pod_sandbox_status(sandbox_id).await?;
            if self.plugins.shows(&pod) {
                return self.create_adjusted(&pod, config).await;
            }
        }
        self.engine.create_container(sandbox_id, config).await
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        if !self.plugins.any() {
            return self.engine.start_container(id).await;
        }
        if let Some((pod, container)) = self.plugins.container(id).await {
            let event = Event::StartContainer;
            self.plugins.tell(event, &pod, Some(&container)).await?;
        }
        self.engine.start_container(id).await?;
        if let Some((pod, container)) = self.plugins.container(id).await {
            let event = Event::PostStartContainer;
            self.plugins.report(event, &pod, Some(&container)).await;
        }
        Ok(())
    }

    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<(), RuntimeError> {
        self.engine.stop_container(id, timeout).await?;
        if self.plugins.any() {
            let status = self.engine.container_status(id).await;
            if status.is_ok_and(|status| status.state == ContainerState::Exited) {
                self.plugins.stopped(id).await;
            }
        }
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        if self.plugins.any() {
            self.engine.stop_container(id, Duration::ZERO).await?;
            self.tell_of_removal(id).await;
        }
        self.engine.remove_container(id).await
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError> {
        self.engine.container_status(id).await
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        self.engine.list_containers().await
    }

    async fn update_container_resources(
        &self,
        id: &str,
        resources: LinuxResources,
    ) -> Result<(), RuntimeError> {
        let told = match self.plugins.any() {
            true => self.plugins.container(id).await,
            false => None,
        };
        let Some((pod, container)) = told else {
            return self.engine.update_container_resources(id, resources).await;
        };
        let request = wire::UpdateContainerRequest {
            pod: Some(pod),
            container: Some(container),
            resources: Some(describe::resources(&resources)),
        };
        let mut wanted = LinuxResources {
            oom_score_adj: resources.oom_score_adj,
            ..LinuxResources::default()
        };
        if let Some(limits) = self.plugins.update(request).await? {
            let limits = apply::update(&limits).map_err(RuntimeError::InvalidArgument)?;
            wanted = LinuxResources {
                oom_score_adj: wanted.oom_score_adj,
                ..limits
            };
        }
        self.engine.update_container_resources(id, wanted).await?;
        if let Some((pod, container)) = self.plugins.container(id).await {
            let event = Event::PostUpdateContainer;
            self.plugins.report(event, &pod, Some(&container)).await;
        }
        Ok(())
    }

    async fn update_pod_sandbox_resources(
        &self,
        id: &str,
        resources: LinuxResources,
    ) -> Result<(), RuntimeError> {
        let told = match self.plugins.any() {
            true => self.plugins.pod(id).await,
            false => None,
        };
        let Some(pod) = told else {
            return self
                .engine
                .update_pod_sandbox_resources(id, resources)
                .await;
        };
        let request = wire::UpdatePodSandboxRequest {
            pod: Some(pod.clone()),
            overhead: None,
            resources: Some(describe::resources(&resources)),
        };
        self.plugins.update_pod(&request).await?;
        self.engine
            .update_pod_sandbox_resources(id, resources)
            .await?;
        let event = Event::PostUpdatePodSandbox;
        self.plugins.report(event, &pod, None).await;
        Ok(())
    }

    async fn reopen_container_log(&self, id: &str) -> Result<(), RuntimeError> {
        self.engine.reopen_container_log(id).await
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<ExecResult, RuntimeError> {
        self.engine.exec_sync(id, command, timeout).await
    }

    async fn exec(&self, request: ExecRequest) -> Result<ExecSession, RuntimeError> {
        self.engine.exec(request).await
    }

    async fn attach(&self, request: ExecRequest) -> Result<ExecSession, RuntimeError> {
        self.engine.attach(request).await
    }

    async fn port_forward(
        &self,
        sandbox_id: &str,
        port: u16,
    ) -> Result<Box<dyn Duplex>, RuntimeError> {
        self.engine.port_forward(sandbox_id, port).await
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats, RuntimeError> {
        self.engine.container_stats(id).await
    }

    async fn list_container_stats(&self) -> Result<Vec<ContainerStats>, RuntimeError> {
        self.engine.list_container_stats().await
    }

    async fn container_figures(&self, id: &str) -> Result<ContainerFigures, RuntimeError> {
        self.engine.container_figures(id).await
    }

    async fn writable_layer(&self, id: &str) -> Result<FilesystemUsage, RuntimeError> {
        self.engine.writable_layer(id).await
    }

    async fn pod_sandbox_stats(&self, id: &str) -> Result<PodSandboxStats, RuntimeError> {
        self.engine.pod_sandbox_stats(id).await
    }

    fn events(&self) -> mpsc::Receiver<ContainerEvent> {
        self.engine.events()
    }

    async fn status(&self) -> RuntimeStatus {
        self.engine.status().await
    }
}
