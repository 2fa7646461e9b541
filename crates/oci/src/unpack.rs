//! Layers become folders that overlayfs can stack. An archive is hostile until
//! proven otherwise: every path is resolved by the kernel with the layer's
//! folder as `/`, and the last component is never followed.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use linux::root::Root;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fstatat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};
use tar::{Entry, EntryType};

use crate::error::{Context, ImageError};

/// More entries than this in one layer are refused.
const ENTRY_LIMIT: usize = 2_000_000;
const BUFFER: usize = 128 << 10;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";

/// What an archive became on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Of its files.
    pub(crate) bytes: u64,
    /// Entries with an inode of their own: all but further names of a file.
    pub(crate) inodes: u64,
}

/// Unpacks an archive into the empty folder `tree`.
pub(crate) fn unpack(reader: impl Read, tree: &Path) -> Result<Unpacked, ImageError> {
    let mut unpacker = Unpacker {
        root: Root::open(tree).at(tree)?,
        last: None,
        folders: Vec::new(),
        // The folder itself.
        unpacked: Unpacked {
            bytes: 0,
            inodes: 1,
        },
        buffer: vec![0; BUFFER].into_boxed_slice(),
    };
    // Without an entry of its own the top folder is what a root folder usually is.
    nix::sys::stat::fchmodat(
        AT_FDCWD,
        tree,
        Mode::from_bits_truncate(0o755),
        nix::sys::stat::FchmodatFlags::FollowSymlink,
    )
    .at(tree)?;
    let mut archive = tar::Archive::new(reader);
    for (count, entry) in archive
        .entries()
        .map_err(|error| damaged(error, "layer"))?
        .enumerate()
    {
        let mut entry = entry.map_err(|error| damaged(error, "layer"))?;
        if count >= ENTRY_LIMIT {
            return Err(ImageError::Hostile(format!(
                "more than {ENTRY_LIMIT} entries"
            )));
        }
        unpacker.entry(&mut entry)?;
    }
    unpacker.finish()?;
    Ok(unpacker.unpacked)
}

/// What `tar` complains about is the archive's fault, unless the disk is at fault.
pub(crate) fn damaged(error: io::Error, what: &str) -> ImageError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ImageError::Io(what.to_owned(), error)
        }
        _ => match error.downcast::<ImageError>() {
            Ok(own) => own,
            Err(error) => ImageError::Corrupt(format!("{what}: {error}")),
        },
    }
}

struct Unpacker {
    root: Root,
    /// The folder of the last entry; archives come folder by folder.
    last: Option<(PathBuf, Rc<OwnedFd>)>,
    /// Times of folders, set when nothing is put into them any more.
    folders: Vec<(PathBuf, i64)>,
    unpacked: Unpacked,
    /// What is between the archive and a file.
    buffer: Box<[u8]>,
}

