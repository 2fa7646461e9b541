//! Pseudo terminals.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// A new terminal of the devpts instance at `multiplexer` (`/dev/ptmx`).
#[derive(Debug)]
pub struct Terminal {
    /// The side of whoever types and looks.
    pub master: OwnedFd,
    /// The side of the program.
    pub slave: OwnedFd,
    /// The number of the slave: `/dev/pts/<index>`.
    pub index: u32,
}

/// Opens a new terminal.
pub fn open_terminal(multiplexer: &Path) -> io::Result<Terminal> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = open(multiplexer, flags, Mode::empty())?;
    let unlock: libc::c_int = 0;
    let mut index: libc::c_uint = 0;
    // SAFETY: TIOCSPTLCK reads one int, TIOCGPTN writes one unsigned; both live here.
    let result = unsafe {
        if libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) == -1 {
            -1
        } else {
            libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut index)
        }
    };
    check(result)?;
    // SAFETY: TIOCGPTPEER takes open flags and returns a fresh descriptor.
    let slave = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags.bits()) };
    check(slave)?;
    // SAFETY: as above; it was checked not to be an error.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    Ok(Terminal {
        master,
        slave,
        index,
    })
}

/// Makes the terminal the controlling one of this session.
pub fn take_control(slave: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the argument is a number: do not steal it from another session.
    check(unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) })
}

/// Sets the size in characters.
pub fn resize(terminal: BorrowedFd<'_>, width: u16, height: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: height,
        ws_col: width,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize, which lives here.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
