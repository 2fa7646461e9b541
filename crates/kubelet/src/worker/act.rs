//! Carries out a plan: each action becomes a task beside the worker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use meta::Status;
use node_api::{ContainerState, RuntimeError};
use tokio::task::JoinError;
use tokio::time::Instant;
use volumes::{Mounted, VolumeError};

use super::resize::Resized;
use super::{Worker, until};
use crate::events::Kind;
use crate::hooks;
use crate::images::StartError;
use crate::inbox::StartOutcome;
use crate::plan::{Action, Kill, Start};
use crate::pod::PodExt;
use crate::sandbox_config::sandbox_config;
use crate::shared::Shared;
use crate::start::StartJob;

/// The least time a container has after SIGTERM, however long its hook took.
const GRACE_MIN: Duration = Duration::from_secs(2);
/// Pause after the runtime refused to stop or remove something.
const RETRY: Duration = Duration::from_secs(1);

/// An action that came to its end.
#[derive(Debug)]
pub(super) enum Done {
    Volumes(Result<Mounted, VolumeError>),
    Sandbox(Result<String, RuntimeError>),
    SandboxStopped(String),
    Removed { sandbox: bool, id: String },
    Starts(u64),
    Killed(String),
    Resized(Box<Resized>),
    Patched(Box<Result<Pod, Status>>),
    Unmounted(Result<(), VolumeError>),
    Deleted(Result<(), Status>),
    Cleaned(Result<(), String>),
}

