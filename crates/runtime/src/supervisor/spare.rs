//! A supervisor's first life: a process that has made ready what any pod needs, namespaces above
//! all, and waits for the pod. A start has only the rest to wait for. It ends with whoever keeps
//! the other end of its standard input.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use linux::CloneFlags;
use linux::cgroup::{Entrance, Hierarchies};
use linux::mount::{Detached, Filesystem, attribute};
use linux::process::{Forked, clone_process, exit_now};
use nix::sys::prctl;

use crate::spec::{SandboxSpec, file, read_json};
use crate::supervisor::{Step, setup};

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
    /// The version 1 cgroups this process is in.
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
    fn make(hierarchies: &Hierarchies, cgroup: Option<&str>) -> Room {
        let mut made = Vec::new();
        for (flag, name) in NAMESPACES {
            if let Ok(before) = linux::namespace::own(name)
                && nix::sched::unshare(flag).is_ok()
            {
                made.push((flag, before));
            }
        }
        let shm = shared_memory().ok().filter(is_copied_detached);
        let enter = |path: &&str| {
            let entrance = hierarchies.group(path).and_then(|group| group.entrance());
            entrance.and_then(Entrance::enter).is_ok()
        };
        Room {
            made,
            shm,
            cgroup: cgroup.filter(enter).map(str::to_owned),
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
    let room = Room::make(&hierarchies, expected);
    match folder().step("standard input")? {
        None => Ok(()),
        Some(folder) => start(&folder, hierarchies, room),
    }
}

fn folder() -> io::Result<Option<PathBuf>> {
    let mut line = String::new();
    io::stdin().take(PATH_LIMIT).read_to_string(&mut line)?;
    // A line without its end is of somebody who died while writing it.
    Ok(line.strip_suffix('\n').map(PathBuf::from))
}

fn start(folder: &Path, hierarchies: Hierarchies, room: Room) -> Result<(), String> {
    let spec: SandboxSpec = read_json(&folder.join(file::SPEC)).step(file::SPEC)?;
    let cgroup = hierarchies.group(&spec.cgroup).step("cgroup")?;
    let unified = cgroup.unified_handle().step("cgroup")?;
    let wanted = match spec.user {
        // They are to be made inside of the user namespace.
        Some(_) => CloneFlags::empty(),
        None => setup::shared_namespaces(&spec),
    };
    let has_entered = room.cgroup.as_deref() == Some(&spec.cgroup);
    let taken = room.take(wanted, spec.own_ipc)?;
    let born_in = unified.as_ref().map(AsFd::as_fd);
    if let Forked::Parent { .. } = clone_process(CloneFlags::empty(), born_in).step("fork")? {
        return Ok(());
    }
    drop(unified);
    let tell = io::stdout().as_fd().try_clone_to_owned();
    let entered = match has_entered {
        true => Ok(()),
        false => cgroup.entrance().and_then(Entrance::enter).step("cgroup"),
    };
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
