//! Starting processes by `clone3`, and the life and death of processes.
//!
//! Rules of this file. A forked child of a multi-threaded process may call
//! only async-signal-safe functions until `execve`, for another thread may
//! have held any lock at the moment of the fork. We escape that rule instead
//! of following it: [`clone_process`] refuses to fork unless the calling
//! process has exactly one thread. Then nobody holds a lock, and the child may
//! allocate, open files and use the whole standard library as if nothing had
//! happened. The two things it must not do are to return into code that owns
//! the parent's state (the caller ends the child with [`exit_now`] or
//! `execve`) and to rely on `Drop` of what it inherited.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// Which side of a fork we are on.
#[derive(Debug)]
pub enum Forked {
    /// The new process.
    Child,
    /// The caller, with a handle of the child that cannot be confused by reuse of process ids.
    Parent { pid: Pid, pidfd: OwnedFd },
}

/// `clone3` flag of Linux 5.7: start the child in a cgroup of version 2.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks into new `namespaces` and, when given, into a version 2 cgroup.
/// Fails with `Deadlock` when the process has more than one thread.
pub fn clone_process(namespaces: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    if thread_count()? != 1 {
        return Err(io::Error::new(
            io::ErrorKind::Deadlock,
            "fork refused: the process has several threads",
        ));
    }
    let mut pidfd: libc::c_int = -1;
    // SAFETY: `clone_args` is plain data for which all zeroes is a valid value.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    // The bits are kept, not the sign: the highest namespace flag is bit 31.
    arguments.flags = u64::from(namespaces.bits() as u32) | libc::CLONE_PIDFD as u64;
    arguments.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM and with no stack given this behaves as fork(2);
    // there is one thread only, so no lock can stay held in the child.
    // `arguments` and `pidfd` outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            std::ptr::from_mut(&mut arguments),
            size_of::<libc::clone_args>(),
        )
    };
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent {
            pid: Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?),
            // SAFETY: on success the kernel stored a fresh descriptor that nobody else owns.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

fn thread_count() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Ends the process at once: no destructors, no exit handlers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any value and does not return.
    unsafe { libc::_exit(code) }
}

/// Makes sure that this program runs from a read-only mount of its file: a process that joins a
/// container can be looked at from there, and what is behind `/proc/<pid>/exe` must not be
/// writable to anybody inside (CVE-2019-5736). Starts the program anew where it is not so yet;
/// must be called before anything else was done.
pub fn seal_program() -> io::Result<()> {
    use nix::sys::statvfs::{FsFlags, statvfs};
    let own = Path::new("/proc/self/exe");
    if statvfs(own)?.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(());
    }
    let sealed = sealed(own)?;
    let text = |word: std::ffi::OsString| CString::new(word.into_encoded_bytes());
    let args = std::env::args_os()
        .map(text)
        .collect::<Result<Vec<_>, _>>()?;
    let mut env = Vec::new();
    for (mut name, value) in std::env::vars_os() {
        name.push("=");
        name.push(value);
        env.push(text(name)?);
    }
    match nix::unistd::execveat(
        sealed.as_fd(),
        c"",
        &args,
        &env,
        nix::fcntl::AtFlags::AT_EMPTY_PATH,
    )? {}
}

/// A read-only mount of a program's file, to be run by its descriptor: then it need not seal itself.
pub fn sealed(program: &Path) -> io::Result<OwnedFd> {
    let sealed = crate::mount::Detached::copy(nix::fcntl::AT_FDCWD.as_fd(), program, false)?;
    sealed.shape(crate::mount::attribute::READ_ONLY, None, false)?;
    Ok(sealed.into())
}

/// Gives every signal its default action and unblocks all, as a program expects them at its start.
pub fn reset_signals() -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: setting SIG_DFL installs no handler. Numbers reserved by the C library fail, harmlessly.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Ignores `signal` from now on.
pub fn ignore_signal(signal: Signal) {
    // SAFETY: SIG_IGN installs no handler.
    unsafe { libc::signal(signal as libc::c_int, libc::SIG_IGN) };
}

/// Makes descriptors from `first` on close at the next `execve`.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes all descriptors from `first` on. Only for the start of a process,
/// before anything owns a descriptor.
pub fn close_from(first: u32) -> io::Result<()> {
    close_range(first, 0)
}

