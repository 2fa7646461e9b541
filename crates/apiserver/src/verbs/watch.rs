//! watch: a cursor behind the ring of changes, and a stream of frames that all watches share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::{Body, BoxError};
use http::StatusCode;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use jiff::Timestamp;
use meta::Status;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::page;
use crate::cache::{Cache, Change, Cursor, Entry, EventType, encode, frame};
use crate::chain::accept::{Media, Shape};
use crate::chain::{Accept, Call};
use crate::measure::{self, Told};
use crate::protobuf;
use crate::registry::Resource;
use crate::respond::{self, Answer};
use crate::selectors::Filter;
use crate::server::Core;
use crate::table;

/// Changes taken from the ring at once.
const BATCH_CHANGES: usize = 64;
/// Between two bookmarks.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A watch that names no timeout lasts this long, up to twice.
const TIMEOUT_MIN: Duration = Duration::from_secs(1800);
/// Tells that all that existed when the watch began has been sent.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// In which form events are sent.
struct Form {
    accept: Accept,
    include: table::Include,
    resource: Arc<Resource>,
    with_columns: bool,
}

impl Form {
    /// Whether events are the ones that all watches share.
    fn is_plain(&self) -> bool {
        let resource = &self.resource;
        self.accept.shape == Shape::Object
            && resource.seen.is_none()
            && resource.conversion.is_none()
    }

    /// An event with an object as it is kept.
    fn event(&mut self, event: &str, json: &[u8]) -> Bytes {
        let Ok(tree) = respond::decode(json) else {
            return Bytes::new();
        };
        let tree = match self.accept.shape {
            Shape::Object | Shape::Groups => self.resource.shown(tree),
            Shape::Metadata => table::metadata_only(tree),
            Shape::Table => self.table(tree),
        };
        frame_of(self.accept.media, event, &self.accept.versioned(tree))
    }

    /// An event that all watches of this encoding share.
    fn shared(&self, change: &Change, event: EventType) -> Bytes {
        if self.accept.media != Media::Protobuf {
            return change.frame(event);
        }
        change.protobuf_frame(event, |json| {
            let form = protobuf::Form::of(&self.resource);
            let sealed = form.and_then(|form| Ok(form.seal(&form.encode(json)?)));
            schema::protobuf::watch_frame(event.as_str(), &sealed.unwrap_or_default()).into()
        })
    }

    /// The event that an object was there when the watch began.
    fn added(&mut self, entry: &Entry) -> Bytes {
        match (self.is_plain(), self.accept.media) {
            (false, _) => self.event("ADDED", &entry.json),
            (true, Media::Protobuf) => {
                let form = protobuf::Form::of(&self.resource);
                let sealed = form.and_then(|form| Ok(form.seal(&form.raw(entry, true)?)));
                schema::protobuf::watch_frame("ADDED", &sealed.unwrap_or_default()).into()
            }
            (true, _) => frame("ADDED", &entry.json),
        }
    }

    fn table(&mut self, tree: Value) -> Value {
        let row = &self.resource.row;
        let version = tree.pointer("/metadata/resourceVersion").cloned();
        let rows = vec![table::row(
            &self.resource,
            tree,
            self.include,
            Timestamp::now(),
        )];
        let metadata = json!({"resourceVersion": version});
        let with_columns = std::mem::replace(&mut self.with_columns, false);
        table::table(row, rows, metadata, with_columns)
    }
}

/// An event around a tree that is complete.
fn frame_of(media: Media, event: &str, tree: &Value) -> Bytes {
    match media {
        Media::Protobuf => {
            let sealed = protobuf::seal_tree(tree).unwrap_or_default();
            schema::protobuf::watch_frame(event, &sealed).into()
        }
        Media::Json | Media::Yaml => frame(event, &encode(tree)),
    }
}

