//! The file system of a container, built from outside by descriptors: a
//! detached overlay first, then everything mounted into it, each target
//! resolved inside the new root. Runs in the child, in its own mount namespace.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use linux::mount::{Detached, Filesystem, Propagation, attribute, make_all_private};
use linux::root::{Root, split};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, SFlag, makedev, mknodat};
use node_api::{IdMapping, Mount, MountPropagation};

use crate::spec::{ContainerSpec, DeviceNode};
use crate::supervisor::{Step, layers};

/// Character devices every container has.
const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];
/// The group of terminals, by old custom.
const TERMINAL_GROUP: u32 = 5;
/// Folders of /dev that privileged containers get their own of.
const NOT_HOST_DEVICES: [&str; 8] = [
    "pts",
    "shm",
    "fd",
    "mqueue",
    "hugepages",
    "console",
    "char",
    "block",
];

/// What lies outside of the container and goes into it.
pub(crate) struct Outside {
    /// The pod's shared memory, or with the node's IPC namespace the node's.
    pub(crate) shm: Detached,
    /// The container's cgroup: controller (empty for version 2) and folder.
    pub(crate) cgroups: Vec<(String, PathBuf)>,
    pub(crate) pure_cgroup2: bool,
    pub(crate) user: Option<Mapped>,
}

/// The pod's user namespace.
#[derive(Debug)]
pub(crate) struct Mapped {
    pub(crate) namespace: OwnedFd,
    /// Another one, which no process is in, by whose ids the container's own files are mounted: ids on
    /// disk are those inside, and the node's root, who has none inside, has one of the others there.
    pub(crate) storage: OwnedFd,
}

impl Mapped {
    pub(crate) fn try_clone(&self) -> io::Result<Mapped> {
        Ok(Mapped {
            namespace: self.namespace.try_clone()?,
            storage: self.storage.try_clone()?,
        })
    }
}

/// Something to be mounted; what comes from the node is caught before the namespace is cut off
/// from the node's.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) tree: Detached,
    pub(super) is_file: bool,
    pub(super) propagation: MountPropagation,
    pub(super) readonly: bool,
    pub(super) recursive_read_only: bool,
}

/// Builds everything; the returned handle is the new root, to pivot to.
pub(crate) fn build(
    spec: &ContainerSpec,
    outside: &Outside,
    warn: &dyn Fn(&str),
) -> Result<OwnedFd, String> {
    let mut sources = Vec::new();
    for mount in &spec.mounts {
        sources.push(catch(mount, outside)?);
    }
    let mut cgroups = Vec::new();
    for (name, path) in &outside.cgroups {
        if name.is_empty() != outside.pure_cgroup2 {
            continue;
        }
        let tree = Detached::copy(AT_FDCWD.as_fd(), path, false).step("cgroup mount")?;
        cgroups.push((name.as_str(), tree));
    }
    make_all_private().step("making mounts private")?;
    sources.extend(layers::volumes(spec, outside)?);
    sources.sort_by_key(|source| source.path.components().count());
    let handle = layers::overlay(spec, outside, warn).step("overlay")?;
    // What we make is the node's root's, who is nobody in a user namespace.
    let root =
        Root::from_descriptor(handle.try_clone().step("overlay")?).owned_by(spec.root_on_node());
    standard_mounts(spec, &root, &outside.shm, cgroups)?;
    for memory in &spec.tmpfs {
        in_memory(spec, &root, memory)?;
    }
    for source in sources {
        bind(&root, source)?;
    }
    for device in &spec.devices {
        let name = device.container_path.display().to_string();
        copy_device(&root, &device.host_path, &device.container_path).step(&name)?;
    }
    for node in &spec.device_nodes {
        let name = node.path.display().to_string();
        make_device(&root, spec, node).step(&name)?;
    }
    if !spec.cwd.is_empty() {
        root.make_folders(Path::new(&spec.cwd), 0o755)
            .step("working directory")?;
    }
    cover(spec, &root)?;
    Ok(handle)
}

fn catch<'a>(mount: &'a Mount, outside: &Outside) -> Result<Source<'a>, String> {
    let name = || format!("mount source {}", mount.host_path.display());
    let (tree, is_file) = match mount.sub_path.as_os_str().is_empty() {
        true => {
            let metadata = std::fs::metadata(&mount.host_path).step(&name())?;
            let tree = Detached::copy(AT_FDCWD.as_fd(), &mount.host_path, true);
            (tree.step(&name())?, !metadata.is_dir())
        }
        false => below(&mount.host_path, &mount.sub_path).step(&name())?,
    };
    if let (true, Some(user)) = (mount.mapped, &outside.user) {
        tree.map_ids(user.namespace.as_fd())
            .step(&format!("{}: mapping ids", name()))?;
    }
    Ok(Source {
        path: &mount.container_path,
        tree,
        is_file,
        propagation: mount.propagation,
        readonly: mount.readonly,
        recursive_read_only: mount.recursive_read_only,
    })
}

