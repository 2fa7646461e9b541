//! What follows when an action is done, and the last steps of a pod.

use std::time::Duration;

use tokio::task::JoinError;
use tokio::time::Instant;

use super::Worker;
use super::act::{Done, joined};
use crate::events::Kind;
use crate::pod::PodExt;

/// Pause before a last step is tried again.
const RETRY: Duration = Duration::from_secs(2);

impl Worker {
    /// Takes note of an action's end.
    pub(super) async fn finish(&mut self, done: Result<Done, JoinError>) {
        let Some(done) = joined(done) else {
            // Which task it was is not known any more: ask about everything.
            self.busy = super::Busy::default();
            return self.look_at_all().await;
        };
        match done {
            Done::Volumes(made) => self.volumes_done(made),
            Done::Sandbox(made) => self.sandbox_done(made).await,
            Done::SandboxStopped(id) => {
                self.busy.sandbox = false;
                self.look_at_all().await;
                self.look_at_sandbox(&id).await;
            }
            Done::Removed { sandbox, id } => {
                self.busy.removing.remove(&id);
                match sandbox {
                    true => self.look_at_all().await,
                    false => self.look_at_container(&id).await,
                }
            }
            Done::Starts(job) => {
                // Outcomes that are still in the inbox come first.
                let outcomes = self.inbox.take_outcomes();
                for outcome in outcomes {
                    self.note_outcome(outcome);
                }
                self.busy.starting.retain(|_, known| *known != job);
                // Shown as created while its hook ran, or cut off between create and start.
                let created = self.view.containers.values();
                let created: Vec<String> = created
                    .filter(|c| c.state == node_api::ContainerState::Created)
                    .map(|c| c.id.clone())
                    .collect();
                for id in created {
                    self.look_at_container(&id).await;
                }
            }
            Done::Killed(id) => {
                self.look_at_container(&id).await;
                self.busy.killing.remove(&id);
            }
            Done::Resized(resized) => self.resized(*resized),
            Done::Patched(answer) => self.patched(*answer),
            Done::Unmounted(Ok(())) => self.last.unmounted = true,
            Done::Unmounted(Err(error)) => {
                tracing::warn!(%error, pod = self.pod.display(), "volumes not unmounted");
                self.last.unmounting = false;
                self.last.retry_at = Some(Instant::now() + RETRY);
            }
            Done::Deleted(Ok(())) => {}
            Done::Deleted(Err(status)) if status.is_not_found() || status.is_conflict() => {}
            Done::Deleted(Err(status)) => {
                tracing::debug!(error = %status, pod = self.pod.display(), "pod not deleted");
                self.last.deleting = false;
                self.last.retry_at = Some(Instant::now() + RETRY);
            }
            Done::Cleaned(Ok(())) => self.last.cleaned = true,
            Done::Cleaned(Err(error)) => {
                tracing::warn!(error, pod = self.pod.display(), "pod not removed");
                self.last.cleaning = false;
                self.last.retry_at = Some(Instant::now() + RETRY);
            }
        }
    }

    fn volumes_done(&mut self, made: Result<volumes::Mounted, volumes::VolumeError>) {
        self.busy.volumes = false;
        match made {
            Ok(mounted) => {
                self.mounted = Some(mounted);
                self.hold.reset();
                self.hold_until = None;
            }
            Err(error) => {
                let message = chain(&error);
                tracing::info!(message, pod = self.pod.display(), "volumes not ready");
                let recorder = &self.shared.recorder;
                recorder.pod(&self.pod, None, Kind::Warning, "FailedMount", message);
                self.hold_back();
                self.volumes_stale = self.mounted.is_some();
            }
        }
    }

    async fn sandbox_done(&mut self, made: Result<String, node_api::RuntimeError>) {
        self.busy.sandbox = false;
        match made {
            Ok(id) => {
                self.hold.reset();
                self.hold_until = None;
                self.look_at_sandbox(&id).await;
            }
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {error}");
                let recorder = &self.shared.recorder;
                recorder.pod(
                    &self.pod,
                    None,
                    Kind::Warning,
                    "FailedCreatePodSandBox",
                    message,
                );
                self.hold_back();
                self.look_at_all().await;
            }
        }
    }

    fn hold_back(&mut self) {
        let delay = self.hold.next_delay();
        self.hold_until = Some(Instant::now() + delay);
    }

    /// Nothing runs any more: volumes, then the object, then what is left on the node.
    pub(super) fn finish_pod(&mut self, now: Instant) -> Option<Instant> {
        if let Some(at) = self.last.retry_at.filter(|at| now < *at) {
            return Some(at);
        }
        if !self.last.unmounted {
            self.unmount();
        } else if self.last.gone {
            self.clean_up();
        } else if self.pod.is_deleting() && self.report.is_settled() {
            self.delete_object();
        }
        None
    }

    fn unmount(&mut self) {
        if std::mem::replace(&mut self.last.unmounting, true) {
            return;
        }
        let (volumes, uid) = (self.shared.volumes.clone(), self.pod.uid().to_owned());
        self.ops
            .spawn(async move { Done::Unmounted(volumes.unmount(&uid).await) });
    }

    fn delete_object(&mut self) {
        if self.pod.is_static() || std::mem::replace(&mut self.last.deleting, true) {
            return;
        }
        let api = self.shared.client.beside(self.pod.as_ref());
        let name = self.pod.name().to_owned();
        let options = client::DeleteOptions {
            grace_period_seconds: Some(0),
            ..client::DeleteOptions::uid(self.pod.uid())
        };
        self.ops
            .spawn(async move { Done::Deleted(api.delete(&name, &options).await) });
    }

    fn clean_up(&mut self) {
        if std::mem::replace(&mut self.last.cleaning, true) {
            return;
        }
        let shared = self.shared.clone();
        let sandboxes: Vec<String> = self.view.sandboxes.keys().cloned().collect();
        let containers: Vec<_> = self.view.containers.values().cloned().collect();
        let logs = shared.config.log_dir.join(self.pod.log_folder());
        self.ops.spawn(async move {
            for id in sandboxes {
                let removed = shared.runtime.remove_pod_sandbox(&id).await;
                if let Err(error) = removed {
                    return Done::Cleaned(Err(error.to_string()));
                }
            }
            if let Some(links) = &shared.config.log_links {
                crate::log_links::remove(links, containers.iter());
            }
            match tokio::fs::remove_dir_all(&logs).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Done::Cleaned(Err(error.to_string()))
                }
                _ => Done::Cleaned(Ok(())),
            }
        });
    }
}

/// An error with its causes, as upstream prints them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let shown = cause.to_string();
        if !text.ends_with(&shown) {
            text.push_str(&shown);
        }
        source = cause.source();
    }
    text
}