impl Worker {
    /// Begins all actions of a plan.
    pub(super) fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::MountVolumes => self.mount_volumes(),
                Action::RunSandbox { attempt } => self.run_sandbox(attempt),
                Action::StopSandbox { id } => self.stop_sandbox(id),
                Action::RemoveSandbox { id } => self.remove(id, true),
                Action::RemoveContainer { id } => self.remove(id, false),
                Action::Start { sandbox_id, starts } => self.start(sandbox_id, starts),
                Action::Kill(kill) => self.kill(kill),
            }
        }
    }

    pub(super) fn mount_volumes(&mut self) {
        self.busy.volumes = true;
        self.volumes_stale = false;
        let (shared, pod) = (self.shared.clone(), self.pod.clone());
        let ips = self.view.pod_ips();
        self.ops.spawn(async move {
            let facts = shared.facts(&ips);
            Done::Volumes(shared.volumes.mount(&pod, &facts).await)
        });
    }

    /// Brings mounted volumes up to date when something they show changed.
    pub(super) fn refresh_volumes(&mut self, now: Instant, time: Timestamp) -> Option<Instant> {
        let mounted = self.mounted.as_ref()?;
        let due = mounted.refresh_at.filter(|at| *at <= time).is_some();
        let refresh_at = mounted.refresh_at;
        if !self.busy.volumes && (self.volumes_stale || due) {
            match self.hold_until.filter(|until| now < *until) {
                Some(until) => return Some(until),
                None => self.mount_volumes(),
            }
        }
        let ahead = refresh_at.filter(|at| *at > time);
        ahead.map(|at| self.shared.config.clock.look_for(at))
    }

    fn run_sandbox(&mut self, attempt: u32) {
        self.busy.sandbox = true;
        let shared = self.shared.clone();
        let mut config = sandbox_config(&self.pod, attempt, &shared.config);
        let pod = self.pod.clone();
        self.ops.spawn(async move {
            if let Err(fault) = choose(&shared, &pod, &mut config).await {
                return Done::Sandbox(Err(RuntimeError::Internal(fault)));
            }
            let folder = config.log_directory.clone();
            if let Err(error) = tokio::fs::create_dir_all(&folder).await {
                let message = format!("create {}: {error}", folder.display());
                return Done::Sandbox(Err(RuntimeError::Internal(message)));
            }
            if shared.config.features.no_quota_with_exclusive_cpus
                && shared.placement.any_exclusive_cpus(pod.uid())
                && let Some(whole) = config.resources.as_mut()
            {
                (whole.cpu_quota, whole.cpu_period) = (0, 0);
            }
            Done::Sandbox(shared.runtime.run_pod_sandbox(config).await)
        });
    }

    fn stop_sandbox(&mut self, id: String) {
        self.busy.sandbox = true;
        let runtime = self.shared.runtime.clone();
        self.ops.spawn(async move {
            if let Err(error) = runtime.stop_pod_sandbox(&id).await {
                tracing::warn!(%error, id, "sandbox not stopped");
                tokio::time::sleep(RETRY).await;
            }
            Done::SandboxStopped(id)
        });
    }

    fn remove(&mut self, id: String, sandbox: bool) {
        self.busy.removing.insert(id.clone());
        let runtime = self.shared.runtime.clone();
        let all = self.view.containers.values();
        let gone = all.filter(|c| c.id == id || (sandbox && c.sandbox_id == id));
        let gone: Vec<_> = gone.cloned().collect();
        let links = self.shared.config.log_links.clone();
        self.ops.spawn(async move {
            let removed = match sandbox {
                true => runtime.remove_pod_sandbox(&id).await,
                false => runtime.remove_container(&id).await,
            };
            match removed {
                Ok(()) => {
                    if let Some(links) = links {
                        crate::log_links::remove(&links, gone.iter());
                    }
                    for status in gone.iter().filter(|_| !sandbox) {
                        crate::logs::remove(&status.log_path);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, id, "not removed");
                    tokio::time::sleep(RETRY).await;
                }
            }
            Done::Removed { sandbox, id }
        });
    }

    fn start(&mut self, sandbox_id: String, starts: Vec<Start>) {
        let Some(mounted) = self.mounted.clone() else {
            return;
        };
        self.jobs += 1;
        let config = &self.shared.config;
        let limits = (config.restart_pause_first, config.restart_pause_max);
        let now = Instant::now();
        for start in &starts {
            let crashed = self.view.newest(&start.name);
            let crashed = crashed.filter(|c| c.state == ContainerState::Exited);
            if let Some(crashed) = crashed {
                let failed_at = self.view.ended.get(&crashed.id).copied().unwrap_or(now);
                self.backoffs
                    .entry(start.name.clone())
                    .or_default()
                    .attempt(failed_at, now, limits);
            }
            self.busy.starting.insert(start.name.clone(), self.jobs);
        }
        let pod_ips = match self.pod.host_network() {
            true => self.shared.config.node_ips.clone(),
            false => self.view.pod_ips(),
        };
        let job = StartJob {
            shared: self.shared.clone(),
            pod: self.pod.clone(),
            sandbox_id,
            pod_ips,
            mounted,
            targets: self.targets(),
            starts,
            job: self.jobs,
            inbox: self.inbox.clone(),
            cancel: self.cancel.clone(),
        };
        self.ops.spawn(async move {
            let number = job.job;
            job.run().await;
            Done::Starts(number)
        });
    }

    /// Ids of the running containers whose processes ephemeral ones may want to see.
    fn targets(&self) -> HashMap<String, String> {
        if self.pod.spec().ephemeral_containers.is_none() {
            return HashMap::new();
        }
        let all = self.view.containers.values();
        all.filter(|status| status.state == ContainerState::Running)
            .map(|status| (status.config.name.clone(), status.id.clone()))
            .collect()
    }

    /// Notes how a start went.
    pub(super) fn note_outcome(&mut self, outcome: StartOutcome) {
        let name = outcome.name;
        // A job that was given up must not speak for its successor.
        if self.busy.starting.get(&name) == Some(&outcome.job) {
            self.busy.starting.remove(&name);
        }
        self.replacing.remove(&name);
        match outcome.error {
            None => {
                self.waiting.remove(&name);
                self.not_before.remove(&name);
            }
            Some(StartError {
                reason,
                message,
                retry_at,
            }) => {
                self.waiting
                    .insert(name.clone(), (reason.to_owned(), message));
                if let Some(at) = retry_at {
                    self.not_before.insert(name.clone(), at);
                }
            }
        }
        if let Some(status) = outcome.container {
            self.resizing
                .actuated
                .insert(name.clone(), outcome.resources);
            self.set_container(status);
        }
    }

    fn kill(&mut self, kill: Kill) {
        let again = self
            .busy
            .killing
            .insert(kill.id.clone(), kill.deadline)
            .is_some();
        let (shared, pod) = (self.shared.clone(), self.pod.clone());
        let status = self.view.containers.get(&kill.id);
        // A container that never ran has nothing to say goodbye to, and some have no time to.
        let running = status.is_some_and(|s| s.state == ContainerState::Running);
        let hooked = !again && running && !until(kill.deadline).is_zero();
        let ip = self.view.pod_ips().first().copied();
        self.probes
            .stop_kind(&kill.id, crate::probe::ProbeKind::Liveness);
        self.probes
            .stop_kind(&kill.id, crate::probe::ProbeKind::Startup);
        if self.ending.is_none() {
            self.replacing.entry(kill.name.clone()).or_default();
        }
        if !again {
            let name = &kill.name;
            let message = kill
                .message
                .clone()
                .unwrap_or(format!("Stopping container {name}"));
            shared
                .recorder
                .pod(&pod, Some(name), Kind::Normal, "Killing", message);
        }
        self.ops.spawn(async move {
            if hooked {
                pre_stop(&shared, &pod, &kill, ip).await;
            }
            let left = match again {
                true => until(kill.deadline),
                false => until(kill.deadline).max(GRACE_MIN.min(whole_grace(&pod))),
            };
            if let Err(error) = shared.runtime.stop_container(&kill.id, left).await {
                tracing::warn!(%error, id = kill.id, "container not stopped");
                tokio::time::sleep(RETRY).await;
            }
            Done::Killed(kill.id)
        });
    }
}

