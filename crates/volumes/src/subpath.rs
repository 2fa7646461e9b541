//! `subPath`: one entry of a volume, bound to a place only the node can write,
//! so that a container cannot swap a link in between check and mount.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::{Mode, SFlag};

use crate::{VolumeError, mounts};

/// The bound entries of one pod.
#[derive(Clone, Debug)]
pub struct Subpaths {
    root: PathBuf,
}

impl Subpaths {
    pub(crate) fn new(pod_dir: &Path) -> Subpaths {
        Subpaths {
            root: pod_dir.join("volume-subpaths"),
        }
    }

    /// Makes `subpath` of the volume at `volume` available; creates it as a folder when it does
    /// not exist. Returns the path to mount into the container.
    pub fn bind(
        &self,
        volume: &Path,
        subpath: &str,
        slot: (&str, &str, usize),
    ) -> Result<PathBuf, VolumeError> {
        let (volume_name, container, index) = slot;
        let entry = open_beneath(volume, Path::new(subpath))?;
        let folder = self.root.join(volume_name).join(container);
        fs::create_dir_all(&folder).map_err(VolumeError::io("create", &folder))?;
        let target = folder.join(index.to_string());
        mounts::unmount_below(&target)?;
        let stat = nix::sys::stat::fstat(&entry)
            .map_err(|errno| VolumeError::io("stat", volume)(errno.into()))?;
        let is_folder = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
        make_target(&target, is_folder)?;
        let source = format!("/proc/self/fd/{}", entry.as_raw_fd());
        mounts::bind(Path::new(&source), &target)?;
        Ok(target)
    }
}

fn make_target(target: &Path, folder: bool) -> Result<(), VolumeError> {
    let known = fs::symlink_metadata(target).ok().map(|meta| meta.is_dir());
    if known == Some(folder) {
        return Ok(());
    }
    let io = VolumeError::io("prepare", target);
    let made = match known {
        Some(true) => fs::remove_dir(target),
        Some(false) => fs::remove_file(target),
        None => Ok(()),
    };
    let made = made.and_then(|()| match folder {
        true => fs::create_dir(target),
        false => fs::File::create(target).map(drop),
    });
    made.map_err(io)
}

/// Opens `subpath` without ever leaving `volume`, whatever links a container planted. What is
/// missing is created as folders.
fn open_beneath(volume: &Path, subpath: &Path) -> Result<OwnedFd, VolumeError> {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if !subpath.components().all(plain) {
        let message = format!("subPath {subpath:?} must stay within the volume");
        return Err(VolumeError::Refused(message));
    }
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let fault =
        |errno: nix::Error| VolumeError::io("open subPath in", &volume.join(subpath))(errno.into());
    let root =
        nix::fcntl::open(volume, flags | OFlag::O_DIRECTORY, Mode::empty()).map_err(fault)?;
    let how = OpenHow::new()
        .flags(flags)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match nix::fcntl::openat2(&root, subpath, how) {
        Ok(entry) => return Ok(entry),
        Err(nix::Error::ENOENT) => {}
        Err(errno) => return Err(fault(errno)),
    }
    let mut at = root;
    for part in subpath
        .components()
        .filter(|part| *part != Component::CurDir)
    {
        let part = Path::new(part.as_os_str());
        // Each step beneath the last, and no links at all while folders are being made.
        let how = how.resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        let made = nix::sys::stat::mkdirat(at.as_fd(), part, Mode::from_bits_truncate(0o755));
        if let Err(errno) = made.or_else(|errno| match errno {
            nix::Error::EEXIST => Ok(()),
            other => Err(other),
        }) {
            return Err(fault(errno));
        }
        at = nix::fcntl::openat2(&at, part, how).map_err(fault)?;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planted_link_does_not_lead_out() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("volume");
        fs::create_dir_all(volume.join("in")).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("out")).unwrap();
        std::os::unix::fs::symlink("in", volume.join("near")).unwrap();
        assert!(open_beneath(&volume, Path::new("in")).is_ok());
        assert!(open_beneath(&volume, Path::new("near")).is_ok());
        assert!(open_beneath(&volume, Path::new("out")).is_err());
        assert!(open_beneath(&volume, Path::new("out/passwd")).is_err());
        assert!(open_beneath(&volume, Path::new("../x")).is_err());
        assert!(open_beneath(&volume, Path::new("new/deep")).is_ok());
        assert!(volume.join("new/deep").is_dir());
    }

    /// A container swaps a folder for a link and back while the kubelet goes through it.
    #[test]
    fn a_link_that_comes_and_goes_does_not_lead_out_either() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let (volume, outside) = (folder.path().join("volume"), folder.path().join("outside"));
        fs::create_dir_all(volume.join("a/data")).unwrap();
        fs::create_dir_all(outside.join("data")).unwrap();
        std::os::unix::fs::symlink(&outside, volume.join("b")).unwrap();
        let secret = fs::metadata(outside.join("data")).unwrap().ino();
        let done = std::sync::atomic::AtomicBool::new(false);
        let (mut found, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                    let (a, b) = (volume.join("a"), volume.join("b"));
                    let here = nix::fcntl::AT_FDCWD;
                    nix::fcntl::renameat2(here, &a, here, &b, flags).unwrap();
                }
            });
            // Until both were met, whichever way the machine's threads run.
            while found < 100 || refused < 100 {
                match open_beneath(&volume, Path::new("a/data/new")) {
                    Ok(entry) => {
                        found += 1;
                        let path = format!("/proc/self/fd/{}", entry.as_raw_fd());
                        let place = fs::read_link(path).unwrap();
                        assert!(place.starts_with(&volume), "{}", place.display());
                    }
                    Err(_) => refused += 1,
                }
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(
            fs::metadata(outside.join("data")).unwrap().ino(),
            secret,
            "what lies outside is as it was"
        );
        assert_eq!(fs::read_dir(outside.join("data")).unwrap().count(), 0);
    }
}
