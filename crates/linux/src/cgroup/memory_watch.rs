//! Deaths for want of memory in a group that somebody else removes as soon as it is empty, which may
//! be before its figures are read.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::usage::field;
use super::{Cgroup, write};

/// How long the kernel may take to tell of a group's removal.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is needed to tell afterwards.
#[derive(Debug)]
pub struct MemoryWatch {
    group: Cgroup,
    /// Version 1 counts here: one for each time that memory ran out, and one for the removal.
    events: Option<EventFd>,
    /// Version 2 counts in the parent, too: how many there had been.
    before: u64,
}

impl Cgroup {
    /// Begins to watch; what cannot be watched is told by the group's own figures only.
    pub fn watch_memory(&self) -> MemoryWatch {
        MemoryWatch {
            group: self.clone(),
            events: self.v1("memory").and_then(|folder| listen(&folder)),
            before: self.kills_above(),
        }
    }

    fn kills_above(&self) -> u64 {
        let folder = self.v2().filter(|_| self.v1("memory").is_none());
        let above = folder.as_deref().and_then(Path::parent);
        above.map_or(0, |above| field(above, "memory.events", "oom_kill"))
    }
}

impl MemoryWatch {
    /// Whether processes were killed for want of memory. Where that is `likely`, it waits a moment
    /// for the kernel's word.
    pub fn has_killed(&self, likely: bool) -> bool {
        if self.group.out_of_memory_kills() > 0 {
            return true;
        }
        match &self.events {
            Some(_) if !likely || self.is_there() => false,
            Some(events) => has_come_twice(events),
            None => !self.is_there() && self.group.kills_above() > self.before,
        }
    }
}

impl MemoryWatch {
    /// Whether the figures can still be read; other parts of the group may stay longer.
    fn is_there(&self) -> bool {
        let folder = self.group.v1("memory").or_else(|| self.group.v2());
        folder.is_some_and(|folder| folder.exists())
    }
}

/// Whether more than the removal was counted, which the kernel does a moment after it.
fn has_come_twice(events: &EventFd) -> bool {
    let deadline = Instant::now() + PATIENCE;
    let mut count = 0;
    loop {
        count += events.read().unwrap_or(0);
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut ready = [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
        if count > 1 || poll(&mut ready, left).unwrap_or(0) == 0 {
            return count > 1;
        }
    }
}

fn listen(folder: &Path) -> Option<EventFd> {
    let events = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).ok()?;
    let control = File::open(folder.join("memory.oom_control")).ok()?;
    let words = (events.as_fd().as_raw_fd(), control.as_raw_fd());
    let words = format!("{} {}", words.0, words.1);
    write(folder, "cgroup.event_control", &words).ok()?;
    Some(events)
}
