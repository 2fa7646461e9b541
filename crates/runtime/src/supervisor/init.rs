//! The child's way from the fork to the program: file system, terminal,
//! cgroup, user, capabilities, filter, `execve`. It tells its parent over a
//! packet socket what the parent must know; silence and a closed socket mean
//! that the program runs.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use linux::CloneFlags;
use linux::capability::{self, Capabilities};
use linux::cgroup::{Cgroup, Entrance};
use linux::mount::{Detached, attribute, pivot, shape_mount};
use linux::process::{close_on_exec_from, exit_now, reset_signals};
use linux::root::Root;
use linux::seccomp::{Filters, Profile};
use linux::terminal::{Terminal, open_terminal, take_control};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};
use node_api::{ContainerUser, SeccompProfile};

use crate::hooks::{Moment, Plan};
use crate::spec::{ContainerSpec, ExecSpec};
use crate::supervisor::rootfs::{self, Outside};
use crate::supervisor::{Step, user};

/// Packets of the child: a kind and a text.
pub(crate) mod note {
    /// Brings the master of the terminal.
    pub(crate) const TERMINAL: u8 = b'P';
    /// Something the host would not give; the child goes on without.
    pub(crate) const WARNING: u8 = b'W';
    /// Who the program will run as, in JSON.
    pub(crate) const USER: u8 = b'U';
    /// The end: why the program cannot run.
    pub(crate) const FAULT: u8 = b'E';
    /// The next call is `execve`.
    pub(crate) const READY: u8 = b'R';
    /// All is mounted, and hooks may be run; answered by the same kind, with a text where the child
    /// is to end.
    pub(crate) const PREPARED: u8 = b'H';
    /// Bytes of a fault that somebody else found.
    pub(crate) const FAULT_LIMIT: usize = 6 << 10;
}

/// Open files of a program; where a field is empty it gets `/dev/null`.
#[derive(Debug, Default)]
pub(crate) struct Stdio {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// Most open files a container may have unless the node allows fewer.
const OPEN_FILES: u64 = 1 << 20;
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The parent's word that the child's cgroup stands, where the child has to wait for it.
pub(super) const GO: &[u8] = b"go";

/// The child's side of a new container; does not return.
pub(crate) fn run_container(
    spec: &ContainerSpec,
    outside: &Outside,
    cgroup: &Cgroup,
    sync: OwnedFd,
    stdio: Stdio,
) -> ! {
    let mut child = Child { sync };
    let fault = child.container(spec, outside, cgroup, stdio);
    child.give_up(fault)
}

/// The child's side of one more process in the container behind `pidfd`; does not return.
pub(crate) fn run_exec(
    spec: &ContainerSpec,
    exec: &ExecSpec,
    pidfd: BorrowedFd<'_>,
    cgroup: &Cgroup,
    sync: OwnedFd,
    stdio: Stdio,
) -> ! {
    let mut child = Child { sync };
    let fault = child.exec(spec, exec, pidfd, cgroup, stdio);
    child.give_up(fault)
}

struct Child {
    sync: OwnedFd,
}

/// What cannot happen: `execve` came back without an error.
enum Never {}

impl Child {
    fn container(
        &mut self,
        spec: &ContainerSpec,
        outside: &Outside,
        cgroup: &Cgroup,
        stdio: Stdio,
    ) -> Result<Never, String> {
        self.begin(spec)?;
        if systemd::is_unit(&spec.cgroup) {
            self.wait_for_go().step("cgroup")?;
        }
        let entrance = cgroup.entrance().step("cgroup")?;
        if let Some(offsets) = &spec.time {
            offsets.enter()?;
        }
        let root = rootfs::build(spec, outside, &|message| self.warn(message))?;
        if let Some(plan) = &spec.hooks {
            self.hooks_before_pivot(spec, plan)?;
        }
        pivot(root.as_fd()).step("pivot_root")?;
        if spec.readonly_rootfs {
            shape_mount(root.as_fd(), attribute::READ_ONLY, None, false).step("read-only root")?;
        }
        drop(root);
        if let Some(user) = &outside.user {
            nix::sched::setns(&user.namespace, CloneFlags::CLONE_NEWUSER)
                .step("joining the user namespace")?;
            become_root_inside()?;
            // A copy that belongs to the user namespace; what was mounted before stays as it is.
            nix::sched::unshare(CloneFlags::CLONE_NEWNS).step("mount namespace")?;
        }
        self.stdio(spec.tty, stdio, true)?;
        // Late, for what we did so far is not to be charged to the container.
        entrance.enter().step("cgroup")?;
        nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).step("cgroup namespace")?;
        self.run(spec, &spec.args, spec.tty)
    }

