//! The supervisor of one pod: a single-threaded process between the pod's
//! containers and whoever runs the server today. It holds the pod's
//! namespaces, starts and reaps containers, owns their streams and writes
//! their logs and exit codes. It ends when told to, never when left alone.

/// Says something in the supervisor's own log. Where that cannot be written, on a full disk say,
/// nothing is said: `eprintln!` would end the process, and the pod with it.
macro_rules! complain {
    ($($words:tt)*) => {{
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("{}\n", format_args!($($words)*)),
        );
    }};
}

mod container;
mod init;
mod launch;
mod layers;
mod log;
mod rootfs;
mod setup;
mod spare;
mod user;
mod work;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use linux::cgroup::Hierarchies;
use linux::mount::Detached;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;

use crate::protocol::Channel;
use crate::spec::SandboxSpec;
use container::{Container, Exec};
pub(crate) use launch::set_nonblocking;

/// How long nothing happens, in milliseconds, before memory is given back.
const QUIET: u16 = 2000;

/// Names the step that failed in its error.
pub(crate) trait Step<T> {
    fn step(self, what: &str) -> Result<T, String>;
}

impl<T, E: Display> Step<T> for Result<T, E> {
    fn step(self, what: &str) -> Result<T, String> {
        self.map_err(|error| format!("{what}: {error}"))
    }
}

/// What a supervisor that is ready says on its first standard output; anything else is a reason.
pub(crate) const READY: &str = "ready";

/// Entry of `sampan supervise`: `args` is what follows `supervise`, nothing or the cgroup that the
/// pod will probably have. Waits for the state folder of a pod on standard input, and starts its supervisor in the background, which says on
/// standard output that it is ready, or why not. Must be called before the process has a second
/// thread.
pub fn main(args: &[String]) -> i32 {
    if args.len() > 1 {
        eprintln!("usage: supervise [CGROUP] < state folder");
        return 2;
    }
    match spare::run(args.first().map(String::as_str)) {
        Ok(()) => 0,
        Err(error) => {
            // Nobody may be there to read it.
            let _ = io::Write::write_all(&mut io::stdout(), error.as_bytes());
            1
        }
    }
}

/// A process that only holds namespaces.
type Pause = (Pid, OwnedFd);

/// Everything there is.
pub(crate) struct Supervisor {
    spec: SandboxSpec,
    folder: PathBuf,
    hierarchies: Hierarchies,
    listener: UnixListener,
    signals: SignalFd,
    /// To come back to after a visit in a container's process id namespace.
    own_pids: OwnedFd,
    /// First process of the shared process id namespace, or holder of the user namespace.
    pause: Option<Pause>,
    /// The pod's user namespace.
    user: Option<rootfs::Mapped>,
    /// The pod's shared memory; where the kernel cannot copy it from nowhere, it is in the folder.
    shm: Option<Detached>,
    clients: BTreeMap<u64, Channel>,
    next_client: u64,
    containers: BTreeMap<String, Container>,
    execs: BTreeMap<String, Exec>,
    /// Sessions of containers that have not started.
    early: BTreeMap<String, Vec<EarlySession>>,
    /// Who asked for the end, and in which request.
    quit: Option<(u64, u64)>,
}

/// Where a session's input comes from and its outputs go.
type EarlySession = (Option<OwnedFd>, [Option<OwnedFd>; 2]);

/// What a descriptor in the poll set stands for.
#[derive(Clone, Debug)]
enum Token {
    Signals,
    Listener,
    Client(u64),
    ContainerNotes(String),
    ExecNotes(String),
    /// Output number n of a container.
    Output(String, usize),
    /// The container takes more of its stdin.
    Stdin(String),
    /// Attached session n has input, or takes more output.
    Attached(String, usize),
}

impl Supervisor {
    /// Works until told to quit.
    fn serve(&mut self) -> i32 {
        while self.quit.is_none() {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    complain!("poll: {error}");
                    return 1;
                }
            };
            for (token, flags) in ready {
                self.handle(token, flags);
            }
            self.settle();
        }
        self.end();
        0
    }

    fn wait(&self) -> io::Result<Vec<(Token, PollFlags)>> {
        let mut tokens = Vec::new();
        let mut fds = Vec::new();
        let mut add = |token, fd, flags| {
            tokens.push(token);
            fds.push(PollFd::new(fd, flags));
        };
        let input = PollFlags::POLLIN;
        add(Token::Signals, self.signals.as_fd(), input);
        add(Token::Listener, self.listener.as_fd(), input);
        for (id, client) in &self.clients {
            let mut flags = input;
            flags.set(PollFlags::POLLOUT, client.wants_to_send());
            add(Token::Client(*id), client.as_fd(), flags);
        }
        for (id, container) in &self.containers {
            container.interests(id, &mut add);
        }
        for (id, exec) in &self.execs {
            if let Some(notes) = exec
                .starting
                .as_ref()
                .and_then(|starting| starting.notes.as_ref())
            {
                add(Token::ExecNotes(id.clone()), notes.as_fd(), input);
            }
        }
        // After some quiet the memory of our own code goes back; then we sleep without a limit.
        let mut events = poll(&mut fds, QUIET);
        if events == Ok(0) {
            if let Err(error) = linux::memory::release_program_pages() {
                complain!("memory: {error}");
            }
            events = poll(&mut fds, PollTimeout::NONE);
        }
        match events {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = fds
            .iter()
            .map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        let both = tokens.into_iter().zip(flags);
        Ok(both.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn handle(&mut self, token: Token, flags: PollFlags) {
        match token {
            Token::Signals => self.reap(),
            Token::Listener => self.accept(),
            Token::Client(id) => self.client(id),
            Token::ContainerNotes(id) => self.container_notes(&id),
            Token::ExecNotes(id) => self.exec_notes(&id),
            Token::Output(id, index) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.output(index);
                }
            }
            Token::Stdin(id) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.feed_stdin();
                }
            }
            Token::Attached(id, index) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.attached_ready(index, flags);
                }
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            if let Err(error) = socket.set_nonblocking(true) {
                complain!("accepting a connection: {error}");
                continue;
            }
            self.next_client += 1;
            self.clients
                .insert(self.next_client, Channel::new(socket.into()));
        }
    }

    /// Sends what waits, forgets who is gone.
    fn settle(&mut self) {
        let mut gone = Vec::new();
        for (id, client) in &mut self.clients {
            if client.flush().is_err() {
                gone.push(*id);
            }
        }
        for id in gone {
            self.lose_client(id);
        }
        for container in self.containers.values_mut() {
            container.drop_closed();
        }
    }

    /// An exec without its caller has nobody to answer to, a container that waits for its caller's
    /// word nobody to hear it from.
    fn lose_client(&mut self, id: u64) {
        self.clients.remove(&id);
        for container in self.containers.values_mut() {
            container.give_up_waiting(id);
        }
        for exec in self.execs.values().filter(|exec| exec.client == id) {
            if let Err(error) = linux::process::signal_pidfd(exec.pidfd.as_fd(), 9) {
                complain!("ending an exec: {error}");
            }
        }
    }
}
