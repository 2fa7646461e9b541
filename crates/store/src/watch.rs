//! Watches: a cursor each, over the shared ring of recent events, and over the
//! whole history for those that are behind the ring.
//!
//! A watch keeps no events of its own, so it costs little however slow its
//! reader is; a reader that is slower than compaction gets `Compacted`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::Stop;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use crate::api::{Event, EventKind, KeyRange, KeyValue, StoreError, WatchBatch, WatchStream};
use crate::embedded::Shared;
use crate::index::Rev;
use crate::state::Recent;

/// A batch takes no further revision once it has this many events or bytes.
const BATCH_EVENTS: usize = 1_024;
const BATCH_BYTES: usize = 1 << 20;

/// Watches that read history at the same time.
const CATCHING_UP: usize = 4;

/// After a change, how long until watches of other keys report progress.
const PROGRESS_DELAY: Duration = Duration::from_millis(200);

/// All open watches, grouped by what they watch.
#[derive(Debug)]
pub(crate) struct Watchers {
    groups: Mutex<Groups>,
    next_id: AtomicU64,
    catching_up: Semaphore,
    /// A change left some watch without news.
    others: Notify,
}

#[derive(Debug, Default)]
struct Groups {
    keys: HashMap<Bytes, Vec<Seat>>,
    spans: Vec<(KeyRange, Vec<Seat>)>,
}

#[derive(Clone, Debug)]
struct Seat {
    id: u64,
    bell: Arc<Notify>,
}

impl Default for Watchers {
    fn default() -> Watchers {
        Watchers {
            groups: Mutex::default(),
            next_id: AtomicU64::new(1),
            catching_up: Semaphore::new(CATCHING_UP),
            others: Notify::new(),
        }
    }
}

impl Watchers {
    /// Wakes the watches that `news` concerns, each at most once.
    pub(crate) fn wake(&self, news: &[Recent]) {
        if news.is_empty() {
            return;
        }
        let groups = self.groups.lock();
        let mut left_out = false;
        if !groups.keys.is_empty() {
            left_out = true;
            for recent in news {
                if let Some(seats) = groups.keys.get(&recent.event.kv.key) {
                    seats.iter().for_each(|seat| seat.bell.notify_one());
                }
            }
        }
        for (keys, seats) in &groups.spans {
            let concerned = |recent: &Recent| keys.contains(&recent.event.kv.key);
            if news.iter().any(concerned) {
                seats.iter().for_each(|seat| seat.bell.notify_one());
            } else {
                left_out = true;
            }
        }
        if left_out {
            self.others.notify_one();
        }
    }

    /// Wakes every watch, to report progress or to end.
    pub(crate) fn wake_all(&self) {
        let groups = self.groups.lock();
        let spans = groups.spans.iter().map(|(_, seats)| seats);
        for seat in groups.keys.values().chain(spans).flatten() {
            seat.bell.notify_one();
        }
    }

    fn join(&self, keys: &KeyRange) -> Seat {
        let seat = Seat {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            bell: Arc::default(),
        };
        let mut groups = self.groups.lock();
        let spans = &mut groups.spans;
        if let KeyRange::One(key) = keys {
            let seats = groups.keys.entry(key.clone()).or_default();
            seats.push(seat.clone());
        } else if let Some((_, seats)) = spans.iter_mut().find(|(span, _)| span == keys) {
            seats.push(seat.clone());
        } else {
            spans.push((keys.clone(), vec![seat.clone()]));
        }
        seat
    }

    fn leave(&self, keys: &KeyRange, id: u64) {
        let mut groups = self.groups.lock();
        if let KeyRange::One(key) = keys {
            if let Some(seats) = groups.keys.get_mut(key) {
                seats.retain(|seat| seat.id != id);
                if seats.is_empty() {
                    groups.keys.remove(key);
                }
            }
            return;
        }
        let spans = &mut groups.spans;
        if let Some(at) = spans.iter().position(|(span, _)| span == keys) {
            spans[at].1.retain(|seat| seat.id != id);
            if spans[at].1.is_empty() {
                spans.swap_remove(at);
            }
        }
    }
}

/// Lets watches of keys that rest report progress soon after others change;
/// sleeps while nothing changes.
pub(crate) async fn report_progress(shared: Weak<Shared>, closing: Stop) {
    loop {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        tokio::select! {
            () = closing.raised() => return,
            () = shared.watchers.others.notified() => {}
        }
        tokio::select! {
            () = closing.raised() => return,
            () = tokio::time::sleep(PROGRESS_DELAY) => {}
        }
        shared.watchers.wake_all();
    }
}

