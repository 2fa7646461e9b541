//! What the runtime has of this pod, as far as the worker has heard.

use std::collections::{BTreeMap, HashMap, HashSet};

use base::metrics::Counters;
use node_api::{ContainerState, ContainerStatus, PodSandboxStatus, RuntimeError};
use tokio::time::Instant;

use super::Worker;
use crate::labels;
use crate::last_words;
use crate::plan::{Health, newest_container, newest_sandbox};
use crate::pod::{PodExt, Role, instant};
use crate::probe::{Finding, ProbeContext, ProbeKind};

static TERMINATED: Counters = Counters::new(
    "kubelet_terminated_containers_total",
    "Containers that ended.",
    &["container_type", "exit_code", "reason"],
);

/// Sandboxes and containers by id.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) sandboxes: BTreeMap<String, PodSandboxStatus>,
    pub(super) containers: BTreeMap<String, ContainerStatus>,
    /// When those that ended did, worked out when they were first seen so: the clock may be set
    /// later.
    pub(super) ended: HashMap<String, Instant>,
    /// Something changed since it was last shown.
    pub(super) changed: bool,
}

impl View {
    pub(super) fn newest(&self, name: &str) -> Option<&ContainerStatus> {
        newest_container(&self.containers, name)
    }

    pub(super) fn pod_ips(&self) -> Vec<std::net::IpAddr> {
        newest_sandbox(&self.sandboxes)
            .map(|s| s.ips.clone())
            .unwrap_or_default()
    }
}

impl Worker {
    /// Lists everything of this pod.
    pub(super) async fn look_at_all(&mut self) {
        let uid = self.pod.uid().to_owned();
        let runtime = self.shared.runtime.clone();
        let (sandboxes, containers) =
            match tokio::join!(runtime.list_pod_sandboxes(), runtime.list_containers()) {
                (Ok(sandboxes), Ok(containers)) => (sandboxes, containers),
                (Err(error), _) | (_, Err(error)) => {
                    tracing::warn!(%error, "runtime not listed");
                    return;
                }
            };
        let mine = sandboxes.into_iter().filter(|s| s.config.uid == uid);
        self.view.sandboxes = mine.map(|s| (s.id.clone(), s)).collect();
        self.view.changed = true;
        let is_mine = |c: &ContainerStatus| c.config.labels.get(labels::POD_UID) == Some(&uid);
        let mut seen = HashSet::new();
        for status in containers.into_iter().filter(is_mine) {
            seen.insert(status.id.clone());
            self.set_container(status);
        }
        let known: Vec<String> = self.view.containers.keys().cloned().collect();
        for id in known.into_iter().filter(|id| !seen.contains(id)) {
            self.drop_container(&id);
        }
    }

    /// Asks about the given (sandbox, container) ids.
    pub(super) async fn look_at(&mut self, dirty: HashSet<(String, String)>) {
        for (sandbox_id, id) in dirty {
            if sandbox_id == id {
                self.look_at_sandbox(&id).await;
            } else {
                self.look_at_container(&id).await;
            }
        }
    }

    pub(super) async fn look_at_container(&mut self, id: &str) {
        match self.shared.runtime.container_status(id).await {
            Ok(status) => self.set_container(status),
            Err(RuntimeError::NotFound(_)) => self.drop_container(id),
            Err(error) => tracing::warn!(%error, id, "container not read"),
        }
    }

    pub(super) async fn look_at_sandbox(&mut self, id: &str) {
        self.view.changed = true;
        match self.shared.runtime.pod_sandbox_status(id).await {
            Ok(status) => {
                self.view.sandboxes.insert(id.to_owned(), status);
            }
            Err(RuntimeError::NotFound(_)) => {
                self.view.sandboxes.remove(id);
            }
            Err(error) => tracing::warn!(%error, id, "sandbox not read"),
        }
    }

    fn drop_container(&mut self, id: &str) {
        self.view.changed = true;
        self.view.containers.remove(id);
        self.view.ended.remove(id);
        self.forget(id);
        self.messages.remove(id);
    }

    fn forget(&mut self, id: &str) {
        self.health.remove(id);
        self.probes.stop(id);
    }

