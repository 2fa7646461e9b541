//! Attributes of files: extended ones, and flags of their file system.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

/// `FS_TOPDIR_FL`: what lies in this folder has nothing to do with each other.
const TOPDIR: libc::c_int = 0x2_0000;

/// The kernel's own limit for values and for lists of names.
const VALUE_LIMIT: usize = 64 << 10;

/// Sets an attribute of the file behind `file`, which may be a mere handle (`O_PATH`).
pub fn set(file: BorrowedFd<'_>, name: &str, value: &[u8]) -> io::Result<()> {
    // A handle takes no f*xattr calls, its name under /proc does.
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let name = CString::new(name)?;
    // SAFETY: valid C strings, and a buffer with its own length.
    let result = unsafe {
        libc::setxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The value of an attribute, where there is one.
pub fn get(file: BorrowedFd<'_>, name: &str) -> io::Result<Option<Vec<u8>>> {
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let name = CString::new(name)?;
    let mut value = vec![0u8; VALUE_LIMIT];
    // SAFETY: valid C strings, and a buffer with its own length.
    let length = unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    match usize::try_from(length) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(_negative) => absent(io::Error::last_os_error()).map(|()| None),
    }
}

/// Names of all attributes, in order.
pub fn names(file: BorrowedFd<'_>) -> io::Result<Vec<String>> {
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let mut list = vec![0u8; VALUE_LIMIT];
    // SAFETY: a valid C string, and a buffer with its own length.
    let length = unsafe { libc::listxattr(path.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    let Ok(length) = usize::try_from(length) else {
        return absent(io::Error::last_os_error()).map(|()| Vec::new());
    };
    let names = list[..length].split(|byte| *byte == 0);
    let mut names: Vec<String> = names
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    names.sort();
    Ok(names)
}

/// Has each folder that is made in `folder` lie somewhere else on the disk, as `chattr +T` does. ext4
/// makes a file near its folder, and looks at all inodes that were freed there in the last minutes
/// each time: who fills a folder right after many files were removed would wait for that. File
/// systems that know no such thing refuse (`ENOTTY`, `EOPNOTSUPP`).
pub fn spread_folders(folder: &Path) -> io::Result<()> {
    let file = File::open(folder)?;
    let mut flags: libc::c_int = 0;
    // SAFETY: an open file, and room for the number that the kernel writes.
    let got = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) };
    if got == -1 {
        return Err(io::Error::last_os_error());
    }
    if flags & TOPDIR != 0 {
        return Ok(());
    }
    flags |= TOPDIR;
    // SAFETY: an open file, and a number that the kernel reads.
    let set = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags) };
    if set == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// File systems and kinds of files without attributes have none.
fn absent(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::ENODATA | libc::EOPNOTSUPP | libc::EPERM) => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_spread_where_the_file_system_can() {
        let folder = tempfile::tempdir().unwrap();
        let is_ext4 = nix::sys::statfs::statfs(folder.path())
            .unwrap()
            .filesystem_type()
            == nix::sys::statfs::EXT4_SUPER_MAGIC;
        for _ in 0..2 {
            assert!(spread_folders(folder.path()).is_ok() || !is_ext4);
        }
        let refused = spread_folders(Path::new("/proc/self")).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOTTY));
    }
}
