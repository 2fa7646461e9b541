//! `/healthz` for whoever watches this process: without TLS, on an address of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base::Stop;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::text;

/// Connections at one time.
const CONNECTIONS_MAX: usize = 64;
/// A request comes within this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers connections; ends when the process stops.
pub(crate) async fn serve(listener: TcpListener, stop: Stop) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.raised() => return,
        };
        let Ok((tcp, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| async move {
                let path = request.uri().path();
                Ok::<_, Infallible>(match path {
                    "/healthz" | "/healthz/ping" | "/healthz/syncloop" => {
                        text(StatusCode::OK, "ok".into())
                    }
                    _ => text(StatusCode::NOT_FOUND, "404 page not found\n".into()),
                })
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(tcp), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "connection ended");
            }
            drop(slot);
        });
    }
}
