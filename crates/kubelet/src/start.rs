//! Starts containers of one pod, one after the other: image, environment,
//! files, create, start, `postStart`.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::Stop;
use k8s_openapi::api::core::v1::{Container, Pod};
use node_api::{ContainerConfig, Image, NamespaceMode};
use placement::ContainerOptions;
use tokio::time::Instant;
use volumes::Mounted;

use crate::container_config::{ContainerInputs, container_config};
use crate::cpu_pool;
use crate::env::{EnvInputs, environment};
use crate::events::Kind;
use crate::hooks;
use crate::images::StartError;
use crate::inbox::{Inbox, StartOutcome};
use crate::log_links;
use crate::logs;
use crate::places;
use crate::plan::Start;
use crate::pod::PodExt;
use crate::resize::Given;
use crate::shared::Shared;

/// When to try again after a fault that more time may heal.
const RETRY: Duration = Duration::from_secs(10);

/// The order to start some containers.
pub(crate) struct StartJob {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) sandbox_id: String,
    pub(crate) pod_ips: Vec<IpAddr>,
    pub(crate) mounted: Mounted,
    pub(crate) starts: Vec<Start>,
    /// Ids of running containers by name, for those who share their processes.
    pub(crate) targets: HashMap<String, String>,
    /// Tells this job from others of the same pod.
    pub(crate) job: u64,
    pub(crate) inbox: Arc<Inbox>,
    /// Raised when the pod is to end instead.
    pub(crate) cancel: Stop,
}

impl StartJob {
    /// Starts all; each outcome goes to the worker as it comes.
    pub(crate) async fn run(self) {
        for start in &self.starts {
            if self.cancel.is_raised() {
                return;
            }
            let Some((_, container)) = self.pod.container(&start.name) else {
                continue;
            };
            let outcome = self.start(&container, start).await;
            self.inbox.tell(|news| news.outcomes.push(outcome));
        }
    }

    async fn start(&self, container: &Container, start: &Start) -> StartOutcome {
        let mut id = None;
        let error = self.try_start(container, start, &mut id).await.err();
        let status = match id {
            Some(id) => self.shared.runtime.container_status(&id).await.ok(),
            None => None,
        };
        StartOutcome {
            name: container.name.clone(),
            job: self.job,
            container: status,
            resources: Given::of(&self.pod, container),
            error,
        }
    }

    async fn try_start(
        &self,
        container: &Container,
        start: &Start,
        id: &mut Option<String>,
    ) -> Result<(), StartError> {
        let attempt = match start.attempt {
            // After a reboot no runtime remembers the ones before, but their logs are there.
            0 => logs::next_attempt(&self.log_folder(container)),
            known => known,
        };
        let image = tokio::select! {
            image = self.shared.puller.ensure(&self.pod, container) => image?,
            () = self.cancel.raised() => return Err(error("ContainerCreating", String::new())),
        };
        let volumes = tokio::select! {
            volumes = self.image_volumes(container) => volumes?,
            () = self.cancel.raised() => return Err(error("ContainerCreating", String::new())),
        };
        let config = self
            .configure(container, (attempt, start.round), &image, &volumes)
            .await
            .map_err(|message| {
                self.warn(container, "Failed", format!("Error: {message}"));
                error("CreateContainerConfigError", message)
            })?;
        let runtime = &self.shared.runtime;
        let created = runtime.create_container(&self.sandbox_id, config).await;
        let created = created.map_err(|fault| {
            self.warn(container, "Failed", format!("Error: {fault}"));
            error("CreateContainerError", fault.to_string())
        })?;
        *id = Some(created.clone());
        self.say(container, "Created", "Container created");
        runtime.start_container(&created).await.map_err(|fault| {
            self.warn(container, "Failed", format!("Error: {fault}"));
            // The next attempt waits by the rules of crashes.
            StartError {
                retry_at: None,
                ..error("RunContainerError", fault.to_string())
            }
        })?;
        self.say(container, "Started", "Container started");
        self.link_log(container, &created, attempt);
        // The processors that are left for all may be others than when it was created.
        if self.shared.placement.shared_cpus().is_some()
            && let Ok(status) = runtime.container_status(&created).await
        {
            cpu_pool::pin(&self.shared, self.pod.uid(), &status).await;
        }
        self.post_start(container, &created).await
    }

    /// Links to the log for those who collect logs.
    fn link_log(&self, container: &Container, id: &str, attempt: u32) {
        if let Some(links) = &self.shared.config.log_links {
            let names = (
                self.pod.name(),
                self.pod.namespace(),
                container.name.as_str(),
            );
            let log = self.log_folder(container).join(format!("{attempt}.log"));
            log_links::make(&log_links::path(links, names, id), &log);
        }
    }

