//! Connections to the server behind a route, kept for the next request.
//!
//! HTTP/1.1: a connection carries one request at a time, so a watch holds up nobody, and as many
//! are open as requests run. Those that wait are few and not for long.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use client::{Body, BoxError};
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::Address;
use crate::stream::{self, Channel, Target};

/// How long a connection is kept that nobody uses.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Connections kept per route for the next request.
const IDLE_CONNECTIONS_MAX: usize = 32;

/// The connections of one route.
pub(super) struct Pool {
    client: ArcSwap<Client<Dial, Body>>,
    dial: Dial,
}

impl Pool {
    pub(super) fn new(address: Arc<Address>) -> Pool {
        let dial = Dial(address);
        Pool {
            client: ArcSwap::from_pointee(fresh(&dial)),
            dial,
        }
    }

    /// Lets go of connections that nobody uses: they may lead to servers that are gone.
    pub(super) fn renew(&self) {
        self.client.store(Arc::new(fresh(&self.dial)));
    }

    /// Sends a request that has a path only; the failure is worded as Go words it.
    pub(super) async fn send(
        &self,
        target: &Target,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, String> {
        let authority = target.authority();
        let path = request.uri().path_and_query().cloned();
        let uri = Uri::builder()
            .scheme("https")
            .authority(authority.as_str())
            .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
            .build();
        *request.uri_mut() = uri.map_err(|error| error.to_string())?;
        let host = HeaderValue::from_str(&authority).map_err(|error| error.to_string())?;
        request.headers_mut().entry(HOST).or_insert(host);
        let client = self.client.load_full();
        let answer = client.request(request).await.map_err(|error| why(&error))?;
        Ok(answer.map(|body| body.map_err(BoxError::from).boxed_unsync()))
    }
}

fn fresh(dial: &Dial) -> Client<Dial, Body> {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .build(dial.clone())
}

/// The innermost reason.
fn why(error: &hyper_util::client::legacy::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string().replacen("error dialing backend: ", "", 1)
}

/// Dials where the service leads right now, whatever address the request names.
#[derive(Clone)]
struct Dial(Arc<Address>);

/// A connection could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct DialError(String);

impl tower::Service<Uri> for Dial {
    type Response = Stream;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let address = Arc::clone(&self.0);
        Box::pin(async move {
            let target = address.target().map_err(|error| DialError(error.into()))?;
            let Channel::Named(tls, _) = &target.channel else {
                return Err(DialError("no TLS".into()));
            };
            let stream = stream::connect_tls(&target, tls).await;
            let stream = stream.map_err(|status| DialError(status.message))?;
            Ok(Stream(TokioIo::new(stream)))
        })
    }
}

/// A connection as hyper wants it.
struct Stream(TokioIo<TlsStream<TcpStream>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
