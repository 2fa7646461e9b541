//! The first moments of a supervisor: away from its parent, into the pod's
//! cgroup and namespaces.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use linux::CloneFlags;
use linux::cgroup::Hierarchies;
use linux::process::{Forked, clone_process, close_from, exit_now, ignore_signal};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use node_api::{IdMapping, UserNamespace};

use crate::spec::{SandboxSpec, file, stored};
use crate::supervisor::rootfs::Mapped;
use crate::supervisor::spare::{Taken, shared_memory};
use crate::supervisor::{Pause, READY, Step, Supervisor};

/// The supervisor is the last of the pod to be killed for memory.
const OOM_SCORE: &str = "-998";

/// Turns this process, which is in its cgroup already, into the supervisor of the sandbox in
/// `folder`.
pub(super) fn supervisor(
    folder: &Path,
    spec: SandboxSpec,
    hierarchies: Hierarchies,
    taken: Taken,
) -> Result<Supervisor, String> {
    nix::unistd::setsid().step("new session")?;
    for signal in [
        Signal::SIGHUP,
        Signal::SIGPIPE,
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGQUIT,
    ] {
        ignore_signal(signal);
    }
    quiet_streams(folder).step("standard streams")?;
    let _ = prctl::set_name(c"sampan-pod");
    prctl::set_child_subreaper(true).step("subreaper")?;
    // Refused without a capability some nodes do not have; then we are killed like any other.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    let own_pids = linux::namespace::own("pid").step("process id namespace")?;
    let holder = spec
        .user
        .as_ref()
        .map(|user| hold_user(user, &spec))
        .transpose()?;
    namespaces(&spec, holder.as_ref(), taken.made)?;
    if spec.own_ipc && taken.shm.is_none() {
        mount_shm(&folder.join(file::SHM)).step("shared memory")?;
    }
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.thread_block().step("signal mask")?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    let signals = SignalFd::with_flags(&signals, flags).step("signal descriptor")?;
    let user = match (&holder, &spec.user) {
        (Some((pid, _)), Some(user)) => Some(Mapped {
            namespace: linux::namespace::of(*pid, "user").step("user namespace")?,
            storage: storage(user)?,
        }),
        _ => None,
    };
    let pause = match holder {
        None if spec.shared_pids => Some(start_pause(CloneFlags::CLONE_NEWPID)?),
        holder => holder,
    };
    // The folder is the working directory for a moment: a socket's path may not be long.
    nix::unistd::chdir(folder).step("state folder")?;
    let listener = UnixListener::bind(file::SOCKET).step("socket")?;
    listener.set_nonblocking(true).step("socket")?;
    std::fs::write(file::PID, std::process::id().to_string()).step("pid file")?;
    nix::unistd::chdir("/").step("root folder")?;
    Ok(Supervisor {
        spec,
        folder: folder.to_owned(),
        hierarchies,
        listener,
        signals,
        own_pids,
        pause,
        user,
        shm: taken.shm,
        clients: Default::default(),
        next_client: 0,
        containers: Default::default(),
        execs: Default::default(),
        early: Default::default(),
        quit: None,
    })
}

fn quiet_streams(folder: &Path) -> io::Result<()> {
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join(file::LOG))?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&log)?;
    Ok(())
}

/// What the pod shares, but for process ids.
pub(super) fn shared_namespaces(spec: &SandboxSpec) -> CloneFlags {
    let mut flags = CloneFlags::empty();
    let (network, ipc) = (&spec.network_of, &spec.ipc_of);
    flags.set(
        CloneFlags::CLONE_NEWNET,
        spec.own_network && network.is_none(),
    );
    flags.set(CloneFlags::CLONE_NEWIPC, spec.own_ipc && ipc.is_none());
    flags.set(CloneFlags::CLONE_NEWUTS, spec.hostname.is_some());
    flags
}

/// A process that holds the pod's user namespace, and has made the others in it, so that they are
/// its own. We ourselves stay with the node's user ids.
fn hold_user(user: &UserNamespace, spec: &SandboxSpec) -> Result<Pause, String> {
    let shared = shared_namespaces(spec);
    let mut flags = CloneFlags::empty();
    flags.set(CloneFlags::CLONE_NEWPID, spec.shared_pids);
    if let Some(path) = &spec.user_of {
        let other = std::fs::File::open(path).step(&path.display().to_string())?;
        return start_pause_in(flags, &other, shared);
    }
    let (pid, pidfd) = start_pause(flags | shared | CloneFlags::CLONE_NEWUSER)?;
    let ranges = |mappings: &[IdMapping]| -> Vec<(u32, u32, u32)> {
        let range = |one: &IdMapping| (one.container_id, one.host_id, one.length);
        mappings.iter().map(range).collect()
    };
    linux::namespace::user_mappings(pid, [&ranges(&user.uids), &ranges(&user.gids)])
        .step("ids of the user namespace")?;
    Ok((pid, pidfd))
}

