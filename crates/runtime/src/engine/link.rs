//! The engine's end of a supervisor's socket: calls go out, answers and news
//! come in, on one task per pod.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::Pid;
use node_api::RuntimeError;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use crate::protocol::{Call, Channel, Message, Refusal, Request};
use crate::spec::{Status, file};

/// Calls that may wait to be sent.
const QUEUE: usize = 64;

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Answered {
    pub(super) fds: Vec<OwnedFd>,
    /// Of the process that was started, if one was.
    pub(super) pid: i32,
}

type Answer = Result<Answered, Refusal>;

struct Outgoing {
    call: Call,
    fds: Vec<OwnedFd>,
    answer: oneshot::Sender<Answer>,
}

/// A handle for calls.
#[derive(Debug)]
pub(super) struct Link {
    calls: mpsc::Sender<Outgoing>,
    /// The supervisor itself, ready when it has ended; none where it ended before we looked.
    process: Option<AsyncFd<OwnedFd>>,
}

/// What a supervisor reports by itself.
pub(super) enum News {
    Warning(String, String),
    Started(String, Status),
    Exited(String, Status),
    ExecExited(String, i32),
}

/// The working half; lives in a task.
pub(super) struct Line {
    channel: AsyncFd<Channel>,
    calls: mpsc::Receiver<Outgoing>,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    next: u64,
}

impl Link {
    /// Connects to the supervisor of the sandbox in `folder`.
    pub(super) fn connect(folder: &Path) -> io::Result<(Link, Line)> {
        // The path of a socket may have 108 bytes only; by descriptor any folder will do.
        let handle = std::fs::File::open(folder)?;
        let path = format!("/proc/self/fd/{}/{}", handle.as_raw_fd(), file::SOCKET);
        let socket = UnixStream::connect(path)?;
        socket.set_nonblocking(true)?;
        let peer = getsockopt(&socket, sockopt::PeerCredentials)?;
        let process = match linux::process::open_pidfd(Pid::from_raw(peer.pid())) {
            Ok(pidfd) => Some(super::watched(pidfd)?),
            Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => None,
            Err(error) => return Err(error),
        };
        let (sender, calls) = mpsc::channel(QUEUE);
        let line = Line {
            channel: super::watched(Channel::new(socket.into()))?,
            calls,
            waiting: HashMap::new(),
            next: 0,
        };
        let link = Link {
            calls: sender,
            process,
        };
        Ok((link, line))
    }

    /// Waits until the supervisor is no more.
    pub(super) async fn ended(&self) {
        if let Some(process) = &self.process {
            // Without the kernel's word there is nothing to wait for.
            let _ = process.readable().await;
        }
    }

    /// Makes a call and waits for the answer.
    pub(super) async fn call(&self, call: Call, fds: Vec<OwnedFd>) -> Answer {
        let (answer, receiver) = oneshot::channel();
        let outgoing = Outgoing { call, fds, answer };
        self.calls.send(outgoing).await.map_err(|_| Refusal::Gone)?;
        receiver.await.map_err(|_| Refusal::Gone)?
    }
}

impl From<Refusal> for RuntimeError {
    fn from(refusal: Refusal) -> RuntimeError {
        match refusal {
            Refusal::NotFound(message) => RuntimeError::NotFound(message),
            Refusal::Start(message) | Refusal::Failed(message) => RuntimeError::Internal(message),
            Refusal::Gone => RuntimeError::Unavailable(refusal.to_string()),
        }
    }
}

impl Line {
    /// Works until the supervisor closes or the signal is raised; true when it closed.
    pub(super) async fn run(mut self, stop: base::Stop, mut news: impl FnMut(News)) -> bool {
        loop {
            let wants_to_send = self.channel.get_ref().wants_to_send();
            tokio::select! {
                () = stop.raised() => return false,
                ready = self.channel.readable() => {
                    let Ok(mut ready) = ready else { return true };
                    ready.clear_ready();
                    drop(ready);
                    if !self.read(&mut news) {
                        return true;
                    }
                }
                ready = self.channel.writable(), if wants_to_send => {
                    let Ok(mut ready) = ready else { return true };
                    ready.clear_ready();
                    drop(ready);
                    if self.channel.get_mut().flush().is_err() {
                        return true;
                    }
                }
                outgoing = self.calls.recv() => match outgoing {
                    Some(outgoing) => if !self.send(outgoing) {
                        return true;
                    },
                    None => return false,
                }
            }
        }
    }

    fn send(&mut self, outgoing: Outgoing) -> bool {
        self.next += 1;
        let request = Request {
            id: self.next,
            call: outgoing.call,
        };
        let channel = self.channel.get_mut();
        match channel.queue(&request, outgoing.fds) {
            Ok(()) => {
                self.waiting.insert(self.next, outgoing.answer);
            }
            Err(error) => {
                // A receiver that is gone needs no answer.
                let _ = outgoing
                    .answer
                    .send(Err(Refusal::Failed(error.to_string())));
            }
        }
        channel.flush().is_ok()
    }

    /// Takes in what has come; false when the peer is gone.
    fn read(&mut self, news: &mut impl FnMut(News)) -> bool {
        let open = matches!(self.channel.get_mut().fill(), Ok(true));
        loop {
            match self.channel.get_mut().next::<Message>() {
                Ok(Some((Message::Reply { id, result, pid }, fds))) => {
                    if let Some(waiting) = self.waiting.remove(&id) {
                        let _ = waiting.send(result.map(|()| Answered { fds, pid }));
                    }
                }
                Ok(Some((Message::Warning { container, text }, _))) => {
                    news(News::Warning(container, text));
                }
                Ok(Some((Message::Started { container, status }, _))) => {
                    news(News::Started(container, status));
                }
                Ok(Some((Message::Exited { container, status }, _))) => {
                    news(News::Exited(container, status))
                }
                Ok(Some((Message::ExecExited { exec, exit_code }, _))) => {
                    news(News::ExecExited(exec, exit_code))
                }
                Ok(None) => return open,
                Err(error) => {
                    tracing::error!(%error, "a supervisor speaks in tongues");
                    return false;
                }
            }
        }
    }
}