fn close_range(first: u32, flags: u32) -> io::Result<()> {
    // SAFETY: takes numbers only. Closing what others own is excluded by the callers' contract.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lets threads of usual priority run before the calling thread: it gets less of a busy processor
/// (`nice` above 0), and whoever wakes up takes the processor from it at once where their slices
/// are shorter than `slice` (0.1 to 100 ms; kernels before 6.12 have one slice for all).
/// Less priority needs no right.
pub fn yield_thread_to_others(nice: i32, slice: Duration) -> io::Result<()> {
    // SAFETY: all zeros is a value of the type: the usual policy without flags.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    attributes.sched_nice = nice;
    attributes.sched_runtime = u64::try_from(slice.as_nanos()).map_err(io::Error::other)?;
    set_thread_attributes(attributes)
}

/// Has the calling thread run only where no thread of usual priority wants the processor. It must
/// hold nothing that others wait for.
pub fn leave_processors_to_others() -> io::Result<()> {
    // SAFETY: all zeros is a value of the type: the usual policy without flags.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    attributes.sched_policy = u32::try_from(libc::SCHED_IDLE).map_err(io::Error::other)?;
    set_thread_attributes(attributes)
}

fn set_thread_attributes(mut attributes: libc::sched_attr) -> io::Result<()> {
    attributes.size = u32::try_from(size_of_val(&attributes)).map_err(io::Error::other)?;
    // SAFETY: the kernel reads as many bytes as the value says it has. 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A handle of a running process.
pub fn open_pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel returned a fresh descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal by number (real-time signals too) to the process behind the handle.
pub fn signal_pidfd(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no signal information is passed, all else are numbers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::c_void>(),
            0,
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Takes in one child that has ended: its id, and its exit code or 128 plus the signal that killed
/// it (real-time signals too). `None` when no child has ended, or there is none.
pub fn reap() -> io::Result<Option<(Pid, i32)>> {
    loop {
        let mut status: libc::c_int = 0;
        // SAFETY: the status is written to a variable that lives through the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        match pid {
            0 => return Ok(None),
            -1 => {
                let error = io::Error::last_os_error();
                match error.raw_os_error() {
                    Some(libc::ECHILD) => return Ok(None),
                    Some(libc::EINTR) => {}
                    _ => return Err(error),
                }
            }
            pid if libc::WIFEXITED(status) => {
                return Ok(Some((Pid::from_raw(pid), libc::WEXITSTATUS(status))));
            }
            pid if libc::WIFSIGNALED(status) => {
                return Ok(Some((Pid::from_raw(pid), 128 + libc::WTERMSIG(status))));
            }
            _stopped_or_continued => {}
        }
    }
}

/// The number of a signal given as `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`.
pub fn signal_number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = short.strip_prefix("RTMIN") {
        let offset: i32 = rest.strip_prefix('+').map_or(Some(0), |n| n.parse().ok())?;
        return (0..=30).contains(&offset).then_some(34 + offset);
    }
    if let Some(rest) = short.strip_prefix("RTMAX") {
        let offset: i32 = rest.strip_prefix('-').map_or(Some(0), |n| n.parse().ok())?;
        return (0..=30).contains(&offset).then_some(64 - offset);
    }
    let signal: Signal = format!("SIG{short}").parse().ok()?;
    Some(signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calling_thread_yields_to_others() {
        // SAFETY: takes numbers only.
        let priority = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = priority();
        let yielding = std::thread::spawn(move || {
            yield_thread_to_others(10, Duration::from_millis(20)).unwrap();
            priority()
        });
        assert_eq!(yielding.join().unwrap(), 10);
        assert_eq!(priority(), before);
    }

    #[test]
    fn signals_by_every_spelling() {
        for (name, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(signal_number(name), Some(number), "{name}");
        }
        for wrong in ["", "SIGNOPE", "0", "65", "SIGRTMIN+99"] {
            assert_eq!(signal_number(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_process_with_threads_may_not_fork() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || receiver.recv());
        let fault = clone_process(CloneFlags::empty(), None).unwrap_err();
        assert_eq!(fault.kind(), io::ErrorKind::Deadlock);
        drop(sender);
        assert!(other.join().unwrap().is_err());
    }
}
