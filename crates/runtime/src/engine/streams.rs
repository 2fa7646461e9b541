//! Exec, attach and port-forward: bytes between a caller and a container. The
//! supervisor only introduces them; the bytes of an exec never pass it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use node_api::{
    ContainerState, Duplex, ExecRequest, ExecResult, ExecSession, Reader, RuntimeError,
    TerminalSize, Writer,
};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

use super::link::Link;
use super::{Engine, fresh_id, internal};
use crate::protocol::Call;
use crate::spec::{ExecOptions, ExecSpec};

/// Output of one stream kept by a synchronous exec.
const OUTPUT_LIMIT: usize = 16 << 20;
/// What a program left behind may hold its pipes open; after its end we wait so long for the rest.
const REST_TIMEOUT: Duration = Duration::from_secs(1);
/// A killed process that has not ended after this time is stuck in the kernel.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// Sizes that may wait to be set.
const RESIZE_QUEUE: usize = 8;

impl Engine {
    pub(super) async fn run_to_end(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<ExecResult, RuntimeError> {
        let request = ExecRequest {
            container_id: id.to_owned(),
            command,
            stdout: true,
            stderr: true,
            ..ExecRequest::default()
        };
        let (mut session, started) = self.begin_exec(request, ExecOptions::default()).await?;
        let mut result = ExecResult::default();
        let outputs = {
            let (stdout, stderr) = (session.stdout.take(), session.stderr.take());
            let (out, err) = (&mut result.stdout, &mut result.stderr);
            async move { tokio::join!(collect(stdout, out), collect(stderr, err)) }
        };
        let code = {
            tokio::pin!(outputs);
            let mut drained = false;
            // The time is the program's: what it left behind may write on, and is not waited for.
            let ended = async {
                tokio::select! {
                    code = &mut session.exit => code,
                    _ = &mut outputs => {
                        drained = true;
                        (&mut session.exit).await
                    }
                }
            };
            let code = match timeout.filter(|timeout| !timeout.is_zero()) {
                None => ended.await,
                Some(timeout) => match tokio::time::timeout(timeout, ended).await {
                    Ok(code) => code,
                    Err(_) => {
                        started.kill(&mut session.exit).await;
                        let message = format!("exec timed out after {timeout:?}");
                        return Err(RuntimeError::DeadlineExceeded(message));
                    }
                },
            };
            if !drained && tokio::time::timeout(REST_TIMEOUT, outputs).await.is_err() {
                tracing::debug!(
                    container = id,
                    "the rest of an exec's output was not waited for"
                );
            }
            code
        };
        result.exit_code = flatten(code)?;
        Ok(result)
    }

    pub(super) async fn open_exec(
        &self,
        request: ExecRequest,
        options: ExecOptions,
    ) -> Result<ExecSession, RuntimeError> {
        let (session, _) = self.begin_exec(request, options).await?;
        Ok(session)
    }

    /// As [`Engine::open_exec`], with the process's id on the node.
    pub(super) async fn open_exec_known(
        &self,
        request: ExecRequest,
        options: ExecOptions,
    ) -> Result<(ExecSession, i32), RuntimeError> {
        let (session, started) = self.begin_exec(request, options).await?;
        Ok((session, started.pid))
    }

    async fn begin_exec(
        &self,
        request: ExecRequest,
        options: ExecOptions,
    ) -> Result<(ExecSession, StartedExec), RuntimeError> {
        let entry = self.entry(&request.container_id)?;
        if entry.state() != ContainerState::Running {
            let message = format!("container {} is not running", request.container_id);
            return Err(RuntimeError::FailedPrecondition(message));
        }
        let sandbox = entry.record.read().sandbox_id.clone();
        let link = self.link(&sandbox)?;
        let exec = ExecSpec {
            id: fresh_id(),
            container: request.container_id,
            args: request.command,
            tty: request.tty,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            options,
        };
        let mut streams = Streams::default();
        let fds = if request.tty {
            Vec::new()
        } else {
            streams.open(request.stdin, request.stdout, request.stderr)?
        };
        let exit = self.await_exec(&exec.id, Arc::clone(&link));
        let (tty, stdin) = (exec.tty, exec.stdin);
        let id = exec.id.clone();
        let answered = link.call(Call::Exec { exec }, fds).await;
        let answered = answered.inspect_err(|_| {
            self.execs.lock().remove(&id);
        })?;
        let pid = answered.pid;
        let mut resize = None;
        if tty {
            let master = answered
                .fds
                .into_iter()
                .next()
                .ok_or_else(|| internal("no terminal came back"))?;
            resize = Some(streams.terminal(master, stdin)?);
        }
        Ok((streams.session(resize, exit), StartedExec { id, link, pid }))
    }

    /// The exit code to come; who drops it ends the process.
    fn await_exec(
        &self,
        id: &str,
        link: Arc<Link>,
    ) -> oneshot::Receiver<Result<i32, RuntimeError>> {
        let (code_sender, code) = oneshot::channel();
        self.execs.lock().insert(id.to_owned(), code_sender);
        let (mut sender, receiver) = oneshot::channel();
        let (me, id) = (self.me.clone(), id.to_owned());
        tokio::spawn(async move {
            tokio::select! {
                code = code => {
                    // Whoever asked may have gone in this very moment.
                    let _ = sender.send(code.map_err(|_| RuntimeError::Unavailable("the exec was lost".to_owned())));
                }
                () = sender.closed() => {
                    if let Some(engine) = me.upgrade() {
                        engine.execs.lock().remove(&id);
                    }
                    if let Err(error) = link.call(Call::KillExec { exec: id }, Vec::new()).await {
                        tracing::debug!(%error, "exec not ended");
                    }
                }
            }
        });
        receiver
    }

    pub(super) async fn open_attach(
        &self,
        request: ExecRequest,
        early: bool,
    ) -> Result<ExecSession, RuntimeError> {
        let entry = self.entry(&request.container_id)?;
        if entry.state() == ContainerState::Exited {
            let message = format!("container {} is not running", request.container_id);
            return Err(RuntimeError::FailedPrecondition(message));
        }
        let (sandbox, tty) = {
            let record = entry.record.read();
            (record.sandbox_id.clone(), record.config.tty)
        };
        let link = self.link(&sandbox)?;
        let mut streams = Streams::default();
        let stderr = request.stderr && !tty;
        let fds = streams.open(request.stdin, request.stdout, stderr)?;
        let container = request.container_id;
        let call = Call::Attach {
            container: container.clone(),
            stdin: request.stdin,
            stdout: request.stdout,
            stderr,
            early,
        };
        link.call(call, fds).await?;
        let (sender, exit) = oneshot::channel();
        let mut status = entry.status.subscribe();
        tokio::spawn(async move {
            let mut sender: oneshot::Sender<Result<i32, RuntimeError>> = sender;
            tokio::select! {
                ended = status.wait_for(|status| status.state == ContainerState::Exited) => {
                    let code = ended.map(|status| status.exit_code);
                    let _ = sender.send(code.map_err(|_| RuntimeError::NotFound("container removed".to_owned())));
                }
                () = sender.closed() => {}
            }
        });
        let resize = tty.then(|| {
            resizer(move |size: TerminalSize| {
                let (link, container) = (Arc::clone(&link), container.clone());
                async move {
                    let call = Call::Resize {
                        container,
                        width: size.width,
                        height: size.height,
                    };
                    link.call(call, Vec::new())
                        .await
                        .map(drop)
                        .map_err(|error| error.to_string())
                }
            })
        });
        Ok(streams.session(resize, exit))
    }

    pub(super) async fn forward(
        &self,
        sandbox: &str,
        port: u16,
    ) -> Result<Box<dyn Duplex>, RuntimeError> {
        let link = self.link(sandbox)?;
        let mut last = None;
        for address in [
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
        ] {
            let answered = link
                .call(
                    Call::Socket {
                        ipv6: address.is_ipv6(),
                    },
                    Vec::new(),
                )
                .await?;
            let socket = answered
                .fds
                .into_iter()
                .next()
                .ok_or_else(|| internal("no socket came back"))?;
            let socket = tokio::net::TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
            match socket.connect(address).await {
                Ok(stream) => return Ok(Box::new(stream)),
                Err(error) => last = last.or(Some(error)),
            }
        }
        let reason = last.map_or_else(String::new, |error| error.to_string());
        Err(RuntimeError::Unavailable(format!(
            "failed to connect to localhost:{port} inside sandbox {sandbox}: {reason}"
        )))
    }
}

/// An exec by its name.
struct StartedExec {
    id: String,
    link: Arc<Link>,
    pid: i32,
}

impl StartedExec {
    /// Ends the process, and waits until it is gone.
    async fn kill(self, exit: &mut oneshot::Receiver<Result<i32, RuntimeError>>) {
        let call = Call::KillExec { exec: self.id };
        if let Err(error) = self.link.call(call, Vec::new()).await {
            return tracing::debug!(%error, "exec not ended");
        }
        if tokio::time::timeout(KILL_TIMEOUT, exit).await.is_err() {
            tracing::warn!("an exec does not end after SIGKILL");
        }
    }
}

#[derive(Default)]
struct Streams {
    stdin: Option<Writer>,
    stdout: Option<Reader>,
    stderr: Option<Reader>,
}

impl Streams {
    /// Makes the pipes; returns the far ends in the order of the protocol.
    fn open(
        &mut self,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    ) -> Result<Vec<OwnedFd>, RuntimeError> {
        let mut far = Vec::new();
        if stdin {
            let (sender, receiver) = pipe::pipe().map_err(internal)?;
            far.push(receiver.into_blocking_fd().map_err(internal)?);
            self.stdin = Some(Box::new(sender));
        }
        for (wanted, slot) in [(stdout, &mut self.stdout), (stderr, &mut self.stderr)] {
            if wanted {
                let (sender, receiver) = pipe::pipe().map_err(internal)?;
                far.push(sender.into_blocking_fd().map_err(internal)?);
                *slot = Some(Box::new(receiver));
            }
        }
        Ok(far)
    }

