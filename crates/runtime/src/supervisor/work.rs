//! What a supervisor does when something happens: a call comes in, a child
//! speaks or ends.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use node_api::ContainerState;

use crate::protocol::{Call, Message, Refusal, Request};
use crate::spec::now_nanos;
use crate::supervisor::container::{Container, Starting};
use crate::supervisor::init::note;
use crate::supervisor::{Step, Supervisor};

/// Exit code of a container whose program could not be started.
const START_FAILED: i32 = 128;
/// Exit code of a process that SIGKILL ended.
const KILLED: i32 = 128 + SIGKILL;
const SIGKILL: i32 = 9;

/// An answer that is known at once, or one that comes later.
enum Answer {
    Now(Vec<OwnedFd>),
    Later,
}

impl Supervisor {
    /// Reads and carries out what a client asks.
    pub(super) fn client(&mut self, id: u64) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let open = client.fill();
        loop {
            let Some(client) = self.clients.get_mut(&id) else {
                return;
            };
            match client.next::<Request>() {
                Ok(Some((request, fds))) => self.request(id, request, fds),
                Ok(None) => break,
                Err(error) => {
                    complain!("request: {error}");
                    return self.lose_client(id);
                }
            }
        }
        if !matches!(open, Ok(true)) {
            self.lose_client(id);
        }
    }

    fn request(&mut self, client: u64, request: Request, fds: Vec<OwnedFd>) {
        let id = request.id;
        match self.carry_out(client, request, fds) {
            Ok(Answer::Now(fds)) => self.reply(client, id, Ok(()), fds),
            Ok(Answer::Later) => {}
            Err(refusal) => self.reply(client, id, Err(refusal), Vec::new()),
        }
    }

    fn carry_out(
        &mut self,
        client: u64,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<Answer, Refusal> {
        match request.call {
            Call::Start { container } => {
                self.start_container(&container, client, request.id)?;
                return Ok(Answer::Later);
            }
            Call::Exec { exec } => {
                self.start_exec(&exec, fds, client, request.id)?;
                return Ok(Answer::Later);
            }
            Call::Proceed { container, fault } => {
                let known = self.container(&container)?;
                let went_on = known.proceed(fault.as_deref(), client, request.id);
                let ended = || Refusal::Start(known.status.message.clone());
                went_on.ok_or_else(ended)?;
                return Ok(Answer::Later);
            }
            Call::Quit => {
                self.quit = Some((client, request.id));
                return Ok(Answer::Later);
            }
            Call::Socket { ipv6 } => return Ok(Answer::Now(vec![pod_socket(ipv6)?])),
            Call::Signal {
                container,
                signal,
                everything,
            } => self.signal(&container, signal, everything)?,
            Call::KillExec { exec } => self.kill_exec(&exec)?,
            Call::Attach {
                container,
                stdin,
                stdout,
                stderr,
                early,
            } => {
                let mut fds = fds.into_iter();
                let mut take = |wanted: bool| if wanted { fds.next() } else { None };
                let (stdin, outputs) = (take(stdin), [take(stdout), take(stderr)]);
                if early && !self.containers.contains_key(&container) {
                    let waiting = self.early.entry(container).or_default();
                    waiting.push((stdin, outputs));
                    return Ok(Answer::Now(Vec::new()));
                }
                let container = self.container(&container)?;
                if container.status.state == ContainerState::Exited {
                    return Err(Refusal::Failed("the container has ended".to_owned()));
                }
                failed(container.attach(stdin, outputs), "attach")?;
            }
            Call::Resize {
                container,
                width,
                height,
            } => {
                if let Some(terminal) = self.container(&container)?.terminal() {
                    failed(linux::terminal::resize(terminal, width, height), "resize")?;
                }
            }
            Call::Reopen { container } => {
                failed(self.container(&container)?.log.reopen(), "log file")?
            }
            Call::Forget { container } => {
                self.containers.remove(&container);
                self.early.remove(&container);
            }
        }
        Ok(Answer::Now(Vec::new()))
    }

    fn kill_exec(&self, id: &str) -> Result<(), Refusal> {
        let Some(exec) = self.execs.get(id) else {
            return Ok(());
        };
        failed(linux::process::signal_pidfd(exec.pidfd.as_fd(), 9), "kill")
    }

    fn container(&mut self, id: &str) -> Result<&mut super::Container, Refusal> {
        let missing =
            || Refusal::NotFound(format!("container {id} is not known to its supervisor"));
        self.containers.get_mut(id).ok_or_else(missing)
    }

    fn signal(&mut self, id: &str, signal: i32, everything: bool) -> Result<(), Refusal> {
        let container = self.container(id)?;
        if container.status.state == ContainerState::Exited {
            return Ok(());
        }
        let cgroup = container.cgroup.clone();
        if signal == SIGKILL {
            // Then there is nothing to find out.
            container.memory = None;
        }
        match linux::process::signal_pidfd(container.pidfd.as_fd(), signal) {
            Err(error) if error.raw_os_error() != Some(Errno::ESRCH as i32) => {
                return Err(Refusal::Failed(format!("signal {signal}: {error}")));
            }
            _ => {}
        }
        if everything {
            self.kill_group(&cgroup);
        }
        Ok(())
    }

    /// Removes a cgroup, and whoever is left in it.
    fn clear_cgroup(&self, path: &str) {
        let group = self.hierarchies.group(path);
        let is_unit = systemd::is_unit(path);
        if is_unit || !group.is_ok_and(|group| matches!(group.dissolve(), Ok(true))) {
            self.kill_group(path);
            self.remove_cgroup(path);
        }
    }

    fn kill_group(&self, path: &str) {
        let killed = self.hierarchies.group(path).and_then(|group| group.kill());
        if let Err(error) = killed {
            complain!("{error}");
        }
    }

    /// A child on its way to its program has something to say.
    pub(super) fn container_notes(&mut self, id: &str) {
        let Some(mut starting) = self.containers.get_mut(id).and_then(|c| c.starting.take()) else {
            return;
        };
        let closed = read_notes(id, &mut starting);
        for text in std::mem::take(&mut starting.warnings) {
            let container = id.to_owned();
            self.tell_all(&Message::Warning { container, text });
        }
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        if let Some(terminal) = starting.terminal.take()
            && let Err(error) = container.set_terminal(terminal)
        {
            complain!("terminal of {id}: {error}");
        }
        if !closed {
            let waits = std::mem::take(&mut starting.prepared);
            let (client, id, pid) = (starting.client, starting.request, container.pid.as_raw());
            container.starting = Some(starting);
            if waits {
                let result = Ok(());
                self.reply_with(client, Message::Reply { id, result, pid }, Vec::new());
            }
            return;
        }
        if starting.ready && starting.fault.is_none() {
            container.status.state = ContainerState::Running;
            container.status.started_at = now_nanos();
            container.status.user = starting.user;
            container.save();
            let status = container.status.clone();
            self.tell_all(&Message::Started {
                container: id.to_owned(),
                status,
            });
            self.reply(starting.client, starting.request, Ok(()), Vec::new());
        } else {
            // It ends by itself now; its end brings the answer.
            starting.fault.get_or_insert_with(|| {
                "the container's first process died before its program started".to_owned()
            });
            container.starting = Some(Starting {
                notes: None,
                ..starting
            });
        }
    }

    pub(super) fn exec_notes(&mut self, id: &str) {
        let Some(mut starting) = self.execs.get_mut(id).and_then(|exec| exec.starting.take())
        else {
            return;
        };
        let closed = read_notes(id, &mut starting);
        let pid = self.execs.get(id).map_or(0, |exec| exec.pid.as_raw());
        if !closed {
            if let Some(exec) = self.execs.get_mut(id) {
                exec.starting = Some(starting);
            }
            return;
        }
        let result = match starting.fault {
            None if starting.ready => Ok(()),
            fault => {
                self.execs.remove(id);
                Err(Refusal::Start(fault.unwrap_or_else(|| {
                    "the process died before its program started".to_owned()
                })))
            }
        };
        let reply = Message::Reply {
            id: starting.request,
            result,
            pid,
        };
        self.reply_with(
            starting.client,
            reply,
            starting.terminal.into_iter().collect(),
        );
    }

    /// Takes in every child that has ended.
    pub(super) fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            match linux::process::reap() {
                Ok(Some((pid, exit_code))) => self.ended(pid, exit_code),
                Ok(None) => return,
                Err(error) => {
                    complain!("reaping: {error}");
                    return;
                }
            }
        }
    }

    fn ended(&mut self, pid: Pid, exit_code: i32) {
        let of_container = self
            .containers
            .iter()
            .find(|(_, c)| c.pid == pid && c.status.state != ContainerState::Exited);
        if let Some(id) = of_container.map(|(id, _)| id.clone()) {
            return self.container_ended(&id, exit_code);
        }
        let of_exec = self.execs.iter().find(|(_, exec)| exec.pid == pid);
        if let Some(id) = of_exec.map(|(id, _)| id.clone()) {
            // The notes may hold the reason and not have been read yet.
            self.exec_notes(&id);
            if self.execs.remove(&id).is_some() {
                self.tell_all(&Message::ExecExited {
                    exec: id,
                    exit_code,
                });
            }
        }
    }

    fn container_ended(&mut self, id: &str, exit_code: i32) {
        self.container_notes(id);
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let (cgroup, ends_whole) = (container.cgroup.clone(), container.ends_whole);
        let starting = container.starting.take();
        let group = self.hierarchies.group(&cgroup);
        let memory_kills = match &container.memory {
            Some(watch) => u64::from(watch.has_killed(exit_code == KILLED)),
            None => group
                .as_ref()
                .map_or(0, |group| group.out_of_memory_kills()),
        };
        // Whatever shares its cgroup goes with it, before the pipes are read to their end.
        let is_unit = systemd::is_unit(&cgroup);
        let is_gone = !ends_whole
            && !is_unit
            && group.is_ok_and(|group| matches!(group.dissolve(), Ok(true)));
        if !ends_whole && !is_gone {
            self.kill_group(&cgroup);
        }
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        container.drain();
        container.status = match &starting {
            Some(starting) => {
                let fault = starting.fault.as_deref().unwrap_or_default();
                container.status.exited(START_FAILED, "StartError", fault)
            }
            None => {
                let reason = match exit_code {
                    0 => "Completed",
                    _ if memory_kills > 0 => "OOMKilled",
                    _ => "Error",
                };
                container.status.exited(exit_code, reason, "")
            }
        };
        container.save();
        let status = container.status.clone();
        if let Some(starting) = starting {
            let refusal = Refusal::Start(status.message.clone());
            self.reply(starting.client, starting.request, Err(refusal), Vec::new());
        }
        self.tell_all(&Message::Exited {
            container: id.to_owned(),
            status,
        });
        if !is_gone {
            // Nobody waits for that.
            self.settle();
            self.clear_cgroup(&cgroup);
        }
    }

    fn reply(&mut self, client: u64, id: u64, result: Result<(), Refusal>, fds: Vec<OwnedFd>) {
        self.reply_with(client, Message::Reply { id, result, pid: 0 }, fds);
    }

    fn reply_with(&mut self, client: u64, message: Message, fds: Vec<OwnedFd>) {
        if let Some(client) = self.clients.get_mut(&client)
            && let Err(error) = client.queue(&message, fds)
        {
            complain!("reply: {error}");
        }
    }

    fn tell_all(&mut self, message: &Message) {
        for client in self.clients.values_mut() {
            if let Err(error) = client.queue(message, Vec::new()) {
                complain!("message: {error}");
            }
        }
    }

    /// The end of the pod: nothing of it stays.
    pub(super) fn end(&mut self) {
        // Of who has ended nothing is left.
        let lives = |c: &&Container| c.status.state != ContainerState::Exited;
        let living = self.containers.values().filter(lives);
        let groups: Vec<String> = living.map(|c| c.cgroup.clone()).collect();
        for group in &groups {
            self.kill_group(group);
        }
        for container in self.containers.values() {
            let _ = linux::process::signal_pidfd(container.pidfd.as_fd(), 9);
        }
        for container in self
            .containers
            .values_mut()
            .filter(|c| c.status.state != ContainerState::Exited)
        {
            // With SIGKILL on its way this does not take long.
            let _ = waitpid(container.pid, None);
            container.drain();
            container.status = container.status.exited(137, "Error", "");
            container.save();
        }
        for group in &groups {
            self.remove_cgroup(group);
        }
        // The answer comes when all is written down.
        if let Some((client, request)) = self.quit {
            self.reply(client, request, Ok(()), Vec::new());
        }
        for client in self.clients.values_mut() {
            let _ = client.flush();
        }
    }
}

