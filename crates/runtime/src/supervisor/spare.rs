//! A supervisor's first life: a process that has made ready what any pod needs, namespaces above
//! all, and waits for the pod. A start has only the rest to wait for. It ends with whoever keeps
//! the other end of its standard input.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use linux::CloneFlags;
use linux::cgroup::{Entrance, Hierarchies, Limits};
use linux::mount::{Detached, Filesystem, attribute};
use linux::process::{Forked, clone_process, exit_now};
use nix::sys::prctl;
use nix::unistd::Pid;

use crate::spec::{SandboxSpec, file, read_json};
use crate::supervisor::{Step, setup};
use crate::units;

/// A path is shorter.
const PATH_LIMIT: u64 = 4096;
/// Namespaces that most pods want of their own, and their files below `/proc/self/ns`.
const NAMESPACES: [(CloneFlags, &str); 3] = [
    (CloneFlags::CLONE_NEWNET, "net"),
    (CloneFlags::CLONE_NEWIPC, "ipc"),
    (CloneFlags::CLONE_NEWUTS, "uts"),
];

/// What a pod finds ready when it comes.
pub(super) struct Room {
    /// Of [`NAMESPACES`]: made for this process, which can go back to those that it came from.
    made: Vec<(CloneFlags, OwnedFd)>,
    /// The pod's shared memory, attached nowhere.
    shm: Option<Detached>,
    /// The cgroup this process is in already.
    cgroup: Option<String>,
}

/// What a pod takes over.
pub(super) struct Taken {
    /// Namespaces that it need not make.
    pub(super) made: CloneFlags,
    pub(super) shm: Option<Detached>,
}

impl Room {
    /// Whatever cannot be made is left for the pod's own start, which says why.
    fn make(cgroup: Option<String>) -> Room {
        let mut made = Vec::new();
        for (flag, name) in NAMESPACES {
            let Ok(before) = linux::namespace::own(name) else {
                continue;
            };
            if nix::sched::unshare(flag).is_err() {
                continue;
            }
            if flag == CloneFlags::CLONE_NEWNET && linux::loopback::bring_up().is_err() {
                // The pod's own start says why.
                let _ = nix::sched::setns(before, flag);
                continue;
            }
            made.push((flag, before));
        }
        Room {
            made,
            shm: shared_memory().ok().filter(is_copied_detached),
            cgroup,
        }
    }

    /// Keeps what is `wanted`, and goes back from the rest.
    fn take(self, wanted: CloneFlags, own_ipc: bool) -> Result<Taken, String> {
        let mut kept = CloneFlags::empty();
        for (flag, before) in self.made {
            match wanted.contains(flag) {
                true => kept |= flag,
                false => nix::sched::setns(before, flag).step("namespaces")?,
            }
        }
        Ok(Taken {
            made: kept,
            shm: self.shm.filter(|_| own_ipc),
        })
    }
}

/// A file system for shared memory, attached nowhere.
pub(super) fn shared_memory() -> io::Result<Detached> {
    let context = Filesystem::open("tmpfs")?;
    context.set("mode", b"1777")?.set("size", b"65536k")?;
    context.mount(attribute::NO_SUID | attribute::NO_DEVICES | attribute::NO_EXEC)
}

/// Kernels before 6.15 copy only what is attached somewhere.
fn is_copied_detached(tree: &Detached) -> bool {
    Detached::copy(tree.as_fd(), Path::new(""), false).is_ok()
}

