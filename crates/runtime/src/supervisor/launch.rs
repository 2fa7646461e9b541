//! The parent's side of a start: prepare, fork, keep our ends of what connects us.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use linux::CloneFlags;
use linux::cgroup::{Cgroup, DeviceRule};
use linux::mount::Detached;
use linux::process::{Forked, clone_process, open_pidfd};
use nix::fcntl::AT_FDCWD;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::{SFlag, major, minor, stat};
use nix::unistd::Pid;

use crate::protocol::Refusal;
use crate::spec::{ContainerSpec, ExecSpec, PidScope, file, read_json};
use crate::supervisor::container::{Container, Exec, Starting};
use crate::supervisor::init::{self, GO, Stdio};
use crate::supervisor::log::Log;
use crate::supervisor::rootfs::{Mapped, Outside};
use crate::supervisor::{Step, Supervisor};
use crate::units;

/// The supervisor's own log starts anew beyond this.
const LOG_LIMIT: u64 = 256 << 10;

/// Where a process id namespace is to be found.
enum PidsOf<'a> {
    New,
    Ours,
    Behind(BorrowedFd<'a>),
    /// The same, of a process that is none of ours.
    BehindForeign(OwnedFd),
}

/// The parent's ends of a container's streams.
#[derive(Default)]
struct Ends {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Supervisor {
    /// Starts the container whose spec is in the state folder; the answer comes with its notes.
    pub(super) fn start_container(
        &mut self,
        id: &str,
        client: u64,
        request: u64,
    ) -> Result<(), Refusal> {
        if self.containers.contains_key(id) {
            return Err(Refusal::Failed(format!(
                "container {id} was started before"
            )));
        }
        self.trim_log();
        // Whatever happens, who waits hears of it: by output, or by the end of all streams.
        let early = self.early.remove(id).unwrap_or_default();
        let folder = self.folder.join(file::CONTAINERS).join(id);
        let spec: ContainerSpec = read_json(&folder.join(file::SPEC))
            .step(file::SPEC)
            .map_err(Refusal::Failed)?;
        let launched = self.launch_container(&spec).map_err(Refusal::Start);
        let (pid, pidfd, notes, log, ends) =
            launched.inspect_err(|_| self.remove_cgroup(&spec.cgroup))?;
        let starting = Starting::new(notes, client, request);
        let mut container = Container::new(&spec, folder, pid, pidfd, starting, log);
        if systemd::is_unit(&spec.cgroup) {
            let group = self.hierarchies.group(&spec.cgroup);
            container.memory = group.ok().map(|group| group.watch_memory());
        }
        container.set_streams(ends.stdin, ends.stdout, ends.stderr);
        for (stdin, outputs) in early {
            if let Err(error) = container.attach(stdin, outputs) {
                complain!("early session of {id}: {error}");
            }
        }
        self.containers.insert(id.to_owned(), container);
        Ok(())
    }

    #[allow(clippy::type_complexity)]
    fn launch_container(
        &self,
        spec: &ContainerSpec,
    ) -> Result<(Pid, OwnedFd, OwnedFd, Log, Ends), String> {
        let log = Log::open(spec.log_path.clone(), spec.log_rotation).step("log file")?;
        let cgroup = self.hierarchies.group(&spec.cgroup).step("cgroup")?;
        let is_unit = systemd::is_unit(&spec.cgroup);
        if !is_unit {
            prepare_cgroup(&cgroup, spec)?;
        }
        let (ours, theirs) = notes_pair().step("notes")?;
        let (ends, stdio) = streams(spec).step("streams")?;
        let outside = Outside {
            shm: match spec.shm_of {
                Some(pid) => shared_memory_of(pid),
                None => self.shared_memory(),
            }
            .step("shared memory")?,
            cgroups: cgroup.mounts(),
            pure_cgroup2: cgroup.is_pure_unified(),
            user: (self.user.as_ref().map(Mapped::try_clone))
                .transpose()
                .step("user namespace")?,
        };
        let mut flags = CloneFlags::CLONE_NEWNS;
        let pids = self.pids_of(spec)?;
        flags.set(CloneFlags::CLONE_NEWPID, matches!(pids, PidsOf::New));
        let unified = match is_unit {
            true => None,
            false => cgroup.unified_handle().step("cgroup")?,
        };
        match self
            .fork(flags, &pids, unified.as_ref().map(AsFd::as_fd))
            .step("fork")?
        {
            Forked::Child => {
                drop((ours, ends));
                init::run_container(spec, &outside, &cgroup, theirs, stdio)
            }
            Forked::Parent { pid, pidfd } => {
                if is_unit {
                    let placed = place_in_unit(&cgroup, spec, pid, ours.as_fd());
                    placed.inspect_err(|_| self.give_up(pid, pidfd.as_fd()))?;
                }
                Ok((pid, pidfd, ours, log, ends))
            }
        }
    }

