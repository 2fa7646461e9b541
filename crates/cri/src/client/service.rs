//! CRI's `RuntimeService`, asked.

use std::time::Duration;

use async_trait::async_trait;
use node_api::{
    CgroupDriver, ContainerConfig, ContainerEvent, ContainerFigures, ContainerStats,
    ContainerStatus, Duplex, ExecRequest, ExecResult, ExecSession, FilesystemUsage, LinuxResources,
    PodSandboxConfig, PodSandboxStats, PodSandboxStatus, RuntimeError, RuntimeHandler,
    RuntimeService, RuntimeStatus,
};
use tokio::sync::mpsc;

use super::link::method;
use super::{Remote, answers, requests};
use crate::{convert, wire};

/// A state that nothing is in.
const NO_STATE: i32 = -1;

fn named(id: &str) -> wire::Named {
    wire::Named {
        id: id.to_owned(),
        verbose: false,
    }
}

/// Whole seconds, rather more than less.
fn seconds(time: Duration) -> i64 {
    let more = i64::from(time.subsec_nanos() > 0);
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX - 1) + more
}

fn nothing(what: &str) -> RuntimeError {
    RuntimeError::Internal(format!("the runtime tells no {what}"))
}

/// What is gone already is what was wanted.
fn gone(done: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
    match done {
        Err(RuntimeError::NotFound(_)) => Ok(()),
        done => done,
    }
}

impl Remote {
    pub(super) async fn sandboxes(&self) -> Result<Vec<wire::PodSandbox>, RuntimeError> {
        let request = wire::ListPodSandboxRequest::default();
        let told = self.link.call(method!("ListPodSandbox"), request).await;
        told.map(|told: wire::ListPodSandboxResponse| told.items)
    }

    pub(super) async fn containers(&self) -> Result<Vec<wire::Container>, RuntimeError> {
        let request = wire::ListContainersRequest::default();
        let told = self.link.call(method!("ListContainers"), request).await;
        told.map(|told: wire::ListContainersResponse| told.containers)
    }

    /// What is known of a sandbox or container is not to be relied on: it is asked for again.
    pub(super) fn doubt(&self, id: &str) {
        let mut known = self.known.lock();
        if let Some((state, _)) = known.sandboxes.get_mut(id) {
            *state = NO_STATE;
        }
        if let Some((state, _)) = known.containers.get_mut(id) {
            *state = NO_STATE;
        }
    }

    async fn ask_sandbox(&self, id: &str) -> Result<(i32, PodSandboxStatus), RuntimeError> {
        let asked = self
            .link
            .call(method!("PodSandboxStatus"), named(id))
            .await?;
        let told: wire::PodSandboxStatusResponse = asked;
        let status = told
            .status
            .ok_or_else(|| nothing("status of the sandbox"))?;
        Ok((status.state, answers::sandbox(status)))
    }

    /// A status does not say whose a container is; lists do.
    async fn ask_container(
        &self,
        id: &str,
        sandbox_id: String,
    ) -> Result<(i32, ContainerStatus), RuntimeError> {
        let asked = self
            .link
            .call(method!("ContainerStatus"), named(id))
            .await?;
        let told: wire::ContainerStatusResponse = asked;
        let status = told
            .status
            .ok_or_else(|| nothing("status of the container"))?;
        Ok((status.state, answers::container(status, sandbox_id)))
    }

    async fn sandbox_of(&self, id: &str) -> Result<String, RuntimeError> {
        if let Some((_, known)) = self.known.lock().containers.get(id) {
            return Ok(known.sandbox_id.clone());
        }
        let request = wire::ListContainersRequest {
            filter: Some(wire::ContainerFilter {
                id: id.to_owned(),
                ..wire::ContainerFilter::default()
            }),
        };
        let told = self.link.call(method!("ListContainers"), request).await?;
        let told: wire::ListContainersResponse = told;
        let mut found = told.containers.into_iter().filter(|one| one.id == id);
        let missing = || RuntimeError::NotFound(format!("container {id:?} not found"));
        Ok(found.next().ok_or_else(missing)?.pod_sandbox_id)
    }