    fn exec(
        &mut self,
        spec: &ContainerSpec,
        exec: &ExecSpec,
        pidfd: BorrowedFd<'_>,
        cgroup: &Cgroup,
        stdio: Stdio,
    ) -> Result<Never, String> {
        self.begin(spec)?;
        cgroup.entrance().and_then(Entrance::enter).step("cgroup")?;
        let mut namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP;
        namespaces.set(CloneFlags::CLONE_NEWUSER, spec.user_namespace.is_some());
        namespaces.set(linux::namespace::TIME, spec.time.is_some());
        linux::namespace::join(pidfd, namespaces).step("joining the container")?;
        if spec.user_namespace.is_some() {
            become_root_inside()?;
        }
        self.stdio(exec.tty, stdio, false)?;
        self.run(spec, &exec.args, exec.tty)
    }

    fn wait_for_go(&self) -> io::Result<()> {
        let mut word = [0; 8];
        match linux::socket::receive(self.sync.as_fd(), &mut word, &mut Vec::new())? {
            0 => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Ok(()),
        }
    }

    fn begin(&self, spec: &ContainerSpec) -> Result<(), String> {
        // While we are still this binary, nobody inside shall reach it through /proc/<pid>/exe.
        prctl::set_dumpable(false).step("dumpable")?;
        prctl::set_pdeathsig(Signal::SIGKILL).step("death signal")?;
        nix::unistd::setsid().step("new session")?;
        nix::sys::stat::umask(Mode::empty());
        if let Err(error) =
            std::fs::write("/proc/self/oom_score_adj", spec.oom_score_adj.to_string())
        {
            self.warn(&format!(
                "oom_score_adj {} not set: {error}",
                spec.oom_score_adj
            ));
        }
        Ok(())
    }

    /// Hooks of the creation: first those among the node's processes, which others run for us.
    fn hooks_before_pivot(&self, spec: &ContainerSpec, plan: &Plan) -> Result<(), String> {
        if plan.waits() {
            self.tell(note::PREPARED, "");
            let mut packet = [0; 1 + note::FAULT_LIMIT];
            let length = linux::socket::receive(self.sync.as_fd(), &mut packet, &mut Vec::new())
                .step("waiting for hooks")?;
            match packet.get(1..length) {
                None => return Err("the supervisor is gone".to_owned()),
                Some([]) => {}
                Some(fault) => return Err(String::from_utf8_lossy(fault).into_owned()),
            }
        }
        // Hooks are to inherit no descriptors, and what programs expect of the rest.
        close_on_exec_from(3).step("closing files")?;
        reset_signals().step("signals")?;
        let usual = Mode::from_bits_truncate(0o022);
        let ours = nix::sys::stat::umask(usual);
        let done = plan.run(Moment::CreateContainer, &spec.id, own_pid());
        nix::sys::stat::umask(ours);
        done
    }

    /// Puts standard streams in place; a terminal is made inside and its master sent out.
    fn stdio(&self, tty: bool, stdio: Stdio, console: bool) -> Result<(), String> {
        if tty {
            let terminal = open_terminal(Path::new("/dev/ptmx")).step("terminal")?;
            let master = terminal.master.as_fd();
            linux::socket::send(self.sync.as_fd(), &[note::TERMINAL], &[master])
                .step("terminal")?;
            if console {
                bind_console(&terminal).step("console")?;
            }
            let slave = &terminal.slave;
            take_control(slave.as_fd()).step("controlling terminal")?;
            return place(slave, slave, slave).step("terminal");
        }
        let null = || -> io::Result<OwnedFd> {
            Ok(std::fs::File::options()
                .read(true)
                .write(true)
                .open("/dev/null")?
                .into())
        };
        let or_null = |fd: Option<OwnedFd>| fd.map_or_else(null, Ok);
        let streams = || -> io::Result<()> {
            place(
                &or_null(stdio.stdin)?,
                &or_null(stdio.stdout)?,
                &or_null(stdio.stderr)?,
            )
        };
        streams().step("standard streams")
    }

