//! The TLS listener: connections in, requests to the server.

mod begun;
mod gather;
mod lanes;
mod socket;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use client::{Body, BoxError};
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::AsyncWrite;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::Service;

use self::begun::{Begun, Progress};
use self::gather::Gather;
pub(crate) use self::lanes::Lane;
use self::lanes::Lanes;
use self::socket::Socket;
use crate::chain::Connection;
use crate::chain::audited::Source;
use crate::server::ApiServer;

static HANDSHAKE_ERRORS: base::metrics::Counters = base::metrics::Counters::new(
    "apiserver_tls_handshake_errors_total",
    "[ALPHA] Number of requests dropped with 'TLS handshake error from' error",
    &[],
);

/// Connections at one time.
const CONNECTIONS_MAX: usize = 16_384;
/// Streams of one HTTP/2 connection, as upstream has it.
const STREAMS_MAX: u32 = 250;
/// All headers of a request together.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Silence on an HTTP/2 connection before the client is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Wait before the next try when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the headers of a request, and between two requests of one HTTP/1 connection.
    pub headers: Duration,
    /// For what they have asked, after the server was told to stop.
    pub drain: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            handshake: Duration::from_secs(10),
            headers: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

/// Serves on each of the listeners until the crew stops, and then until open requests are done.
pub fn listen(
    server: ApiServer,
    listeners: Vec<std::net::TcpListener>,
    tls: Arc<rustls::ServerConfig>,
    crew: &base::Crew,
) -> std::io::Result<()> {
    listen_with(server, listeners, tls, Patience::default(), crew)
}

/// The same with more or less patience.
pub fn listen_with(
    server: ApiServer,
    listeners: Vec<std::net::TcpListener>,
    tls: Arc<rustls::ServerConfig>,
    patience: Patience,
    crew: &base::Crew,
) -> std::io::Result<()> {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let lanes = Lanes::new();
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let door = Door {
            server: server.clone(),
            acceptor: TlsAcceptor::from(Arc::clone(&tls)),
            seats: Arc::clone(&seats),
            lanes: Arc::clone(&lanes),
            patience,
            stop: crew.stop(),
        };
        crew.spawn("apiserver listener", door.serve(listener));
    }
    Ok(())
}

#[derive(Clone)]
struct Door {
    server: ApiServer,
    acceptor: TlsAcceptor,
    seats: Arc<Semaphore>,
    lanes: Arc<Lanes>,
    patience: Patience,
    stop: base::Stop,
}

impl Door {
    async fn serve(self, listener: TcpListener) {
        let mut open = tokio::task::JoinSet::new();
        loop {
            let seat = tokio::select! {
                seat = Arc::clone(&self.seats).acquire_owned() => seat,
                () = self.stop.raised() => break,
            };
            let Ok(seat) = seat else {
                break;
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.raised() => break,
                Some(_) = open.join_next(), if !open.is_empty() => continue,
            };
            match accepted {
                Ok((stream, peer)) => {
                    open.spawn(self.clone().connection(stream, peer, seat));
                }
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        let drained = async { while open.join_next().await.is_some() {} };
        let _drained = tokio::time::timeout(self.patience.drain, drained).await;
    }

    async fn connection(self, stream: TcpStream, peer: SocketAddr, _seat: OwnedSemaphorePermit) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let socket = Socket::new(stream, Arc::clone(&self.lanes));
        let handshake = self.acceptor.accept(socket);
        let stream = match tokio::time::timeout(self.patience.handshake, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                HANDSHAKE_ERRORS.add(&[], 1);
                return tracing::debug!(%error, %peer, "TLS handshake failed");
            }
            Err(_) => return tracing::debug!(%peer, "TLS handshake took too long"),
        };
        let certificates = stream.get_ref().1.peer_certificates();
        let shown = auth::Peer::new(certificates.unwrap_or_default().to_vec());
        let shown = Connection(Arc::new(shown));
        let lane = self.lanes.lane();
        let served = self.serve_stream(stream, peer, shown, lane.clone());
        lane.run(served).await;
    }

    async fn serve_stream(
        self,
        stream: TlsStream<Socket>,
        peer: SocketAddr,
        shown: Connection,
        lane: Lane,
    ) {
        let server = self.server;
        let progress = Progress::default();
        // What HTTP/1 writes is whole, and may become somebody else's.
        let gathers = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let stream = Begun {
            stream,
            progress: progress.clone(),
        };
        let stream = Gather::new(stream, gathers);
        let (asked, place) = (progress.clone(), lane.clone());
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            asked.complete();
            let from = (shown.clone(), Source(peer), place.clone());
            answer(server.clone(), from, request)
        });
        let builder = builder(lane.clone(), self.patience.headers);
        let io = TokioIo::new(stream.clone());
        let connection = builder.serve_connection_with_upgrades(io, service);
        let mut driven = Driven {
            connection: Box::pin(connection),
            stream,
            lane,
        };
        let silent = async {
            tokio::time::sleep(self.patience.headers).await;
            if progress.is_complete() {
                std::future::pending::<()>().await;
            }
        };
        let ended = tokio::select! {
            ended = &mut driven => ended,
            () = silent => return tracing::debug!(%peer, "connection without a request"),
            () = self.stop.raised() => {
                // Requests in flight are answered; watches end by themselves.
                driven.connection.as_mut().graceful_shutdown();
                let drained = tokio::time::timeout(self.patience.drain, driven);
                drained.await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, %peer, "connection ended");
        }
    }
}

/// A connection at work, and what sends what it writes.
struct Driven<C, S> {
    connection: Pin<Box<C>>,
    stream: Gather<S>,
    lane: Lane,
}

impl<C: Future, S: AsyncWrite + Unpin> Future for Driven<C, S> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        let polled = self.connection.as_mut().poll(context);
        let others = polled.is_pending() && self.lane.is_shared();
        self.stream.send(others, context);
        polled
    }
}

fn builder(lane: Lane, headers: Duration) -> auto::Builder<Lane> {
    let mut builder = auto::Builder::new(lane);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(headers)
        .max_buf_size(HEADER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX as u32)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    builder
}

fn answer(
    mut server: ApiServer,
    (connection, source, lane): (Connection, Source, Lane),
    request: Request<Incoming>,
) -> BoxFuture<'static, Result<Response<Body>, Infallible>> {
    let mut request = request.map(|body| body.map_err(BoxError::from).boxed_unsync());
    request.extensions_mut().insert(connection);
    request.extensions_mut().insert(source);
    request.extensions_mut().insert(lane);
    // The server is always ready.
    server.call(request)
}
