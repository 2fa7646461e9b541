//! Connections on the socket, and what every answer has.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::Stop;
use http::{HeaderName, HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::ServeError;
use crate::answer::Body;
use crate::daemon::Daemon;
use crate::peer::Peer;
use crate::routes;

/// Connections at one time.
const CONNECTIONS_MAX: usize = 1024;
/// What every answer says of the server.
const HEADERS: [(&str, &str); 4] = [
    ("api-version", routes::NEWEST_TEXT),
    ("docker-experimental", "false"),
    ("ostype", "linux"),
    (
        "server",
        concat!("Docker/28.2.2 (linux) sampan/", env!("CARGO_PKG_VERSION")),
    ),
];

/// A socket that somebody answers on stays; one that is left over gives way.
pub(crate) async fn listen(path: &Path) -> Result<UnixListener, ServeError> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(ServeError::InUse(path.to_owned()));
    }
    let open = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        // Whoever can connect commands the node.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(listener)
    };
    open().map_err(|error| ServeError::Listen(path.to_owned(), error))
}

/// Answers connections; ends when the process stops.
pub(crate) async fn serve(daemon: Arc<Daemon>, listener: UnixListener, stop: Stop) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = stop.raised() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let daemon = Arc::clone(&daemon);
        connections.spawn(async move {
            let peer = Peer::of(&stream).ok();
            let service = service_fn(move |mut request: Request<Incoming>| {
                if let Some(peer) = &peer {
                    request.extensions_mut().insert(peer.clone());
                }
                answer(Arc::clone(&daemon), request)
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .half_close(true)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "connection ended");
            }
            drop(slot);
        });
    }
}

async fn answer(
    daemon: Arc<Daemon>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let mut response = match Box::pin(routes::dispatch(daemon, request)).await {
        Ok(response) => response,
        Err(fault) => fault.into_response(),
    };
    for (name, value) in HEADERS {
        let name = HeaderName::from_static(name);
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}
