//! The protobuf form of objects, both ways, driven by the table.
//!
//! Upstream's envelope is the magic `k8s\0` and a `runtime.Unknown`: type meta, the object's own
//! message, and how that is encoded. Types of custom resources have no protobuf form.

mod answers;
mod decode;
pub(crate) mod encode;
pub(crate) mod wire;

use serde_json::Value;

use crate::types::Type;
pub use answers::{LIST_END, item_head, list_head, metadata, seal_tree, watch_frame};
use wire::{Field, Reader, Writer};

/// What every enveloped object begins with.
pub const MAGIC: [u8; 4] = *b"k8s\0";
/// Messages nest no deeper than this.
const MAX_DEPTH: usize = 100;

/// Bytes that are no message of their type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The bytes end within a field.
    #[error("unexpected EOF")]
    Truncated,
    /// A field is not of its type.
    #[error("proto: wrong wireType = {wire} for field {field}")]
    WireType {
        /// As the bytes have it.
        wire: u8,
        /// JSON name.
        field: String,
    },
    /// A text is not UTF-8, a time out of range, embedded JSON broken.
    #[error("proto: invalid value for field {0}")]
    Value(String),
    /// Messages within messages within messages.
    #[error("proto: message is nested too deeply")]
    Depth,
    /// There is no envelope.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    Magic,
}

/// The message of a tree that [`crate::check`] let pass, without envelope.
pub fn encode(ty: &Type, tree: &Value) -> Vec<u8> {
    let mut out = Writer::default();
    encode::structure(ty, tree, &mut out);
    out.finish()
}

/// The tree of a message without envelope. [`crate::check`] should see it next, as it sees JSON:
/// it drops the empty values that protobuf always carries.
pub fn decode(ty: &Type, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let mut tree = serde_json::Map::new();
    decode::structure(ty, &[], bytes, &mut tree, 0)?;
    Ok(Value::Object(tree))
}

/// What an envelope says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    /// The message of the object, or JSON if `content_type` says so.
    pub raw: &'a [u8],
    /// Empty: protobuf.
    pub content_type: &'a str,
}

/// Opens an envelope.
pub fn open(bytes: &[u8]) -> Result<Envelope<'_>, ProtobufError> {
    let mut reader = Reader::new(bytes.strip_prefix(&MAGIC).ok_or(ProtobufError::Magic)?);
    let mut envelope = Envelope::default();
    while let Some((tag, field)) = reader.next()? {
        match (tag, field) {
            (1, Field::Bytes(meta)) => {
                let mut meta = Reader::new(meta);
                while let Some((tag, field)) = meta.next()? {
                    match tag {
                        1 => envelope.api_version = text(&field, "apiVersion")?,
                        2 => envelope.kind = text(&field, "kind")?,
                        _ => {}
                    }
                }
            }
            (2, Field::Bytes(raw)) => envelope.raw = raw,
            (4, field) => envelope.content_type = text(&field, "contentType")?,
            _ => {}
        }
    }
    Ok(envelope)
}

fn text<'a>(field: &Field<'a>, name: &str) -> Result<&'a str, ProtobufError> {
    let wrong = || ProtobufError::Value(name.to_owned());
    match field {
        Field::Bytes(bytes) => std::str::from_utf8(bytes).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

/// Puts an object's message into an envelope.
pub fn seal(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.message(1, |meta| {
        meta.bytes(1, api_version.as_bytes());
        meta.bytes(2, kind.as_bytes());
    });
    out.bytes(2, raw);
    out.bytes(3, b"");
    out.bytes(4, b"");
    let mut sealed = MAGIC.to_vec();
    sealed.extend_from_slice(&out.finish());
    sealed
}
