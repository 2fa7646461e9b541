//! Paths inside a foreign tree. Every lookup is done by the kernel with the
//! tree's root as `/` (`openat2`, `RESOLVE_IN_ROOT`), so neither `..`, absolute
//! links nor a link swapped in at the wrong moment can lead outside.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{Mode, mkdirat};

/// How often a lookup that raced with a rename is tried again.
const RACE_LIMIT: usize = 32;
/// More links than this in one path are a circle.
const LINK_LIMIT: usize = 40;

/// A tree, held by a descriptor of its root.
#[derive(Debug)]
pub struct Root {
    folder: OwnedFd,
    /// Whose everything is that is made in it: user and group.
    owner: Option<(u32, u32)>,
}

impl Root {
    /// The tree at `path`, resolved in the ordinary way.
    pub fn open(path: &Path) -> io::Result<Root> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = nix::fcntl::open(path, flags, Mode::empty())?;
        Ok(Root::from_descriptor(folder))
    }

    /// The tree below an open folder.
    pub fn from_descriptor(folder: OwnedFd) -> Root {
        Root {
            folder,
            owner: None,
        }
    }

    /// The same tree, where what is made belongs to this user and this group, if any.
    pub fn owned_by(self, owner: Option<(u32, u32)>) -> Root {
        Root { owner, ..self }
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
            match openat2(self.folder.as_fd(), path, how) {
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
        // Most often nothing but the last one is missing.
        if let Ok((parent, name)) = split(path)
            && let Ok(parent) = self.lookup(parent, folder, 0)
            && mkdirat(&parent, name, Mode::from_bits_truncate(mode)).is_ok()
        {
            self.give(&parent, name)?;
            return self.lookup(path, folder, 0);
        }
        let resolved = self.walk(path, mode)?;
        self.lookup(&resolved, folder, 0)
    }

    /// Follows `path` component by component, creating what is missing, also behind links that
    /// lead nowhere yet. The result has no links in it, unless somebody changes the tree just
    /// now; the lookups that use it stay inside even then.
    fn walk(&self, path: &Path, mode: u32) -> io::Result<PathBuf> {
        let mut resolved = PathBuf::new();
        let mut rest: Vec<OsString> = names(path);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                resolved.pop();
                continue;
            }
            let parent = self.lookup(&resolved, OFlag::O_PATH | OFlag::O_DIRECTORY, 0)?;
            match mkdirat(&parent, name.as_os_str(), Mode::from_bits_truncate(mode)) {
                Ok(()) => {
                    self.give(&parent, &name)?;
                    resolved.push(name);
                }
                Err(Errno::EEXIST) => match readlinkat(&parent, name.as_os_str()) {
                    Ok(target) => {
                        links += 1;
                        if links > LINK_LIMIT {
                            return Err(Errno::ELOOP.into());
                        }
                        if Path::new(&target).is_absolute() {
                            resolved.clear();
                        }
                        rest.extend(names(Path::new(&target)));
                    }
                    Err(_not_a_link) => resolved.push(name),
                },
                Err(error) => return Err(error.into()),
            }
        }
        Ok(resolved)
    }

    /// What was just made gets its owner.
    fn give(&self, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let Some((user, group)) = self.owner else {
            return Ok(());
        };
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        let (user, group) = (Some(user.into()), Some(group.into()));
        Ok(nix::unistd::fchownat(parent, name, user, group, flags)?)
    }

    /// A place to mount a folder (or, for `file`, a file) on, created where missing.
    pub fn mount_point(&self, path: &Path, file: bool) -> io::Result<OwnedFd> {
        if !file {
            return self.make_folders(path, 0o755);
        }
        let mut path = path.to_owned();
        for _ in 0..LINK_LIMIT {
            match self.handle(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => return other,
            }
            let (parent, name) = split(&path)?;
            let folder = self.walk(parent, 0o755)?;
            let parent = self.lookup(&folder, OFlag::O_PATH | OFlag::O_DIRECTORY, 0)?;
            let flags = OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
            match nix::fcntl::openat(&parent, name, flags, Mode::from_bits_truncate(0o644)) {
                Ok(_) => {
                    self.give(&parent, name)?;
                    return self.handle(&folder.join(name));
                }
                // A link that leads nowhere: its target is to be created.
                Err(Errno::EEXIST) => path = folder.join(readlinkat(&parent, name)?),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::ELOOP.into())
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

/// The components of a path, last first; `.` and the leading slash are nothing to do.
fn names(path: &Path) -> Vec<OsString> {
    let step = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(step).collect()
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
    fn what_is_made_has_its_owner() {
        use std::os::unix::fs::MetadataExt;
        let tree = tempfile::tempdir().unwrap();
        let mine = std::fs::metadata(tree.path()).unwrap();
        // Only root may give anything away.
        let (uid, gid) = match mine.uid() {
            0 => (4711, 4712),
            uid => (uid, mine.gid()),
        };
        let root = Root::open(tree.path()).unwrap();
        root.make_folders(Path::new("before"), 0o755).unwrap();
        let root = root.owned_by(Some((uid, gid)));
        root.make_folders(Path::new("before/one"), 0o755).unwrap();
        root.make_folders(Path::new("a/b"), 0o755).unwrap();
        root.mount_point(Path::new("c/d"), true).unwrap();
        for (name, owner) in [
            ("before", (mine.uid(), mine.gid())),
            ("before/one", (uid, gid)),
            ("a", (uid, gid)),
            ("a/b", (uid, gid)),
            ("c/d", (uid, gid)),
        ] {
            let made = std::fs::metadata(tree.path().join(name)).unwrap();
            assert_eq!((made.uid(), made.gid()), owner, "{name}");
        }
    }

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
        // As many images have it: a link into a folder that is not there yet.
        std::os::unix::fs::symlink("../run/resolve/stub", tree.join("etc/resolv.conf")).unwrap();
        root.mount_point(Path::new("/etc/resolv.conf"), true)
            .unwrap();
        assert!(tree.join("run/resolve/stub").is_file());
        std::os::unix::fs::symlink("/dangling/folder", tree.join("hole")).unwrap();
        root.make_folders(Path::new("hole/x"), 0o755).unwrap();
        assert!(tree.join("dangling/folder/x").is_dir());
        std::os::unix::fs::symlink("circle", tree.join("circle")).unwrap();
        assert!(root.make_folders(Path::new("circle/x"), 0o755).is_err());
        assert!(tree.join("abs/a").is_dir());
        assert!(tree.join("b").is_dir());
        assert!(tree.join("d").is_dir());
        assert!(tree.join("etc/hosts").is_file());
        assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1);
    }
}