    fn run(&self, spec: &ContainerSpec, args: &[String], tty: bool) -> Result<Never, String> {
        let user = user::find(&spec.user)?;
        self.tell(note::USER, &said(&user)?);
        let env = environment(spec, &user.home, tty);
        let into_cwd = || {
            nix::unistd::chdir(if spec.cwd.is_empty() {
                "/"
            } else {
                spec.cwd.as_str()
            })
        };
        let early = into_cwd();
        raise_open_files();
        for limit in &spec.rlimits {
            set_limit(limit)?;
        }
        let filters = filters(spec)?;
        let possible = capability::permitted().step("capabilities")?;
        let kept = spec.capabilities.and(possible);
        if kept != spec.capabilities && !spec.privileged {
            let missing = Capabilities(spec.capabilities.0 & !kept.0).names();
            self.warn(&format!(
                "capabilities the node does not have: {}",
                missing.join(", ")
            ));
        }
        capability::limit_bounding(kept).step("capability bounding set")?;
        let (loaded_early, loaded_late) = if spec.no_new_privs {
            (None, filters)
        } else {
            (filters, None)
        };
        // Loading without no_new_privs takes a capability we are about to give up.
        if let Some(filters) = loaded_early {
            filters.load().map_err(|error| error.to_string())?;
        }
        become_user(&user, kept, spec.ambient)?;
        if early.is_err() {
            into_cwd().step(&format!("chdir to cwd ({:?})", spec.cwd))?;
        }
        // A change of user resets it.
        prctl::set_pdeathsig(Signal::SIGKILL).step("death signal")?;
        nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
        let path = find_program(args, &env)?;
        let program = text(&path)?;
        let argv = args
            .iter()
            .map(|arg| text(arg))
            .collect::<Result<Vec<_>, _>>()?;
        let envp = env
            .iter()
            .map(|pair| text(pair))
            .collect::<Result<Vec<_>, _>>()?;
        close_on_exec_from(3).step("closing files")?;
        reset_signals().step("signals")?;
        if spec.no_new_privs {
            prctl::set_no_new_privs().step("no_new_privs")?;
        }
        if let Some(plan) = &spec.hooks {
            plan.run(Moment::StartContainer, &spec.id, own_pid())?;
        }
        // If the parent died before the death signal was set, nobody is there to read this.
        linux::socket::send(self.sync.as_fd(), &[note::READY], &[])
            .step("the supervisor is gone")?;
        if let Some(filters) = loaded_late {
            filters.load().map_err(|error| error.to_string())?;
        }
        match nix::unistd::execve(&program, &argv, &envp) {
            Err(error) => Err(format!("exec {path}: {}", words(error))),
        }
    }

    fn warn(&self, message: &str) {
        self.tell(note::WARNING, message);
    }

    fn tell(&self, kind: u8, message: &str) {
        let mut packet = vec![kind];
        packet.extend_from_slice(message.as_bytes());
        // Without a parent there is nobody to tell.
        let _ = linux::socket::send(self.sync.as_fd(), &packet, &[]);
    }

    fn give_up(&self, fault: Result<Never, String>) -> ! {
        match fault {
            Ok(never) => match never {},
            Err(message) => self.tell(note::FAULT, &message),
        }
        exit_now(128)
    }
}

fn own_pid() -> i32 {
    nix::unistd::getpid().as_raw()
}

fn place(stdin: &OwnedFd, stdout: &OwnedFd, stderr: &OwnedFd) -> io::Result<()> {
    nix::unistd::dup2_stdin(stdin)?;
    nix::unistd::dup2_stdout(stdout)?;
    nix::unistd::dup2_stderr(stderr)?;
    Ok(())
}

fn bind_console(terminal: &Terminal) -> io::Result<()> {
    let root = Root::open(Path::new("/"))?;
    let slave = root.handle(&PathBuf::from(format!("/dev/pts/{}", terminal.index)))?;
    let place = root.mount_point(Path::new("/dev/console"), true)?;
    Detached::copy(slave.as_fd(), Path::new(""), false)?.attach(place.as_fd())
}

fn environment(spec: &ContainerSpec, home: &str, tty: bool) -> Vec<String> {
    let mut env = spec.env.clone();
    let has = |env: &[String], name: &str| env.iter().any(|pair| pair.starts_with(name));
    if !has(&env, "PATH=") {
        env.push(format!("PATH={DEFAULT_PATH}"));
    }
    if tty && !has(&env, "TERM=") {
        env.push("TERM=xterm".to_owned());
    }
    if !has(&env, "HOME=") {
        env.push(format!("HOME={home}"));
    }
    env
}

/// Programs may have many open files; the node's own limit for us is usually low.
fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let soft = hard.min(OPEN_FILES);
        // Lowering the hard limit with it needs no privilege; a refusal leaves what we inherited.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, hard);
    }
}

