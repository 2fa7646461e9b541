//! Resizes the pod while it runs: takes wishes for other resources, sees
//! whether the node has them, and brings containers there.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use node_api::{LinuxResources, RuntimeService, SandboxState};
use tokio::time::Instant;

use super::Worker;
use super::act::Done;
use crate::admission;
use crate::events::Kind;
use crate::plan::newest_sandbox;
use crate::pod::PodExt;
use crate::resize::{self, ByContainer, Given, Update};
use crate::resources;
use crate::status::ResizeCondition;

/// Pause after the runtime refused other limits.
const RETRY: Duration = Duration::from_secs(10);

/// Where the resize of a pod stands. The worker's pod is the one that was granted.
#[derive(Debug, Default)]
pub(super) struct Resizing {
    /// As the API has the pod, while that is more than was granted.
    wished: Option<Arc<Pod>>,
    /// What the running containers have.
    pub(super) actuated: ByContainer,
    /// What the pod as a whole has.
    pub(super) whole: Option<LinuxResources>,
    pending: Option<ResizeCondition>,
    progress: Option<ResizeCondition>,
    busy: bool,
    retry_at: Option<Instant>,
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) struct Resized {
    done: Vec<(String, Given)>,
    whole: Option<LinuxResources>,
    fault: Option<String>,
}

impl Resizing {
    /// Conditions to show.
    pub(super) fn conditions(&self) -> Vec<ResizeCondition> {
        self.pending.iter().chain(&self.progress).cloned().collect()
    }
}

impl Worker {
    /// Finds out what the pod was granted by an earlier process, or grants what it asks for.
    /// Returns why it cannot run here.
    pub(super) async fn admit(&mut self) -> Option<(String, String)> {
        if self.view.sandboxes.is_empty() {
            return admission::admit(&self.shared, &self.pod).await.err();
        }
        let remembered = resize::remembered(&self.pod, &self.view.containers);
        for (_, container) in self.pod.all_containers() {
            let known = remembered.get(&container.name).cloned();
            let known = known.unwrap_or_else(|| Given::of(&self.pod, container));
            self.resizing.actuated.insert(container.name.clone(), known);
        }
        let wished = self.pod.clone();
        let mut granted = resize::with_resources(&wished, &remembered);
        if let Some(spec) = granted.spec.as_mut() {
            spec.resources = resize::granted_whole(&wished);
        }
        self.pod = Arc::new(granted);
        self.shared.allocations.note(self.pod.uid(), &self.pod);
        self.take_pod(wished);
        None
    }

    /// Takes a new version of the pod's object; its resources as far as the node has them.
    pub(super) fn take_pod(&mut self, pod: Arc<Pod>) {
        if resize::same(&pod, &self.pod) {
            if self.resizing.wished.take().is_some() {
                self.shared.allocations.wait_no_more(pod.uid());
            }
            self.resizing.pending = None;
            self.pod = pod;
        } else if self.ending.is_some() || pod.is_terminal() {
            self.pod = Arc::new(resize::with_resources_of(&pod, &self.pod));
        } else {
            self.wish(pod);
        }
    }

    /// Others need less than before: asks again.
    pub(super) fn wish_again(&mut self) {
        if let Some(pod) = self.resizing.wished.clone()
            && self.ending.is_none()
        {
            self.wish(pod);
        }
    }

    fn wish(&mut self, pod: Arc<Pod>) {
        let shared = self.shared.clone();
        let generation = pod.metadata.generation;
        if let Some(fault) = resize::infeasible(&pod, &self.pod, &shared.config) {
            let pending = ResizeCondition::infeasible(generation, fault.clone());
            return self.refuse(pod, pending, ("Infeasible", "ResizeInfeasible", &fault));
        }
        let before = resources::requests(&self.pod);
        match shared
            .allocations
            .grant(pod.uid(), &pod, &shared.allocatable())
        {
            Ok(()) => {
                let message = resize::message("Pod resize started", &pod, None);
                shared
                    .recorder
                    .pod(&pod, None, Kind::Normal, "ResizeStarted", message);
                let after = resources::requests(&pod);
                self.pod = pod;
                self.resizing.wished = None;
                self.resizing.pending = None;
                self.resizing.retry_at = None;
                self.resizing.progress = Some(ResizeCondition::progress(generation, None));
                if after.milli_cpu < before.milli_cpu || after.memory_bytes < before.memory_bytes {
                    shared.tell_waiting();
                }
            }
            Err(denial) => {
                // There are no ports in a wish: all that can be missing are resources.
                let shortage = denial.shortages.first();
                let shortage = shortage.map(ToString::to_string).unwrap_or_default();
                let pending = ResizeCondition::deferred(generation, shortage.clone());
                shared.allocations.wait(pod.uid(), &pod);
                self.refuse(pod, pending, ("Deferred", "ResizeDeferred", &shortage));
            }
        }
    }

    /// Goes on with the resources the pod has.
    fn refuse(
        &mut self,
        wished: Arc<Pod>,
        pending: ResizeCondition,
        (verdict, reason, why): (&str, &str, &str),
    ) {
        if self.resizing.pending.as_ref() != Some(&pending) {
            let what = format!("Pod resize {verdict}");
            let message = resize::message(&what, &wished, Some(why));
            let recorder = &self.shared.recorder;
            recorder.pod(&wished, None, Kind::Warning, reason, message);
        }
        self.resizing.pending = Some(pending);
        self.pod = Arc::new(resize::with_resources_of(&wished, &self.pod));
        self.resizing.wished = Some(wished);
    }