    async fn stats_of(&self, id: &str) -> Result<wire::ContainerStats, RuntimeError> {
        let asked = self.link.call(method!("ContainerStats"), named(id)).await?;
        let told: wire::ContainerStatsResponse = asked;
        told.stats
            .ok_or_else(|| nothing("figures of the container"))
    }

    /// The pod's cgroup, as the kubelet named it when it made the sandbox.
    async fn cgroup_of(&self, id: &str) -> Result<Option<String>, RuntimeError> {
        let parent = self.pod_sandbox_status(id).await?.config.cgroup_parent;
        Ok((!parent.is_empty()).then_some(parent))
    }
}

#[async_trait]
impl RuntimeService for Remote {
    fn version(&self) -> (String, String) {
        (self.name.clone(), self.version.clone())
    }

    fn cgroup_driver(&self) -> CgroupDriver {
        self.cgroups.driver
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<String, RuntimeError> {
        if !config.cgroup_parent.is_empty() {
            let limits = config.resources.clone().unwrap_or_default();
            self.cgroups.limit(&config.cgroup_parent, &limits).await?;
        }
        let runtime_handler = config.runtime_handler.clone();
        let request = wire::RunPodSandboxRequest {
            config: Some(requests::sandbox_config(config)),
            runtime_handler,
        };
        // A network may take its time, and who gives up would leave a sandbox behind.
        let more = Duration::from_secs(120);
        let made = self
            .link
            .call_longer(method!("RunPodSandbox"), request, more);
        made.await.map(|made: wire::Identifier| made.id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        self.doubt(id);
        gone(self.link.call(method!("StopPodSandbox"), named(id)).await)
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let cgroup = match self.cgroup_of(id).await {
            Err(RuntimeError::NotFound(_)) => return Ok(()),
            cgroup => cgroup?,
        };
        // CRI wants it stopped before: the network is freed by that.
        self.stop_pod_sandbox(id).await?;
        gone(self.link.call(method!("RemovePodSandbox"), named(id)).await)?;
        self.known.lock().sandboxes.remove(id);
        match cgroup {
            Some(cgroup) => self.cgroups.remove(&cgroup).await,
            None => Ok(()),
        }
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatus, RuntimeError> {
        let told = self.ask_sandbox(id).await?;
        let status = told.1.clone();
        self.known.lock().sandboxes.insert(id.to_owned(), told);
        Ok(status)
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<PodSandboxStatus>, RuntimeError> {
        let listed = self.sandboxes().await?;
        let mut all = Vec::with_capacity(listed.len());
        for item in &listed {
            let known = self.known.lock().sandboxes.get(&item.id).cloned();
            if let Some((_, status)) = known.filter(|(state, _)| *state == item.state) {
                all.push(status);
                continue;
            }
            match self.pod_sandbox_status(&item.id).await {
                Ok(status) => all.push(status),
                Err(RuntimeError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let ids: std::collections::HashSet<&str> = listed.iter().map(|i| i.id.as_str()).collect();
        let mut known = self.known.lock();
        known.sandboxes.retain(|id, _| ids.contains(id.as_str()));
        Ok(all)
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
    ) -> Result<String, RuntimeError> {
        let mut sandbox = self.pod_sandbox_status(sandbox_id).await?;
        // Runtimes compare this with what they hear of the container.
        sandbox.config.privileged = config.security.privileged;
        let user = config.security.namespaces.user.clone();
        let user = user.or_else(|| sandbox.config.namespaces.user.clone());
        let request = wire::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(requests::container_config(config, user.as_ref())),
            sandbox_config: Some(requests::sandbox_config(sandbox.config)),
        };
        let made = self.link.call(method!("CreateContainer"), request).await;
        made.map(|made: wire::Identifier| made.id)
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        self.doubt(id);
        self.link.call(method!("StartContainer"), named(id)).await
    }

    async fn stop_container(&self, id: &str, timeout: Duration) -> Result<(), RuntimeError> {
        let request = wire::StopContainerRequest {
            container_id: id.to_owned(),
            timeout: seconds(timeout),
        };
        let stopped = self
            .link
            .call_longer(method!("StopContainer"), request, timeout);
        gone(stopped.await)
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        gone(self.link.call(method!("RemoveContainer"), named(id)).await)?;
        self.known.lock().containers.remove(id);
        Ok(())
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError> {
        let sandbox_id = self.sandbox_of(id).await?;
        let told = self.ask_container(id, sandbox_id).await?;
        let status = told.1.clone();
        self.known.lock().containers.insert(id.to_owned(), told);
        Ok(status)
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        let listed = self.containers().await?;
        let mut all = Vec::with_capacity(listed.len());
        for item in &listed {
            let known = self.known.lock().containers.get(&item.id).cloned();
            if let Some((_, status)) = known.filter(|(state, _)| *state == item.state) {
                all.push(status);
                continue;
            }
            match self
                .ask_container(&item.id, item.pod_sandbox_id.clone())
                .await
            {
                Ok(told) => {
                    all.push(told.1.clone());
                    self.known.lock().containers.insert(item.id.clone(), told);
                }
                Err(RuntimeError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let ids: std::collections::HashSet<&str> = listed.iter().map(|i| i.id.as_str()).collect();
        let mut known = self.known.lock();
        known.containers.retain(|id, _| ids.contains(id.as_str()));
        Ok(all)
    }

    async fn update_container_resources(
        &self,
        id: &str,
        resources: LinuxResources,
    ) -> Result<(), RuntimeError> {
        let request = wire::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(convert::resources_of(&resources)),
            annotations: wire::Map::new(),
        };
        let path = method!("UpdateContainerResources");
        let updated = self.link.call(path, request).await;
        self.doubt(id);
        updated
    }

    async fn update_pod_sandbox_resources(
        &self,
        id: &str,
        resources: LinuxResources,
    ) -> Result<(), RuntimeError> {
        if let Some(cgroup) = self.cgroup_of(id).await? {
            self.cgroups.limit(&cgroup, &resources).await?;
        }
        let request = wire::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: id.to_owned(),
            overhead: None,
            resources: Some(convert::resources_of(&resources)),
        };
        let path = method!("UpdatePodSandboxResources");
        // It is told, and need not care: the limits are set.
        let told: Result<(), RuntimeError> = self.link.call(path, request).await;
        if let Err(error) = told {
            tracing::debug!(%error, "runtime not told of a pod's resources");
        }
        Ok(())
    }

    async fn reopen_container_log(&self, id: &str) -> Result<(), RuntimeError> {
        self.link
            .call(method!("ReopenContainerLog"), named(id))
            .await
    }

    async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<ExecResult, RuntimeError> {
        let request = wire::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command,
            timeout: timeout.map_or(0, seconds),
        };
        let path = method!("ExecSync");
        let done = match timeout {
            Some(timeout) => self.link.call_longer(path, request, timeout).await,
            None => self.link.call_within(path, request, Duration::MAX).await,
        };
        done.map(|done: wire::ExecSyncResponse| ExecResult {
            exit_code: done.exit_code,
            stdout: done.stdout,
            stderr: done.stderr,
        })
    }

    async fn exec(&self, wish: ExecRequest) -> Result<ExecSession, RuntimeError> {
        let request = wire::ExecRequest {
            container_id: wish.container_id.clone(),
            cmd: wish.command.clone(),
            tty: wish.tty,
            stdin: wish.stdin,
            stdout: wish.stdout,
            stderr: wish.stderr && !wish.tty,
        };
        let url: wire::Identifier = self.link.call(method!("Exec"), request).await?;
        streaming::connect_session(&url.id, &wish).await
    }

    async fn attach(&self, wish: ExecRequest) -> Result<ExecSession, RuntimeError> {
        let request = wire::AttachRequest {
            container_id: wish.container_id.clone(),
            tty: wish.tty,
            stdin: wish.stdin,
            stdout: wish.stdout,
            stderr: wish.stderr && !wish.tty,
        };
        let url: wire::Identifier = self.link.call(method!("Attach"), request).await?;
        streaming::connect_session(&url.id, &wish).await
    }

    async fn port_forward(
        &self,
        sandbox_id: &str,
        port: u16,
    ) -> Result<Box<dyn Duplex>, RuntimeError> {
        let request = wire::PortForwardRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            port: vec![port.into()],
        };
        let url: wire::Identifier = self.link.call(method!("PortForward"), request).await?;
        streaming::connect_port(&url.id, port).await
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats, RuntimeError> {
        Ok(answers::stats(&self.stats_of(id).await?))
    }

    async fn list_container_stats(&self) -> Result<Vec<ContainerStats>, RuntimeError> {
        let request = wire::ListContainerStatsRequest::default();
        let told = self
            .link
            .call(method!("ListContainerStats"), request)
            .await?;
        let told: wire::ListContainerStatsResponse = told;
        Ok(told.stats.iter().map(answers::stats).collect())
    }

    async fn container_figures(&self, _: &str) -> Result<ContainerFigures, RuntimeError> {
        Err(nothing("more figures of containers"))
    }

    async fn writable_layer(&self, id: &str) -> Result<FilesystemUsage, RuntimeError> {
        let layer = self.stats_of(id).await?.writable_layer;
        Ok(layer.map(answers::file_system).unwrap_or_default())
    }

    async fn pod_sandbox_stats(&self, id: &str) -> Result<PodSandboxStats, RuntimeError> {
        let asked = self
            .link
            .call(method!("PodSandboxStats"), named(id))
            .await?;
        let told: wire::PodSandboxStatsResponse = asked;
        let stats = told
            .stats
            .ok_or_else(|| nothing("figures of the sandbox"))?;
        Ok(answers::sandbox_stats(stats))
    }

    fn events(&self) -> mpsc::Receiver<ContainerEvent> {
        self.listeners.add()
    }

    async fn status(&self) -> RuntimeStatus {
        let asked = self.link.call(method!("Status"), wire::Verbose::default());
        let told: wire::StatusResponse = match asked.await {
            Ok(told) => told,
            Err(error) => {
                return RuntimeStatus {
                    not_ready: Some(format!("container runtime is down: {error}")),
                    ..RuntimeStatus::default()
                };
            }
        };
        let conditions = told.status.unwrap_or_default().conditions;
        let bad = conditions.iter().find(|condition| !condition.status);
        let not_ready = bad.map(|bad| {
            let what = match bad.r#type.as_str() {
                "NetworkReady" => "container runtime network not ready",
                _ => "container runtime not ready",
            };
            let (kind, reason, message) = (&bad.r#type, &bad.reason, &bad.message);
            format!("{what}: {kind}=false reason:{reason} message:{message}")
        });
        let handlers = told.runtime_handlers.into_iter().map(|handler| {
            let features = handler.features.unwrap_or_default();
            RuntimeHandler {
                name: handler.name,
                recursive_read_only_mounts: features.recursive_read_only_mounts,
                user_namespaces: features.user_namespaces,
            }
        });
        let features = told.features.unwrap_or_default();
        RuntimeStatus {
            not_ready,
            handlers: handlers.collect(),
            supplemental_groups_policy: features.supplemental_groups_policy,
            user_namespaces_host_network: features.user_namespaces_host_network,
        }
    }
}