/// A user namespace that nobody lives in: mounts show by it what is on disk.
fn storage(user: &UserNamespace) -> Result<OwnedFd, String> {
    let (pid, pidfd) = start_pause(CloneFlags::CLONE_NEWUSER)?;
    let made = linux::namespace::user_mappings(pid, [&stored(&user.uids), &stored(&user.gids)])
        .and_then(|()| linux::namespace::of(pid, "user"));
    let ended = linux::process::signal_pidfd(pidfd.as_fd(), 9)
        .and_then(|()| Ok(nix::sys::wait::waitpid(pid, None)?));
    ended.step("ids on disk")?;
    made.step("ids on disk")
}

fn namespaces(spec: &SandboxSpec, holder: Option<&Pause>, made: CloneFlags) -> Result<(), String> {
    let flags = shared_namespaces(spec);
    match holder {
        Some((_, pidfd)) if !flags.is_empty() => {
            linux::namespace::join(pidfd.as_fd(), flags).step("namespaces")?;
        }
        Some(_) => {}
        None => nix::sched::unshare(flags.difference(made)).step("namespaces")?,
    }
    if flags.difference(made).contains(CloneFlags::CLONE_NEWNET) {
        linux::loopback::bring_up().step("loopback interface")?;
    }
    for (path, flag) in [
        (&spec.network_of, CloneFlags::CLONE_NEWNET),
        (&spec.ipc_of, CloneFlags::CLONE_NEWIPC),
    ] {
        if let Some(path) = path {
            let other = std::fs::File::open(path).step(&path.display().to_string())?;
            nix::sched::setns(other, flag).step("joining another pod's namespace")?;
        }
    }
    if let Some(hostname) = &spec.hostname {
        nix::unistd::sethostname(hostname).step("hostname")?;
    }
    for (name, value) in &spec.sysctls {
        if name.contains("..") {
            return Err(format!("sysctl {name:?} has a wrong form"));
        }
        let place = name.replace('.', "/");
        let path = Path::new("/proc/sys").join(place.trim_start_matches('/'));
        std::fs::write(&path, value).step(&format!("sysctl {name}"))?;
    }
    Ok(())
}

fn mount_shm(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    shared_memory()?.attach(linux::root::Root::open(path)?.as_fd())
}

/// The first process of shared namespaces: it only waits, and reaps by ignoring.
fn start_pause(namespaces: CloneFlags) -> Result<Pause, String> {
    match clone_process(namespaces, None).step("pause process")? {
        Forked::Parent { pid, pidfd } => Ok((pid, pidfd)),
        Forked::Child => pause(),
    }
}

/// The same in a user namespace that is there, where it makes the namespaces of `inside`.
fn start_pause_in(
    namespaces: CloneFlags,
    user: &std::fs::File,
    inside: CloneFlags,
) -> Result<Pause, String> {
    let (mut done, tell) = io::pipe().step("pause process")?;
    match clone_process(namespaces, None).step("pause process")? {
        Forked::Parent { pid, pidfd } => {
            drop(tell);
            let mut fault = String::new();
            done.read_to_string(&mut fault).step("pause process")?;
            match fault.as_str() {
                READY => Ok((pid, pidfd)),
                fault => Err(format!("another's user namespace: {fault}")),
            }
        }
        Forked::Child => {
            let entered = nix::sched::setns(user, CloneFlags::CLONE_NEWUSER)
                .and_then(|()| nix::sched::unshare(inside));
            let word = match entered {
                Ok(()) => READY.to_owned(),
                Err(error) => error.to_string(),
            };
            // Whoever waits sees the end of the pipe in any case.
            let _ = nix::unistd::write(&tell, word.as_bytes());
            match entered {
                Ok(()) => pause(),
                Err(_) => exit_now(1),
            }
        }
    }
}

fn pause() -> ! {
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    let _ = prctl::set_name(c"pause");
    let _ = close_from(0);
    // The kernel reaps the children of who ignores their signal.
    ignore_signal(Signal::SIGCHLD);
    loop {
        nix::unistd::pause();
    }
}
