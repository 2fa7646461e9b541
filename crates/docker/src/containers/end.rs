//! How containers end: asked to, killed, by themselves; and who waits for it.

use std::sync::Arc;
use std::time::Duration;

use node_api::{ContainerState, RuntimeError, RuntimeService};
use serde_json::json;
use tokio::time::Instant;

use crate::answer::{self, Answer, Fault};
use crate::call::Call;
use crate::daemon::{Container, Daemon, Progress};
use crate::record::{Record, Status, now};

const TERM: i32 = 15;
const KILL: i32 = 9;
/// Patience with a container that was asked to end.
const STOP_TIMEOUT: i64 = 10;
/// A killed container that has not ended after this time is stuck in the kernel.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);
/// Readers of an ended container's output get so long to take the rest.
const REST_TIMEOUT: Duration = Duration::from_secs(10);
/// Waits between restarts double from the first to the last; a longer run starts anew.
const FIRST_RESTART: Duration = Duration::from_millis(100);
const LAST_RESTART: Duration = Duration::from_secs(60);
const LONG_RUN: Duration = Duration::from_secs(10);

/// `signal` and `t` of a request, else what the container says. No time is for ever.
pub(super) fn stop_wishes(
    call: &Call,
    container: &Container,
) -> Result<(i32, Option<Duration>), Fault> {
    let record = container.record.read();
    let signal = match call.query.text("signal") {
        "" => record.config.stop_signal.as_deref().unwrap_or("SIGTERM"),
        wish => wish,
    };
    let wished = call.query.number::<i64>("t")?;
    let seconds = wished
        .or(record.config.stop_timeout)
        .unwrap_or(STOP_TIMEOUT);
    let timeout = u64::try_from(seconds).ok().map(Duration::from_secs);
    Ok((signal_number(signal)?, timeout))
}

fn signal_number(name: &str) -> Result<i32, Fault> {
    let wrong = || Fault::bad(format!("Invalid signal: {name}"));
    linux::process::signal_number(name).ok_or_else(wrong)
}

/// `POST /containers/{id}/stop`.
pub(crate) async fn stop(call: Call, name: &str) -> Answer {
    let container = call.daemon.find(name)?;
    let (signal, timeout) = stop_wishes(&call, &container)?;
    call.daemon
        .stop_container(&container, signal, timeout, true)
        .await?;
    let record = container.snapshot();
    call.daemon.events.container(&record, "stop", &[]);
    answer::done()
}

/// `POST /containers/{id}/kill`.
pub(crate) async fn kill(call: Call, name: &str) -> Answer {
    let daemon = &call.daemon;
    let container = daemon.find(name)?;
    let signal = match call.query.text("signal") {
        "" => KILL,
        wish => signal_number(wish)?,
    };
    let record = container.snapshot();
    if !record.state.is_up() {
        return Err(Fault::conflict(format!(
            "cannot kill container: {name}: container {} is not running",
            record.id
        )));
    }
    let inner = record.state.inner.clone();
    if signal == KILL {
        container.save(false, |record| record.state.ended_by_user = true)?;
        daemon.thaw(&container, &record).await?;
        daemon.engine.stop_container(&inner, Duration::ZERO).await?;
    } else {
        daemon.engine.signal_container(&inner, signal).await?;
    }
    let more = [("signal", signal.to_string())];
    daemon.events.container(&record, "kill", &more);
    answer::done()
}

/// `POST /containers/{id}/pause`.
pub(crate) async fn pause(call: Call, name: &str) -> Answer {
    change_pause(&call, name, true).await
}

/// `POST /containers/{id}/unpause`.
pub(crate) async fn unpause(call: Call, name: &str) -> Answer {
    change_pause(&call, name, false).await
}

async fn change_pause(call: &Call, name: &str, pause: bool) -> Answer {
    let daemon = &call.daemon;
    let container = daemon.find(name)?;
    let _change = container.change.lock().await;
    let record = container.snapshot();
    let id = &record.id;
    match (record.state.status, pause) {
        (Status::Running, true) | (Status::Paused, false) => {}
        (Status::Paused, true) => {
            return Err(Fault::conflict(format!("Container {id} is already paused")));
        }
        (Status::Running, false) => {
            return Err(Fault::conflict(format!("Container {id} is not paused")));
        }
        _ => return Err(Fault::conflict(format!("Container {id} is not running"))),
    }
    daemon
        .engine
        .freeze_container(&record.state.inner, pause)
        .await?;
    let record = container.save(false, |record| {
        record.state.status = if pause {
            Status::Paused
        } else {
            Status::Running
        };
    })?;
    let action = if pause { "pause" } else { "unpause" };
    daemon.events.container(&record, action, &[]);
    answer::done()
}