    /// Starts one more process in a container; the answer comes with its notes.
    pub(super) fn start_exec(
        &mut self,
        exec: &ExecSpec,
        fds: Vec<OwnedFd>,
        client: u64,
        request: u64,
    ) -> Result<(), Refusal> {
        let missing = || Refusal::NotFound(format!("container {} is not running", exec.container));
        let container = self
            .containers
            .get(&exec.container)
            .filter(|c| c.is_running())
            .ok_or_else(missing)?;
        let folder = self.folder.join(file::CONTAINERS).join(&exec.container);
        let mut spec: ContainerSpec = read_json(&folder.join(file::SPEC))
            .step(file::SPEC)
            .map_err(Refusal::Failed)?;
        spec.hooks = None;
        exec.options.apply(&mut spec);
        let mut fds = fds.into_iter();
        let mut take = |wanted: bool| if wanted { fds.next() } else { None };
        let stdio = Stdio {
            stdin: take(exec.stdin && !exec.tty),
            stdout: take(exec.stdout && !exec.tty),
            stderr: take(exec.stderr && !exec.tty),
        };
        let launched = self
            .launch_exec(&spec, exec, container, stdio)
            .map_err(Refusal::Failed);
        let (pid, pidfd, notes) = launched?;
        let starting = Some(Starting::new(notes, client, request));
        self.execs.insert(
            exec.id.clone(),
            Exec {
                pid,
                pidfd,
                client,
                starting,
            },
        );
        Ok(())
    }

    fn launch_exec(
        &self,
        spec: &ContainerSpec,
        exec: &ExecSpec,
        container: &Container,
        stdio: Stdio,
    ) -> Result<(Pid, OwnedFd, OwnedFd), String> {
        let cgroup = self.hierarchies.group(&spec.cgroup).step("cgroup")?;
        let (ours, theirs) = notes_pair().step("notes")?;
        let target = container.pidfd.as_fd();
        let pids = if spec.pids == PidScope::Node {
            PidsOf::Ours
        } else {
            PidsOf::Behind(target)
        };
        let unified = cgroup.unified_handle().step("cgroup")?;
        let flags = CloneFlags::empty();
        match self
            .fork(flags, &pids, unified.as_ref().map(AsFd::as_fd))
            .step("fork")?
        {
            Forked::Child => {
                drop(ours);
                init::run_exec(spec, exec, target, &cgroup, theirs, stdio)
            }
            Forked::Parent { pid, pidfd } => Ok((pid, pidfd, ours)),
        }
    }

    /// A copy of the pod's shared memory, or the node's own.
    fn shared_memory(&self) -> io::Result<Detached> {
        if let Some(shm) = &self.shm {
            return Detached::copy(shm.as_fd(), Path::new(""), false);
        }
        let attached = match self.spec.own_ipc {
            true => self.folder.join(file::SHM),
            false => PathBuf::from("/dev/shm"),
        };
        Detached::copy(AT_FDCWD.as_fd(), &attached, false)
    }

    fn pids_of<'a>(&'a self, spec: &ContainerSpec) -> Result<PidsOf<'a>, String> {
        match &spec.pids {
            PidScope::Own => Ok(PidsOf::New),
            PidScope::Node => Ok(PidsOf::Ours),
            PidScope::Pod => {
                let shared = self.pause.as_ref().filter(|_| self.spec.shared_pids);
                let (_, pidfd) = shared.ok_or("the pod shares no process ids")?;
                Ok(PidsOf::Behind(pidfd.as_fd()))
            }
            PidScope::Container(id) => {
                let target = self.containers.get(id).filter(|target| target.is_running());
                let target =
                    target.ok_or_else(|| format!("target container {id} is not running"))?;
                Ok(PidsOf::Behind(target.pidfd.as_fd()))
            }
            PidScope::Process(pid) => {
                let target = open_pidfd(Pid::from_raw(*pid));
                Ok(PidsOf::BehindForeign(target.step("target process")?))
            }
        }
    }

    /// Forks; the child of a visit to another process id namespace stays there, we come back.
    fn fork(
        &self,
        flags: CloneFlags,
        pids: &PidsOf<'_>,
        cgroup: Option<BorrowedFd<'_>>,
    ) -> io::Result<Forked> {
        let target = match pids {
            PidsOf::Behind(target) => *target,
            PidsOf::BehindForeign(target) => target.as_fd(),
            PidsOf::New | PidsOf::Ours => return clone_process(flags, cgroup),
        };
        linux::namespace::join(target, CloneFlags::CLONE_NEWPID)?;
        let forked = clone_process(flags, cgroup);
        if !matches!(forked, Ok(Forked::Child)) {
            nix::sched::setns(&self.own_pids, CloneFlags::CLONE_NEWPID)?;
        }
        forked
    }

    /// A container that is started again and again must not fill the disk with its warnings.
    fn trim_log(&self) {
        let log = std::fs::File::options()
            .write(true)
            .open(self.folder.join(file::LOG));
        let trimmed = log.and_then(|log| match log.metadata()?.len() {
            length if length > LOG_LIMIT => log.set_len(0),
            _ => Ok(()),
        });
        if let Err(error) = trimmed {
            complain!("own log: {error}");
        }
    }

    /// Ends a child that has not begun.
    fn give_up(&self, pid: Pid, pidfd: BorrowedFd<'_>) {
        let ended = linux::process::signal_pidfd(pidfd, 9)
            .and_then(|()| Ok(nix::sys::wait::waitpid(pid, None)?));
        if let Err(error) = ended {
            complain!("process {pid} not ended: {error}");
        }
    }

    pub(super) fn remove_cgroup(&self, path: &str) {
        let removed = self
            .hierarchies
            .group(path)
            .and_then(|group| units::remove(path, &group));
        if let Err(error) = removed {
            complain!("{error}");
        }
    }
}

