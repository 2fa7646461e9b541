//! Waits for changes of files by inotify.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// Enough for any one event.
const EVENTS_BYTES: usize = 4 << 10;

/// Sees writes to, and comings and goings of, the files of one folder.
pub struct Notice {
    /// The inotify descriptor reads like a pipe; what it says matters less than that it speaks.
    events: pipe::Receiver,
}

impl Notice {
    /// Watches a folder from now on.
    pub fn of_folder(folder: &Path) -> io::Result<Notice> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE;
        inotify.add_watch(folder, flags)?;
        let events = pipe::Receiver::from_owned_fd_unchecked(OwnedFd::from(inotify))?;
        Ok(Notice { events })
    }

    /// Completes when something changed since the last call. Safe to cancel.
    pub async fn changed(&mut self) -> io::Result<()> {
        let mut events = [0; EVENTS_BYTES];
        self.events.read(&mut events).await.map(drop)
    }
}
