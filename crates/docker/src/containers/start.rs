//! Starting a container: its sandbox, its network, its files, its program.

use std::sync::Arc;
use std::time::Duration;

use node_api::{ExecRequest, RuntimeService};
use oci::forget_mount;
use runtime::Extras;

use super::share::Shares;
use crate::answer::{self, Answer, Fault};
use crate::call::Call;
use crate::daemon::{Container, Daemon};
use crate::record::{Record, Status, now};
use crate::translate;

/// `POST /containers/{id}/start`.
pub(crate) async fn start(call: Call, name: &str) -> Answer {
    let container = call.daemon.find(name)?;
    call.daemon.start(&container).await?;
    answer::done()
}

/// `POST /containers/{id}/restart`.
pub(crate) async fn restart(call: Call, name: &str) -> Answer {
    let daemon = &call.daemon;
    let container = daemon.find(name)?;
    let (signal, timeout) = super::end::stop_wishes(&call, &container)?;
    if container.record.read().state.is_up() {
        daemon
            .stop_container(&container, signal, timeout, false)
            .await?;
    }
    daemon.start(&container).await?;
    let record = container.snapshot();
    daemon.events.container(&record, "restart", &[]);
    answer::done()
}

/// The exit code of a command that could not be started, as shells have it.
pub(crate) fn start_code(message: &str) -> i32 {
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&["executable file not found", "no such file or directory"]) {
        127
    } else if says(&["permission denied", "is a directory"]) {
        126
    } else {
        128
    }
}

impl Daemon {
    /// Starts a container that is not up.
    pub(crate) async fn start(&self, container: &Arc<Container>) -> Result<(), Fault> {
        let _change = container.change.lock().await;
        let record = container.snapshot();
        match record.state.status {
            Status::Running => return Err(Fault::unchanged()),
            Status::Paused => {
                let message = "cannot start a paused container, try unpause instead";
                return Err(Fault::conflict(message));
            }
            _ => {}
        }
        if container.progress.borrow().removed {
            return Err(Fault::missing(format!("No such container: {}", record.id)));
        }
        container.interrupt.notify_waiters();
        // What is left of the last time holds its files and ports.
        let _rest = container.disposal.lock().await;
        self.volumes.starting.lock().insert(record.id.clone());
        let started = async {
            self.attach_volumes(&record).await?;
            let shipper = self.shipper(&record).await?;
            let inside = self.bring_up(container, &record).await?;
            Ok::<_, Fault>((inside, shipper))
        };
        let ((sandbox, inner, pid), shipper) = match started.await {
            Ok(started) => started,
            Err(fault) => {
                self.volumes.starting.lock().remove(&record.id);
                self.detach_volumes(&record).await;
                container.waiting.lock().clear();
                let record = container.save(false, |record| {
                    record.state.error = fault.message.clone();
                    record.state.exit_code = start_code(&fault.message);
                    record.state.finished_at = now();
                })?;
                let code = record.state.exit_code.to_string();
                self.events.container(&record, "die", &[("exitCode", code)]);
                if record.host.auto_remove {
                    self.spawn_removal(container);
                }
                return Err(fault);
            }
        };
        let record = container.save(false, |record| {
            let state = &mut record.state;
            state.status = Status::Running;
            state.started_at = now();
            (state.exit_code, state.pid) = (0, pid);
            state.error.clear();
            state.oom_killed = false;
            state.ended_by_user = false;
            (state.sandbox, state.inner) = (sandbox, inner);
        });
        self.volumes.starting.lock().remove(&container.id);
        *container.begun.lock() = Some(tokio::time::Instant::now());
        let record = record?;
        container
            .progress
            .send_modify(|progress| progress.up = true);
        self.events.container(&record, "start", &[]);
        self.watch_health(container);
        self.ship(container, shipper);
        // Its end may have been told before anybody knew it as up.
        self.spawn_ended(record.id);
        Ok(())
    }

    /// Sandbox, container and first process id.
    async fn bring_up(
        &self,
        container: &Arc<Container>,
        record: &Record,
    ) -> Result<(String, String, i32), Fault> {
        let folder = &container.folder;
        forget_mount(&folder.join(translate::WRITABLE))?;
        let user = self.user_namespace(record);
        let shares = self.shares(record, user.as_ref()).await?;
        let config = translate::sandbox(record, folder, user)?;
        let extras = shares.sandbox.clone();
        self.switch.expect(&record.id);
        let sandbox = (self.engine.run_pod_sandbox_with(config, extras).await)
            .inspect_err(|_| drop(self.switch.take(&record.id)))?;
        let inside = self.fill_sandbox(container, record, &sandbox, shares).await;
        match inside {
            Ok((inner, pid)) => Ok((sandbox, inner, pid)),
            Err(fault) => {
                self.engine.remove_pod_sandbox(&sandbox).await?;
                self.detach_networks(container).await?;
                Err(fault)
            }
        }
    }