struct Watcher {
    cache: Arc<Cache>,
    feed: Arc<crate::cache::Feed>,
    filter: Filter,
    form: Form,
    cursor: Cursor,
    growth: tokio::sync::watch::Receiver<u64>,
    /// What existed at the beginning and has not been sent yet.
    initial: VecDeque<Arc<Entry>>,
    /// Revision of `initial`, until its end has been told.
    initial_end: Option<i64>,
    ready: VecDeque<Bytes>,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    stop: base::Stop,
    bookmark_due: bool,
    /// The time is over: what is known is sent, and then nothing more.
    ending: bool,
    ended: bool,
    /// Counts open watches.
    _seat: crate::metrics::WatchSeat,
    told: Told,
    begun: Instant,
    scope: &'static str,
}

/// Opens a watch.
pub(crate) async fn watch(
    core: &Core,
    call: &Call,
    resource: &Arc<Resource>,
) -> Result<Answer, Status> {
    if core.stop.is_raised() {
        // It would end at once, and its client come back at once.
        let text = "the server is shutting down";
        let mut status = Status::new(meta::Reason::ServiceUnavailable, text);
        status.retry_after_seconds = Some(1);
        return Err(status);
    }
    let cache = Arc::clone(resource.cache()?);
    let filter = Filter::read(call, resource)?;
    super::options::check_watch(&call.query)?;
    let asked = call.query.get("sendInitialEvents");
    let version = call.query.get("resourceVersion");
    // Who names no version is sent what there is, and told where that ends.
    let usual = matches!(version, None | Some("0"));
    let initial = matches!(asked, Some("true" | "1")) || (asked.is_none() && usual);
    match version {
        None => core.feed.fresh().await,
        Some("0") => {}
        Some(version) if initial => {
            page::parse(version)?;
            page::reached(core, version).await?;
        }
        Some(version) => drop(page::parse(version)?),
    }
    let growth = cache.growth();
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let (cursor, entries, initial_end) = match version {
        Some(version) if !initial && version != "0" => {
            let revision = page::parse(version)?;
            match cache.cursor_after(revision) {
                Ok(cursor) => (cursor, VecDeque::new(), None),
                Err(too_old) => return Ok(expired(call, revision, too_old.oldest)),
            }
        }
        _ => {
            let (snapshot, cursor) = cache.snapshot_and_cursor(core.feed.applied());
            let prefixed = snapshot.map.prefixed(&filter.prefix);
            let converts = filter.needs_conversion();
            let is_meant = |entry: &&Arc<Entry>| match converts {
                true => filter.may_match(entry),
                false => filter.matches(entry),
            };
            let entries = prefixed.filter(is_meant).cloned();
            let end = initial.then_some(snapshot.revision);
            let wanted = asked.is_none() || initial;
            let entries = match (wanted, converts) {
                (true, true) => filter.converted(entries.collect()).await?.into(),
                (true, false) => entries.collect(),
                (false, _) => VecDeque::new(),
            };
            (cursor, entries, end)
        }
    };
    if call.accept.media == Media::Protobuf && !entries.is_empty() {
        cache.use_protobuf();
    }
    let timeout = match call.query.number("timeoutSeconds")? {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds.unsigned_abs()),
        _ => TIMEOUT_MIN.mul_f64(1.0 + rand::random::<f64>()),
    };
    let now = Instant::now();
    let watcher = Watcher {
        feed: Arc::clone(&core.feed),
        filter,
        form: Form {
            accept: call.accept,
            include: table::Include::read(&call.query)?,
            resource: Arc::clone(resource),
            with_columns: true,
        },
        cursor,
        growth,
        initial: entries,
        initial_end,
        ready: VecDeque::new(),
        bookmarks,
        // Spread, so that a thousand watches do not all speak at once.
        next_bookmark: now + BOOKMARK_EVERY.mul_f64(0.75 + rand::random::<f64>() / 4.0),
        deadline: now + timeout.min(Duration::from_secs(86_400)),
        stop: core.stop.clone(),
        bookmark_due: false,
        ending: false,
        ended: false,
        _seat: core.metrics.watch_seat(&call.info),
        told: Told::new(&resource.row.names),
        begun: now,
        scope: crate::metrics::scope(&call.info),
        cache,
    };
    let frames = futures::stream::unfold(watcher, |mut watcher| async move {
        let frame = watcher.next().await?;
        Some((Ok::<_, BoxError>(Frame::data(frame)), watcher))
    });
    let body: Body = StreamBody::new(frames).boxed_unsync();
    let mut answer = respond::plain(StatusCode::OK, stream_type(call), Bytes::new());
    *answer.body_mut() = body;
    Ok(answer)
}

