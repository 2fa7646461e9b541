//! When leases expire. The state knows which leases exist; this clock knows
//! until when. A restart, as etcd's, gives every lease its whole time again.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use base::Stop;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::api::StoreError;
use crate::codec::Command;
use crate::embedded::Shared;
use crate::sequencer::{self, Job};

/// Longest time to live, in seconds (etcd's `MaxLeaseTTL`).
pub(crate) const TTL_MAX: i64 = 9_000_000_000;

/// How long to wait before an expired lease that could not be revoked, for
/// want of disk space, is tried again.
const RETRY: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Instant,
    ttl: i64,
    /// Too late to be kept alive.
    expiring: bool,
}

#[derive(Debug, Default)]
struct Deadlines {
    leases: HashMap<i64, Deadline>,
    /// The leases that are not yet expiring, by deadline.
    queue: BTreeSet<(Instant, i64)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct LeaseClock {
    deadlines: Mutex<Deadlines>,
    changed: Notify,
}

impl LeaseClock {
    pub(crate) fn start(&self, id: i64, ttl: i64) {
        let mut deadlines = self.deadlines.lock();
        let at = after(ttl);
        let expiring = false;
        deadlines.leases.insert(id, Deadline { at, ttl, expiring });
        deadlines.queue.insert((at, id));
        drop(deadlines);
        self.changed.notify_one();
    }

    pub(crate) fn forget(&self, id: i64) {
        let mut deadlines = self.deadlines.lock();
        if let Some(deadline) = deadlines.leases.remove(&id) {
            deadlines.queue.remove(&(deadline.at, id));
        }
    }

    /// Gives the lease its whole time again; returns it.
    pub(crate) fn keep_alive(&self, id: i64) -> Option<i64> {
        let mut deadlines = self.deadlines.lock();
        let deadline = deadlines.leases.get_mut(&id)?;
        if deadline.expiring || deadline.at <= Instant::now() {
            return None;
        }
        let (old, ttl) = (deadline.at, deadline.ttl);
        let new = after(ttl);
        deadline.at = new;
        deadlines.queue.remove(&(old, id));
        deadlines.queue.insert((new, id));
        Some(ttl)
    }

    /// Whole seconds until the lease expires.
    pub(crate) fn seconds_left(&self, id: i64) -> Option<i64> {
        let deadlines = self.deadlines.lock();
        let deadline = deadlines.leases.get(&id)?;
        let left = deadline.at.saturating_duration_since(Instant::now());
        Some(left.as_millis().div_ceil(1_000) as i64)
    }

    /// When the next lease expires.
    fn next(&self) -> Option<Instant> {
        self.deadlines.lock().queue.first().map(|(at, _)| *at)
    }

    /// Takes out what has expired.
    fn expired(&self) -> Vec<i64> {
        let now = Instant::now();
        let mut deadlines = self.deadlines.lock();
        let mut expired = Vec::new();
        while let Some((at, id)) = deadlines.queue.first().copied() {
            if at > now {
                break;
            }
            deadlines.queue.pop_first();
            if let Some(deadline) = deadlines.leases.get_mut(&id) {
                deadline.expiring = true;
            }
            expired.push(id);
        }
        expired
    }

    fn retry(&self, id: i64) {
        let mut deadlines = self.deadlines.lock();
        let at = Instant::now() + RETRY;
        if let Some(deadline) = deadlines.leases.get_mut(&id) {
            deadline.at = at;
            deadlines.queue.insert((at, id));
        }
    }
}

/// Revokes leases as they expire, until the store closes.
pub(crate) async fn run(
    shared: std::sync::Weak<Shared>,
    queue: mpsc::WeakSender<Job>,
    closing: Stop,
) {
    loop {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        for id in shared.leases.expired() {
            let Some(queue) = queue.upgrade() else {
                return;
            };
            match sequencer::submit(&queue, Command::LeaseRevoke(id), usize::MAX).await {
                Ok(_) | Err(StoreError::LeaseNotFound) => {}
                Err(error) => {
                    tracing::warn!(%error, id, "expired lease not revoked yet");
                    shared.leases.retry(id);
                }
            }
        }
        let next = shared.leases.next();
        let sleep = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = closing.raised() => return,
            () = shared.leases.changed.notified() => {}
            () = sleep => {}
        }
    }
}

fn after(ttl: i64) -> Instant {
    Instant::now() + Duration::from_secs(ttl.clamp(1, TTL_MAX) as u64)
}