fn set_limit(limit: &crate::spec::Rlimit) -> Result<(), String> {
    let resource = match limit.name.to_ascii_lowercase().as_str() {
        "as" => Resource::RLIMIT_AS,
        "core" => Resource::RLIMIT_CORE,
        "cpu" => Resource::RLIMIT_CPU,
        "data" => Resource::RLIMIT_DATA,
        "fsize" => Resource::RLIMIT_FSIZE,
        "locks" => Resource::RLIMIT_LOCKS,
        "memlock" => Resource::RLIMIT_MEMLOCK,
        "msgqueue" => Resource::RLIMIT_MSGQUEUE,
        "nice" => Resource::RLIMIT_NICE,
        "nofile" => Resource::RLIMIT_NOFILE,
        "nproc" => Resource::RLIMIT_NPROC,
        "rss" => Resource::RLIMIT_RSS,
        "rtprio" => Resource::RLIMIT_RTPRIO,
        "rttime" => Resource::RLIMIT_RTTIME,
        "sigpending" => Resource::RLIMIT_SIGPENDING,
        "stack" => Resource::RLIMIT_STACK,
        other => return Err(format!("invalid ulimit type: {other}")),
    };
    setrlimit(resource, limit.soft, limit.hard).step(&format!("ulimit {}", limit.name))
}

fn filters(spec: &ContainerSpec) -> Result<Option<Filters>, String> {
    let explain = |error: linux::seccomp::SeccompError| error.to_string();
    match &spec.seccomp {
        SeccompProfile::Unconfined => Ok(None),
        SeccompProfile::RuntimeDefault => Filters::container_default(spec.capabilities)
            .map(Some)
            .map_err(explain),
        // The engine put the profile's text where its path was: ours is another root by now.
        SeccompProfile::Localhost(text) => {
            let text = text.to_string_lossy();
            let profile: Profile =
                serde_json::from_str(&text).map_err(|error| format!("seccomp profile: {error}"))?;
            Filters::from_profile(&profile).map(Some).map_err(explain)
        }
    }
}

/// In a user namespace just joined we are nobody yet.
fn become_root_inside() -> Result<(), String> {
    nix::unistd::setgroups(&[]).step("setgroups")?;
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    nix::unistd::setresgid(gid, gid, gid).step("setgid")?;
    nix::unistd::setresuid(uid, uid, uid).step("setuid")
}

fn said(user: &user::User) -> Result<String, String> {
    let user = ContainerUser {
        uid: user.uid.into(),
        gid: user.gid.into(),
        supplemental_groups: user.groups.iter().map(|gid| i64::from(*gid)).collect(),
    };
    serde_json::to_string(&user).step("user")
}

fn become_user(
    user: &user::User,
    capabilities: Capabilities,
    ambient: Capabilities,
) -> Result<(), String> {
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    prctl::set_keepcaps(true).step("keep capabilities")?;
    nix::unistd::setgroups(&groups).step("setgroups")?;
    nix::unistd::setresgid(gid, gid, gid).step("setgid")?;
    nix::unistd::setresuid(uid, uid, uid).step("setuid")?;
    prctl::set_keepcaps(false).step("keep capabilities")?;
    capability::apply(capabilities, ambient).step("capabilities")
}

/// The file to run, found as a shell would; the words of the errors are what users know.
fn find_program(args: &[String], env: &[String]) -> Result<String, String> {
    let Some(name) = args.first().filter(|name| !name.is_empty()) else {
        return Err("no command specified".to_owned());
    };
    if name.contains('/') {
        return match check_program(Path::new(name)) {
            Ok(()) => Ok(name.clone()),
            Err(error) => Err(format!("exec: {name:?}: {error}")),
        };
    }
    let path = env
        .iter()
        .find_map(|pair| pair.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    let mut denied = false;
    for folder in path.split(':') {
        let candidate = Path::new(if folder.is_empty() { "." } else { folder }).join(name);
        match check_program(&candidate) {
            Ok(()) => return Ok(candidate.display().to_string()),
            Err(error) => denied |= error == "permission denied",
        }
    }
    if denied {
        return Err(format!("exec: {name:?}: permission denied"));
    }
    Err(format!(
        "exec: {name:?}: executable file not found in $PATH"
    ))
}

fn check_program(path: &Path) -> Result<(), String> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err("is a directory".to_owned()),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
            Err("permission denied".to_owned())
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err("permission denied".to_owned())
        }
        Err(_) => Err(format!(
            "stat {}: no such file or directory",
            path.display()
        )),
    }
}

/// Errors of `execve` in lower case, as users of other runtimes know them.
fn words(error: nix::errno::Errno) -> String {
    error.desc().to_ascii_lowercase()
}

fn text(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| "argument or environment with a zero byte".to_owned())
}
