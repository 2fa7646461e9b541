//! One open watch: a cursor behind the ring of changes, and the events that are ready to be sent.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meta::Status;
use serde_json::{Value, json};
use tokio::time::{Instant, Sleep};

use super::form::{Form, frame_of};
use crate::cache::{Cache, Change, Cursor, Entry, Feed, Follower, encode};
use crate::chain::accept::Shape;
use crate::measure::{self, Told};
use crate::selectors::Filter;

/// Changes taken from the ring at once.
const BATCH_CHANGES: usize = 64;
/// Bytes of events that leave in one piece: what a frame of HTTP/2 holds.
const JOINED_MAX: usize = 16 << 10;
/// Between two bookmarks.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Tells that all that existed when the watch began has been sent.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What a watch begins with.
pub(super) struct Start {
    pub(super) cursor: Cursor,
    /// What existed, unless it is not asked for.
    pub(super) entries: VecDeque<Arc<Entry>>,
    /// The revision of what existed, where its end is to be told.
    pub(super) end: Option<i64>,
}

/// How a watch is to be told.
pub(super) struct Manner {
    pub(super) filter: Filter,
    pub(super) form: Form,
    pub(super) bookmarks: bool,
    /// Whether several events may leave in one piece.
    pub(super) joins: bool,
    pub(super) timeout: Duration,
    /// As metrics name it.
    pub(super) scope: &'static str,
}

/// The watch.
pub(super) struct Watcher {
    cache: Arc<Cache>,
    feed: Arc<Feed>,
    manner: Manner,
    cursor: Cursor,
    growth: Follower,
    /// What existed at the beginning and has not been sent yet.
    initial: VecDeque<Arc<Entry>>,
    /// Revision of `initial`, until its end has been told.
    initial_end: Option<i64>,
    ready: VecDeque<Bytes>,
    next_bookmark: Instant,
    deadline: Instant,
    /// Rings when the next bookmark is due, or the time is over. Kept from wait to wait, as `stop`
    /// is: most waits are ended by a change, and a thousand watches wait for the same one.
    clock: Pin<Box<Sleep>>,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
    bookmark_due: bool,
    /// The time is over: what is known is sent, and then nothing more.
    ending: bool,
    ended: bool,
    /// Counts open watches.
    _seat: crate::metrics::WatchSeat,
    told: Told,
    begun: Instant,
}

impl Watcher {
    pub(super) fn new(
        (cache, feed): (Arc<Cache>, Arc<Feed>),
        growth: Follower,
        start: Start,
        manner: Manner,
        stop: base::Stop,
        seat: crate::metrics::WatchSeat,
    ) -> Watcher {
        let now = Instant::now();
        // Spread, so that a thousand watches do not all speak at once.
        let next_bookmark = now + BOOKMARK_EVERY.mul_f64(0.75 + rand::random::<f64>() / 4.0);
        let deadline = now + manner.timeout;
        let mut watcher = Watcher {
            cache,
            feed,
            cursor: start.cursor,
            growth,
            initial: start.entries,
            initial_end: start.end,
            ready: VecDeque::new(),
            next_bookmark,
            deadline,
            clock: Box::pin(tokio::time::sleep_until(deadline)),
            stop: Box::pin(async move { stop.raised().await }),
            bookmark_due: false,
            ending: false,
            ended: false,
            _seat: seat,
            told: Told::new(&manner.form.resource.row.names),
            begun: now,
            manner,
        };
        watcher.wind();
        watcher
    }

