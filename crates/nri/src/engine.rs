//! What plugins need of a container engine beyond CRI's words.

use std::sync::Arc;

use async_trait::async_trait;
use node_api::{ContainerConfig, PodSandboxConfig, RuntimeError, RuntimeService};
use runtime::{Extras, Gate, Outline, SandboxExtras};

/// An engine whose containers can be adjusted.
#[async_trait]
pub trait Engine: RuntimeService {
    /// As CRI's; `gate` decides whether anybody gets to see it.
    async fn run_gated(
        &self,
        config: PodSandboxConfig,
        gate: Arc<dyn Gate>,
    ) -> Result<String, RuntimeError>;
    /// The id that a container is going to have, and what it would be.
    async fn draft(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
    ) -> Result<(String, Outline), RuntimeError>;
    /// As CRI's, with more wishes; its id among them.
    async fn create_with(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
        extras: Extras,
    ) -> Result<String, RuntimeError>;
    /// What a container is.
    async fn outline(&self, id: &str) -> Result<Outline, RuntimeError>;
    /// A process in a sandbox's namespaces; 0 where there is none.
    fn sandbox_pid(&self, id: &str) -> i32;
    /// Whether a sandbox was stopped by request.
    fn is_stopped(&self, id: &str) -> bool;
}

#[async_trait]
impl Engine for runtime::Engine {
    async fn run_gated(
        &self,
        config: PodSandboxConfig,
        gate: Arc<dyn Gate>,
    ) -> Result<String, RuntimeError> {
        let extras = SandboxExtras {
            gate: Some(gate),
            ..SandboxExtras::default()
        };
        self.run_pod_sandbox_with(config, extras).await
    }

    async fn draft(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
    ) -> Result<(String, Outline), RuntimeError> {
        self.draft_container(sandbox_id, config).await
    }

    async fn create_with(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
        extras: Extras,
    ) -> Result<String, RuntimeError> {
        self.create_container_with(sandbox_id, config, extras).await
    }

    async fn outline(&self, id: &str) -> Result<Outline, RuntimeError> {
        self.container_outline(id).await
    }

    fn sandbox_pid(&self, id: &str) -> i32 {
        runtime::Engine::sandbox_pid(self, id)
    }

    fn is_stopped(&self, id: &str) -> bool {
        runtime::Engine::is_stopped(self, id)
    }
}
