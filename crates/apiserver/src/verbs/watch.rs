//! watch: a stream of events behind the ring of changes, in frames that all watches share.

mod form;
mod watcher;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::{Body, BoxError};
use http::StatusCode;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use meta::Status;

use self::form::{Form, frame_of};
use self::watcher::{Manner, Start, Watcher};
use super::page;
use crate::cache::Entry;
use crate::chain::Call;
use crate::chain::accept::Media;
use crate::protobuf;
use crate::registry::Resource;
use crate::respond::{self, Answer};
use crate::selectors::Filter;
use crate::server::Core;
use crate::{socket, table};

/// A watch that names no timeout lasts this long, up to twice.
const TIMEOUT_MIN: Duration = Duration::from_secs(1800);
/// No watch lasts longer.
const TIMEOUT_MAX: Duration = Duration::from_secs(86_400);

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
    let start = match version {
        Some(version) if !initial && version != "0" => {
            let revision = page::parse(version)?;
            match cache.cursor_after(revision) {
                Ok(cursor) => Start {
                    cursor,
                    entries: VecDeque::new(),
                    end: None,
                },
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
            Start {
                cursor,
                entries,
                end,
            }
        }
    };
    if call.accept.media == Media::Protobuf && !start.entries.is_empty() {
        cache.use_protobuf();
    }
    let timeout = match call.query.number("timeoutSeconds")? {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds.unsigned_abs()),
        _ => TIMEOUT_MIN.mul_f64(1.0 + rand::random::<f64>()),
    };
    let manner = Manner {
        filter,
        form: Form {
            accept: call.accept,
            include: table::Include::read(&call.query)?,
            resource: Arc::clone(resource),
            with_columns: true,
        },
        bookmarks: call.query.flag("allowWatchBookmarks"),
        // A message of a WebSocket is one event.
        joins: !socket::is_asked(&call.headers),
        timeout: timeout.min(TIMEOUT_MAX),
        scope: crate::metrics::scope(&call.info),
    };
    let seat = core.metrics.watch_seat(&call.info);
    let from = (cache, Arc::clone(&core.feed));
    let watcher = Watcher::new(from, growth, start, manner, core.stop.clone(), seat);
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