/// What another process sees as its shared memory. A mount can be copied only from inside of its
/// namespace, which a child goes into.
fn shared_memory_of(pid: i32) -> io::Result<Detached> {
    let target = open_pidfd(Pid::from_raw(pid))?;
    let kind = (AddressFamily::Unix, SockType::SeqPacket);
    let (ours, theirs) = socketpair(kind.0, kind.1, None, SockFlag::SOCK_CLOEXEC)?;
    match clone_process(CloneFlags::empty(), None)? {
        Forked::Child => {
            let sent = linux::namespace::join(target.as_fd(), CloneFlags::CLONE_NEWNS)
                .and_then(|()| Detached::copy(AT_FDCWD.as_fd(), Path::new("/dev/shm"), false))
                .and_then(|tree| linux::socket::send(theirs.as_fd(), b"x", &[tree.as_fd()]));
            linux::process::exit_now(i32::from(sent.is_err()))
        }
        Forked::Parent { pid, .. } => {
            drop(theirs);
            let mut fds = Vec::new();
            let received = linux::socket::receive(ours.as_fd(), &mut [0; 1], &mut fds);
            // It has nothing more to do; nobody else waits for it.
            let _ = nix::sys::wait::waitpid(pid, None);
            received?;
            let tree = fds.pop().ok_or(io::ErrorKind::NotFound)?;
            Ok(Detached::from(tree))
        }
    }
}

/// Has systemd make the scope of a child, which waits for our word meanwhile.
fn place_in_unit(
    cgroup: &Cgroup,
    spec: &ContainerSpec,
    pid: Pid,
    notes: BorrowedFd<'_>,
) -> Result<(), String> {
    units::start(&spec.cgroup, cgroup, pid, &spec.limits).step("cgroup")?;
    prepare_cgroup(cgroup, spec)?;
    // Who has died meanwhile will be found.
    let _ = linux::socket::send(notes, GO, &[]);
    Ok(())
}

fn prepare_cgroup(cgroup: &Cgroup, spec: &ContainerSpec) -> Result<(), String> {
    if !spec.has_cgroup {
        cgroup.create().step("cgroup")?;
    }
    for controller in cgroup.limit(&spec.limits).step("cgroup")? {
        complain!("{}: no {controller} controller, limit not set", spec.id);
    }
    if spec.privileged {
        return match spec.has_cgroup {
            true => cgroup.allow_all_devices().step("devices"),
            false => Ok(()),
        };
    }
    let mut rules = match spec.has_cgroup {
        true => Vec::new(),
        false => DeviceRule::container_default(),
    };
    for device in &spec.devices {
        let found = stat(&device.host_path).step(&device.host_path.display().to_string())?;
        let block = found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFBLK.bits();
        rules.push(DeviceRule {
            kind: if block { 'b' } else { 'c' },
            major: Some(major(found.st_rdev)),
            minor: Some(minor(found.st_rdev)),
            access: device.permissions.clone(),
        });
    }
    rules.extend(spec.device_rules.iter().cloned());
    // A node without the means is no reason to run nothing on it.
    let allowed = match spec.has_cgroup {
        true => cgroup.allow_more_devices(&rules),
        false => cgroup.allow_devices(&rules),
    };
    if let Err(error) = allowed {
        complain!("{}: device access not filtered: {error}", spec.id);
    }
    Ok(())
}

/// Packets keep the child's notes apart; our end does not block.
fn notes_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    set_nonblocking(&ours)?;
    Ok((ours, theirs))
}

/// Pipes for a container without a terminal: our ends, which do not block, and the child's.
fn streams(spec: &ContainerSpec) -> io::Result<(Ends, Stdio)> {
    if spec.tty {
        return Ok(Default::default());
    }
    let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC);
    let (out_read, out_write) = pipe()?;
    let (err_read, err_write) = pipe()?;
    set_nonblocking(&out_read)?;
    set_nonblocking(&err_read)?;
    let mut ends = Ends {
        stdin: None,
        stdout: Some(out_read),
        stderr: Some(err_read),
    };
    let mut stdio = Stdio {
        stdin: None,
        stdout: Some(out_write),
        stderr: Some(err_write),
    };
    if spec.stdin {
        let (in_read, in_write) = pipe()?;
        set_nonblocking(&in_write)?;
        ends.stdin = Some(in_write);
        stdio.stdin = Some(in_read);
    }
    Ok((ends, stdio))
}

pub(crate) fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    use nix::fcntl::{F_GETFL, F_SETFL, OFlag, fcntl};
    let flags = OFlag::from_bits_truncate(fcntl(fd, F_GETFL)?);
    fcntl(fd, F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