    fn log_folder(&self, container: &Container) -> PathBuf {
        let of_pod = self.shared.config.log_dir.join(self.pod.log_folder());
        of_pod.join(&container.name)
    }

    /// The images a container mounts, pulled like its own.
    async fn image_volumes(
        &self,
        container: &Container,
    ) -> Result<BTreeMap<String, Image>, StartError> {
        let mut images = BTreeMap::new();
        for mount in container.volume_mounts.iter().flatten() {
            let Some(source) = self.pod.image_volume(&mount.name) else {
                continue;
            };
            let wanted = Container {
                name: container.name.clone(),
                image: source.reference.clone(),
                image_pull_policy: source.pull_policy.clone(),
                ..Container::default()
            };
            let image = self.shared.puller.ensure(&self.pod, &wanted).await?;
            images.insert(mount.name.clone(), image);
        }
        Ok(images)
    }

    async fn configure(
        &self,
        container: &Container,
        (attempt, round): (u32, u32),
        image: &Image,
        images: &BTreeMap<String, Image>,
    ) -> Result<ContainerConfig, String> {
        let facts = self.shared.facts(&self.pod_ips);
        let inputs = EnvInputs {
            pod: &self.pod,
            container,
            facts: &facts,
            sources: &self.shared.sources,
            mounted: &self.mounted,
            services: self.shared.service_variables(&self.pod).await,
        };
        let own = environment(&inputs)
            .await
            .map_err(|error| error.to_string())?;
        let given = self.place(container).await?;
        let envs = given.envs.iter().cloned().chain(own).collect();
        let mut config = container_config(ContainerInputs {
            pod: &self.pod,
            container,
            attempt,
            round,
            image,
            envs,
            mounted: &self.mounted,
            images,
            volumes: &self.shared.volumes,
            pod_ips: &self.pod_ips,
            config: &self.shared.config,
            memory_capacity: self.shared.machine.memory_bytes,
        })?;
        places::equip(&mut config, given);
        let features = self.shared.config.features;
        places::pin(
            &self.shared.placement,
            features,
            self.pod.uid(),
            &mut config,
        );
        if let Some(target) = self.pod.target_of(&container.name)
            && config.security.namespaces.pid == NamespaceMode::Container
        {
            let id = self.targets.get(target);
            let id = id.ok_or_else(|| format!("unable to find target container {target}"))?;
            config.security.namespaces.pid = NamespaceMode::Target(id.clone());
        }
        Ok(config)
    }

    /// What the container's devices bring along.
    async fn place(&self, container: &Container) -> Result<ContainerOptions, String> {
        let Some((role, _)) = self.pod.container(&container.name) else {
            return Ok(ContainerOptions::default());
        };
        let wish = places::wish_of_container(role, container);
        self.shared.placement.options(self.pod.uid(), &wish).await
    }

    async fn post_start(&self, container: &Container, id: &str) -> Result<(), StartError> {
        let hook = container
            .lifecycle
            .as_ref()
            .and_then(|l| l.post_start.as_ref());
        let Some(hook) = hook else {
            return Ok(());
        };
        let target = hooks::Target {
            runtime: &self.shared.runtime,
            container,
            container_id: id,
            ip: self.pod_ips.first().copied(),
        };
        let Err(fault) = hooks::run(&target, hook).await else {
            return Ok(());
        };
        self.warn(
            container,
            "FailedPostStartHook",
            "PostStartHook failed".into(),
        );
        self.say(container, "Killing", "FailedPostStartHook");
        let grace = self.pod.grace_seconds().unsigned_abs();
        let stopped = self
            .shared
            .runtime
            .stop_container(id, Duration::from_secs(grace))
            .await;
        if let Err(error) = stopped {
            tracing::warn!(%error, id, "container not stopped after its postStart hook failed");
        }
        Err(StartError {
            retry_at: None,
            ..error("PostStartHookError", fault)
        })
    }

    fn say(&self, container: &Container, reason: &str, message: &str) {
        let name = Some(container.name.as_str());
        self.shared
            .recorder
            .pod(&self.pod, name, Kind::Normal, reason, message);
    }

    fn warn(&self, container: &Container, reason: &str, message: String) {
        let name = Some(container.name.as_str());
        self.shared
            .recorder
            .pod(&self.pod, name, Kind::Warning, reason, message);
    }
}

fn error(reason: &'static str, message: String) -> StartError {
    StartError {
        reason,
        message,
        retry_at: Some(Instant::now() + RETRY),
    }
}
