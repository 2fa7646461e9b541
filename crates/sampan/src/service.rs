//! What systemd hears of this process: that it is ready, that it lives, that it ends. And what logind
//! tells it: that the machine goes down, which waits until the pods have ended.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::Stop;
use systemd::logind::{CONFIGURATION, Watch, WatchError};
use systemd::notify::Notifier;

use crate::config::ServiceManager;
use crate::crews::{Crews, SLACK};

/// How long to wait for logind after it was lost, as upstream does.
const RECONNECT: Duration = Duration::from_secs(1);

/// Tells systemd that all is up, and from then on that it is.
pub(crate) fn ready(manager: &ServiceManager, crews: &Crews) {
    let Some(socket) = &manager.socket else {
        return;
    };
    let notifier = match Notifier::new(socket) {
        Ok(notifier) => notifier,
        Err(error) => {
            tracing::warn!(%error, socket = %socket.display(), "systemd hears nothing of us");
            return;
        }
    };
    tell(&notifier, "READY=1");
    let (leaving, stop) = (crews.leaving.clone(), crews.work.stop());
    let every = manager.watchdog;
    crews.work.spawn("systemd's watchdog", async move {
        let ended = async {
            tokio::select! {
                () = leaving.raised() => {}
                () = stop.raised() => {}
            }
        };
        tokio::pin!(ended);
        while let Some(every) = every {
            tell(&notifier, "WATCHDOG=1");
            if tokio::time::timeout(every, &mut ended).await.is_ok() {
                break;
            }
        }
        if every.is_none() {
            ended.await;
        }
        tell(&notifier, "STOPPING=1");
    });
}

fn tell(notifier: &Notifier, state: &str) {
    if let Err(error) = notifier.tell(state) {
        tracing::warn!(%error, state, "systemd not told");
    }
}

/// Has logind delay the end of the machine, `most` at most, until the pods have ended.
pub(crate) fn delay_shutdown(most: Duration, crews: &Crews) {
    let bus = Path::new(systemd::SYSTEM_BUS);
    if most.is_zero() || !bus.exists() {
        return;
    }
    let (stop, crews) = (crews.work.stop(), crews.clone());
    crews.clone().work.spawn("logind", async move {
        while !stop.is_raised() {
            let Err(error) = wait(most, &crews, &stop).await else {
                return;
            };
            tracing::warn!(%error, "the machine will not wait for its pods");
            tokio::select! {
                () = tokio::time::sleep(RECONNECT) => {}
                () = stop.raised() => {}
            }
        }
    });
}

async fn wait(most: Duration, crews: &Crews, stop: &Stop) -> Result<(), WatchError> {
    let open = move || Watch::open(systemd::SYSTEM_BUS.as_ref(), CONFIGURATION.as_ref(), most);
    let (mut watch, lock) = blocking(open).await?;
    let give_up = Arc::new(watch.breaker()?);
    let begun = blocking(move || {
        while !watch.next_word()? {}
        Ok(())
    });
    tokio::select! {
        begun = begun => begun?,
        () = stop.raised() => {
            give_up();
            return Ok(());
        }
    }
    tracing::info!("the machine goes down, and its pods before");
    crews.going_down.raise();
    tokio::select! {
        () = crews.pods_ended.raised() => {}
        () = tokio::time::sleep(most + SLACK) => {}
        () = stop.raised() => {}
    }
    drop(lock);
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WatchError> + Send + 'static,
) -> Result<T, WatchError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| systemd::Error::Io(std::io::Error::other(error)))?
}