/// What of a sandbox is not the pod's alone to say: the ids it gets and who runs it.
async fn choose(
    shared: &Shared,
    pod: &Pod,
    config: &mut node_api::PodSandboxConfig,
) -> Result<(), String> {
    if pod.has_user_namespace() {
        config.namespaces.user = Some(shared.user_namespaces.assign(pod.uid())?);
    }
    if let Some(name) = pod.spec().runtime_class_name.as_deref()
        && !name.is_empty()
    {
        let class = shared.client.all::<RuntimeClass>().get(name).await;
        let class =
            class.map_err(|status| format!("failed to get sandbox runtime: {}", status.message))?;
        config.runtime_handler = class.handler;
    }
    Ok(())
}

fn whole_grace(pod: &Pod) -> Duration {
    Duration::from_secs(pod.grace_seconds().unsigned_abs())
}

async fn pre_stop(shared: &Arc<Shared>, pod: &Arc<Pod>, kill: &Kill, ip: Option<std::net::IpAddr>) {
    let Some((_, container)) = pod.container(&kill.name) else {
        return;
    };
    let hook = container
        .lifecycle
        .as_ref()
        .and_then(|l| l.pre_stop.as_ref());
    let Some(hook) = hook else {
        return;
    };
    let target = hooks::Target {
        runtime: &shared.runtime,
        container: &container,
        container_id: &kill.id,
        ip,
    };
    let ran = tokio::time::timeout(until(kill.deadline), hooks::run(&target, hook)).await;
    let fault = match ran {
        Ok(Ok(())) => return,
        Ok(Err(fault)) => fault,
        Err(_) => "the grace period is over".to_owned(),
    };
    tracing::info!(container = kill.name, fault, "preStop hook failed");
    let name = Some(kill.name.as_str());
    shared.recorder.pod(
        pod,
        name,
        Kind::Warning,
        "FailedPreStopHook",
        "PreStopHook failed",
    );
}

/// What a task came to; one that panicked is told like any other fault.
pub(super) fn joined(done: Result<Done, JoinError>) -> Option<Done> {
    match done {
        Ok(done) => Some(done),
        Err(fault) => {
            tracing::error!(%fault, "a pod's task panicked");
            None
        }
    }
}
