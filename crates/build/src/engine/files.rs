//! Copying into an image: below its own root, whatever links it has.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use linux::root::Root;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use oci::{Changes, View};

use super::BuildError;
use super::sources::Prepared;
use crate::ignore::Ignore;

/// Where copies go, and what they become.
pub(super) struct Target {
    /// Folders of the image's layers, the lowest first.
    pub(super) layers: Vec<PathBuf>,
    /// For the overlay's own folders.
    pub(super) folder: PathBuf,
    pub(super) path: String,
    /// `path` is a folder, because it says so.
    pub(super) is_folder: bool,
    pub(super) chown: Option<String>,
    pub(super) chmod: Option<u32>,
}

/// An image's files, open for changes that become a layer.
pub(super) struct Workbench {
    folder: PathBuf,
    view: View,
}

impl Workbench {
    pub(super) fn open(layers: &[PathBuf], folder: &Path) -> Result<Workbench, BuildError> {
        let folder = tempfile::tempdir_in(folder)
            .map_err(BuildError::other)?
            .keep();
        for name in ["upper", "work", "empty"] {
            fs::create_dir(folder.join(name)).map_err(BuildError::other)?;
        }
        let upper = folder.join("upper");
        fs::set_permissions(&upper, fs::Permissions::from_mode(0o755))
            .map_err(BuildError::other)?;
        let view = match layers.is_empty() {
            true => View::of_layers(&[upper], None),
            false => View::for_a_while(layers, &folder),
        };
        Ok(Workbench {
            view: view.map_err(BuildError::other)?,
            folder,
        })
    }

    pub(super) fn root(&self) -> &Root {
        self.view.root()
    }

    /// Closes it.
    pub(super) fn changes(self) -> Changes {
        drop(self.view);
        Changes {
            folder: self.folder.join("upper"),
            ..Changes::default()
        }
    }
}

/// Copies everything there is.
pub(super) fn copy(
    prepared: &Prepared,
    target: &Target,
    word: &str,
) -> Result<Changes, BuildError> {
    let bench = Workbench::open(&target.layers, &target.folder)?;
    let root = bench.root();
    let owner = match &target.chown {
        Some(text) => Some(owner(root, text)?),
        None if prepared.owners => None,
        None => Some((0, 0)),
    };
    let path = Path::new(&target.path);
    let into = target.is_folder || is_folder(root, path);
    let several = prepared.items.len() > 1;
    if several && !into {
        return Err(BuildError::Other(format!(
            "When using {word} with more than one source file, the destination must be a directory and end with a /"
        )));
    }
    for item in &prepared.items {
        let copier = Copier {
            root,
            owner: match item.unpacked && target.chown.is_none() {
                true => None,
                false => owner,
            },
            mode: target.chmod,
            exclude: &prepared.exclude,
        };
        let copied = match (item.is_folder, into) {
            (true, _) => copier.folder(&item.path, path, ""),
            (false, true) => copier.leaf(&item.path, &path.join(&item.name), true),
            (false, false) => copier.leaf(&item.path, path, true),
        };
        copied.map_err(|error| {
            BuildError::Other(format!(
                "{word} failed: {} to {}: {error}",
                item.name, target.path
            ))
        })?;
    }
    Ok(bench.changes())
}

fn is_folder(root: &Root, path: &Path) -> bool {
    root.lookup(path, OFlag::O_PATH | OFlag::O_DIRECTORY, 0)
        .is_ok()
}

/// Copies files into a tree.
pub(super) struct Copier<'a> {
    pub(super) root: &'a Root,
    /// `None`: as the source has it.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: Option<u32>,
    pub(super) exclude: &'a Ignore,
}

