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

/// Time namespaces, which the list of flags does not name.
pub const TIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// Which namespaces [`user_mappings`] writes for: the two files of ids.
const ID_FILES: [&str; 2] = ["uid_map", "gid_map"];

/// Gives a new user namespace its ids, those of users and of groups: inside, outside, how many.
/// Once only, and by somebody with the right to those outside.
pub fn user_mappings(pid: nix::unistd::Pid, ids: [&[(u32, u32, u32)]; 2]) -> io::Result<()> {
    for (file, ranges) in ID_FILES.into_iter().zip(ids) {
        let lines = ranges
            .iter()
            .map(|(inside, outside, count)| format!("{inside} {outside} {count}\n"));
        // One write, for the kernel takes no second.
        std::fs::write(format!("/proc/{pid}/{file}"), lines.collect::<String>())?;
    }
    Ok(())
}

/// A handle of the namespace of a process, such as `user`.
pub fn of(pid: nix::unistd::Pid, kind: &str) -> io::Result<OwnedFd> {
    Ok(std::fs::File::open(format!("/proc/{pid}/ns/{kind}"))?.into())
}

/// A handle of one of our own namespaces, such as `pid`.
pub fn own(kind: &str) -> io::Result<OwnedFd> {
    Ok(std::fs::File::open(format!("/proc/self/ns/{kind}"))?.into())
}
