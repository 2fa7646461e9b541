//! The socket between engine and supervisor: frames of JSON, with descriptors
//! in tow. Both ends use one [`Channel`] without blocking.
//!
//! ```text
//! | length: u32 le | descriptors: u8 | JSON … |
//! ```

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::spec::{ExecSpec, Status};

/// A longer frame is an error of the peer.
const FRAME_LIMIT: usize = 4 << 20;
const HEADER: usize = 5;
/// A peer that reads nothing for so many bytes is cut off.
const OUTGOING_LIMIT: usize = 16 << 20;

/// What the engine asks; answered by [`Message::Reply`] with the same id.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) call: Call,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    /// Makes and starts the container whose spec lies in the state folder. With hooks to be run among
    /// the node's processes it is answered before them, and a [`Call::Proceed`] has to follow.
    Start {
        container: String,
    },
    /// Lets a container go on that waits for its hooks, which the answer to its start told; with a
    /// fault it ends instead. Answered when its program runs.
    Proceed {
        container: String,
        fault: Option<String>,
    },
    /// Signals the first process, or with `everything` kills all in the container.
    Signal {
        container: String,
        signal: i32,
        everything: bool,
    },
    /// Starts a process. Descriptors: its stdin, stdout, stderr as far as asked for; with a
    /// terminal none, the reply brings the master.
    Exec {
        exec: ExecSpec,
    },
    KillExec {
        exec: String,
    },
    /// Descriptors: a pipe to read stdin from, pipes to write output to, as far as asked for.
    Attach {
        container: String,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        /// The container need not run yet: its start completes the session.
        #[serde(default)]
        early: bool,
    },
    Resize {
        container: String,
        width: u16,
        height: u16,
    },
    Reopen {
        container: String,
    },
    /// The reply brings an unconnected TCP socket of the pod's network.
    Socket {
        ipv6: bool,
    },
    /// Drops what is known of an ended container.
    Forget {
        container: String,
    },
    /// Kills everything and ends.
    Quit,
}

/// What a supervisor says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    Reply {
        id: u64,
        result: Result<(), Refusal>,
        /// The node's id of the process that was started, if one was.
        #[serde(default)]
        pid: i32,
    },
    /// The node gave less than was asked; the container runs all the same.
    Warning {
        container: String,
        text: String,
    },
    /// The program runs; said before the reply to its start.
    Started {
        container: String,
        status: Status,
    },
    Exited {
        container: String,
        status: Status,
    },
    ExecExited {
        exec: String,
        exit_code: i32,
    },
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{0}")]
    NotFound(String),
    /// The program could not be started; the fault is in what was asked.
    #[error("{0}")]
    Start(String),
    #[error("{0}")]
    Failed(String),
    #[error("the supervisor is gone")]
    Gone,
}

/// One end of the socket.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
    incoming: Vec<u8>,
    incoming_fds: VecDeque<OwnedFd>,
    outgoing: VecDeque<Frame>,
    outgoing_bytes: usize,
}

#[derive(Debug)]
struct Frame {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

impl Channel {
    /// `socket` must be a non-blocking stream socket.
    pub(crate) fn new(socket: OwnedFd) -> Channel {
        Channel {
            socket,
            incoming: Vec::new(),
            incoming_fds: VecDeque::new(),
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
        }
    }

    /// Takes a frame to be sent by [`Channel::flush`].
    pub(crate) fn queue<T: Serialize>(&mut self, value: &T, fds: Vec<OwnedFd>) -> io::Result<()> {
        let mut bytes = vec![0; HEADER];
        serde_json::to_writer(&mut bytes, value)?;
        let length = u32::try_from(bytes.len() - HEADER).map_err(io::Error::other)?;
        if length as usize > FRAME_LIMIT || self.outgoing_bytes > OUTGOING_LIMIT {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes[4] = u8::try_from(fds.len()).map_err(io::Error::other)?;
        self.outgoing_bytes += bytes.len();
        self.outgoing.push_back(Frame {
            bytes,
            sent: 0,
            fds,
        });
        Ok(())
    }

    /// Sends what the socket takes now. `Ok(false)`: more is waiting for room.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        while let Some(frame) = self.outgoing.front_mut() {
            let fds: Vec<BorrowedFd<'_>> = frame.fds.iter().map(AsFd::as_fd).collect();
            match linux::socket::send(self.socket.as_fd(), &frame.bytes[frame.sent..], &fds) {
                Ok(length) => {
                    // The descriptors went with the first byte.
                    frame.fds.clear();
                    frame.sent += length;
                    if frame.sent == frame.bytes.len() {
                        self.outgoing_bytes -= frame.bytes.len();
                        self.outgoing.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether frames wait to be sent.
    pub(crate) fn wants_to_send(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Reads what is there. `Ok(false)`: the peer has closed.
    pub(crate) fn fill(&mut self) -> io::Result<bool> {
        let mut buffer = [0u8; 16 << 10];
        loop {
            let mut fds = Vec::new();
            let received = linux::socket::receive(self.socket.as_fd(), &mut buffer, &mut fds);
            self.incoming_fds.extend(fds);
            match received {
                Ok(0) => return Ok(false),
                Ok(length) => self.incoming.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next whole frame that was read, if there is one.
    pub(crate) fn next<T: serde::de::DeserializeOwned>(
        &mut self,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let Some(header) = self.incoming.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [a, b, c, d, count] = *header;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > FRAME_LIMIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if self.incoming.len() < HEADER + length {
            return Ok(None);
        }
        let value = serde_json::from_slice(&self.incoming[HEADER..HEADER + length])?;
        self.incoming.drain(..HEADER + length);
        let count = usize::from(count).min(self.incoming_fds.len());
        Ok(Some((value, self.incoming_fds.drain(..count).collect())))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl std::os::fd::AsRawFd for Channel {
    fn as_raw_fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn frames_and_descriptors_arrive_in_order() {
        let (left, right) = UnixStream::pair().unwrap();
        left.set_nonblocking(true).unwrap();
        right.set_nonblocking(true).unwrap();
        let (mut left, mut right) = (Channel::new(left.into()), Channel::new(right.into()));
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        left.queue(&"first", vec![null(), null()]).unwrap();
        left.queue(&"x".repeat(1 << 20), Vec::new()).unwrap();
        left.queue(&"last", vec![null()]).unwrap();
        let mut seen = Vec::new();
        for _ in 0..1000 {
            left.flush().unwrap();
            assert!(right.fill().unwrap());
            while let Some((text, fds)) = right.next::<String>().unwrap() {
                seen.push((text.len(), fds.len()));
            }
            if seen.len() == 3 {
                break;
            }
        }
        assert_eq!(seen, [(5, 2), (1 << 20, 0), (4, 1)]);
        drop(left);
        assert!(!right.fill().unwrap());
    }
}
