//! Containers: created, started, stopped, told about, and commands in them.

use std::path::PathBuf;
use std::time::Duration;

use node_api::{ContainerConfig, ContainerStatus, ExecRequest, ImageService};
use tonic::Status;

use crate::pods::{details, selects};
use crate::streams::Wish;
use crate::{Service, convert, missing, refused, wire};
use grpc::MESSAGE_BYTES_MAX;

/// Bytes of each output of a command, so that both fit one message.
const OUTPUT_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2 - 1024;

impl Service {
    pub(crate) async fn create_container(
        &self,
        request: wire::CreateContainerRequest,
    ) -> Result<wire::Identifier, Status> {
        let sandbox = self.sandbox_id(request.pod_sandbox_id).await?;
        let config = request.config.ok_or_else(|| missing("config"))?;
        let status = self.runtime.pod_sandbox_status(&sandbox).await;
        let config = convert::container_config(config, &status.map_err(refused)?)?;
        let mut made = make_sources(config).await?;
        // A name is as good as an id, and so is the beginning of one.
        for mount in &mut made.mounts {
            if let Some(image) = &mut mount.image {
                image.image = image_id(self.images.as_ref(), &image.image).await?;
            }
        }
        made.image = image_id(self.images.as_ref(), &made.image).await?;
        let id = self.runtime.create_container(&sandbox, made).await;
        Ok(wire::Identifier {
            id: id.map_err(refused)?,
        })
    }

    pub(crate) async fn start_container(&self, request: wire::Named) -> Result<(), Status> {
        let id = self.container_id(request.id).await?;
        self.runtime.start_container(&id).await.map_err(refused)
    }

    pub(crate) async fn stop_container(
        &self,
        request: wire::StopContainerRequest,
    ) -> Result<(), Status> {
        let id = self.container_id(request.container_id).await?;
        let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        self.runtime
            .stop_container(&id, grace)
            .await
            .map_err(refused)
    }

    pub(crate) async fn remove_container(&self, request: wire::Named) -> Result<(), Status> {
        let id = self.container_id(request.id).await?;
        self.runtime.remove_container(&id).await.map_err(refused)
    }

    pub(crate) async fn update_container(
        &self,
        request: wire::UpdateContainerResourcesRequest,
    ) -> Result<(), Status> {
        let id = self.container_id(request.container_id).await?;
        let wish = request.linux.ok_or_else(|| missing("resources"))?;
        let updated = self
            .runtime
            .update_container_resources(&id, convert::resources(wish));
        updated.await.map_err(refused)
    }

    pub(crate) async fn reopen_log(&self, request: wire::Named) -> Result<(), Status> {
        let id = self.container_id(request.id).await?;
        self.runtime
            .reopen_container_log(&id)
            .await
            .map_err(refused)
    }

    pub(crate) async fn container_status(
        &self,
        request: wire::Named,
    ) -> Result<wire::ContainerStatusResponse, Status> {
        let id = self.container_id(request.id).await?;
        let found = self.runtime.container_status(&id).await.map_err(refused)?;
        let info = match request.verbose {
            true => details(&found.config)?,
            false => wire::Map::new(),
        };
        Ok(wire::ContainerStatusResponse {
            status: Some(self.told(found).await),
            info,
        })
    }

    /// With what image and sandbox add. They may be gone.
    pub(crate) async fn told(&self, container: ContainerStatus) -> wire::ContainerStatus {
        let sandbox = self.runtime.pod_sandbox_status(&container.sandbox_id).await;
        let image = self.images.image_status(&container.image_id).await;
        let digest = image.ok().flatten();
        let digest = digest.and_then(|image| image.repo_digests.into_iter().next());
        let image_ref = digest.unwrap_or_else(|| container.image_id.clone());
        convert::container_status(container, image_ref, sandbox.ok().as_ref())
    }

    pub(crate) async fn list_containers(
        &self,
        request: wire::ListContainersRequest,
    ) -> Result<wire::ListContainersResponse, Status> {
        let filter = request.filter.unwrap_or_default();
        let all = self.runtime.list_containers().await.map_err(refused)?;
        let fits = |container: &ContainerStatus| {
            let state: i32 = convert::container_state(container.state).into();
            container.id.starts_with(&filter.id)
                && container.sandbox_id.starts_with(&filter.pod_sandbox_id)
                && filter.state.as_ref().is_none_or(|wish| wish.state == state)
                && selects(&filter.label_selector, &container.config.labels)
        };
        let item = |container: ContainerStatus| wire::Container {
            metadata: Some(convert::container_metadata(&container.config)),
            image: Some(convert::image_spec(&container.config)),
            image_ref: container.image_id.clone(),
            image_id: container.image_id,
            state: convert::container_state(container.state).into(),
            created_at: container.created_at,
            labels: container.config.labels,
            annotations: container.config.annotations,
            pod_sandbox_id: container.sandbox_id,
            id: container.id,
        };
        Ok(wire::ListContainersResponse {
            containers: all.into_iter().filter(fits).map(item).collect(),
        })
    }

