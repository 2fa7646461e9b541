//! The other end of a stream: a command or a port by the URL that a container runtime gave for it,
//! over SPDY, which all of them speak.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use node_api::{Duplex, ExecRequest, ExecSession, Reader, RuntimeError, TerminalSize, Writer};
use serde_json::{Value, json};
use spdy::{Headers, Role, Session, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// The runtime's machine is this one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a refusal or a verdict that are read.
const WORDS_BYTES_MAX: usize = 64 << 10;
/// Bytes on the way to a command.
const INPUT_BYTES: usize = 64 << 10;
/// Sizes of a terminal on their way.
const SIZES_MAX: usize = 8;

fn fault(error: impl std::fmt::Display) -> RuntimeError {
    RuntimeError::Internal(error.to_string())
}

/// A connection that was upgraded; it ends when the runtime leaves, or with this.
struct Connection {
    session: Session,
    driver: Task,
}

/// A task that ends with its owner.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    async fn open(url: &str, protocol: &'static str) -> Result<Connection, RuntimeError> {
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, upgrade(url, protocol)).await;
        let upgraded = opened.map_err(|_| {
            RuntimeError::DeadlineExceeded(format!("{url}: the runtime does not answer"))
        })??;
        let (session, _, moving) = spdy::start(TokioIo::new(upgraded), Role::Client);
        let driver = tokio::spawn(async move {
            if let Err(error) = moving.await {
                tracing::debug!(%error, "stream of the runtime ended");
            }
        });
        Ok(Connection {
            session,
            driver: Task(driver),
        })
    }

    async fn stream(&self, headers: Headers) -> Result<Stream, RuntimeError> {
        self.session.open(headers).await.map_err(fault)
    }
}

async fn upgrade(url: &str, protocol: &str) -> Result<hyper::upgrade::Upgraded, RuntimeError> {
    let uri: Uri = url
        .parse()
        .map_err(|error| fault(format!("URL {url:?} of the runtime: {error}")))?;
    let (Some("http"), Some(host)) = (uri.scheme_str(), uri.authority()) else {
        return Err(fault(format!("URL {url:?} of the runtime is not of http")));
    };
    let host = host.as_str().to_owned();
    let address = match uri.port() {
        Some(_) => host.clone(),
        None => format!("{host}:80"),
    };
    let stream = TcpStream::connect(&address).await.map_err(fault)?;
    stream.set_nodelay(true).map_err(fault)?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(fault)?;
    tokio::spawn(connection.with_upgrades());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(header::HOST, host)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1")
        .header("x-stream-protocol-version", protocol)
        .body(Empty::<Bytes>::new())
        .map_err(fault)?;
    let mut response = sender.send_request(request).await.map_err(fault)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return hyper::upgrade::on(&mut response).await.map_err(fault);
    }
    let status = response.status();
    let body = Limited::new(response.into_body(), WORDS_BYTES_MAX).collect();
    let words = body.await.map(|body| body.to_bytes()).unwrap_or_default();
    let words = String::from_utf8_lossy(&words).trim().to_owned();
    Err(fault(format!("the runtime answers {status}: {words}")))
}

/// Joins the command that a URL stands for, with the streams of the wish it was given for.
pub async fn connect_session(url: &str, wish: &ExecRequest) -> Result<ExecSession, RuntimeError> {
    let mut connection = Connection::open(url, "v4.channel.k8s.io").await?;
    let named = |kind: &str| Headers::new().with("streamType", kind);
    let error = connection.stream(named("error")).await?;
    let (mut stdin, mut resize) = (None, None);
    let mut inputs = tokio::task::JoinSet::new();
    if wish.stdin {
        let stream = connection.stream(named("stdin")).await?;
        let (ours, theirs) = tokio::io::duplex(INPUT_BYTES);
        inputs.spawn(feed(theirs, stream));
        stdin = Some(Box::new(ours) as Writer);
    }
    let mut outputs: [Option<Reader>; 2] = [None, None];
    for (at, (kind, wanted)) in [
        ("stdout", wish.stdout),
        ("stderr", wish.stderr && !wish.tty),
    ]
    .into_iter()
    .enumerate()
    {
        if wanted {
            outputs[at] = Some(Box::new(Output(connection.stream(named(kind)).await?)));
        }
    }
    if wish.tty {
        let stream = connection.stream(named("resize")).await?;
        let (sizes, wanted) = mpsc::channel(SIZES_MAX);
        inputs.spawn(tell_sizes(wanted, stream));
        resize = Some(sizes);
    }
    let (mut told, exit) = oneshot::channel();
    tokio::spawn(async move {
        let verdict = tokio::select! {
            verdict = verdict(error) => verdict,
            () = told.closed() => return,
        };
        drop(inputs);
        // Whoever does not want to know has left.
        let _ = told.send(verdict);
        connection.session.close().await;
        // What was sent last may not have been read yet: the runtime ends the connection.
        drop((&mut connection.driver.0).await);
    });
    let [stdout, stderr] = outputs;
    Ok(ExecSession {
        stdin,
        stdout,
        stderr,
        resize,
        exit,
    })
}

