//! A list's bytes, put together of encoded objects and sent in pieces.

use std::sync::Arc;

use bytes::Bytes;
use client::{Body, BoxError};
use http::StatusCode;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use meta::Status;
use serde_json::{Value, json};

use crate::cache::Entry;
use crate::chain::Call;
use crate::chain::accept::Media;
use crate::protobuf::Form;
use crate::registry::Resource;
use crate::respond::{self, Answer};

/// Lists up to this size are sent as one piece, longer ones in pieces of about this size.
const PIECE_BYTES: usize = 1 << 20;

/// A list of objects as they are.
pub(super) fn objects(
    call: &Call,
    resource: &Arc<Resource>,
    metadata: &Value,
    entries: &[Arc<Entry>],
) -> Result<Answer, Status> {
    match call.accept.media {
        Media::Protobuf => as_protobuf(call, resource, metadata, entries),
        Media::Json | Media::Yaml => as_json(call, resource, metadata, entries),
    }
}

fn as_json(
    call: &Call,
    resource: &Arc<Resource>,
    metadata: &Value,
    entries: &[Arc<Entry>],
) -> Result<Answer, Status> {
    let names = &resource.row.names;
    let head = format!(
        "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[",
        json!(names.list_kind),
        json!(names.api_version()),
    );
    let total: usize = entries.iter().map(|entry| entry.json.len() + 1).sum();
    let own = Arc::clone(resource);
    let entries = entries.to_vec();
    let items = entries
        .into_iter()
        .map(move |entry| own.shown_json(&entry.json));
    let pieces = Pieces {
        head: Some(head.into_bytes()),
        items,
        separate: |index, _, piece| {
            if index > 0 {
                piece.push(b',');
            }
        },
        tail: b"]}",
        sent: 0,
        ended: false,
    };
    let accept = &call.accept;
    if accept.media == Media::Yaml || accept.pretty {
        return respond::text(call, StatusCode::OK, pieces.whole(total));
    }
    send(call, pieces, total)
}

fn as_protobuf(
    call: &Call,
    resource: &Arc<Resource>,
    metadata: &Value,
    entries: &[Arc<Entry>],
) -> Result<Answer, Status> {
    let form = Form::of(resource)?;
    resource.cache()?.use_protobuf();
    let raws = entries.iter().map(|entry| form.raw(entry, true));
    let raws = raws.collect::<Result<Vec<Bytes>, Status>>()?;
    let names = &resource.row.names;
    let lengths = raws.iter().map(Bytes::len);
    let head =
        schema::protobuf::list_head(&names.api_version(), &names.list_kind, metadata, lengths);
    let total: usize = raws.iter().map(|raw| raw.len() + 6).sum();
    let pieces = Pieces {
        head: Some(head),
        items: raws.into_iter(),
        separate: |_, length, piece| {
            piece.extend_from_slice(&schema::protobuf::item_head(length));
        },
        tail: &schema::protobuf::LIST_END,
        sent: 0,
        ended: false,
    };
    send(call, pieces, total)
}

fn send<I>(call: &Call, mut pieces: Pieces<I>, total: usize) -> Result<Answer, Status>
where
    I: Iterator<Item = Bytes> + Send + 'static,
{
    let media = call.accept.media;
    if total <= PIECE_BYTES || call.accept.gzip {
        return respond::whole(&call.accept, StatusCode::OK, pieces.whole(total));
    }
    let frames = std::iter::from_fn(move || pieces.take(PIECE_BYTES))
        .map(|piece| Ok::<_, BoxError>(Frame::data(piece)));
    let body: Body = StreamBody::new(futures::stream::iter(frames)).boxed_unsync();
    let mut answer = respond::plain(StatusCode::OK, media.name(), Bytes::new());
    *answer.body_mut() = body;
    Ok(answer)
}

/// A list's bytes, made as they are sent.
struct Pieces<I> {
    head: Option<Vec<u8>>,
    items: I,
    /// Writes what stands before an item, by its place and length.
    separate: fn(usize, usize, &mut Vec<u8>),
    tail: &'static [u8],
    sent: usize,
    ended: bool,
}

impl<I: Iterator<Item = Bytes>> Pieces<I> {
    fn whole(mut self, total: usize) -> Bytes {
        let room = total + 4096;
        self.fill(usize::MAX, room).unwrap_or_default()
    }

    fn take(&mut self, size: usize) -> Option<Bytes> {
        self.fill(size, size + (64 << 10))
    }

    fn fill(&mut self, size: usize, room: usize) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut piece = Vec::with_capacity(room);
        if let Some(head) = self.head.take() {
            piece.extend_from_slice(&head);
        }
        while piece.len() < size {
            let Some(item) = self.items.next() else {
                piece.extend_from_slice(self.tail);
                self.ended = true;
                break;
            };
            (self.separate)(self.sent, item.len(), &mut piece);
            piece.extend_from_slice(&item);
            self.sent += 1;
        }
        Some(piece.into())
    }
}
