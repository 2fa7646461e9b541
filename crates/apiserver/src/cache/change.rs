//! One change of one object, and the events that watches show it as.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Entry, EventType};

/// One change of one object. Its events are encoded once, for all watches.
pub(crate) struct Change {
    pub(crate) revision: i64,
    /// The state before; `None` for a creation.
    pub(crate) before: Option<Arc<Entry>>,
    /// The state after; `None` for a deletion.
    pub(crate) after: Option<Arc<Entry>>,
    pub(super) at: Instant,
    frames: Mutex<Option<Box<Frames>>>,
    /// Whether those who come now are late: for them nothing is kept.
    retired: AtomicBool,
}

/// The encoded events, in JSON and protobuf, by type.
type Frames = [[Option<Bytes>; 3]; 2];

impl Change {
    pub(super) fn new(
        revision: i64,
        before: Option<Arc<Entry>>,
        after: Option<Arc<Entry>>,
        at: Instant,
    ) -> Change {
        Change {
            revision,
            before,
            after,
            at,
            frames: Mutex::default(),
            retired: AtomicBool::new(false),
        }
    }

    /// The object that an event of this type shows.
    pub(crate) fn object(&self, event: EventType) -> Bytes {
        match (event, &self.before, &self.after) {
            (EventType::Deleted, Some(before), _) => before.json_at(self.revision),
            (_, _, Some(after)) => after.json.clone(),
            (_, Some(before), None) => before.json_at(self.revision),
            (_, None, None) => Bytes::new(),
        }
    }

    /// The event in JSON, built by the first who asks.
    pub(crate) fn frame(&self, event: EventType) -> Bytes {
        self.shared(0, event, |json| frame(event.as_str(), json))
    }

    /// The event in protobuf, built by the first who asks.
    pub(crate) fn protobuf_frame(
        &self,
        event: EventType,
        build: impl FnOnce(&Bytes) -> Bytes,
    ) -> Bytes {
        self.shared(1, event, build)
    }

    fn shared(&self, form: usize, event: EventType, build: impl FnOnce(&Bytes) -> Bytes) -> Bytes {
        if self.retired.load(Ordering::Acquire) {
            return build(&self.object(event));
        }
        let mut frames = self.frames.lock();
        let kept = &mut frames.get_or_insert_default()[form][event as usize];
        kept.get_or_insert_with(|| build(&self.object(event)))
            .clone()
    }

    /// Drops the encoded events: whoever keeps up has sent them.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        drop(self.frames.lock().take());
    }

    /// Bytes that are kept for this change alone: the state before is nowhere else any more.
    pub(super) fn weight(&self) -> usize {
        self.before.as_ref().map_or(0, |before| before.json.len())
    }
}

/// One event as a watch sends it.
pub(crate) fn frame(event: &str, object: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(object.len() + 32);
    bytes.extend_from_slice(b"{\"type\":\"");
    bytes.extend_from_slice(event.as_bytes());
    bytes.extend_from_slice(b"\",\"object\":");
    bytes.extend_from_slice(object);
    bytes.extend_from_slice(b"}\n");
    bytes.into()
}
