//! In which form a watch tells its events: shared by all where that is possible.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cache::{Change, Entry, EventType, encode, frame};
use crate::chain::Accept;
use crate::chain::accept::{Media, Shape};
use crate::protobuf;
use crate::registry::Resource;
use crate::respond;
use crate::table;

/// In which form events are sent.
pub(super) struct Form {
    pub(super) accept: Accept,
    pub(super) include: table::Include,
    pub(super) resource: Arc<Resource>,
    pub(super) with_columns: bool,
}

impl Form {
    /// Whether events are the ones that all watches share.
    pub(super) fn is_plain(&self) -> bool {
        let resource = &self.resource;
        self.accept.shape == Shape::Object
            && resource.seen.is_none()
            && resource.conversion.is_none()
    }

    /// An event with an object as it is kept.
    pub(super) fn event(&mut self, event: &str, json: &[u8]) -> Bytes {
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
    pub(super) fn shared(&self, change: &Change, event: EventType) -> Bytes {
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
    pub(super) fn added(&mut self, entry: &Entry) -> Bytes {
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
pub(super) fn frame_of(media: Media, event: &str, tree: &Value) -> Bytes {
    match media {
        Media::Protobuf => {
            let sealed = protobuf::seal_tree(tree).unwrap_or_default();
            schema::protobuf::watch_frame(event, &sealed).into()
        }
        Media::Json | Media::Yaml => frame(event, &encode(tree)),
    }
}