/// Part of a volume, whatever links those who write to it may have put in the way.
fn below(folder: &Path, sub_path: &Path) -> io::Result<(Detached, bool)> {
    let handle = Root::open(folder)?.handle(sub_path)?;
    let kind = nix::sys::stat::fstat(&handle)?.st_mode & SFlag::S_IFMT.bits();
    let tree = Detached::copy(handle.as_fd(), Path::new(""), true)?;
    Ok((tree, kind != SFlag::S_IFDIR.bits()))
}

fn standard_mounts(
    spec: &ContainerSpec,
    root: &Root,
    shm: &Detached,
    cgroups: Vec<(&str, Detached)>,
) -> Result<(), String> {
    let quiet = attribute::NO_SUID | attribute::NO_DEVICES | attribute::NO_EXEC;
    let guard = if spec.privileged {
        0
    } else {
        attribute::READ_ONLY
    };
    let proc = Filesystem::open("proc").and_then(|fs| fs.mount(quiet));
    attach(root, "/proc", proc)?;
    // Its own root adds to it, a console first of all.
    let dev = memory(spec).and_then(|context| {
        context.set("mode", b"755")?.set("size", b"65536k")?;
        context.mount(attribute::NO_SUID)
    });
    attach(root, "/dev", dev)?;
    populate_dev(spec, root).step("populate /dev")?;
    let terminals = Filesystem::open("devpts").and_then(|fs| {
        let group = match &spec.user_namespace {
            Some(user) => IdMapping::on_node(&user.gids, TERMINAL_GROUP),
            None => Some(TERMINAL_GROUP),
        };
        fs.flag("newinstance")?
            .set("ptmxmode", b"0666")?
            .set("mode", b"0620")?;
        if let Some(group) = group {
            fs.set("gid", group.to_string().as_bytes())?;
        }
        fs.mount(attribute::NO_SUID | attribute::NO_EXEC)
    });
    attach(root, "/dev/pts", terminals)?;
    let place = root.make_folders(Path::new("/dev/shm"), 0o755);
    let attached = place.and_then(|place| shm.attach(place.as_fd()));
    attached.step("mount /dev/shm")?;
    let queues = Filesystem::open("mqueue").and_then(|fs| fs.mount(quiet));
    attach(root, "/dev/mqueue", queues)?;
    let sys = Filesystem::open("sysfs").and_then(|fs| fs.mount(quiet | guard));
    attach(root, "/sys", sys)?;
    let top = "/sys/fs/cgroup";
    if !cgroups.iter().any(|(name, _)| name.is_empty()) {
        attach(root, top, tmpfs(quiet, b"755", b"64k"))?;
    }
    for (name, tree) in cgroups {
        let guard = if spec.writable_cgroups { 0 } else { guard };
        tree.shape(quiet | guard, Some(Propagation::Private), false)
            .step("cgroup mount")?;
        attach(
            root,
            format!("{top}/{name}").trim_end_matches('/'),
            Ok(tree),
        )?;
        for alias in name.split(',').filter(|alias| *alias != name) {
            let folder = root
                .make_folders(Path::new(top), 0o755)
                .step("cgroup mount")?;
            nix::unistd::symlinkat(name, &folder, alias).step("cgroup link")?;
        }
    }
    Ok(())
}

fn tmpfs(attributes: u64, mode: &[u8], size: &[u8]) -> io::Result<Detached> {
    let context = Filesystem::open("tmpfs")?;
    context.set("mode", mode)?.set("size", size)?;
    context.mount(attributes)
}

/// A file system in memory, whose root folder is the container's own root's.
fn memory(spec: &ContainerSpec) -> io::Result<Filesystem> {
    let context = Filesystem::open("tmpfs")?;
    if let Some((uid, gid)) = spec.root_on_node() {
        context.set("uid", uid.to_string().as_bytes())?;
        context.set("gid", gid.to_string().as_bytes())?;
    }
    Ok(context)
}

fn in_memory(spec: &ContainerSpec, root: &Root, wish: &crate::spec::Tmpfs) -> Result<(), String> {
    let mut attributes = attribute::NO_SUID | attribute::NO_DEVICES;
    if !wish.exec {
        attributes |= attribute::NO_EXEC;
    }
    if wish.readonly {
        attributes |= attribute::READ_ONLY;
    }
    let made = || -> io::Result<Detached> {
        let context = memory(spec)?;
        let mode = match wish.mode.as_str() {
            "" => "1777",
            mode => mode,
        };
        context.set("mode", mode.as_bytes())?;
        if !wish.size.is_empty() {
            context.set("size", wish.size.as_bytes())?;
        }
        context.mount(attributes)
    };
    attach(root, &wish.container_path.display().to_string(), made())
}

fn attach(root: &Root, path: &str, tree: io::Result<Detached>) -> Result<(), String> {
    let place = || root.make_folders(Path::new(path), 0o755);
    let attached = tree.and_then(|tree| tree.attach(place()?.as_fd()));
    attached.step(&format!("mount {path}"))
}