/// A stream that is only read, but kept whole: the other half says that we are still there.
struct Output(Stream);

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.reader).poll_read(cx, buffer)
    }
}

/// Passes input on until we close it.
async fn feed(mut from: impl AsyncRead + Unpin, mut to: Stream) {
    if let Err(error) = tokio::io::copy(&mut from, &mut to.writer).await {
        return tracing::debug!(%error, "input ended");
    }
    drop(to.writer.shutdown().await);
    // Both halves stay until the command has ended: a reset is no end of input.
    std::future::pending::<()>().await;
}

async fn tell_sizes(mut sizes: mpsc::Receiver<TerminalSize>, mut to: Stream) {
    while let Some(size) = sizes.recv().await {
        let line = format!("{}\n", json!({"Width": size.width, "Height": size.height}));
        if to.writer.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// How the command ended: a Status, on the error stream.
async fn verdict(mut error: Stream) -> Result<i32, RuntimeError> {
    let mut words = Vec::new();
    let mut reader = (&mut error.reader).take(WORDS_BYTES_MAX as u64);
    // What came before a connection broke may be all there is to say.
    let read = reader.read_to_end(&mut words).await;
    if words.is_empty() {
        return match read {
            Ok(_) => Ok(0),
            Err(error) => Err(fault(format!("the runtime ended the stream: {error}"))),
        };
    }
    judged(&words)
}

fn judged(words: &[u8]) -> Result<i32, RuntimeError> {
    let Ok(status) = serde_json::from_slice::<Value>(words) else {
        return Err(fault(String::from_utf8_lossy(words).trim()));
    };
    if status["status"] == "Success" {
        return Ok(0);
    }
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    let mut codes = causes.filter(|cause| cause["reason"] == "ExitCode");
    let code = codes.next().and_then(|cause| cause["message"].as_str());
    let code = code.filter(|_| status["reason"] == "NonZeroExitCode");
    match code.and_then(|code| code.parse().ok()) {
        Some(code) => Ok(code),
        None => Err(fault(
            status["message"].as_str().unwrap_or("no reason given"),
        )),
    }
}

/// A connection to a port of the pod that a URL stands for.
pub async fn connect_port(url: &str, port: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
    let connection = Connection::open(url, "portforward.k8s.io").await?;
    let named = |kind: &str| {
        Headers::new()
            .with("streamType", kind)
            .with("port", port.to_string())
            .with("requestID", "0")
    };
    let error = connection.stream(named("error")).await?;
    let data = connection.stream(named("data")).await?;
    Ok(Box::new(Port {
        data,
        error,
        _connection: connection,
    }))
}

/// Reads and writes the data stream; its end is an error where the error stream says so.
struct Port {
    data: Stream,
    error: Stream,
    _connection: Connection,
}

impl Port {
    /// What the runtime complained of. It does so before it ends the data stream, so that nothing
    /// has to be waited for.
    fn refusal(&mut self, cx: &mut Context<'_>) -> Option<io::Error> {
        let mut room = [0; 4 << 10];
        let mut words = ReadBuf::new(&mut room);
        while words.remaining() > 0 {
            let before = words.filled().len();
            let read = Pin::new(&mut self.error.reader).poll_read(cx, &mut words);
            if !matches!(read, Poll::Ready(Ok(()))) || words.filled().len() == before {
                break;
            }
        }
        let words = String::from_utf8_lossy(words.filled()).trim().to_owned();
        let refused = |words| io::Error::new(io::ErrorKind::ConnectionRefused, words);
        (!words.is_empty()).then(|| refused(words))
    }
}

impl AsyncRead for Port {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.data.reader).poll_read(cx, buffer));
        if read.is_ok() && buffer.filled().len() > before {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(self.refusal(cx).map_or(read, Err))
    }
}

impl AsyncWrite for Port {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.data.writer).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.data.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.data.writer).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_codes_or_faults() {
        let code = json!({"status": "Failure", "reason": "NonZeroExitCode", "message": "m",
            "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}});
        assert_eq!(judged(code.to_string().as_bytes()).unwrap(), 7);
        assert_eq!(judged(br#"{"status":"Success"}"#).unwrap(), 0);
        let fault = judged(br#"{"status":"Failure","reason":"InternalError","message":"no"}"#);
        assert_eq!(fault.unwrap_err().to_string(), "no");
        assert_eq!(judged(b"broken\n").unwrap_err().to_string(), "broken");
    }
}
