//! The plugins that are there: asked in the order of their indexes, told of what happens.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use node_api::{ContainerStatus, PodSandboxStatus, RuntimeError};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{OnceCell, RwLockReadGuard, RwLockWriteGuard};

use crate::apply;
use crate::describe;
use crate::engine::Engine;
use crate::link::Link;
use crate::merge::{Creation, Owners, Updates};
use crate::wire::{self, Event};

/// How long a plugin may take for a request. One that takes longer is dropped.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// A plugin that has registered.
pub(crate) struct Plugin {
    /// Two digits.
    pub(crate) index: String,
    pub(crate) base: String,
    /// What it wants to be told of, by [`Event::bit`].
    pub(crate) events: i32,
    pub(crate) link: Arc<Link>,
}

impl Plugin {
    /// Its name with its index.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.index, self.base)
    }

    /// Asks it, if it wants to be asked. One that does not answer is dropped and no hindrance.
    async fn ask<R: prost::Message + Default>(
        &self,
        event: Event,
        method: &str,
        request: &impl prost::Message,
    ) -> Result<Option<R>, RuntimeError> {
        if self.events & event.bit() == 0 || self.link.is_closed() {
            return Ok(None);
        }
        match self.link.call(method, request, REQUEST_TIMEOUT).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.is_fatal() => {
                tracing::warn!(%error, plugin = self.name(), ?event, "NRI plugin dropped");
                self.link.close();
                Ok(None)
            }
            Err(error) => Err(RuntimeError::Internal(error.to_string())),
        }
    }
}

/// All of them.
pub(crate) struct Plugins {
    pub(crate) engine: Arc<dyn Engine>,
    /// Pods that log below this folder are somebody else's, and not shown to plugins. No user of
    /// Kubernetes chooses where pods log.
    hidden: Option<PathBuf>,
    list: RwLock<Vec<Arc<Plugin>>>,
    /// Whether there are some.
    any: AtomicBool,
    /// Held together while something is made, alone while a plugin learns what there is.
    door: tokio::sync::RwLock<()>,
    /// By sandbox and container, that its stop was told, or is just being.
    stops: Mutex<HashMap<String, Arc<OnceCell<()>>>>,
}

impl Plugins {
    pub(crate) fn new(engine: Arc<dyn Engine>, hidden: Option<PathBuf>) -> Plugins {
        Plugins {
            engine,
            hidden,
            list: RwLock::default(),
            any: AtomicBool::new(false),
            door: tokio::sync::RwLock::default(),
            stops: Mutex::default(),
        }
    }

