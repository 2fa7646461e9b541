//! A container as its supervisor sees it: process, streams, log, sessions.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use linux::cgroup::MemoryWatch;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::unistd::Pid;
use node_api::{ContainerState, ContainerUser};

use crate::spec::{ContainerSpec, PidScope, Status, file, write_json};
use crate::supervisor::Token;
use crate::supervisor::init::note::{self, FAULT_LIMIT};
use crate::supervisor::launch::set_nonblocking;
use crate::supervisor::log::{Log, Stream};

/// Input and output held for a slow reader; beyond it the container itself has to wait.
const PENDING_LIMIT: usize = 256 << 10;
const CHUNK: usize = 32 << 10;
/// What an ended container may have left in its pipes is read up to here.
const REST_LIMIT: usize = 4 << 20;

/// A start that has not succeeded or failed yet.
#[derive(Debug)]
pub(super) struct Starting {
    /// `None` when the child has said its last word.
    pub(super) notes: Option<OwnedFd>,
    pub(super) client: u64,
    pub(super) request: u64,
    /// The master of an exec's terminal, to be sent with the answer.
    pub(super) terminal: Option<OwnedFd>,
    pub(super) fault: Option<String>,
    /// Who the program runs as.
    pub(super) user: Option<ContainerUser>,
    /// Not yet passed on.
    pub(super) warnings: Vec<String>,
    /// The child was about to become the program.
    pub(super) ready: bool,
    /// The child waits for our word.
    pub(super) waits: bool,
    /// Not yet passed on that it does.
    pub(super) prepared: bool,
}

impl Starting {
    pub(super) fn new(notes: OwnedFd, client: u64, request: u64) -> Starting {
        Starting {
            notes: Some(notes),
            client,
            request,
            terminal: None,
            fault: None,
            user: None,
            warnings: Vec::new(),
            ready: false,
            waits: false,
            prepared: false,
        }
    }
}

/// One more process in a container.
#[derive(Debug)]
pub(super) struct Exec {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    pub(super) client: u64,
    pub(super) starting: Option<Starting>,
}

/// Somebody who looks on.
#[derive(Debug, Default)]
struct Session {
    stdin: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
    pending: [VecDeque<u8>; 2],
}

#[derive(Debug)]
pub(super) struct Container {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    pub(super) cgroup: String,
    /// All its processes have died when its first one is seen dead: the kernel sees to it.
    pub(super) ends_whole: bool,
    /// Where systemd removes the cgroup as soon as it is empty.
    pub(super) memory: Option<MemoryWatch>,
    pub(super) starting: Option<Starting>,
    pub(super) status: Status,
    pub(super) log: Log,
    folder: PathBuf,
    tty: bool,
    stdin_once: bool,
    stdin: Option<OwnedFd>,
    stdin_pending: VecDeque<u8>,
    /// Standard output and error; with a terminal only the first.
    outputs: [Option<OwnedFd>; 2],
    sessions: Vec<Session>,
}

impl Container {
    pub(super) fn new(
        spec: &ContainerSpec,
        folder: PathBuf,
        pid: Pid,
        pidfd: OwnedFd,
        starting: Starting,
        log: Log,
    ) -> Container {
        Container {
            pid,
            pidfd,
            cgroup: spec.cgroup.clone(),
            ends_whole: spec.pids == PidScope::Own,
            memory: None,
            starting: Some(starting),
            status: Status {
                pid: pid.as_raw(),
                ..Status::created()
            },
            log,
            folder,
            tty: spec.tty,
            stdin_once: spec.stdin_once,
            stdin: None,
            stdin_pending: VecDeque::new(),
            outputs: [None, None],
            sessions: Vec::new(),
        }
    }

    pub(super) fn set_streams(
        &mut self,
        stdin: Option<OwnedFd>,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    ) {
        self.stdin = stdin;
        self.outputs = [stdout, stderr];
    }

    /// The master of the container's terminal: its input and its output.
    pub(super) fn set_terminal(&mut self, master: OwnedFd) -> io::Result<()> {
        set_nonblocking(&master)?;
        self.stdin = Some(master.try_clone()?);
        self.outputs = [Some(master), None];
        Ok(())
    }

