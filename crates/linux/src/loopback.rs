//! The loopback interface of a fresh network namespace.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Brings up the loopback interface of the calling thread's network namespace; the kernel gives it
/// its addresses.
pub fn bring_up() -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    // SAFETY: all zeroes is a value of the type: no name, no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the kernel reads one `ifreq`, which lives through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::sched::{CloneFlags, unshare};

    #[test]
    fn a_fresh_namespace_has_its_loopback_then() {
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            assert!(
                std::net::UdpSocket::bind("127.0.0.1:0")
                    .is_ok_and(|socket| { socket.connect("127.0.0.1:9").is_err() })
            );
            super::bring_up().unwrap();
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect("127.0.0.1:9").unwrap();
        };
        // A thread of its own: namespaces of threads go with them.
        std::thread::spawn(inside).join().unwrap();
    }
}