/// `POST /containers/{id}/wait`. The head of the answer comes at once: clients wait for it before
/// they start the container.
pub(crate) async fn wait(call: Call, name: &str) -> Answer {
    let container = call.daemon.find(name)?;
    let mut progress = container.progress.subscribe();
    let ends = progress.borrow().ends;
    let condition = call.query.text("condition").to_owned();
    if !["", "not-running", "next-exit", "removed"].contains(&condition.as_str()) {
        return Err(Fault::bad(format!("invalid condition: {condition:?}")));
    }
    let (pieces, response) = answer::stream("application/json");
    tokio::spawn(async move {
        let over = |progress: &Progress| match condition.as_str() {
            "removed" => progress.removed,
            "next-exit" => progress.ends > ends || progress.removed,
            _ => !progress.up,
        };
        let ended = tokio::select! {
            ended = progress.wait_for(over) => ended.map(|progress| progress.exit_code),
            () = pieces.closed() => return,
        };
        if let Ok(code) = ended {
            answer::line(&pieces, &json!({ "StatusCode": code })).await;
        }
    });
    Ok(response)
}

impl Daemon {
    /// Asks a container to end, and ends it when it does not in time.
    pub(crate) async fn stop_container(
        &self,
        container: &Arc<Container>,
        signal: i32,
        timeout: Option<Duration>,
        by_user: bool,
    ) -> Result<(), Fault> {
        let record = container.snapshot();
        if record.state.status == Status::Restarting {
            container.interrupt.notify_waiters();
            container.save(true, |record| {
                record.state.status = Status::Exited;
                record.state.ended_by_user = true;
            })?;
            return Ok(());
        }
        if !record.state.is_up() {
            return Err(Fault::unchanged());
        }
        // Without a restart in between, so that policies leave it alone.
        container.save(by_user, |record| record.state.ended_by_user = true)?;
        let inner = &record.state.inner;
        self.thaw(container, &record).await?;
        let mut progress = container.progress.subscribe();
        let signal = if signal == 0 { TERM } else { signal };
        match self.engine.signal_container(inner, signal).await {
            // It may have ended by itself.
            Ok(()) | Err(RuntimeError::FailedPrecondition(_) | RuntimeError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let down = |progress: &Progress| !progress.up;
        match timeout {
            None => {
                let _ = progress.wait_for(down).await;
                return Ok(());
            }
            Some(timeout) => {
                if tokio::time::timeout(timeout, progress.wait_for(down))
                    .await
                    .is_ok()
                {
                    return Ok(());
                }
            }
        }
        self.engine.stop_container(inner, Duration::ZERO).await?;
        let ended = tokio::time::timeout(KILL_TIMEOUT, progress.wait_for(down)).await;
        ended.map(drop).map_err(|_| {
            Fault::internal(format!(
                "container {} does not end after SIGKILL",
                record.id
            ))
        })
    }

    async fn thaw(&self, container: &Container, record: &Record) -> Result<(), Fault> {
        if record.state.status == Status::Paused {
            self.engine
                .freeze_container(&record.state.inner, false)
                .await?;
            container.save(false, |record| record.state.status = Status::Running)?;
        }
        Ok(())
    }

    /// Records the end of a container, if it has ended, and does what follows.
    pub(crate) async fn ended(&self, container: &Arc<Container>) -> Result<(), Fault> {
        let change = container.change.lock().await;
        let before = container.snapshot();
        if !before.state.is_up() {
            return Ok(());
        }
        let (code, oom, finished) = match self.engine.container_status(&before.state.inner).await {
            Ok(status) if status.state == ContainerState::Exited => (
                status.exit_code,
                status.reason == "OOMKilled",
                status.finished_at,
            ),
            Ok(_) => return Ok(()),
            // The machine has been down, and everything with it.
            Err(RuntimeError::NotFound(_)) => (255, false, now()),
            Err(error) => return Err(error.into()),
        };
        let ran = run_time(*container.begun.lock(), before.state.started_at, finished);
        let again = restart_after(&before, code, ran);
        let over = |record: &mut Record| {
            let state = &mut record.state;
            (state.exit_code, state.oom_killed, state.finished_at) = (code, oom, finished);
            (state.sandbox, state.inner, state.pid) = Default::default();
            state.status = match again {
                Some(_) => Status::Restarting,
                None => Status::Exited,
            };
            if again.is_some() {
                state.restarts += 1;
            }
        };
        let record = self.detach_networks_and(container, over).await?;
        self.by_inner.lock().remove(&before.state.inner);
        let more = [
            ("exitCode", code.to_string()),
            ("execDuration", ran.as_secs().to_string()),
        ];
        if oom {
            self.events.container(&record, "oom", &[]);
        }
        self.events.container(&record, "die", &more);
        self.execs.forget(&record.id);
        let gone = record.host.auto_remove;
        self.dispose(container, before.state.sandbox, gone).await;
        container.progress.send_modify(|progress| {
            progress.up = false;
            progress.ends += 1;
            progress.exit_code = code;
        });
        drop(change);
        if gone {
            self.forget(container, true).await?;
        } else if let Some(after) = again {
            self.spawn_restart(container, after);
        }
        Ok(())
    }

    /// Removes what is left of a run in the background, and with `all` the container's files too;
    /// the next start waits for it.
    async fn dispose(&self, container: &Arc<Container>, sandbox: String, all: bool) {
        let Some(daemon) = self.me.upgrade() else {
            return;
        };
        let container = Arc::clone(container);
        let disposal = Arc::clone(&container.disposal).lock_owned().await;
        tokio::spawn(async move {
            let readers = container.readers.write();
            if tokio::time::timeout(REST_TIMEOUT, readers).await.is_err() {
                tracing::debug!(
                    id = container.id,
                    "a reader does not take the rest of the output"
                );
            }
            if let Err(error) = daemon.engine.remove_pod_sandbox(&sandbox).await {
                tracing::warn!(%error, sandbox, "sandbox not removed");
            }
            let record = container.snapshot();
            daemon.detach_volumes(&record).await;
            if all {
                daemon.discard(&container);
            }
            drop(disposal);
        });
    }
}

/// How long a run was. What was written down counts only where nobody here saw its beginning: the
/// clock may have been set since.
fn run_time(begun: Option<Instant>, started: i64, finished: i64) -> Duration {
    match begun {
        Some(begun) => begun.elapsed(),
        None => Duration::from_nanos(u64::try_from(finished - started).unwrap_or(0)),
    }
}

/// Whether and when an ended container is started again.
fn restart_after(record: &Record, code: i32, ran: Duration) -> Option<Duration> {
    let state = &record.state;
    if state.ended_by_user {
        return None;
    }
    let policy = &record.host.restart_policy;
    let wanted = match policy.name.as_str() {
        "always" | "unless-stopped" => true,
        "on-failure" => {
            let tries = policy.maximum_retry_count;
            code != 0 && (tries == 0 || state.restarts < tries)
        }
        _ => false,
    };
    let doubled = match ran > LONG_RUN {
        true => FIRST_RESTART,
        false => FIRST_RESTART * 2u32.pow(u32::try_from(state.restarts.min(10)).unwrap_or(10)),
    };
    wanted.then_some(doubled.min(LAST_RESTART))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const HOUR: i64 = 3600 * SECOND;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_changes_no_run() {
        let begun = Instant::now();
        tokio::time::advance(Duration::from_secs(20)).await;
        for finished in [-HOUR, HOUR] {
            assert_eq!(run_time(Some(begun), 0, finished), Duration::from_secs(20));
        }
        assert_eq!(run_time(None, 0, 5 * SECOND), Duration::from_secs(5));
        assert_eq!(run_time(None, 0, -HOUR), Duration::ZERO);
    }

    #[test]
    fn waits_double_until_a_run_was_long() {
        let text = r#"{"id":"a","name":"a","created":0,"image_id":"","config":{},
            "host":{"RestartPolicy":{"Name":"always"}}}"#;
        let mut record: Record = serde_json::from_str(text).unwrap();
        let mut check = |restarts, ran, millis| {
            record.state.restarts = restarts;
            let after = restart_after(&record, 1, Duration::from_secs(ran));
            assert_eq!(after, Some(Duration::from_millis(millis)));
        };
        check(0, 1, 100);
        check(3, 1, 800);
        check(3, 11, 100);
        check(90, 1, 60_000);
        record.state.ended_by_user = true;
        assert_eq!(restart_after(&record, 1, Duration::ZERO), None);
    }
}