impl Unpacker {
    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), ImageError> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader | EntryType::XHeader) {
            return Ok(());
        }
        let path = clean(&entry.path_bytes())?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return self.top(entry);
        };
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let parent = self.parent(&folder)?;
        if name.as_bytes().starts_with(WHITEOUT) {
            if name.as_bytes() != OPAQUE {
                self.unpacked.inodes += 1;
            }
            return whiteout(&parent, &name).at(&path);
        }
        self.create(entry, kind, &path, &parent, &name)
    }

    /// The entry of the top folder itself.
    fn top<R: Read>(&mut self, entry: &Entry<'_, R>) -> Result<(), ImageError> {
        let top = self
            .root
            .make_folders(Path::new(""), 0o755)
            .context("layer")?;
        let header = entry.header();
        let mode = header.mode().map_err(|error| damaged(error, "layer"))?;
        nix::sys::stat::fchmodat(
            AT_FDCWD,
            &*handle_path(&top),
            bits(mode),
            nix::sys::stat::FchmodatFlags::FollowSymlink,
        )
        .context("layer")?;
        Ok(())
    }

    fn parent(&mut self, folder: &Path) -> Result<Rc<OwnedFd>, ImageError> {
        if let Some((last, handle)) = &self.last
            && last == folder
        {
            return Ok(Rc::clone(handle));
        }
        let handle = Rc::new(self.root.make_folders(folder, 0o755).at(folder)?);
        self.last = Some((folder.to_owned(), Rc::clone(&handle)));
        Ok(handle)
    }

    fn create<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        kind: EntryType,
        path: &Path,
        parent: &OwnedFd,
        name: &OsStr,
    ) -> Result<(), ImageError> {
        let mode = entry
            .header()
            .mode()
            .map_err(|error| damaged(error, "mode"))?;
        if matches!(
            kind,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse
        ) {
            let written = regular(entry, (parent, name), mode, &mut self.buffer);
            self.unpacked.bytes +=
                written.map_err(|error| damaged(error, &path.display().to_string()))?;
            self.unpacked.inodes += 1;
            return Ok(());
        }
        let hidden = make_room(parent, name, kind.is_dir()).at(path)?;
        match kind {
            EntryType::Directory => {
                make_folder(parent, name).at(path)?;
                if hidden {
                    mark_opaque(parent, name).at(path)?;
                }
                let mtime = entry.header().mtime().unwrap_or(0);
                self.folders
                    .push((path.to_owned(), i64::try_from(mtime).unwrap_or(0)));
                self.last = None;
            }
            EntryType::Symlink => {
                let target = link_target(entry)?;
                symlinkat(target.as_os_str(), parent, name).at(path)?;
                self.last = None;
            }
            EntryType::Link => {
                let target = clean(link_target(entry)?.as_bytes())?;
                self.hard_link(&target, parent, name)?;
                // Its attributes are those of the file it is another name of.
                return Ok(());
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let flags = match kind {
                    EntryType::Char => SFlag::S_IFCHR,
                    EntryType::Block => SFlag::S_IFBLK,
                    _ => SFlag::S_IFIFO,
                };
                let header = entry.header();
                let major = header.device_major().ok().flatten().unwrap_or(0);
                let minor = header.device_minor().ok().flatten().unwrap_or(0);
                if kind == EntryType::Char && (major, minor) == (0, 0) {
                    return Err(ImageError::Hostile(format!(
                        "{}: a whiteout in overlayfs' own form",
                        path.display()
                    )));
                }
                let device = nix::sys::stat::makedev(major.into(), minor.into());
                mknodat(parent, name, flags, bits(mode), device).at(path)?;
            }
            other => {
                let message = format!("{}: entry type {other:?} is not known", path.display());
                return Err(ImageError::Hostile(message));
            }
        }
        self.unpacked.inodes += 1;
        attributes(entry, parent, name, kind, mode).at(path)
    }

    fn hard_link(&self, target: &Path, parent: &OwnedFd, name: &OsStr) -> Result<(), ImageError> {
        let Some(target_name) = target.file_name() else {
            return Err(ImageError::Hostile("hard link to the root".to_owned()));
        };
        let folder = target.parent().unwrap_or(Path::new(""));
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let from = self.root.lookup(folder, flags, 0);
        let linked = from.and_then(|from| {
            linkat(&from, target_name, parent, name, LinkatFlags::empty()).map_err(io::Error::from)
        });
        linked.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ImageError::Corrupt(format!(
                "hard link to {}, which is not in the layer",
                target.display()
            )),
            _ => ImageError::Io(target.display().to_string(), error),
        })
    }

    fn finish(&mut self) -> Result<(), ImageError> {
        for (path, mtime) in self.folders.iter().rev() {
            // A later entry may have replaced the folder; then its time is of no interest.
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
            if let Ok(folder) = self.root.lookup(path, flags, 0) {
                let time = TimeSpec::new(*mtime, 0);
                utimensat(
                    AT_FDCWD,
                    &*handle_path(&folder),
                    &time,
                    &time,
                    UtimensatFlags::FollowSymlink,
                )
                .at(path)?;
            }
        }
        Ok(())
    }
}

/// A path below the top, without leading slash; anything that climbs is refused.
fn clean(bytes: &[u8]) -> Result<PathBuf, ImageError> {
    let mut clean = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(bytes)).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                let shown = String::from_utf8_lossy(bytes).into_owned();
                return Err(ImageError::Hostile(format!(
                    "path {shown:?} climbs out of the layer"
                )));
            }
        }
    }
    if bytes.contains(&0) {
        return Err(ImageError::Hostile("path with a zero byte".to_owned()));
    }
    Ok(clean)
}

fn link_target<R: Read>(entry: &Entry<'_, R>) -> Result<OsString, ImageError> {
    let target = entry.link_name_bytes().filter(|target| !target.is_empty());
    let target = target.ok_or_else(|| ImageError::Corrupt("link without a target".to_owned()))?;
    Ok(OsStr::from_bytes(&target).to_owned())
}