fn failed<T>(result: std::io::Result<T>, what: &str) -> Result<T, Refusal> {
    result.step(what).map_err(Refusal::Failed)
}

/// A socket of the pod's network: ours, for we live in it.
fn pod_socket(ipv6: bool) -> Result<OwnedFd, Refusal> {
    let family = if ipv6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let made = socket(family, SockType::Stream, flags, None);
    failed(made.map_err(std::io::Error::from), "socket")
}

/// Reads all notes that are there; true when no more will come.
fn read_notes(id: &str, starting: &mut Starting) -> bool {
    let Some(notes) = &starting.notes else {
        return true;
    };
    let mut packet = [0u8; 8 << 10];
    loop {
        let mut fds = Vec::new();
        let length = match linux::socket::receive(notes.as_fd(), &mut packet, &mut fds) {
            Ok(0) => return true,
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return true,
        };
        let text = String::from_utf8_lossy(&packet[1..length]).into_owned();
        match packet[0] {
            note::TERMINAL => starting.terminal = fds.pop(),
            note::WARNING => {
                complain!("{id}: {text}");
                starting.warnings.push(text);
            }
            note::USER => starting.user = serde_json::from_str(&text).ok(),
            note::FAULT => starting.fault = Some(text),
            note::READY => starting.ready = true,
            note::PREPARED => (starting.prepared, starting.waits) = (true, true),
            other => complain!("{id}: unknown note {other}"),
        }
    }
}
