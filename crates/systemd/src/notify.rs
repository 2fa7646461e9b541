//! What a service tells systemd of itself: that it is ready, alive, about to stop. A datagram to the
//! socket that systemd has named.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

/// Where systemd listens.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Notifier {
    /// `place` is what `NOTIFY_SOCKET` says: a path, or a name that begins with `@`.
    pub fn new(place: &Path) -> io::Result<Notifier> {
        let bytes = place.as_os_str().as_bytes();
        let address = match bytes.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(place)?,
        };
        Ok(Notifier {
            socket: UnixDatagram::unbound()?,
            address,
        })
    }

    /// Tells it, such as `READY=1`.
    pub fn tell(&self, state: &str) -> io::Result<()> {
        self.socket
            .send_to_addr(state.as_bytes(), &self.address)
            .map(drop)
    }
}

/// How often systemd is to hear of us: half of what it allows. `usec` and `pid` are what
/// `WATCHDOG_USEC` and `WATCHDOG_PID` say; for another process it is not meant.
pub fn watchdog(usec: &str, pid: Option<&str>) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid.trim() == std::process::id().to_string());
    let most = usec.trim().parse().ok().filter(|most| *most > 0)?;
    is_ours.then(|| Duration::from_micros(most) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_hears_what_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        Notifier::new(&path).unwrap().tell("READY=1").unwrap();
        let mut buffer = [0; 32];
        let count = listener.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"READY=1");
    }

    #[test]
    fn the_watchdog_is_told_twice_as_often_as_it_wants() {
        assert_eq!(watchdog("3000000", None), Some(Duration::from_millis(1500)));
        let own = std::process::id().to_string();
        assert!(watchdog("3000000", Some(&own)).is_some());
        assert!(watchdog("3000000", Some("1")).is_none());
        assert!(watchdog("0", None).is_none() && watchdog("", None).is_none());
    }
}