/// Opens a watch on `keys` from `start` on; 0 means from now.
pub(crate) fn open(shared: Arc<Shared>, keys: KeyRange, start: i64) -> WatchStream {
    let seat = shared.watchers.join(&keys);
    let next = match start {
        ..=0 => shared.state.read().revision() + 1,
        start => start,
    };
    let watch = Watch {
        shared,
        keys,
        seat,
        next,
        is_first: start > 0,
    };
    futures::stream::unfold(Some(watch), |watch| async move {
        let mut watch = watch?;
        match watch.batch().await {
            Ok(batch) => Some((Ok(batch), Some(watch))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

struct Watch {
    shared: Arc<Shared>,
    keys: KeyRange,
    seat: Seat,
    /// First revision that has not been looked at.
    next: i64,
    /// Whether the start has still to be compared with the compaction.
    is_first: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.watchers.leave(&self.keys, self.seat.id);
    }
}

/// Where a watch has to look for its next events.
enum Look {
    Found(WatchBatch),
    /// Below the ring.
    Behind,
    Nothing,
}

impl Watch {
    async fn batch(&mut self) -> Result<WatchBatch, StoreError> {
        loop {
            if self.shared.is_closed() {
                return Err(StoreError::Closed);
            }
            match self.look()? {
                Look::Found(batch) => return Ok(batch),
                Look::Nothing => self.seat.bell.notified().await,
                Look::Behind => {
                    let permit = self.shared.watchers.catching_up.acquire().await;
                    let (shared, keys, next) = (self.shared.clone(), self.keys.clone(), self.next);
                    let read = move || read_history(&shared, &keys, next);
                    let read = tokio::task::spawn_blocking(read).await;
                    drop(permit);
                    let batch =
                        read.map_err(|error| StoreError::Fatal(format!("watch: {error}")))??;
                    self.next = batch.revision + 1;
                    return Ok(batch);
                }
            }
        }
    }

    fn look(&mut self) -> Result<Look, StoreError> {
        let state = self.shared.state.read();
        let compact_revision = state.standing.compact_revision;
        if std::mem::take(&mut self.is_first) && self.next < compact_revision {
            return Err(StoreError::Compacted { compact_revision });
        }
        if self.next > state.revision() {
            return Ok(Look::Nothing);
        }
        if self.next < state.ring.start() {
            return Ok(Look::Behind);
        }
        let mut gather = Gather::new(&self.keys, self.next);
        for recent in state.ring.since(self.next) {
            if !gather.admits(recent.rev) {
                break;
            }
            gather.recent(recent);
        }
        let revision = gather.seen(state.revision());
        let events = gather.into_events();
        self.next = revision + 1;
        Ok(Look::Found(WatchBatch { revision, events }))
    }
}

/// Collects the events of one batch, in order, whole revisions only.
struct Gather<'a> {
    keys: &'a KeyRange,
    events: Vec<Arc<Event>>,
    bytes: usize,
    /// The revision whose events are being offered.
    current: i64,
    is_full: bool,
}

impl<'a> Gather<'a> {
    fn new(keys: &'a KeyRange, next: i64) -> Gather<'a> {
        Gather {
            keys,
            events: Vec::new(),
            bytes: 0,
            current: next - 1,
            is_full: false,
        }
    }

    /// Whether `rev` still belongs to this batch.
    fn admits(&mut self, rev: Rev) -> bool {
        if rev.main > self.current {
            if self.events.len() >= BATCH_EVENTS || self.bytes >= BATCH_BYTES {
                self.is_full = true;
                return false;
            }
            self.current = rev.main;
        }
        true
    }

    fn recent(&mut self, recent: &Recent) {
        if self.keys.contains(&recent.event.kv.key) {
            self.add(recent.event.clone());
        }
    }

    fn add(&mut self, event: Arc<Event>) {
        self.bytes += event.kv.value.len();
        self.events.push(event);
    }

    /// The revision up to which everything has been seen, if `newest` was in reach.
    fn seen(&self, newest: i64) -> i64 {
        if self.is_full { self.current } else { newest }
    }

    fn into_events(self) -> Vec<Arc<Event>> {
        self.events
    }
}

/// One batch of history from revision `next` on.
fn read_history(shared: &Shared, keys: &KeyRange, next: i64) -> Result<WatchBatch, StoreError> {
    let (depths, active, newest) = {
        let state = shared.state.read();
        let compact_revision = state.standing.compact_revision;
        if next < compact_revision {
            return Err(StoreError::Compacted { compact_revision });
        }
        let from = state
            .active
            .partition_point(|recent| recent.rev.main < next);
        let active = state.active[from..].to_vec();
        (state.depths.clone(), active, state.revision())
    };
    let mut gather = Gather::new(keys, next);
    let from = Rev { main: next, sub: 0 };
    depths.view.scan(from, |rev, version, key, value| {
        if !gather.admits(rev) {
            return false;
        }
        if keys.contains(key) {
            gather.add(Arc::new(Event {
                kind: if version.is_live() {
                    EventKind::Put
                } else {
                    EventKind::Delete
                },
                kv: KeyValue {
                    key: Bytes::copy_from_slice(key),
                    value: Bytes::copy_from_slice(value),
                    create_revision: version.create,
                    mod_revision: rev.main,
                    version: version.version,
                    lease: version.lease,
                },
                prev_kv: None,
            }));
        }
        true
    })?;
    let stored = gather.events.len();
    for recent in depths.frozen.iter().chain(&active) {
        if recent.rev.main < next {
            continue;
        }
        if gather.is_full || !gather.admits(recent.rev) {
            break;
        }
        gather.recent(recent);
    }
    let revision = gather.seen(newest);
    let mut events = gather.into_events();
    add_previous(shared, &mut events[..stored])?;
    Ok(WatchBatch { revision, events })
}

/// Fills in the versions that `events` replaced, as far as they are still known.
fn add_previous(shared: &Shared, events: &mut [Arc<Event>]) -> Result<(), StoreError> {
    let mut found = Vec::new();
    let depths = {
        let state = shared.state.read();
        for (at, event) in events.iter().enumerate() {
            let kv = &event.kv;
            // No key changes twice in one revision, so the place within does not matter.
            let rev = Rev {
                main: kv.mod_revision,
                sub: 0,
            };
            if let Some(version) = state.index.before(&kv.key, rev) {
                found.push((at, state.found(&kv.key, version)));
            }
        }
        state.depths.clone()
    };
    for (at, found) in found {
        let prev_kv = Some(depths.pair(found)?);
        if let Some(event) = Arc::get_mut(&mut events[at]) {
            event.prev_kv = prev_kv;
        }
    }
    Ok(())
}
