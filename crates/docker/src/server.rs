//! Connections on the socket, and what every answer has.

use std::convert::Infallible;
use std::sync::Arc;

use base::Stop;
use http::{HeaderName, HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};

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

/// Answers connections; ends when the process stops.
pub(crate) async fn serve(daemon: Arc<Daemon>, listener: UnixListener, stop: Stop) {
    let work = move |stream| connection(Arc::clone(&daemon), stream);
    base::listener::serve(listener, CONNECTIONS_MAX, stop, work).await;
}

async fn connection(daemon: Arc<Daemon>, stream: UnixStream) {
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