    /// The pod needs nothing of the node any more.
    pub(super) fn release(&mut self) {
        if std::mem::replace(&mut self.last.released, true) {
            return;
        }
        self.resizing.pending = None;
        self.resizing.progress = None;
        self.shared.allocations.release(self.pod.uid());
        self.shared.placement.release(self.pod.uid());
        self.shared.tell_waiting();
    }

    /// Brings containers to what the pod was granted.
    pub(super) fn actuate(&mut self, now: Instant) -> Option<Instant> {
        let busy = self.resizing.busy || !self.busy.starting.is_empty();
        if self.resizing.progress.is_none() || busy || self.ending.is_some() {
            return None;
        }
        if let Some(at) = self.resizing.retry_at.filter(|at| now < *at) {
            return Some(at);
        }
        let sandbox = newest_sandbox(&self.view.sandboxes)?;
        if sandbox.state != SandboxState::Ready {
            return None;
        }
        let config = &self.shared.config;
        let updates = resize::updates(
            &self.pod,
            &self.view.containers,
            &self.resizing.actuated,
            config,
            self.shared.machine.memory_bytes,
        );
        let wanted = resources::of_pod(&self.pod, config);
        let whole = self.resizing.whole.clone();
        let whole = whole.or_else(|| sandbox.config.resources.clone());
        let whole = whole.unwrap_or_default();
        if !updates.is_empty() || whole != wanted {
            let job = Job {
                runtime: self.shared.runtime.clone(),
                sandbox_id: sandbox.id.clone(),
                before: whole,
                after: wanted,
                updates,
            };
            self.resizing.busy = true;
            self.ops
                .spawn(async move { Done::Resized(Box::new(job.run().await)) });
        } else if self.replacing.is_empty()
            && resize::settled(&self.pod, &self.view.containers, &self.resizing.actuated)
        {
            self.resizing.progress = None;
            let message = resize::message("Pod resize completed", &self.pod, None);
            let recorder = &self.shared.recorder;
            recorder.pod(&self.pod, None, Kind::Normal, "ResizeCompleted", message);
        }
        None
    }

    /// Takes note of how an attempt ended.
    pub(super) fn resized(&mut self, resized: Resized) {
        let resizing = &mut self.resizing;
        resizing.busy = false;
        resizing.actuated.extend(resized.done);
        if let Some(whole) = resized.whole {
            resizing.whole = Some(whole);
        }
        let Some(progress) = &resizing.progress else {
            return;
        };
        let generation = progress.generation;
        match resized.fault {
            None => resizing.retry_at = None,
            Some(fault) => {
                let message = resize::message("Pod resize error", &self.pod, Some(&fault));
                let recorder = &self.shared.recorder;
                recorder.pod(&self.pod, None, Kind::Warning, "ResizeError", message);
                resizing.progress = Some(ResizeCondition::progress(generation, Some(fault)));
                resizing.retry_at = Some(Instant::now() + RETRY);
            }
        }
    }
}

/// Writes limits: first the pod gets as much as it needs on the way, last what it should have.
struct Job {
    runtime: Arc<dyn RuntimeService>,
    sandbox_id: String,
    before: LinuxResources,
    after: LinuxResources,
    updates: Vec<Update>,
}

impl Job {
    async fn run(self) -> Resized {
        let mut resized = Resized {
            done: Vec::new(),
            whole: None,
            fault: None,
        };
        if let Err(fault) = self.try_run(&mut resized).await {
            resized.fault = Some(fault);
        }
        resized
    }

    async fn try_run(&self, resized: &mut Resized) -> Result<(), String> {
        self.check_usage().await?;
        let wide = resize::widest(&self.before, &self.after);
        if wide != self.before {
            self.limit_pod(wide.clone(), resized).await?;
        }
        for update in &self.updates {
            let resources = update.resources.clone();
            let updated = self
                .runtime
                .update_container_resources(&update.id, resources);
            updated.await.map_err(|fault| fault.to_string())?;
            resized
                .done
                .push((update.name.clone(), update.granted.clone()));
        }
        if wide != self.after {
            self.limit_pod(self.after.clone(), resized).await?;
        }
        Ok(())
    }

    async fn limit_pod(&self, limits: LinuxResources, resized: &mut Resized) -> Result<(), String> {
        let limited = self
            .runtime
            .update_pod_sandbox_resources(&self.sandbox_id, limits.clone());
        limited.await.map_err(|fault| fault.to_string())?;
        resized.whole = Some(limits);
        Ok(())
    }

    /// A limit below what is in use would have the container killed.
    async fn check_usage(&self) -> Result<(), String> {
        let mut faults = Vec::new();
        for update in self.updates.iter().filter(|update| update.shrinks) {
            let name = &update.name;
            let limit = update.resources.memory_limit_bytes;
            match self.runtime.container_stats(&update.id).await {
                Ok(stats) if i128::from(stats.memory_usage_bytes) >= i128::from(limit) => {
                    faults.push(format!(
                        "attempting to set container {name:?} memory limit ({limit}) below current usage ({})",
                        stats.memory_usage_bytes
                    ));
                }
                Ok(_) => {}
                Err(_) => faults.push(format!("missing container {name:?} memory usage")),
            }
        }
        let shown = match faults.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            all => format!("[{}]", all.join(", ")),
        };
        Err(format!("cannot decrease memory limits: {shown}"))
    }
}
