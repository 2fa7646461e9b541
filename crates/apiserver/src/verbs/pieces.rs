//! A list's bytes, put together of encoded objects and sent in pieces.

use std::sync::Arc;

use bytes::Bytes;
use client::{Body, BoxError};
use http::StatusCode;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use meta::Status;
use serde_json::{Value, json};

use crate::cache::{Entry, encode};
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
    let form = ItemForm::of(resource);
    let separate = form.separate();
    let entries = entries.to_vec();
    let items = entries
        .into_iter()
        .map(move |entry| form.item(own.shown_json(&entry.json)));
    let pieces = Pieces {
        head: Some(head.into_bytes()),
        items,
        separate,
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

/// How objects stand in lists as JSON: custom resources as they are, those of upstream's own kinds
/// without `kind` and `apiVersion`, which the list names.
enum ItemForm {
    Whole,
    /// What every object of the kind begins with.
    Untyped(Vec<u8>),
}

impl ItemForm {
    fn of(resource: &Resource) -> ItemForm {
        let names = &resource.row.names;
        match resource.custom {
            true => ItemForm::Whole,
            false => ItemForm::Untyped(
                format!(
                    "{{\"kind\":{},\"apiVersion\":{},",
                    json!(names.kind),
                    json!(names.api_version())
                )
                .into_bytes(),
            ),
        }
    }

    /// What stands before an item; one without its type lacks its first brace.
    fn separate(&self) -> fn(usize, usize, &mut Vec<u8>) {
        match self {
            ItemForm::Whole => |index, _, piece| {
                if index > 0 {
                    piece.push(b',');
                }
            },
            ItemForm::Untyped(_) => |index, _, piece| match index {
                0 => piece.push(b'{'),
                _ => piece.extend_from_slice(b",{"),
            },
        }
    }

    /// The bytes that follow what stands before; a part of the object's own where it begins as
    /// all do.
    fn item(&self, json: Bytes) -> Bytes {
        match self {
            ItemForm::Whole => json,
            ItemForm::Untyped(start) if json.starts_with(start) => json.slice(start.len()..),
            ItemForm::Untyped(_) => {
                let tree = serde_json::from_slice(&json).map(untyped);
                Bytes::from(encode(&tree.unwrap_or_default())).slice(1..)
            }
        }
    }
}

/// The object without what the list that it stands in says.
pub(crate) fn untyped(mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
    object
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_lose_their_type_whatever_they_begin_with() {
        let form = ItemForm::Untyped(br#"{"kind":"A","apiVersion":"v1","#.to_vec());
        let item = |json: &'static str| {
            let mut piece = Vec::new();
            form.separate()(1, 0, &mut piece);
            piece.extend_from_slice(&form.item(Bytes::from_static(json.as_bytes())));
            String::from_utf8(piece).unwrap()
        };
        let wanted = r#",{"metadata":{"name":"a"}}"#;
        let own = r#"{"kind":"A","apiVersion":"v1","metadata":{"name":"a"}}"#;
        assert_eq!(item(own), wanted);
        let older = r#"{"apiVersion":"v1beta1","metadata":{"name":"a"},"kind":"A"}"#;
        assert_eq!(item(older), wanted);
    }
}
