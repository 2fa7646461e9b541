//! Attaching to a container's streams, before it starts or while it runs.

use std::sync::Arc;

use futures::FutureExt;
use http::StatusCode;
use node_api::{ExecRequest, ExecSession};
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;

use crate::answer::{self, Answer, Fault};
use crate::call::Call;
use crate::daemon::{Container, Waiting};
use crate::frames;
use crate::hijack::{self, End};
use crate::record::Status;

/// Clients that may wait for a container to start.
const WAITING_MAX: usize = 64;

/// `POST /containers/{id}/attach`.
pub(crate) async fn attach(call: Call, name: &str) -> Answer {
    let daemon = Arc::clone(&call.daemon);
    let container = daemon.find(name)?;
    let record = container.snapshot();
    if record.state.status == Status::Paused {
        let message = format!("container {name} is paused, unpause the container before attach");
        return Err(Fault::conflict(message));
    }
    let keys = hijack::detach_keys(call.query.text("detachKeys"))?;
    let tty = record.config.tty;
    let wants = |name: &str| call.query.flag(name);
    let (mut stdin, mut stdout, mut stderr) = (wants("stdin"), wants("stdout"), wants("stderr"));
    stdin &= record.config.open_stdin;
    if !wants("stream") {
        (stdin, stdout, stderr) = (false, false, false);
    }
    let replay = wants("logs").then(|| super::logs::LogWish {
        stdout: wants("stdout"),
        stderr: wants("stderr"),
        ..super::logs::LogWish::default()
    });
    let session = match wants("stream") {
        true => Some(open(&daemon, &container, stdin, stdout, stderr && !tty).await?),
        false => None,
    };
    daemon.events.container(&record, "attach", &[]);
    let kind = match tty || call.version < (1, 42) {
        true => frames::RAW,
        false => frames::MULTIPLEXED,
    };
    // Its sandbox stays until what it has said is read.
    let readers = Arc::clone(&container.readers);
    Ok(hijack::take(call.request, kind, move |mut wire| {
        async move {
            let _reading = readers.read().await;
            if let Some(wish) = replay
                && super::logs::replay(&container, &wish, &mut wire.output)
                    .await
                    .is_err()
            {
                return;
            }
            if let Some(Ok(mut session)) = match session {
                Some(session) => Some(session.await),
                None => None,
            } {
                let keys = (tty || stdin).then_some(keys.as_slice());
                let end = hijack::carry(&mut session, &mut wire, tty, keys).await;
                if end == End::Detached {
                    let record = container.snapshot();
                    daemon.events.container(&record, "detach", &[]);
                }
            }
            let _ = wire.output.shutdown().await;
        }
        .boxed()
    }))
}

/// The session, or its promise where the container has not started.
async fn open(
    daemon: &Arc<crate::daemon::Daemon>,
    container: &Arc<Container>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
) -> Result<oneshot::Receiver<ExecSession>, Fault> {
    let (sender, receiver) = oneshot::channel();
    // No start may come between the look and the entry into the list.
    let _change = container.change.lock().await;
    match container.inner() {
        Ok(inner) => {
            let request = ExecRequest {
                container_id: inner,
                stdin,
                stdout,
                stderr,
                ..ExecRequest::default()
            };
            match daemon.engine.attach_early(request).await {
                Ok(session) => {
                    // We hold the other end.
                    let _ = sender.send(session);
                }
                // It ends just now: there is nothing to come.
                Err(error) => tracing::debug!(%error, "not attached"),
            }
        }
        Err(_) => {
            let mut waiting = container.waiting.lock();
            waiting.retain(|waiting| !waiting.session.is_closed());
            if waiting.len() >= WAITING_MAX {
                return Err(Fault::conflict("too many clients wait for this container"));
            }
            waiting.push(Waiting {
                stdin,
                stdout,
                stderr,
                session: sender,
            });
        }
    }
    Ok(receiver)
}

/// `POST /containers/{id}/resize`.
pub(crate) async fn resize(call: Call, name: &str) -> Answer {
    let container = call.daemon.find(name)?;
    let size = super::terminal_size(&call)?;
    let inner = container.inner()?;
    call.daemon.engine.resize_container(&inner, size).await?;
    Ok(answer::empty(StatusCode::OK))
}