    async fn fill_sandbox(
        &self,
        container: &Arc<Container>,
        record: &Record,
        sandbox: &str,
        shares: Shares,
    ) -> Result<(String, i32), Fault> {
        let folder = &container.folder;
        let netns = self.switch.take(&record.id);
        let mut joined = record.clone();
        if let Some(netns) = &netns {
            joined = self.attach_networks(container, netns).await?;
        }
        let record = &joined;
        if super::other_container(&record.host.network_mode).is_none() {
            self.write_files(container)?;
        }
        if let Some(netns) = &netns {
            self.start_resolver(container, netns).await;
        }
        let mapped = self.user_namespace(record).is_some();
        let etc = self.etc(record, folder);
        let mut config = translate::container(record, folder, &etc, mapped)?;
        config.envs.splice(0..0, self.link_env(record)?);
        let extras = Extras {
            pids_of: shares.pids_of,
            shm_of: shares.shm_of,
            ..translate::extras(record, folder)?
        };
        let inner = self
            .engine
            .create_container_with(sandbox, config, extras)
            .await?;
        self.by_inner
            .lock()
            .insert(inner.clone(), record.id.clone());
        let waiting = std::mem::take(&mut *container.waiting.lock());
        for wish in waiting {
            let request = ExecRequest {
                container_id: inner.clone(),
                stdin: wish.stdin,
                stdout: wish.stdout,
                stderr: wish.stderr,
                ..ExecRequest::default()
            };
            // Whoever asked may be gone.
            let _ = wish.session.send(self.engine.attach_early(request).await?);
        }
        if let Err(error) = self.engine.start_container(&inner).await {
            self.by_inner.lock().remove(&inner);
            return Err(Fault::bad(format!(
                "failed to create task for container: failed to create shim task: OCI runtime \
                 create failed: unable to start container process: {error}"
            )));
        }
        let status = self.engine.container_status(&inner).await?;
        Ok((inner, status.pid))
    }

    /// The files of `/etc` that docker looks after.
    pub(super) fn write_files(&self, container: &Container) -> Result<(), Fault> {
        let (record, folder) = (container.snapshot(), &container.folder);
        let addresses: Vec<(String, String)> = record
            .networks
            .values()
            .flat_map(|one| {
                let six = (one.global_ipv6_address.clone(), one.ipv6_gateway.clone());
                [(one.ip_address.clone(), one.gateway.clone()), six]
            })
            .filter(|(address, _)| !address.is_empty())
            .collect();
        let hosts = translate::hosts(&record, &addresses)? + &self.link_hosts(container)?;
        std::fs::write(folder.join("hosts"), hosts)?;
        let hostname = format!("{}\n", record.config.hostname);
        std::fs::write(folder.join("hostname"), hostname)?;
        self.write_resolv_conf(container)
    }

    pub(crate) fn write_resolv_conf(&self, container: &Container) -> Result<(), Fault> {
        let machine = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let embedded = self.has_names(container);
        let host = container.record.read().host.clone();
        let resolv = translate::resolv_conf(&host, &machine, embedded);
        Ok(std::fs::write(
            container.folder.join("resolv.conf"),
            resolv,
        )?)
    }

    fn spawn_removal(&self, container: &Arc<Container>) {
        let Some(daemon) = self.me.upgrade() else {
            return;
        };
        let container = Arc::clone(container);
        tokio::spawn(async move {
            match daemon.forget(&container, true).await {
                Ok(()) => daemon.discard(&container),
                Err(fault) => tracing::warn!(%fault, id = container.id, "container not removed"),
            }
        });
    }

    /// Starts an ended container again after a while, as its policy wants.
    pub(crate) fn spawn_restart(&self, container: &Arc<Container>, after: Duration) {
        let Some(daemon) = self.me.upgrade() else {
            return;
        };
        let container = Arc::clone(container);
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(after) => {}
                () = container.interrupt.notified() => return,
                () = daemon.stop.raised() => return,
            }
            if container.record.read().state.status != Status::Restarting {
                return;
            }
            match daemon.start(&container).await {
                Ok(()) => {}
                Err(fault) => {
                    tracing::warn!(%fault, id = container.id, "container not restarted");
                    let gave_up = container.save(false, |record| {
                        record.state.status = Status::Exited;
                    });
                    if let Err(fault) = gave_up {
                        tracing::warn!(%fault, "record not written");
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_commands_that_do_not_start() {
        for (message, code) in [
            ("exec: \"x\": executable file not found in $PATH", 127),
            ("exec: \"/x\": no such file or directory", 127),
            ("exec: \"/etc\": is a directory", 126),
            ("exec: \"/x\": permission denied", 126),
            ("something else", 128),
        ] {
            assert_eq!(start_code(message), code, "{message}");
        }
    }
}
