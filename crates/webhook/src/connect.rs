//! Dialing a webhook: resolve, connect, shake hands.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::target::Target;
use crate::tls;
use crate::webhooks::Resolve;

/// A connection could not be made; worded as Go does.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct DialError(pub(crate) String);

/// Dials one target, whatever address the request names.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) target: Arc<Target>,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    pub(crate) resolver: Option<Arc<dyn Resolve>>,
}

impl Connector {
    async fn dial(self) -> Result<Stream, DialError> {
        let target = &self.target;
        let (host, port) = match (&target.service, &self.resolver) {
            (Some((namespace, name)), Some(resolver)) => resolver
                .resolve(namespace, name, target.port)
                .map_err(DialError)?,
            _ => (target.host.clone(), target.port),
        };
        let tcp = connect(&host, port).await?;
        let Some(config) = self.tls else {
            return Ok(Stream::new(tcp, false));
        };
        let name = ServerName::try_from(target.host.clone())
            .map_err(|error| DialError(format!("tls: {error}")))?;
        let shaken = TlsConnector::from(config).connect(name, tcp).await;
        let stream = shaken.map_err(|error| DialError(handshake_failure(&error)))?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Stream::new(stream, http2))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().dial())
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let found = tokio::net::lookup_host((host, port)).await;
    let addresses: Vec<SocketAddr> = match found {
        Ok(addresses) => addresses.collect(),
        Err(_) => return Err(DialError(format!("dial tcp: lookup {host}: no such host"))),
    };
    let mut last = DialError(format!("dial tcp: lookup {host}: no such host"));
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // A failure here costs latency only.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "webhook connection without TCP_NODELAY");
                }
                return Ok(stream);
            }
            Err(error) => last = DialError(format!("dial tcp {address}: {}", why(&error))),
        }
    }
    Err(last)
}

/// Go's words for what the system says.
fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".into(),
        io::ErrorKind::TimedOut => "connect: connection timed out".into(),
        _ => format!("connect: {error}"),
    }
}

fn handshake_failure(error: &io::Error) -> String {
    let inner = error.get_ref();
    match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => tls::failure(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".into(),
        None => error.to_string(),
    }
}

trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// A connection, encrypted or not.
pub(crate) struct Stream {
    io: TokioIo<Box<dyn Transport>>,
    http2: bool,
}

impl Stream {
    fn new(io: impl Transport + 'static, http2: bool) -> Stream {
        Stream {
            io: TokioIo::new(Box::new(io)),
            http2,
        }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self.http2 {
            true => Connected::new().negotiated_h2(),
            false => Connected::new(),
        }
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