/// Makes ready, waits for a pod's folder on standard input, and starts its supervisor, which tells
/// on standard output how that went. Nothing to do is no error.
/// `expected` is the cgroup that the pod will probably have; it exists.
pub(super) fn run(expected: Option<&str>) -> Result<(), String> {
    linux::process::close_from(3).step("closing inherited files")?;
    if let Err(error) = linux::process::seal_program() {
        complain!("running from a writable file: {error}");
    }
    let _ = prctl::set_name(c"sampan-spare");
    let hierarchies = Hierarchies::of_this_machine().step("cgroups")?;
    let cgroup = match expected {
        Some(path) => match move_to(&hierarchies, path) {
            Moved::Behind => return Ok(()),
            Moved::There => Some(path.to_owned()),
            Moved::Nowhere => None,
        },
        None => None,
    };
    let room = Room::make(cgroup);
    match folder().step("standard input")? {
        None => Ok(()),
        Some(folder) => start(&folder, hierarchies, room),
    }
}

/// Where a process finds itself after it tried to go to a cgroup.
enum Moved {
    There,
    /// It could not go there.
    Nowhere,
    /// Another process went instead, and is the one that waits from now on.
    Behind,
}

/// A process is born in its version 2 cgroup, for to move one there stops all of the machine.
fn move_to(hierarchies: &Hierarchies, path: &str) -> Moved {
    let into = || -> io::Result<Moved> {
        let group = hierarchies.group(path)?;
        let (entrance, unified) = (group.entrance()?, group.unified_handle()?);
        let born_in = unified.as_ref().map(AsFd::as_fd);
        match clone_process(CloneFlags::empty(), born_in)? {
            Forked::Parent { .. } => Ok(Moved::Behind),
            Forked::Child => Ok(match entrance.enter() {
                Ok(()) => Moved::There,
                Err(_) => Moved::Nowhere,
            }),
        }
    };
    into().unwrap_or(Moved::Nowhere)
}

fn folder() -> io::Result<Option<PathBuf>> {
    let mut line = String::new();
    io::stdin().take(PATH_LIMIT).read_to_string(&mut line)?;
    // A line without its end is of somebody who died while writing it.
    Ok(line.strip_suffix('\n').map(PathBuf::from))
}

fn start(folder: &Path, hierarchies: Hierarchies, room: Room) -> Result<(), String> {
    let spec: SandboxSpec = read_json(&folder.join(file::SPEC)).step(file::SPEC)?;
    let is_unit = systemd::is_unit(&spec.cgroup);
    let hierarchies = match is_unit {
        true => units::hierarchies(&spec.cgroup).step("cgroups")?,
        false => hierarchies,
    };
    let cgroup = hierarchies.group(&spec.cgroup).step("cgroup")?;
    let wanted = match spec.user {
        // They are to be made inside of the user namespace.
        Some(_) => CloneFlags::empty(),
        None => setup::shared_namespaces(&spec),
    };
    let has_entered = room.cgroup.as_deref() == Some(&spec.cgroup);
    let taken = room.take(wanted, spec.own_ipc)?;
    let mut entered = Ok(());
    if is_unit {
        entered = units::start(&spec.cgroup, &cgroup, Pid::this(), &Limits::default())
            .and_then(|()| cgroup.entrance().and_then(Entrance::enter))
            .step("cgroup");
    } else if !has_entered {
        let unified = cgroup.unified_handle().step("cgroup")?;
        let born_in = unified.as_ref().map(AsFd::as_fd);
        if let Forked::Parent { .. } = clone_process(CloneFlags::empty(), born_in).step("fork")? {
            return Ok(());
        }
        entered = cgroup.entrance().and_then(Entrance::enter).step("cgroup");
    }
    let tell = io::stdout().as_fd().try_clone_to_owned();
    let made = entered.and_then(|()| setup::supervisor(folder, spec, hierarchies, taken));
    let code = match made {
        Ok(mut supervisor) => {
            // If the starter is gone, the socket tells the next one.
            let _ = tell.and_then(|tell| Ok(nix::unistd::write(tell, super::READY.as_bytes())?));
            supervisor.serve()
        }
        Err(error) => {
            let _ = tell.and_then(|tell| Ok(nix::unistd::write(tell, error.as_bytes())?));
            1
        }
    };
    exit_now(code)
}
