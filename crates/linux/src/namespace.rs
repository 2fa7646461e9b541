//! Joining namespaces.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::sched::CloneFlags;

/// Joins the named namespaces of the process behind `pidfd` (Linux 5.8).
/// Only from a process with one thread; the kernel refuses the rest itself.
pub fn join(pidfd: BorrowedFd<'_>, namespaces: CloneFlags) -> io::Result<()> {
    // SAFETY: numbers and a live descriptor.
    let result = unsafe { libc::setns(pidfd.as_raw_fd(), namespaces.bits()) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A handle of one of our own namespaces, such as `pid`.
pub fn own(kind: &str) -> io::Result<OwnedFd> {
    Ok(std::fs::File::open(format!("/proc/self/ns/{kind}"))?.into())
}