    /// Notes how a container is now.
    pub(super) fn set_container(&mut self, mut status: ContainerStatus) {
        self.view.changed = true;
        let id = status.id.clone();
        let name = status.config.name.clone();
        match status.state {
            // Not running to the outside before its postStart hook is done.
            ContainerState::Running if self.hook_pending(&name) => {
                status.state = ContainerState::Created;
            }
            ContainerState::Running => self.note_running(&status),
            ContainerState::Exited => {
                self.count_end(&status);
                let clock = &self.shared.config.clock;
                let ended = self.view.ended.entry(id.clone());
                ended.or_insert_with(|| clock.happened(instant(status.finished_at)));
                self.forget(&id);
                if !self.messages.contains_key(&id)
                    && let Some(message) = last_words::read(&status)
                {
                    self.messages.insert(id.clone(), message);
                }
            }
            ContainerState::Created | ContainerState::Unknown => {}
        }
        self.view.containers.insert(id, status);
    }

    /// Counts the end of a container that was known before.
    fn count_end(&self, status: &ContainerStatus) {
        let known = self.view.containers.get(&status.id);
        if known.is_none_or(|known| known.state == ContainerState::Exited) {
            return;
        }
        let role = self
            .pod
            .container(&status.config.name)
            .map(|(role, _)| role);
        let kind = match role {
            Some(Role::Init | Role::Sidecar) => "init_container",
            Some(Role::Ephemeral) => "ephemeral_container",
            Some(Role::Main) | None => "container",
        };
        let reason = match status.reason.as_str() {
            "" if status.exit_code == 0 => "Completed",
            "" => "Error",
            reason => reason,
        };
        TERMINATED.add(&[kind, &status.exit_code.to_string(), reason], 1);
    }

    fn hook_pending(&self, name: &str) -> bool {
        let hook = self.pod.container(name).is_some_and(|(_, container)| {
            container
                .lifecycle
                .as_ref()
                .is_some_and(|l| l.post_start.is_some())
        });
        hook && self.busy.starting.contains_key(name)
    }

    fn note_running(&mut self, status: &ContainerStatus) {
        if self.health.contains_key(&status.id) {
            return;
        }
        let name = &status.config.name;
        let has_startup = self
            .pod
            .container(name)
            .is_some_and(|(_, c)| c.startup_probe.is_some());
        // After a restart of ours, what the API says of this very container still holds.
        let known = self.report.container(name).filter(|known| {
            let id = known
                .container_id
                .as_deref()
                .and_then(|id| id.split("://").nth(1));
            id == Some(status.id.as_str())
        });
        let health = Health {
            started: !has_startup || known.is_some_and(|known| known.started == Some(true)),
            ready: known.filter(|known| known.ready).map(|_| true),
            failed: None,
        };
        self.health.insert(status.id.clone(), health);
        self.waiting.remove(name);
        self.view
            .containers
            .insert(status.id.clone(), status.clone());
        self.start_probes();
    }

    /// Notes what a probe found.
    pub(super) fn note_finding(&mut self, id: &str, kind: ProbeKind, finding: Finding) {
        let Some(status) = self.view.containers.get(id) else {
            return;
        };
        let name = status.config.name.clone();
        let Some(health) = self.health.get_mut(id) else {
            return;
        };
        match (kind, finding.success) {
            (ProbeKind::Readiness, success) => health.ready = Some(success),
            (ProbeKind::Startup, true) => {
                health.started = true;
                self.probes.stop_kind(id, ProbeKind::Startup);
                self.start_probes();
            }
            (ProbeKind::Liveness, true) => {}
            (ProbeKind::Startup | ProbeKind::Liveness, false) => {
                let word = match kind {
                    ProbeKind::Startup => "startup",
                    _ => "liveness",
                };
                let message = format!("Container {name} failed {word} probe, will be restarted");
                health.failed = Some((message, finding.grace_seconds));
            }
        }
    }

    pub(super) fn probe_context(&self) -> ProbeContext {
        let ip = match self.pod.host_network() {
            true => self.shared.config.node_ip(),
            false => self.view.pod_ips().first().copied(),
        };
        ProbeContext {
            pod: self.pod.clone(),
            ip,
            runtime: self.shared.runtime.clone(),
            recorder: self.shared.recorder.clone(),
            inbox: self.inbox.clone(),
        }
    }
}
