//! `/healthz` for whoever watches this process: without TLS, on an address of its own.

use std::convert::Infallible;

use base::Stop;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::net::TcpListener;

use super::{serve_plainly, text};

/// Connections at one time.
const CONNECTIONS_MAX: usize = 64;

/// Answers connections; ends when the process stops.
pub(crate) async fn serve(listener: TcpListener, stop: Stop) {
    let work = |tcp| {
        let service = service_fn(|request: Request<Incoming>| async move {
            let path = request.uri().path();
            Ok::<_, Infallible>(match path {
                "/healthz" | "/healthz/ping" | "/healthz/syncloop" => {
                    text(StatusCode::OK, "ok".into())
                }
                _ => text(StatusCode::NOT_FOUND, "404 page not found\n".into()),
            })
        });
        serve_plainly(tcp, service)
    };
    base::listener::serve(listener, CONNECTIONS_MAX, stop, work).await;
}