    /// Takes a terminal's master for input and output.
    fn terminal(
        &mut self,
        master: OwnedFd,
        stdin: bool,
    ) -> Result<mpsc::Sender<TerminalSize>, RuntimeError> {
        let terminal = Terminal::new(master).map_err(internal)?;
        let sizes = terminal.again().map_err(internal)?;
        if stdin {
            self.stdin = Some(Box::new(terminal.again().map_err(internal)?));
        }
        self.stdout = Some(Box::new(terminal));
        let sizes = Arc::new(sizes);
        Ok(resizer(move |size| {
            let sizes = Arc::clone(&sizes);
            async move {
                let resized =
                    linux::terminal::resize(sizes.0.get_ref().as_fd(), size.width, size.height);
                resized.map_err(|error| error.to_string())
            }
        }))
    }

    fn session(
        self,
        resize: Option<mpsc::Sender<TerminalSize>>,
        exit: oneshot::Receiver<Result<i32, RuntimeError>>,
    ) -> ExecSession {
        ExecSession {
            stdin: self.stdin,
            stdout: self.stdout,
            stderr: self.stderr,
            resize,
            exit,
        }
    }
}

/// A task that sets sizes as they come, until the sender is dropped.
fn resizer<F>(set: impl Fn(TerminalSize) -> F + Send + 'static) -> mpsc::Sender<TerminalSize>
where
    F: Future<Output = Result<(), String>> + Send,
{
    let (sender, mut sizes) = mpsc::channel(RESIZE_QUEUE);
    tokio::spawn(async move {
        while let Some(size) = sizes.recv().await {
            if let Err(error) = set(size).await {
                tracing::debug!(error, "terminal not resized");
            }
        }
    });
    sender
}

async fn collect(reader: Option<Reader>, into: &mut Vec<u8>) {
    let Some(mut reader) = reader else {
        return;
    };
    let mut chunk = vec![0u8; 16 << 10];
    // The rest is read and dropped: a full pipe would stop the program.
    while let Ok(length) = reader.read(&mut chunk).await {
        if length == 0 {
            return;
        }
        let room = OUTPUT_LIMIT.saturating_sub(into.len());
        into.extend_from_slice(&chunk[..length.min(room)]);
    }
}

fn flatten(
    code: Result<Result<i32, RuntimeError>, oneshot::error::RecvError>,
) -> Result<i32, RuntimeError> {
    code.map_err(|_| RuntimeError::Unavailable("the exec was lost".to_owned()))?
}

/// The master of a terminal as a stream.
struct Terminal(AsyncFd<OwnedFd>);

impl Terminal {
    fn new(master: OwnedFd) -> io::Result<Terminal> {
        use nix::fcntl::{F_GETFL, F_SETFL, OFlag, fcntl};
        let flags = OFlag::from_bits_truncate(fcntl(&master, F_GETFL)?);
        fcntl(&master, F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Terminal(super::watched(master)?))
    }

    fn again(&self) -> io::Result<Terminal> {
        Ok(Terminal(super::watched(self.0.get_ref().try_clone()?)?))
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let read = guard.try_io(|fd| {
                Ok(nix::unistd::read(
                    fd.get_ref(),
                    buffer.initialize_unfilled(),
                )?)
            });
            match read {
                Ok(Ok(length)) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                // The last program closed the other side: that is how a terminal ends.
                Ok(Err(error)) if error.raw_os_error() == Some(nix::errno::Errno::EIO as i32) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            match guard.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), bytes)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A terminal has no half that could be closed; end of input is a character the user types.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
