//! Whether the client at the other end of a connection is still there, also while nothing is written.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// A connection's socket, for looking only.
#[derive(Clone)]
pub(crate) struct Peer(Arc<OwnedFd>);

impl Peer {
    pub(crate) fn of(stream: &UnixStream) -> io::Result<Peer> {
        Ok(Peer(Arc::new(stream.as_fd().try_clone_to_owned()?)))
    }

    /// Comes back when the client has closed its socket. One that has only ended its request is there;
    /// whether it goes later cannot be told.
    pub(crate) async fn gone(&self) -> io::Result<()> {
        // A descriptor of our own: the reactor knows the other one already.
        let own = self.0.as_fd().try_clone_to_owned()?;
        let watched = UnixStream::from_std(own.into())?;
        loop {
            let ready = watched.ready(Interest::READABLE).await?;
            let mut look = [PollFd::new(watched.as_fd(), PollFlags::empty())];
            poll(&mut look, PollTimeout::ZERO)?;
            let seen = look[0].revents().unwrap_or(PollFlags::empty());
            if seen.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
                return Ok(());
            }
            if ready.is_read_closed() {
                return std::future::pending().await;
            }
            // What can be read is the connection's business: the next news counts.
            let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            let _ = watched.try_io(Interest::READABLE, nothing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_close_is_seen_behind_what_nobody_reads() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let peer = Peer::of(&near).unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut far, b"more")
            .await
            .unwrap();
        let watching = tokio::spawn(async move { peer.gone().await });
        near.readable().await.unwrap();
        assert!(!watching.is_finished());
        drop(far);
        watching.await.unwrap().unwrap();
    }
}