fn populate_dev(spec: &ContainerSpec, root: &Root) -> io::Result<()> {
    let dev = root.make_folders(Path::new("/dev"), 0o755)?;
    let all = Mode::from_bits_truncate(0o666);
    for (name, major, minor) in DEVICES {
        mknodat(&dev, name, SFlag::S_IFCHR, all, makedev(major, minor))?;
    }
    for (name, target) in LINKS {
        nix::unistd::symlinkat(target, &dev, name)?;
    }
    if spec.privileged {
        copy_host_devices(root, Path::new("/dev"))?;
    }
    Ok(())
}

fn copy_host_devices(root: &Root, folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)?.flatten() {
        let (path, kind) = (entry.path(), entry.file_type()?);
        if NOT_HOST_DEVICES
            .iter()
            .any(|name| entry.file_name() == *name)
        {
            continue;
        }
        if kind.is_dir() {
            copy_host_devices(root, &path)?;
        } else if kind.is_char_device() || kind.is_block_device() {
            copy_device(root, &path, &path)?;
        }
    }
    Ok(())
}

fn copy_device(root: &Root, host: &Path, path: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(host)?;
    let kind = if metadata.file_type().is_block_device() {
        SFlag::S_IFBLK
    } else if metadata.file_type().is_char_device() {
        SFlag::S_IFCHR
    } else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a device node",
        ));
    };
    let owner = (metadata.uid(), metadata.gid());
    make_node(root, path, kind, metadata.mode(), metadata.rdev(), owner)
}

/// A device that the node need not have a file of.
fn make_device(root: &Root, spec: &ContainerSpec, node: &DeviceNode) -> io::Result<()> {
    let kind = match node.kind {
        'b' => SFlag::S_IFBLK,
        _ => SFlag::S_IFCHR,
    };
    let owner = match &spec.user_namespace {
        Some(user) => user.on_node((node.uid, node.gid)),
        None => Some((node.uid, node.gid)),
    };
    let unknown = || io::Error::new(io::ErrorKind::InvalidInput, "its owner is not in the pod");
    let owner = owner.ok_or_else(unknown)?;
    let number = makedev(node.major, node.minor);
    make_node(root, &node.path, kind, node.mode, number, owner)
}

fn make_node(
    root: &Root,
    path: &Path,
    kind: SFlag,
    mode: u32,
    number: u64,
    owner: (u32, u32),
) -> io::Result<()> {
    let (parent, name) = split(path)?;
    let folder = root.make_folders(parent, 0o755)?;
    match mknodat(&folder, name, kind, Mode::from_bits_truncate(mode), number) {
        Ok(()) => {
            nix::unistd::fchownat(
                &folder,
                name,
                Some(owner.0.into()),
                Some(owner.1.into()),
                nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
            )?;
            Ok(())
        }
        Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn bind(root: &Root, source: Source<'_>) -> Result<(), String> {
    let name = source.path.display().to_string();
    let propagation = match source.propagation {
        MountPropagation::Private => Propagation::Private,
        MountPropagation::HostToContainer => Propagation::Slave,
        MountPropagation::Bidirectional => Propagation::Shared,
    };
    source.tree.shape(0, Some(propagation), true).step(&name)?;
    if source.readonly {
        source
            .tree
            .shape(attribute::READ_ONLY, None, source.recursive_read_only)
            .step(&name)?;
    }
    let place = root.mount_point(source.path, source.is_file);
    let place = place.step(&format!("mount point {name}"))?;
    source
        .tree
        .attach(place.as_fd())
        .step(&format!("mount {name}"))
}

/// Hides the masked paths and protects the read-only ones. What is not there needs neither.
fn cover(spec: &ContainerSpec, root: &Root) -> Result<(), String> {
    for path in &spec.readonly_paths {
        let Ok(handle) = root.handle(Path::new(path)) else {
            continue;
        };
        let protect = || {
            let tree = Detached::copy(handle.as_fd(), Path::new(""), true)?;
            tree.shape(attribute::READ_ONLY, None, true)?;
            tree.attach(handle.as_fd())
        };
        protect().step(&format!("read-only path {path}"))?;
    }
    for path in &spec.masked_paths {
        let Ok(handle) = root.handle(Path::new(path)) else {
            continue;
        };
        let hide = || {
            let kind = nix::sys::stat::fstat(&handle)?.st_mode & SFlag::S_IFMT.bits();
            let cover = if kind == SFlag::S_IFDIR.bits() {
                tmpfs(attribute::READ_ONLY, b"755", b"0")?
            } else {
                let null = root.handle(Path::new("/dev/null"))?;
                Detached::copy(null.as_fd(), Path::new(""), false)?
            };
            cover.attach(handle.as_fd())
        };
        hide().step(&format!("masked path {path}"))?;
    }
    Ok(())
}
