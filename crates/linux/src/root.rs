//! Paths inside a foreign tree. Every lookup is done by the kernel with the
//! tree's root as `/` (`openat2`, `RESOLVE_IN_ROOT`), so neither `..`, absolute
//! links nor a link swapped in at the wrong moment can lead outside.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};

/// How often a lookup that raced with a rename is tried again.
const RACE_LIMIT: usize = 32;

/// A tree, held by a descriptor of its root.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// The tree at `path`, resolved in the ordinary way.
    pub fn open(path: &Path) -> io::Result<Root> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Root(nix::fcntl::open(path, flags, Mode::empty())?))
    }

    /// The tree below an open folder.
    pub fn from_descriptor(folder: OwnedFd) -> Root {
        Root(folder)
    }

    /// Opens `path` inside the tree. Links are followed within it.
    pub fn lookup(&self, path: &Path, flags: OFlag, mode: u32) -> io::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .mode(Mode::from_bits_truncate(mode))
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        for _ in 0..RACE_LIMIT {
            match openat2(self.0.as_fd(), path, how) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                other => return Ok(other?),
            }
        }
        Err(Errno::EAGAIN.into())
    }

    /// A handle of what `path` names, not opened for reading or writing.
    pub fn handle(&self, path: &Path) -> io::Result<OwnedFd> {
        self.lookup(path, OFlag::O_PATH, 0)
    }

    /// Opens the folder `path`, creating it and its parents where missing.
    pub fn make_folders(&self, path: &Path, mode: u32) -> io::Result<OwnedFd> {
        let folder = OFlag::O_PATH | OFlag::O_DIRECTORY;
        match self.lookup(path, folder, 0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        // Walk by whole prefixes, so that links in the middle resolve inside the tree.
        let mut prefix = std::path::PathBuf::new();
        for component in path.components() {
            let Component::Normal(name) = component else {
                continue;
            };
            let parent = self.lookup(&prefix, folder, 0)?;
            prefix.push(name);
            match mkdirat(&parent, name, Mode::from_bits_truncate(mode)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.lookup(&prefix, folder, 0)
    }

    /// A place to mount a folder (or, for `file`, a file) on, created where missing.
    pub fn mount_point(&self, path: &Path, file: bool) -> io::Result<OwnedFd> {
        if !file {
            return self.make_folders(path, 0o755);
        }
        match self.handle(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let (parent, name) = split(path)?;
        self.make_folders(parent, 0o755)?;
        self.lookup(
            &parent.join(name),
            OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_NONBLOCK,
            0o644,
        )?;
        self.handle(path)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The parent and the last name of a path; a path without a last name is refused.
pub fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "path without a file name"))?;
    Ok((path.parent().unwrap_or(Path::new("")), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_dots_stay_inside() {
        let outer = tempfile::tempdir().unwrap();
        let tree = outer.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::os::unix::fs::symlink("/abs", tree.join("link")).unwrap();
        std::os::unix::fs::symlink("../..", tree.join("up")).unwrap();
        std::fs::create_dir(tree.join("abs")).unwrap();
        let root = Root::open(&tree).unwrap();
        root.make_folders(Path::new("link/a"), 0o755).unwrap();
        root.make_folders(Path::new("up/b"), 0o755).unwrap();
        root.make_folders(Path::new("/../c/../d"), 0o755).unwrap();
        root.mount_point(Path::new("/etc/hosts"), true).unwrap();
        assert!(tree.join("abs/a").is_dir());
        assert!(tree.join("b").is_dir());
        assert!(tree.join("d").is_dir());
        assert!(tree.join("etc/hosts").is_file());
        assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1);
    }
}