    /// The next events; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            if self.ended {
                return None;
            }
            if !self.send_initial().await {
                self.send_changes().await;
            }
        }
    }

    /// Takes the next of what is ready, and as many behind it as may leave with it.
    fn take(&mut self) -> Option<Bytes> {
        let first = self.ready.pop_front()?;
        self.told.add(first.len());
        let fits = |length: usize, next: Option<&Bytes>| {
            next.is_some_and(|next| length + next.len() <= JOINED_MAX)
        };
        if !self.manner.joins || !fits(first.len(), self.ready.front()) {
            return Some(first);
        }
        let all = self.ready.iter().map(Bytes::len).sum::<usize>() + first.len();
        let mut joined = Vec::with_capacity(all.min(JOINED_MAX));
        joined.extend_from_slice(&first);
        while fits(joined.len(), self.ready.front())
            && let Some(next) = self.ready.pop_front()
        {
            self.told.add(next.len());
            joined.extend_from_slice(&next);
        }
        Some(joined.into())
    }

    /// Readies some of what existed; false when there is no more.
    async fn send_initial(&mut self) -> bool {
        if self.initial.is_empty() && self.initial_end.is_none() {
            return false;
        }
        let count = self.initial.len().min(BATCH_CHANGES);
        let batch: Vec<_> = self.initial.drain(..count).collect();
        match self.manner.form.resource.converted_entries(batch).await {
            Ok(batch) => {
                for entry in batch {
                    self.ready.push_back(self.manner.form.added(&entry));
                }
            }
            Err(status) => {
                self.fail(&status);
                return true;
            }
        }
        if self.initial.is_empty()
            && let Some(revision) = self.initial_end.take()
            && self.manner.bookmarks
        {
            let annotations = json!({INITIAL_EVENTS_END: "true"});
            self.bookmark(revision, Some(annotations));
            let names = &self.manner.form.resource.row.names;
            measure::watch_listed(names, self.manner.scope, self.begun.elapsed());
        }
        !self.ready.is_empty()
    }

    async fn send_changes(&mut self) {
        self.growth.catch_up();
        let applied = self.feed.applied();
        let Ok((changes, seen)) = self.cache.changes(&mut self.cursor, BATCH_CHANGES, applied)
        else {
            let status = Status::expired("watcher fell behind: too old resource version");
            return self.fail(&status);
        };
        for change in &changes {
            if let Err(status) = self.send_change(change).await {
                return self.fail(&status);
            }
        }
        if !changes.is_empty() {
            return;
        }
        if std::mem::take(&mut self.bookmark_due) && self.manner.bookmarks {
            self.bookmark(seen, None);
        }
        match self.ending {
            true => self.ended = true,
            false => self.wait().await,
        }
    }

    async fn send_change(&mut self, change: &Change) -> Result<(), Status> {
        let Manner { filter, form, .. } = &mut self.manner;
        let Some(event) = filter.event_converted(change).await? else {
            return Ok(());
        };
        let frame = match form.is_plain() {
            true => form.shared(change, event),
            false => {
                let object = change.object(event);
                let object = form.resource.converted_json(object).await?;
                form.event(event.as_str(), &object)
            }
        };
        self.ready.push_back(frame);
        Ok(())
    }

    /// The watch ends, and says why.
    fn fail(&mut self, status: &Status) {
        let media = self.manner.form.accept.media;
        self.ready
            .push_back(frame_of(media, "ERROR", &status.to_value()));
        self.initial.clear();
        self.initial_end = None;
        self.ended = true;
    }

    /// Waits for something to do.
    async fn wait(&mut self) {
        if !self.ready.is_empty() {
            return;
        }
        self.told.count();
        tokio::select! {
            grown = self.growth.changed() => self.ended |= grown.is_err(),
            () = &mut self.clock => {
                self.bookmark_due = true;
                let now = Instant::now();
                self.ending = now >= self.deadline;
                self.next_bookmark = now + BOOKMARK_EVERY;
                self.wind();
            }
            () = &mut self.stop => self.ended = true,
        }
    }

    /// Sets the clock to what comes next.
    fn wind(&mut self) {
        let rings = match self.manner.bookmarks {
            true => self.next_bookmark.min(self.deadline),
            false => self.deadline,
        };
        self.clock.as_mut().reset(rings);
    }

    fn bookmark(&mut self, revision: i64, annotations: Option<Value>) {
        let form = &mut self.manner.form;
        let names = &form.resource.row.names;
        let mut object = json!({
            "kind": names.kind, "apiVersion": names.api_version(),
            "metadata": {"resourceVersion": revision.to_string()},
        });
        if let Some(annotations) = annotations {
            object["metadata"]["annotations"] = annotations;
        }
        let frame = match form.accept.shape {
            Shape::Object => frame_of(form.accept.media, "BOOKMARK", &object),
            _ => form.event("BOOKMARK", &encode(&object)),
        };
        self.ready.push_back(frame);
    }
}