    /// Whether there are some.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// While this is held nobody joins.
    pub(crate) async fn hold_door(&self) -> RwLockReadGuard<'_, ()> {
        self.door.read().await
    }

    /// While this is held nothing is made.
    pub(crate) async fn shut_door(&self) -> RwLockWriteGuard<'_, ()> {
        self.door.write().await
    }

    /// One more, in its place.
    pub(crate) fn add(&self, plugin: Arc<Plugin>) {
        let mut list = self.list.write();
        let place = list.partition_point(|known| known.index <= plugin.index);
        list.insert(place, plugin);
        self.any.store(true, Ordering::Release);
    }

    /// One less.
    pub(crate) fn remove(&self, link: &Arc<Link>) {
        let mut list = self.list.write();
        list.retain(|known| !Arc::ptr_eq(&known.link, link));
        self.any.store(!list.is_empty(), Ordering::Release);
    }

    fn all(&self) -> Vec<Arc<Plugin>> {
        self.list.read().clone()
    }

    /// Whether plugins are told of a pod.
    pub(crate) fn shows(&self, pod: &PodSandboxStatus) -> bool {
        let logs = &pod.config.log_directory;
        !(self.hidden.as_ref()).is_some_and(|hidden| logs.starts_with(hidden))
    }

    /// A pod that plugins are told of.
    pub(crate) async fn pod(&self, id: &str) -> Option<wire::PodSandbox> {
        let status = self.engine.pod_sandbox_status(id).await.ok()?;
        self.shows(&status)
            .then(|| describe::pod(&status, self.engine.sandbox_pid(id)))
    }

    /// A container that plugins are told of, and its pod.
    pub(crate) async fn container(&self, id: &str) -> Option<(wire::PodSandbox, wire::Container)> {
        let status = self.engine.container_status(id).await.ok()?;
        let pod = self.pod(&status.sandbox_id).await?;
        Some((pod, self.describe(&status).await))
    }

    /// A container that is there. Of one that is just going, less is known.
    pub(crate) async fn describe(&self, status: &ContainerStatus) -> wire::Container {
        let outline = self.engine.outline(&status.id).await.unwrap_or_default();
        describe::container(status, &outline)
    }

    /// Tells all of a change until one refuses it.
    pub(crate) async fn tell(
        &self,
        event: Event,
        pod: &wire::PodSandbox,
        container: Option<&wire::Container>,
    ) -> Result<(), RuntimeError> {
        let message = wire::StateChangeEvent {
            event: event as i32,
            pod: Some(pod.clone()),
            container: container.cloned(),
        };
        for plugin in self.all() {
            let told = plugin.ask::<wire::Empty>(event, "StateChange", &message);
            told.await?;
        }
        Ok(())
    }

    /// Tells of what has happened; refusals change nothing any more.
    pub(crate) async fn report(
        &self,
        event: Event,
        pod: &wire::PodSandbox,
        container: Option<&wire::Container>,
    ) {
        if let Err(error) = self.tell(event, pod, container).await {
            tracing::warn!(%error, ?event, pod = pod.id, "an NRI plugin complains");
        }
    }

    /// Asks all what a container is to be.
    pub(crate) async fn create(
        &self,
        pod: &wire::PodSandbox,
        container: &wire::Container,
    ) -> Result<Creation, RuntimeError> {
        let mut creation = Creation::new(container.clone());
        let mut asked = Vec::new();
        for plugin in self.all() {
            let request = wire::CreateContainerRequest {
                pod: Some(pod.clone()),
                container: Some(creation.container.clone()),
            };
            asked.push(wire::PluginInstance {
                name: plugin.base.clone(),
                index: plugin.index.clone(),
            });
            let answer = plugin.ask(Event::CreateContainer, "CreateContainer", &request);
            let Some(answer) = answer.await? else {
                continue;
            };
            let wire::CreateContainerResponse { evict, .. } = &answer;
            self.evict(evict).await;
            let taken = creation.take(answer, &plugin.name());
            taken.map_err(RuntimeError::Internal)?;
        }
        let request = wire::ValidateContainerAdjustmentRequest {
            pod: Some(pod.clone()),
            container: Some(container.clone()),
            adjust: Some(creation.adjust.clone()),
            update: creation.updates.0.clone(),
            owners: Some(creation.owners.0.clone()),
            plugins: asked,
        };
        self.validate(&request).await?;
        Ok(creation)
    }

    async fn validate(
        &self,
        request: &wire::ValidateContainerAdjustmentRequest,
    ) -> Result<(), RuntimeError> {
        let (event, method) = (
            Event::ValidateContainerAdjustment,
            "ValidateContainerAdjustment",
        );
        let plugins = self.all();
        let asked = plugins.iter().map(|plugin| async {
            let answer: Option<wire::ValidateContainerAdjustmentResponse> =
                plugin.ask(event, method, request).await?;
            match answer.filter(|answer| answer.reject) {
                Some(answer) => Err(RuntimeError::Internal(format!(
                    "plugin {:?} rejected the adjustments of the container: {}",
                    plugin.name(),
                    answer.reason
                ))),
                None => Ok(()),
            }
        });
        join_all(asked).await.into_iter().collect()
    }

    /// Asks all what the new limits of a container are to be; `None` leaves them as asked for.
    pub(crate) async fn update(
        &self,
        request: wire::UpdateContainerRequest,
    ) -> Result<Option<wire::LinuxResources>, RuntimeError> {
        let (mut updates, mut owners) = (Updates::default(), Owners::default());
        let id = request
            .container
            .as_ref()
            .map(|container| container.id.clone());
        let id = id.unwrap_or_default();
        let mut request = request;
        updates.0.push(wire::ContainerUpdate {
            container_id: id,
            linux: Some(wire::LinuxContainerUpdate {
                resources: request.resources.clone(),
            }),
            ignore_failure: true,
        });
        for plugin in self.all() {
            request.resources = updates.own();
            let answer = plugin.ask(Event::UpdateContainer, "UpdateContainer", &request);
            let answer: Option<wire::UpdateContainerResponse> = answer.await?;
            let answer = answer.unwrap_or_default();
            self.evict(&answer.evict).await;
            let added = updates.add(&mut owners, answer.update, &plugin.name());
            added.map_err(RuntimeError::Internal)?;
        }
        let own = updates.own();
        updates.0.remove(0);
        self.apply_some(updates).await;
        Ok(own)
    }

    /// Tells all of a pod's new limits, which they can refuse.
    pub(crate) async fn update_pod(
        &self,
        request: &wire::UpdatePodSandboxRequest,
    ) -> Result<(), RuntimeError> {
        for plugin in self.all() {
            let told =
                plugin.ask::<wire::Empty>(Event::UpdatePodSandbox, "UpdatePodSandbox", request);
            told.await?;
        }
        Ok(())
    }

    /// Tells that a container has stopped, once; who comes while it is being told waits.
    pub(crate) async fn stopped(&self, id: &str) {
        self.once(id, || async {
            let Some((pod, container)) = self.container(id).await else {
                return;
            };
            self.report_stop(pod, container).await;
        })
        .await;
    }

    /// The same of one that nobody else knows of.
    pub(crate) async fn report_stop(&self, pod: wire::PodSandbox, container: wire::Container) {
        let request = wire::StopContainerRequest {
            pod: Some(pod),
            container: Some(container),
        };
        let (mut updates, mut owners) = (Updates::default(), Owners::default());
        for plugin in self.all() {
            let answer = plugin.ask(Event::StopContainer, "StopContainer", &request);
            let added = match answer.await {
                Ok(answer) => {
                    let answer: wire::StopContainerResponse = answer.unwrap_or_default();
                    updates.add(&mut owners, answer.update, &plugin.name())
                }
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = added {
                tracing::warn!(error, plugin = plugin.name(), "an NRI plugin complains");
            }
        }
        self.apply_some(updates).await;
    }

    /// Does something once for a sandbox or container.
    pub(crate) async fn once<F: Future<Output = ()>>(&self, id: &str, work: impl FnOnce() -> F) {
        let cell = Arc::clone(self.stops.lock().entry(id.to_owned()).or_default());
        cell.get_or_init(work).await;
    }

    /// Nothing more is told of a sandbox or container.
    pub(crate) fn forget(&self, id: &str) {
        self.stops.lock().remove(id);
    }

    /// Changes limits of containers; what fails is but told.
    pub(crate) async fn apply_some(&self, updates: Updates) {
        for failed in self.apply(updates.0).await {
            let container = failed.container_id;
            tracing::warn!(container, "an NRI plugin's update was not made");
        }
    }

    /// Changes limits of containers; returns what failed and must not.
    pub(crate) async fn apply(
        &self,
        updates: Vec<wire::ContainerUpdate>,
    ) -> Vec<wire::ContainerUpdate> {
        let mut failed = Vec::new();
        for update in updates {
            if let Err(error) = self.apply_one(&update).await {
                let container = &update.container_id;
                tracing::info!(%error, container, "an NRI plugin's update failed");
                if !update.ignore_failure {
                    failed.push(update);
                }
            }
        }
        failed
    }

    async fn apply_one(&self, update: &wire::ContainerUpdate) -> Result<(), RuntimeError> {
        let linux = update.linux.as_ref();
        let Some(wanted) = linux.and_then(|linux| linux.resources.as_ref()) else {
            return Ok(());
        };
        let limits = apply::update(wanted).map_err(RuntimeError::InvalidArgument)?;
        // One that has gone meanwhile needs no limits.
        match self.shows_container(&update.container_id).await {
            true => {
                let updated = self
                    .engine
                    .update_container_resources(&update.container_id, limits);
                updated.await
            }
            false => Ok(()),
        }
    }

    /// Stops containers at once.
    pub(crate) async fn evict(&self, evictions: &[wire::ContainerEviction]) {
        for eviction in evictions {
            let (container, reason) = (&eviction.container_id, &eviction.reason);
            if !self.shows_container(container).await {
                continue;
            }
            tracing::info!(container, reason, "an NRI plugin evicts a container");
            let stopped = self.engine.stop_container(container, Duration::ZERO);
            if let Err(error) = stopped.await {
                tracing::warn!(%error, container, "eviction failed");
            }
        }
    }

    async fn shows_container(&self, id: &str) -> bool {
        let Ok(status) = self.engine.container_status(id).await else {
            return false;
        };
        let pod = self.engine.pod_sandbox_status(&status.sandbox_id).await;
        pod.is_ok_and(|pod| self.shows(&pod))
    }
}