    pub(crate) async fn exec_sync(
        &self,
        request: wire::ExecSyncRequest,
    ) -> Result<wire::ExecSyncResponse, Status> {
        let id = self.container_id(request.container_id).await?;
        if request.cmd.is_empty() {
            return Err(missing("cmd"));
        }
        let timeout = u64::try_from(request.timeout).ok().filter(|s| *s > 0);
        let timeout = timeout.map(Duration::from_secs);
        let mut done = self
            .runtime
            .exec_sync(&id, request.cmd, timeout)
            .await
            .map_err(refused)?;
        done.stdout.truncate(OUTPUT_BYTES_MAX);
        done.stderr.truncate(OUTPUT_BYTES_MAX);
        Ok(wire::ExecSyncResponse {
            stdout: done.stdout,
            stderr: done.stderr,
            exit_code: done.exit_code,
        })
    }

    pub(crate) async fn exec(
        &self,
        request: wire::ExecRequest,
    ) -> Result<wire::Identifier, Status> {
        if request.cmd.is_empty() {
            return Err(missing("cmd"));
        }
        let wish = ExecRequest {
            container_id: self.running(request.container_id).await?,
            command: request.cmd,
            tty: request.tty,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        self.stream(wish, false)
    }

    pub(crate) async fn attach(
        &self,
        request: wire::AttachRequest,
    ) -> Result<wire::Identifier, Status> {
        let wish = ExecRequest {
            container_id: self.running(request.container_id).await?,
            command: Vec::new(),
            tty: request.tty,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        self.stream(wish, true)
    }

    fn stream(&self, wish: ExecRequest, attach: bool) -> Result<wire::Identifier, Status> {
        if wish.tty && wish.stderr {
            return Err(Status::invalid_argument(
                "tty and stderr cannot both be true",
            ));
        }
        if !wish.stdin && !wish.stdout && !wish.stderr {
            return Err(missing("one of stdin, stdout and stderr"));
        }
        let id = self.streams.issue(Wish::Command { wish, attach })?;
        Ok(wire::Identifier { id })
    }

    pub(crate) async fn port_forward(
        &self,
        request: wire::PortForwardRequest,
    ) -> Result<wire::Identifier, Status> {
        let sandbox = self.sandbox_id(request.pod_sandbox_id).await?;
        let found = self.runtime.pod_sandbox_status(&sandbox).await;
        if found.map_err(refused)?.state != node_api::SandboxState::Ready {
            let message = format!("sandbox {sandbox} is not running");
            return Err(Status::failed_precondition(message));
        }
        let port = |number: i32| {
            u16::try_from(number)
                .map_err(|_| Status::invalid_argument(format!("{number} is not a port")))
        };
        let ports = request.port.into_iter().map(port);
        let ports = ports.collect::<Result<_, _>>()?;
        let id = self.streams.issue(Wish::Ports { sandbox, ports })?;
        Ok(wire::Identifier { id })
    }

    async fn running(&self, given: String) -> Result<String, Status> {
        let id = self.container_id(given).await?;
        let found = self.runtime.container_status(&id).await.map_err(refused)?;
        if found.state != node_api::ContainerState::Running {
            let message = format!("container {id} is not running");
            return Err(Status::failed_precondition(message));
        }
        Ok(id)
    }
}

/// Clients count on it that folders to be mounted are made where they are missing.
async fn make_sources(config: ContainerConfig) -> Result<ContainerConfig, Status> {
    let make = move || {
        let sources = config.mounts.iter().filter(|mount| mount.image.is_none());
        for mount in sources {
            let path: &PathBuf = &mount.host_path;
            if !path.exists() {
                std::fs::create_dir_all(path).map_err(|error| {
                    Status::invalid_argument(format!("mount source {}: {error}", path.display()))
                })?;
            }
        }
        Ok(config)
    };
    let made = tokio::task::spawn_blocking(make).await;
    made.map_err(|error| Status::internal(error.to_string()))?
}

async fn image_id(images: &dyn ImageService, name: &str) -> Result<String, Status> {
    let found = images.image_status(name).await.map_err(refused)?;
    let missing = || Status::not_found(format!("image {name:?} not found"));
    Ok(found.ok_or_else(missing)?.id)
}
