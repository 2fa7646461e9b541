//! Mounts below a pod's folder: tmpfs, binds, and taking all of them away.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags};

use crate::VolumeError;

/// Mounts a tmpfs on `path` unless there is a mount already. What is in it is not written to swap,
/// where the kernel can be told so.
pub(crate) fn tmpfs(path: &Path, limit_bytes: Option<i64>) -> Result<(), VolumeError> {
    if is_mount(path)? {
        return Ok(());
    }
    let options = limit_bytes.map_or("mode=0777".to_owned(), |n| format!("mode=0777,size={n}"));
    let mount = |options: &str| {
        let kind = Some("tmpfs");
        nix::mount::mount(kind, path, kind, MsFlags::empty(), Some(options))
    };
    // Kernels before 6.4 and those of other user namespaces do not take it.
    mount(&format!("{options},noswap"))
        .or_else(|_| mount(&options))
        .map_err(|errno| VolumeError::io("mount tmpfs on", path)(errno.into()))
}

/// Binds `source` onto `target`.
pub(crate) fn bind(source: &Path, target: &Path) -> Result<(), VolumeError> {
    let none = None::<&str>;
    nix::mount::mount(Some(source), target, none, MsFlags::MS_BIND, none)
        .map_err(|errno| VolumeError::io("bind onto", target)(errno.into()))
}

/// Whether something is mounted exactly here.
pub(crate) fn is_mount(path: &Path) -> Result<bool, VolumeError> {
    Ok(below(path)?.iter().any(|mount| mount == path))
}

/// Unmounts everything at or below `path`, the deepest first.
pub(crate) fn unmount_below(path: &Path) -> Result<(), VolumeError> {
    let mut mounts = below(path)?;
    mounts.reverse();
    for mount in mounts {
        nix::mount::umount2(&mount, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
            .map_err(|errno| VolumeError::io("unmount", &mount)(errno.into()))?;
    }
    Ok(())
}

/// All mount points at or below `path`, in the order mounted.
pub(crate) fn below(path: &Path) -> Result<Vec<PathBuf>, VolumeError> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(table).map_err(VolumeError::io("read", table))?;
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    let points = points.map(|point| PathBuf::from(unescape(point)));
    Ok(points.filter(|point| point.starts_with(path)).collect())
}

/// mountinfo writes space, tab, newline and backslash in octal.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4);
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                plain.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                plain.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(super::unescape(r"/a\040b\134c"), r"/a b\c");
    }
}
