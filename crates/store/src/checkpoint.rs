//! Moves recent versions from memory into the checkpoint, behind the writers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::embedded::Shared;
use crate::engine::{Change, Engine};
use crate::patience::Space;
use crate::state::State;

/// Active versions beyond this many bytes make writers wait for the
/// checkpoint, or refuse them when it has no room.
pub(crate) const ACTIVE_BYTES_MAX: usize = 64 << 20;

/// Disk space that a checkpoint leaves free, and how much more than the plain
/// bytes it may need while old and new pages exist side by side.
const SPACE_KEPT: u64 = 4 << 20;
const SPACE_FACTOR: u64 = 3;

/// While waiting for a checkpoint, look this often whether it got stuck.
const STALL_CHECK: Duration = Duration::from_millis(100);

/// When a checkpoint is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) changes: usize,
    pub(crate) bytes: usize,
}

impl Limits {
    pub(crate) fn reached(&self, state: &State) -> bool {
        state.active.len().max(state.dropped.len()) >= self.changes
            || state.active_bytes >= self.bytes
    }
}

/// What the sequencer knows of the checkpoint thread.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    busy: Mutex<bool>,
    idle: Condvar,
    /// Number of the last record of the log that is in the checkpoint.
    applied: AtomicU64,
    /// The last attempt found no room, and has said so.
    postponed: AtomicBool,
    /// Whether the attempt under way waits for room.
    pub(crate) space: Arc<Space>,
}

impl Progress {
    pub(crate) fn starting_at(applied: u64, space: Arc<Space>) -> Progress {
        Progress {
            applied: AtomicU64::new(applied),
            space,
            ..Progress::default()
        }
    }

    pub(crate) fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Asks for a checkpoint unless one is under way.
    pub(crate) fn request(&self, thread: &SyncSender<()>) {
        let mut busy = self.busy.lock();
        if !*busy && thread.try_send(()).is_ok() {
            *busy = true;
        }
    }

    /// Waits until no checkpoint is under way, or the one that is has no room.
    pub(crate) fn wait(&self) {
        let mut busy = self.busy.lock();
        while *busy {
            let was_stalled = self.space.is_stalled();
            self.space.nudge();
            self.idle.wait_for(&mut busy, STALL_CHECK);
            if was_stalled && self.space.is_stalled() {
                return;
            }
        }
    }

    fn done(&self) {
        *self.busy.lock() = false;
        self.idle.notify_all();
    }
}

/// The checkpoint thread: works each time it is asked to, until nobody can ask.
pub(crate) fn run(shared: &Shared, engine: &Engine, dir: &Path, requests: &Receiver<()>) {
    let _guard = AbortOnPanic;
    while requests.recv().is_ok() {
        write(shared, engine, dir);
        shared.checkpoints.done();
    }
}

/// Writers wait for the checkpoint thread, so it must not end before them.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

/// Writes one checkpoint, if the disk has room for it. Any other failure ends
/// the process: the log still has everything.
pub(crate) fn write(shared: &Shared, engine: &Engine, dir: &Path) {
    let pending = shared.state.read().active_bytes as u64;
    let has_room = has_room(dir, pending);
    let postponed = &shared.checkpoints.postponed;
    if postponed.swap(!has_room, Ordering::Relaxed) == has_room {
        match has_room {
            true => tracing::info!(dir = %dir.display(), "disk has room for checkpoints again"),
            false => tracing::warn!(dir = %dir.display(), "disk is full, checkpoint postponed"),
        }
    }
    // What an earlier attempt could not write must not be left out by this one.
    if !has_room || !shared.state.read().depths.frozen.is_empty() {
        return;
    }
    let (standing, frozen, dropped, leases) = {
        let mut state = shared.state.write();
        let frozen = Arc::new(std::mem::take(&mut state.active));
        state.active_bytes = 0;
        state.depths.frozen = frozen.clone();
        let dropped = std::mem::take(&mut state.dropped);
        let leases = std::mem::take(&mut state.lease_changes);
        (state.standing, frozen, dropped, leases)
    };
    let mut versions = frozen.iter().map(|recent| (recent.rev, &recent.event.kv));
    let change = Change {
        standing,
        versions: &mut versions,
        dropped: &dropped,
        leases: &leases,
    };
    let view = match engine.write(change).and_then(|()| engine.view()) {
        Ok(view) => Arc::new(view),
        Err(error) if !shared.checkpoints.space.is_patient() => {
            // The store closes on a full disk; the log has everything.
            tracing::warn!(%error, dir = %dir.display(), "last checkpoint not written");
            return;
        }
        Err(error) => {
            tracing::error!(%error, dir = %dir.display(), "checkpoint failed, aborting");
            std::process::abort()
        }
    };
    let mut state = shared.state.write();
    state.depths.view = view;
    state.depths.frozen = Arc::default();
    drop(state);
    shared
        .checkpoints
        .applied
        .store(standing.applied, Ordering::Release);
}

fn has_room(dir: &Path, pending: u64) -> bool {
    match nix::sys::statvfs::statvfs(dir) {
        Ok(space) => {
            let free = space.blocks_available() * space.fragment_size();
            free >= pending * SPACE_FACTOR + SPACE_KEPT
        }
        Err(error) => {
            tracing::warn!(%error, dir = %dir.display(), "free space unknown");
            true
        }
    }
}

/// Everything the checkpoint thread owns.
pub(crate) struct Keeper {
    pub(crate) engine: Engine,
    pub(crate) dir: PathBuf,
}
