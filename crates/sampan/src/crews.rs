//! Who stops when: first the work, then the API server that it speaks to, the store last; for
//! what is under way still writes while it ends.

use std::time::Duration;

use anyhow::Result;
use base::{Crew, Stop};
use tokio::signal::unix::{SignalKind, signal};

/// What the kubelet may need beyond the time of the pods.
pub(crate) const SLACK: Duration = Duration::from_secs(2);
/// How long systemd may take to say what it is about.
const ASK_MAX: Duration = Duration::from_secs(3);

/// The crews of a process. Clones share the same tasks.
#[derive(Clone, Default)]
pub(crate) struct Crews {
    /// Listeners, and everything that is a client of the API.
    pub(crate) work: Crew,
    /// What answers requests.
    pub(crate) api: Crew,
    pub(crate) store: Crew,
    /// Raised as soon as the process knows that it will end.
    pub(crate) leaving: Stop,
    /// Raised when the machine goes down, and when its pods have ended.
    pub(crate) going_down: Stop,
    pub(crate) pods_ended: Stop,
}

/// What SIGTERM does to the pods of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Farewell {
    /// How long they have to end; zero leaves them alone.
    pub(crate) most: Duration,
    /// Whether it is always the machine's end.
    pub(crate) always: bool,
}

impl Crews {
    /// Ends the process on SIGTERM or SIGINT: says so at once, and acts on it after `delay`.
    pub(crate) fn stop_on_signals(&self, delay: Duration, farewell: Farewell) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (stop, leaving) = (self.work.stop(), self.leaving.clone());
        let (going_down, pods_ended) = (self.going_down.clone(), self.pods_ended.clone());
        self.work.spawn("signals", async move {
            let terminated = tokio::select! {
                _ = terminate.recv() => true,
                _ = interrupt.recv() => false,
                () = stop.raised() => false,
            };
            tracing::info!(terminated, "asked to stop");
            if terminated && farewell.is_due().await {
                tracing::info!("the machine goes down, and its pods before");
                going_down.raise();
                tokio::select! {
                    () = pods_ended.raised() => {}
                    () = tokio::time::sleep(farewell.most + SLACK) => {}
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    () = stop.raised() => {}
                }
            }
            leaving.raise();
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                // Whoever asks twice means it.
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = stop.raised() => {}
            }
            stop.raise();
        });
        Ok(())
    }

    /// Waits for the end of all; a fault in one ends the others.
    pub(crate) async fn finished(&self) -> Result<()> {
        let worked = async {
            let ended = self.work.finished().await;
            self.api.stop().raise();
            ended
        };
        let served = async {
            let ended = self.api.finished().await;
            self.work.stop().raise();
            ended
        };
        let both = async {
            let both = tokio::join!(worked, served);
            self.store.stop().raise();
            both
        };
        let kept = async {
            let ended = self.store.finished().await;
            self.work.stop().raise();
            ended
        };
        let ((worked, served), kept) = tokio::join!(both, kept);
        worked?;
        served?;
        Ok(kept?)
    }
}

impl Farewell {
    /// Whether the machine goes down, and pods are to end before.
    async fn is_due(self) -> bool {
        !self.most.is_zero() && (self.always || systemd_is_stopping().await)
    }
}

/// Whether systemd is shutting the machine down, as far as there is one.
async fn systemd_is_stopping() -> bool {
    if !std::path::Path::new("/run/systemd/system").exists() {
        return false;
    }
    let asked = tokio::process::Command::new("systemctl")
        .arg("is-system-running")
        .output();
    match tokio::time::timeout(ASK_MAX, asked).await {
        Ok(Ok(output)) => output.stdout.trim_ascii() == b"stopping",
        _ => false,
    }
}
