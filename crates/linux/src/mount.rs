//! Mounts by descriptor (`fsopen`, `open_tree`, `mount_setattr`, `move_mount`;
//! Linux 5.12). A mount is made detached, invisible to everybody, shaped, and
//! attached in one step to a place that was resolved safely before.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const OPEN_TREE_CLONE: u32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
/// A string given to `fsconfig` may have at most this many bytes.
const FSCONFIG_STRING_LIMIT: usize = 255;

/// Attribute bits of a mount.
pub mod attribute {
    pub const READ_ONLY: u64 = 0x1;
    pub const NO_SUID: u64 = 0x2;
    pub const NO_DEVICES: u64 = 0x4;
    pub const NO_EXEC: u64 = 0x8;
}

/// How mount events travel to and from a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Private,
    Slave,
    Shared,
}

/// `struct mount_attr` of the kernel.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// A file system being configured.
#[derive(Debug)]
pub struct Filesystem {
    context: OwnedFd,
}

impl Filesystem {
    /// Opens a context for a type such as `overlay`.
    pub fn open(kind: &str) -> io::Result<Filesystem> {
        let kind = CString::new(kind)?;
        // SAFETY: a valid C string and a number.
        let result = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) };
        Ok(Filesystem {
            context: descriptor(result)?,
        })
    }

    /// Sets `key` to `value`. Values above 255 bytes are refused by the kernel.
    pub fn set(&self, key: &str, value: &[u8]) -> io::Result<&Filesystem> {
        if value.len() > FSCONFIG_STRING_LIMIT {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        let value = CString::new(value)?;
        self.configure(FSCONFIG_SET_STRING, Some(key), Some(&value))?;
        Ok(self)
    }

    /// Sets a flag such as `volatile`.
    pub fn flag(&self, key: &str) -> io::Result<&Filesystem> {
        self.configure(FSCONFIG_SET_FLAG, Some(key), None)?;
        Ok(self)
    }

    /// Creates the file system and a detached mount of it.
    pub fn mount(&self, attributes: u64) -> io::Result<Detached> {
        self.configure(FSCONFIG_CMD_CREATE, None, None)?;
        // SAFETY: a descriptor we own and numbers.
        let result = unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                self.context.as_raw_fd(),
                FSMOUNT_CLOEXEC,
                attributes,
            )
        };
        Ok(Detached(descriptor(result)?))
    }

    fn configure(
        &self,
        command: u32,
        key: Option<&str>,
        value: Option<&CString>,
    ) -> io::Result<()> {
        let key = key.map(CString::new).transpose()?;
        // SAFETY: both strings live until the call returns; null is allowed where absent.
        let result = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.context.as_raw_fd(),
                command,
                key.as_ref().map_or(std::ptr::null(), |key| key.as_ptr()),
                value.map_or(std::ptr::null(), |value| value.as_ptr()),
                0,
            )
        };
        if result == -1 {
            return Err(self.explained(io::Error::last_os_error()));
        }
        Ok(())
    }

    /// The kernel tells in words what it did not like; the words are read from the context.
    fn explained(&self, error: io::Error) -> io::Error {
        let mut text = [0u8; 256];
        match nix::unistd::read(&self.context, &mut text) {
            Ok(length) if length > 2 => {
                let words = String::from_utf8_lossy(&text[2..length]);
                io::Error::new(error.kind(), format!("{error} ({})", words.trim_end()))
            }
            _ => error,
        }
    }
}

/// A mount that is attached nowhere; dropping it unmounts it.
#[derive(Debug)]
pub struct Detached(OwnedFd);

impl Detached {
    /// A copy of the mount at `path` (what `mount --bind` starts from), with all below it when
    /// `recursive`. An empty path names `folder` itself.
    pub fn copy(folder: BorrowedFd<'_>, path: &Path, recursive: bool) -> io::Result<Detached> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u32 | libc::AT_EMPTY_PATH as u32;
        if recursive {
            flags |= libc::AT_RECURSIVE as u32;
        }
        // SAFETY: a valid C string, a borrowed descriptor and numbers.
        let result = unsafe {
            libc::syscall(
                libc::SYS_open_tree,
                folder.as_raw_fd(),
                path.as_ptr(),
                flags,
            )
        };
        Ok(Detached(descriptor(result)?))
    }

    /// Adds attributes, and sets the propagation when given.
    pub fn shape(
        &self,
        set: u64,
        propagation: Option<Propagation>,
        recursive: bool,
    ) -> io::Result<()> {
        shape_mount(self.0.as_fd(), set, propagation, recursive)
    }

    /// Shows the files of this mount, not of those below it, with the ids that they have in a user
    /// namespace. Not every file system can (Linux 5.12 and later, more with each).
    pub fn map_ids(&self, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
        let attributes = MountAttr {
            set: libc::MOUNT_ATTR_IDMAP,
            userns_fd: u64::try_from(user_namespace.as_raw_fd()).map_err(io::Error::other)?,
            ..MountAttr::default()
        };
        set_attributes(self.0.as_fd(), &attributes, false)
    }

    /// Attaches it on top of what `target` names.
    pub fn attach(&self, target: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: empty C strings, descriptors that live through the call, numbers.
        let result = unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                self.0.as_raw_fd(),
                c"".as_ptr(),
                target.as_raw_fd(),
                c"".as_ptr(),
                MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
            )
        };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl AsFd for Detached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// For one that came from another process.
impl From<OwnedFd> for Detached {
    fn from(mount: OwnedFd) -> Detached {
        Detached(mount)
    }
}

impl From<Detached> for OwnedFd {
    fn from(mount: Detached) -> OwnedFd {
        mount.0
    }
}

/// Changes a mount named by a descriptor of its root.
pub fn shape_mount(
    mount: BorrowedFd<'_>,
    set: u64,
    propagation: Option<Propagation>,
    recursive: bool,
) -> io::Result<()> {
    let attributes = MountAttr {
        set,
        propagation: match propagation {
            None => 0,
            Some(Propagation::Private) => libc::MS_PRIVATE,
            Some(Propagation::Slave) => libc::MS_SLAVE,
            Some(Propagation::Shared) => libc::MS_SHARED,
        },
        ..MountAttr::default()
    };
    set_attributes(mount, &attributes, recursive)
}

fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: &MountAttr,
    recursive: bool,
) -> io::Result<()> {
    let mut flags = libc::AT_EMPTY_PATH as u32;
    if recursive {
        flags |= libc::AT_RECURSIVE as u32;
    }
    // SAFETY: the attributes live through the call and their true size is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttr>(),
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Makes every mount of this mount namespace private.
pub fn make_all_private() -> io::Result<()> {
    use nix::mount::{MsFlags, mount};
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?;
    Ok(())
}

/// Makes the mount behind `root` the root of this mount namespace and lets go of the old one.
pub fn pivot(root: BorrowedFd<'_>) -> io::Result<()> {
    nix::unistd::fchdir(root)?;
    // The new root is stacked over the old one; the old one is then the lower of both at `.`.
    nix::unistd::pivot_root(".", ".")?;
    nix::mount::umount2(".", nix::mount::MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")?;
    Ok(())
}

/// Unmounts what is mounted at `path`; nothing there is no error.
pub fn unmount_if_mounted(path: &Path) -> io::Result<()> {
    use nix::errno::Errno;
    use nix::mount::{MntFlags, umount2};
    let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
    match umount2(path, flags) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    // SAFETY: only called with the result of a system call that returned a fresh descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
