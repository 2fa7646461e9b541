//! The engine in this process, without a front: what other runtimes' command lines are compared with,
//! for they have no server in front of them either. It does more than they do: the root file system
//! is an overlay that is mounted first, the container has a pod around it and a log, and all survives
//! the death of whoever asked for it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use node_api::{
    ContainerConfig, ContainerEvent, ContainerEventKind, NamespaceMode, NamespaceOptions,
    PodNetwork, PodNetworkConfig, PodNetworkResult, PodSandboxConfig, RuntimeError, RuntimeService,
    SeccompProfile, SecurityContext,
};
use tokio::sync::mpsc;

use super::IMAGE;

/// A network namespace with nothing but its loopback interface, as the bundles have.
struct NoNetwork;

#[async_trait]
impl PodNetwork for NoNetwork {
    async fn add(&self, _config: &PodNetworkConfig) -> Result<PodNetworkResult, RuntimeError> {
        Ok(PodNetworkResult::default())
    }

    async fn del(&self, _sandbox_id: &str) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn gc(&self, _live_sandbox_ids: &[String]) -> Result<(), RuntimeError> {
        Ok(())
    }
}

pub(super) struct Inside {
    engine: Arc<runtime::Engine>,
    events: mpsc::Receiver<ContainerEvent>,
    config: runtime::Config,
    crew: base::Crew,
}

impl Inside {
    /// Opens it on a folder of its own, with `binary` for its supervisors.
    pub(super) async fn open(binary: &Path, folder: &Path, program: &Path) -> Result<Inside> {
        let config = runtime::Config {
            state: Path::new(super::RUN).join("inside"),
            supervisor_exe: std::path::absolute(binary)?,
            ..runtime::Config::below(
                &folder.join("inside"),
                &format!("/sampan-bench-{}", std::process::id()),
            )
        };
        let crew = base::Crew::new();
        let engine = runtime::open(config.clone(), Arc::new(NoNetwork), &crew).await?;
        super::engine::make_image(engine.images(), program)?;
        Ok(Inside {
            events: engine.events(),
            engine,
            config,
            crew,
        })
    }

    /// One container from its creation to its removal.
    pub(super) async fn cycle(&mut self, round: usize) -> Result<()> {
        let namespaces = NamespaceOptions {
            pid: NamespaceMode::Container,
            ..NamespaceOptions::default()
        };
        let pod = PodSandboxConfig {
            name: format!("bench-{round}"),
            uid: round.to_string(),
            namespace: "bench".to_owned(),
            hostname: "runc".to_owned(),
            log_directory: self.config.root.join("logs"),
            namespaces: namespaces.clone(),
            ..PodSandboxConfig::default()
        };
        let container = ContainerConfig {
            name: "true".to_owned(),
            image: IMAGE.to_owned(),
            log_path: "true.log".into(),
            security: SecurityContext {
                namespaces,
                // As a bundle of `runc spec` has it.
                seccomp: SeccompProfile::Unconfined,
                ..SecurityContext::default()
            },
            ..ContainerConfig::default()
        };
        let sandbox = self.engine.run_pod_sandbox(pod).await?;
        let id = self.engine.create_container(&sandbox, container).await?;
        self.engine.start_container(&id).await?;
        loop {
            let event = self.events.recv().await.context("the engine is closed")?;
            if event.container_id == id && event.kind == ContainerEventKind::Stopped {
                break;
            }
        }
        let status = self.engine.container_status(&id).await?;
        ensure!(status.exit_code == 0, "the container failed: {status:?}");
        self.engine.remove_pod_sandbox(&sandbox).await?;
        Ok(())
    }

    /// Ends it, and removes whatever outlives it.
    pub(super) async fn close(self) -> Result<()> {
        self.crew.stop().raise();
        self.crew.finished().await?;
        drop(self.engine);
        runtime::clean_up(&self.config)?;
        Ok(())
    }
}