/// Whiteouts speak of lower layers: what this layer itself brings under the name stays.
fn whiteout(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let bytes = name.as_bytes();
    if bytes == OPAQUE {
        return linux::attributes::set(parent.as_fd(), OPAQUE_ATTRIBUTE, b"y");
    }
    let hidden = OsStr::from_bytes(&bytes[WHITEOUT.len()..]);
    if hidden.is_empty() || hidden == "." || hidden == ".." {
        return Err(ImageError::Hostile(format!("whiteout {name:?}")).into());
    }
    if hidden.as_bytes().starts_with(WHITEOUT) {
        // Bookkeeping of aufs, which means nothing to us.
        return Ok(());
    }
    match mknodat(parent, hidden, SFlag::S_IFCHR, Mode::empty(), 0) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Takes away what stands in the way of a new entry; tells whether that was a whiteout.
fn make_room(parent: &OwnedFd, name: &OsStr, folder: bool) -> io::Result<bool> {
    let found = match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => return Ok(false),
        other => other?,
    };
    let kind = found.st_mode & libc_format();
    if kind == SFlag::S_IFDIR.bits() {
        if !folder {
            std::fs::remove_dir_all(Path::new(&handle_path(parent)).join(name))?;
        }
        return Ok(false);
    }
    unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?;
    Ok(kind == SFlag::S_IFCHR.bits() && found.st_rdev == 0)
}

fn libc_format() -> u32 {
    SFlag::S_IFMT.bits()
}

fn make_folder(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match nix::sys::stat::mkdirat(parent, name, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The folder hides that of the same name below instead of merging with it.
fn mark_opaque(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let folder = nix::fcntl::openat(parent, name, flags, Mode::empty())?;
    linux::attributes::set(folder.as_fd(), OPAQUE_ATTRIBUTE, b"y")
}

/// A file with all that belongs to it, by its descriptor. Most are new, so that what may be in the
/// way is looked for only when it is.
fn regular<R: Read>(
    entry: &mut Entry<'_, R>,
    (parent, name): (&OwnedFd, &OsStr),
    mode: u32,
    buffer: &mut [u8],
) -> io::Result<u64> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let create = || nix::fcntl::openat(parent, name, flags, Mode::from_bits_truncate(0o600));
    let file = match create() {
        Err(Errno::EEXIST) => {
            make_room(parent, name, false)?;
            create()?
        }
        other => other?,
    };
    let mut file = std::fs::File::from(file);
    let (expected, mut written) = (entry.size(), 0);
    loop {
        let length = entry.read(buffer)?;
        if length == 0 {
            break;
        }
        file.write_all(&buffer[..length])?;
        written += length as u64;
    }
    if written != expected {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let extended = extended_attributes(entry)?;
    let header = entry.header();
    let (uid, gid) = owner(header)?;
    nix::unistd::fchown(&file, Some(uid), Some(gid))?;
    nix::sys::stat::fchmod(&file, bits(mode))?;
    for (key, value) in extended {
        linux::attributes::set(file.as_fd(), &key, &value)?;
    }
    let time = TimeSpec::new(i64::try_from(header.mtime()?).unwrap_or(0), 0);
    nix::sys::stat::futimens(&file, &time, &time)?;
    Ok(written)
}

fn owner(header: &tar::Header) -> io::Result<(Uid, Gid)> {
    let id = |number: u64| u32::try_from(number).map_err(io::Error::other);
    Ok((
        Uid::from_raw(id(header.uid()?)?),
        Gid::from_raw(id(header.gid()?)?),
    ))
}

/// Owner, then permissions (a change of owner clears setuid), then extended attributes, then times.
fn attributes<R: Read>(
    entry: &mut Entry<'_, R>,
    parent: &OwnedFd,
    name: &OsStr,
    kind: EntryType,
    mode: u32,
) -> io::Result<()> {
    let extended = extended_attributes(entry)?;
    let header = entry.header();
    let (uid, gid) = owner(header)?;
    fchownat(
        parent,
        name,
        Some(uid),
        Some(gid),
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )?;
    if kind != EntryType::Symlink {
        nix::sys::stat::fchmodat(
            parent,
            name,
            bits(mode),
            nix::sys::stat::FchmodatFlags::FollowSymlink,
        )?;
    }
    if !extended.is_empty() {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = nix::fcntl::openat(parent, name, flags, Mode::empty())?;
        for (key, value) in extended {
            linux::attributes::set(file.as_fd(), &key, &value)?;
        }
    }
    let time = TimeSpec::new(i64::try_from(header.mtime()?).unwrap_or(0), 0);
    utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)?;
    Ok(())
}

/// Those an image may bring; overlayfs' own would let it forge the stacking.
fn extended_attributes<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    let Some(extensions) = entry.pax_extensions()? else {
        return Ok(found);
    };
    for extension in extensions {
        let extension = extension?;
        let Some(name) = extension
            .key()
            .ok()
            .and_then(|key| key.strip_prefix("SCHILY.xattr."))
        else {
            continue;
        };
        if name.starts_with("user.") || name == "security.capability" {
            found.push((name.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    Ok(found)
}

fn bits(mode: u32) -> Mode {
    Mode::from_bits_truncate(mode & 0o7777)
}

/// A name for an open handle, for calls that take no descriptor of this kind.
fn handle_path(handle: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", handle.as_raw_fd())
}