    pub(super) fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.outputs[0]
            .as_ref()
            .filter(|_| self.tty)
            .map(AsFd::as_fd)
    }

    /// Has the child go on, or end by the fault; the caller hears how the start goes on.
    pub(super) fn proceed(&mut self, fault: Option<&str>, client: u64, request: u64) -> Option<()> {
        let starting = self.starting.as_mut()?;
        (starting.client, starting.request) = (client, request);
        if let (true, Some(notes)) = (starting.waits, &starting.notes) {
            starting.waits = false;
            let word = fault.unwrap_or_default().as_bytes();
            let packet = [&[note::PREPARED], &word[..word.len().min(FAULT_LIMIT)]].concat();
            // A child that is gone has its end seen.
            let _ = linux::socket::send(notes.as_fd(), &packet, &[]);
        }
        Some(())
    }

    /// Ends a child that waits for a word of the client that is gone.
    pub(super) fn give_up_waiting(&mut self, client: u64) {
        let starting = self.starting.as_mut();
        let waiting = starting.filter(|starting| starting.waits && starting.client == client);
        if let Some(starting) = waiting {
            starting.fault = Some("the server ended while hooks were run".to_owned());
            if let Err(error) = linux::process::signal_pidfd(self.pidfd.as_fd(), 9) {
                complain!("ending a container that waits: {error}");
            }
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.status.state == ContainerState::Running
    }

    pub(super) fn save(&self) {
        if let Err(error) = write_json(&self.folder.join(file::STATUS), &self.status) {
            complain!("status of {}: {error}", self.folder.display());
        }
    }

    /// Adds a session; descriptors that are absent are not wanted.
    pub(super) fn attach(
        &mut self,
        stdin: Option<OwnedFd>,
        outputs: [Option<OwnedFd>; 2],
    ) -> io::Result<()> {
        for fd in stdin.iter().chain(outputs.iter().flatten()) {
            set_nonblocking(fd)?;
        }
        self.sessions.push(Session {
            stdin,
            outputs,
            pending: Default::default(),
        });
        Ok(())
    }

    /// Which descriptors are to be watched, and for what.
    pub(super) fn interests<'a>(
        &'a self,
        id: &str,
        add: &mut impl FnMut(Token, BorrowedFd<'a>, PollFlags),
    ) {
        if let Some(notes) = self
            .starting
            .as_ref()
            .and_then(|starting| starting.notes.as_ref())
        {
            add(
                Token::ContainerNotes(id.to_owned()),
                notes.as_fd(),
                PollFlags::POLLIN,
            );
        }
        let clogged = self
            .sessions
            .iter()
            .flat_map(|s| &s.pending)
            .any(|pending| pending.len() >= PENDING_LIMIT);
        if !clogged {
            for (index, output) in self.outputs.iter().enumerate() {
                if let Some(output) = output {
                    add(
                        Token::Output(id.to_owned(), index),
                        output.as_fd(),
                        PollFlags::POLLIN,
                    );
                }
            }
        }
        if let (Some(stdin), false) = (&self.stdin, self.stdin_pending.is_empty()) {
            add(
                Token::Stdin(id.to_owned()),
                stdin.as_fd(),
                PollFlags::POLLOUT,
            );
        }
        for (index, session) in self.sessions.iter().enumerate() {
            let token = || Token::Attached(id.to_owned(), index);
            // Until there is a terminal nothing takes the input.
            let wanted = self.stdin.is_some() || self.starting.is_none();
            if let (Some(stdin), true) = (
                &session.stdin,
                wanted && self.stdin_pending.len() < PENDING_LIMIT,
            ) {
                add(token(), stdin.as_fd(), PollFlags::POLLIN);
            }
            for (output, pending) in session.outputs.iter().zip(&session.pending) {
                if let Some(output) = output {
                    let mut flags = PollFlags::empty();
                    flags.set(PollFlags::POLLOUT, !pending.is_empty());
                    // Even without interest the kernel reports that the reader is gone.
                    add(token(), output.as_fd(), flags);
                }
            }
        }
    }

    /// Reads one chunk of output.
    pub(super) fn output(&mut self, index: usize) {
        let mut chunk = [0u8; CHUNK];
        let Some(output) = &self.outputs[index] else {
            return;
        };
        match nix::unistd::read(output, &mut chunk) {
            Ok(0) => self.close_output(index),
            Ok(length) => self.distribute(index, &chunk[..length]),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // A terminal whose last user closed it answers EIO.
            Err(_) => self.close_output(index),
        }
    }

    fn close_output(&mut self, index: usize) {
        self.outputs[index] = None;
        if self.tty {
            self.stdin = None;
        }
    }

    fn distribute(&mut self, index: usize, bytes: &[u8]) {
        let stream = if index == 0 {
            Stream::Stdout
        } else {
            Stream::Stderr
        };
        if let Err(error) = self.log.write(stream, bytes) {
            complain!("log of {}: {error}", self.folder.display());
        }
        for session in &mut self.sessions {
            if session.outputs[index].is_some() {
                session.pending[index].extend(bytes);
                session.flush(index);
            }
        }
    }

    /// A session has input for the container, or room for output, or is gone.
    pub(super) fn attached_ready(&mut self, index: usize, flags: PollFlags) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        for output in 0..2 {
            session.flush(output);
        }
        if flags.contains(PollFlags::POLLERR) {
            session.probe();
        }
        let mut chunk = [0u8; CHUNK];
        let Some(stdin) = &session.stdin else {
            return;
        };
        match nix::unistd::read(stdin, &mut chunk) {
            Ok(0) => {
                session.stdin = None;
                if self.stdin_once && !self.tty {
                    self.close_stdin();
                }
            }
            Ok(length) => {
                if self.stdin.is_some() {
                    self.stdin_pending.extend(&chunk[..length]);
                    self.feed_stdin();
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => session.stdin = None,
        }
    }

    /// No more input will come; what waits is still delivered if the pipe takes it now.
    fn close_stdin(&mut self) {
        self.feed_stdin();
        self.stdin = None;
    }

    pub(super) fn feed_stdin(&mut self) {
        let Some(stdin) = &self.stdin else {
            self.stdin_pending.clear();
            return;
        };
        if write_pending(stdin, &mut self.stdin_pending).is_err() {
            self.stdin = None;
            self.stdin_pending.clear();
        }
    }

    /// After the end: everything still in the pipes goes to log and sessions.
    pub(super) fn drain(&mut self) {
        let mut chunk = [0u8; CHUNK];
        for index in 0..2 {
            let mut rest = 0;
            while rest < REST_LIMIT {
                let Some(output) = &self.outputs[index] else {
                    break;
                };
                match nix::unistd::read(output, &mut chunk) {
                    Ok(length) if length > 0 => {
                        rest += length;
                        self.distribute(index, &chunk[..length]);
                    }
                    Err(Errno::EINTR) => {}
                    _ => break,
                }
            }
        }
        if let Err(error) = self.log.finish() {
            complain!("log of {}: {error}", self.folder.display());
        }
        self.outputs = [None, None];
        self.stdin = None;
        self.stdin_pending.clear();
    }

    /// Lets go of sessions that have nothing to do any more.
    pub(super) fn drop_closed(&mut self) {
        let ended = self.status.state == ContainerState::Exited;
        for session in &mut self.sessions {
            for (index, output) in session.outputs.iter_mut().enumerate() {
                let source_closed = self.outputs[index].is_none() && self.starting.is_none();
                if session.pending[index].is_empty() && (ended || source_closed) {
                    *output = None;
                }
            }
            if ended {
                session.stdin = None;
            }
        }
        self.sessions
            .retain(|s| s.stdin.is_some() || s.outputs.iter().any(Option::is_some));
    }
}

impl Session {
    fn flush(&mut self, index: usize) {
        if let Some(output) = &self.outputs[index]
            && write_pending(output, &mut self.pending[index]).is_err()
        {
            self.outputs[index] = None;
            self.pending[index].clear();
        }
    }

    /// One of the readers is gone; the kernel tells which.
    fn probe(&mut self) {
        for (output, pending) in self.outputs.iter_mut().zip(&mut self.pending) {
            let Some(fd) = output else {
                continue;
            };
            let mut set = [nix::poll::PollFd::new(fd.as_fd(), PollFlags::empty())];
            let polled = nix::poll::poll(&mut set, nix::poll::PollTimeout::ZERO);
            let gone = set[0]
                .revents()
                .is_some_and(|flags| flags.contains(PollFlags::POLLERR));
            if polled.is_err() || gone {
                *output = None;
                pending.clear();
            }
        }
    }
}

fn write_pending(fd: &OwnedFd, pending: &mut VecDeque<u8>) -> io::Result<()> {
    while !pending.is_empty() {
        let (front, _) = pending.as_slices();
        match nix::unistd::write(fd, front) {
            Ok(length) => {
                pending.drain(..length);
            }
            Err(Errno::EAGAIN) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