/// A watch that ends with the one event that its start is gone.
fn expired(call: &Call, revision: i64, oldest: i64) -> Answer {
    let status = Status::expired(format!("too old resource version: {revision} ({oldest})"));
    let body = frame_of(call.accept.media, "ERROR", &status.to_value());
    respond::plain(StatusCode::OK, stream_type(call), body)
}

fn stream_type(call: &Call) -> &'static str {
    match call.accept.media {
        Media::Protobuf => protobuf::STREAM_TYPE,
        media => media.name(),
    }
}

impl Watcher {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                self.told.add(frame.len());
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

    /// Readies some of what existed; false when there is no more.
    async fn send_initial(&mut self) -> bool {
        let count = self.initial.len().min(BATCH_CHANGES);
        let batch: Vec<_> = self.initial.drain(..count).collect();
        match self.form.resource.converted_entries(batch).await {
            Ok(batch) => {
                for entry in batch {
                    self.ready.push_back(self.form.added(&entry));
                }
            }
            Err(status) => {
                self.fail(&status);
                return true;
            }
        }
        if self.initial.is_empty()
            && let Some(revision) = self.initial_end.take()
            && self.bookmarks
        {
            let annotations = json!({INITIAL_EVENTS_END: "true"});
            self.bookmark(revision, Some(annotations));
            let names = &self.form.resource.row.names;
            measure::watch_listed(names, self.scope, self.begun.elapsed());
        }
        !self.ready.is_empty()
    }

    async fn send_changes(&mut self) {
        self.growth.borrow_and_update();
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
        if std::mem::take(&mut self.bookmark_due) && self.bookmarks {
            self.bookmark(seen, None);
        }
        match self.ending {
            true => self.ended = true,
            false => self.wait().await,
        }
    }

    async fn send_change(&mut self, change: &Change) -> Result<(), Status> {
        let Some(event) = self.filter.event_converted(change).await? else {
            return Ok(());
        };
        let frame = match self.form.is_plain() {
            true => self.form.shared(change, event),
            false => {
                let object = change.object(event);
                let object = self.form.resource.converted_json(object).await?;
                self.form.event(event.as_str(), &object)
            }
        };
        self.ready.push_back(frame);
        Ok(())
    }

    /// The watch ends, and says why.
    fn fail(&mut self, status: &Status) {
        let media = self.form.accept.media;
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
            () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                self.bookmark_due = true;
            }
            () = tokio::time::sleep_until(self.deadline) => {
                self.bookmark_due = true;
                self.ending = true;
            }
            () = self.stop.raised() => self.ended = true,
        }
    }

    fn bookmark(&mut self, revision: i64, annotations: Option<Value>) {
        let names = &self.form.resource.row.names;
        let mut object = json!({
            "kind": names.kind, "apiVersion": names.api_version(),
            "metadata": {"resourceVersion": revision.to_string()},
        });
        if let Some(annotations) = annotations {
            object["metadata"]["annotations"] = annotations;
        }
        let frame = match self.form.accept.shape {
            Shape::Object => frame_of(self.form.accept.media, "BOOKMARK", &object),
            _ => self.form.event("BOOKMARK", &encode(&object)),
        };
        self.ready.push_back(frame);
    }
}