impl Copier<'_> {
    /// Copies what is in a folder; the target is made where it is missing.
    pub(super) fn folder(&self, source: &Path, target: &Path, name: &str) -> io::Result<()> {
        let fresh = !is_folder(self.root, target);
        let handle = self.root.make_folders(target, 0o755)?;
        let mut entries: Vec<_> = fs::read_dir(source)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let inner = match name.is_empty() {
                true => entry.file_name().to_string_lossy().into_owned(),
                false => format!("{name}/{}", entry.file_name().to_string_lossy()),
            };
            let out = self.exclude.leaves_out(&inner);
            let (from, to) = (entry.path(), target.join(entry.file_name()));
            match entry.file_type()?.is_dir() {
                true if out && !self.exclude.may_keep_below(&inner) => {}
                true => self.folder(&from, &to, &inner)?,
                false if out => {}
                false => self.leaf(&from, &to, false)?,
            }
        }
        // Folders that were there stay as they were.
        if fresh || !name.is_empty() {
            let metadata = fs::metadata(source)?;
            self.finish(&handle_path(&handle), &metadata, source)?;
        }
        Ok(())
    }

    /// Copies one file; links in its place are not followed, but `follow` follows the source's.
    pub(super) fn leaf(&self, source: &Path, target: &Path, follow: bool) -> io::Result<()> {
        let (parent, name) = linux::root::split(target)?;
        let folder = self.root.make_folders(parent, 0o755)?;
        let place = handle_path(&folder).join(name);
        match fs::symlink_metadata(&place) {
            Ok(there) if there.is_dir() => {
                return Err(io::Error::other("cannot copy a file over a directory"));
            }
            Ok(_) => fs::remove_file(&place)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let metadata = match follow {
            true => fs::metadata(source)?,
            false => fs::symlink_metadata(source)?,
        };
        let kind = metadata.file_type();
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(source)?, &place)?;
            let (uid, gid) = self.owner.unwrap_or((metadata.uid(), metadata.gid()));
            std::os::unix::fs::lchown(&place, Some(uid), Some(gid))?;
            return set_time(&place, &metadata);
        }
        if kind.is_file() {
            fs::copy(source, &place)?;
        } else if kind.is_fifo() {
            nix::unistd::mkfifo(&place, Mode::from_bits_truncate(0o600))?;
        } else {
            // Sockets and devices are no contents.
            return Ok(());
        }
        self.finish(&place, &metadata, source)
    }

    /// Owner, then permissions, attributes and time.
    fn finish(&self, place: &Path, metadata: &fs::Metadata, source: &Path) -> io::Result<()> {
        let (uid, gid) = self.owner.unwrap_or((metadata.uid(), metadata.gid()));
        std::os::unix::fs::chown(place, Some(uid), Some(gid))?;
        let mode = self.mode.unwrap_or(metadata.mode() & 0o7777);
        fs::set_permissions(place, fs::Permissions::from_mode(mode))?;
        if metadata.is_file() {
            let (from, to) = (fs::File::open(source)?, fs::File::open(place)?);
            for name in linux::attributes::names(from.as_fd())? {
                if (name.starts_with("user.") || name == "security.capability")
                    && let Some(value) = linux::attributes::get(from.as_fd(), &name)?
                {
                    linux::attributes::set(to.as_fd(), &name, &value)?;
                }
            }
        }
        let time = TimeSpec::new(metadata.mtime(), metadata.mtime_nsec());
        utimensat(
            nix::fcntl::AT_FDCWD,
            place,
            &time,
            &time,
            UtimensatFlags::FollowSymlink,
        )?;
        Ok(())
    }
}

fn set_time(place: &Path, metadata: &fs::Metadata) -> io::Result<()> {
    let time = TimeSpec::new(metadata.mtime(), metadata.mtime_nsec());
    utimensat(
        nix::fcntl::AT_FDCWD,
        place,
        &time,
        &time,
        UtimensatFlags::NoFollowSymlink,
    )?;
    Ok(())
}

fn handle_path(handle: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}

/// `user[:group]` by number, or by the image's own lists of users and groups.
fn owner(root: &Root, text: &str) -> Result<(u32, u32), BuildError> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let find = |file: &str, name: &str| -> Result<u32, BuildError> {
        if let Ok(number) = name.parse() {
            return Ok(number);
        }
        let list = root.lookup(Path::new(file), OFlag::O_RDONLY, 0);
        let list = list.and_then(|list| io::read_to_string(fs::File::from(list)));
        let list = list.unwrap_or_default();
        let line = list
            .lines()
            .find(|line| line.split(':').next() == Some(name));
        let number = line.and_then(|line| line.split(':').nth(2)?.parse().ok());
        let what = if file == "etc/passwd" {
            "user"
        } else {
            "group"
        };
        number.ok_or_else(|| {
            BuildError::Other(format!(
                "unable to convert uid/gid chown string to host mapping: can't find uid for {what} {name}: no such {what}: {name}"
            ))
        })
    };
    let uid = find("etc/passwd", user)?;
    // As docker has it: without a group the same number.
    let gid = match group {
        "" => uid,
        group => find("etc/group", group)?,
    };
    Ok((uid, gid))
}
