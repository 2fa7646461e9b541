//! Who stops when: first the work, then the API server that it speaks to, the store last; for
//! what is under way still writes while it ends.

use std::time::Duration;

use anyhow::Result;
use base::{Crew, Stop};
use tokio::signal::unix::{SignalKind, signal};

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
}

impl Crews {
    /// Ends the process on SIGTERM or SIGINT: says so at once, and acts on it after `delay`.
    pub(crate) fn stop_on_signals(&self, delay: Duration) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (stop, leaving) = (self.work.stop(), self.leaving.clone());
        self.work.spawn("signals", async move {
            tokio::select! {
                _ = terminate.recv() => tracing::info!("SIGTERM"),
                _ = interrupt.recv() => tracing::info!("interrupted"),
                () = stop.raised() => {}
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
