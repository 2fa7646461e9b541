//! Protobuf bodies and answers: upstream's envelope around the messages of `schema::protobuf`.

use bytes::Bytes;
use meta::Status;
use schema::protobuf::{self, Envelope};
use schema::{Parsed, Type};
use serde_json::Value;

use crate::cache::Entry;
use crate::registry::Resource;
use crate::respond;

/// The media type of the envelope.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// The media type of watches: frames of four bytes of length and an event.
pub(crate) const STREAM_TYPE: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// Reads a whole body as an object of this type.
pub(crate) fn read(bytes: &[u8], ty: &Type) -> Result<Parsed, Status> {
    let bad = |error: protobuf::ProtobufError| Status::bad_request(error.to_string());
    let envelope = protobuf::open(bytes).map_err(bad)?;
    let Envelope {
        api_version,
        kind,
        raw,
        content_type,
    } = envelope;
    let mut parsed = match content_type {
        "application/json" => schema::parse_json(raw)
            .map_err(|error| Status::bad_request(format!("json parse error: {error}")))?,
        _ => Parsed {
            tree: protobuf::decode(ty, raw).map_err(bad)?,
            duplicates: Vec::new(),
        },
    };
    if let Some(map) = parsed.tree.as_object_mut() {
        for (field, value) in [("apiVersion", api_version), ("kind", kind)] {
            if !value.is_empty() {
                map.insert(field.into(), value.into());
            }
        }
    }
    Ok(parsed)
}

/// The envelope of any tree of a built-in kind.
pub(crate) fn seal_tree(tree: &Value) -> Result<Vec<u8>, Status> {
    protobuf::seal_tree(tree).ok_or_else(|| {
        let text = |field: &str| tree[field].as_str().unwrap_or("").to_owned();
        let (version, kind) = (text("apiVersion"), text("kind"));
        Status::internal(format!("{version}, Kind={kind} has no protobuf form"))
    })
}

/// The objects of one resource as protobuf: what their messages are.
#[derive(Clone, Copy)]
pub(crate) struct Form<'a> {
    resource: &'a Resource,
    ty: &'a Type,
}

impl<'a> Form<'a> {
    /// Of a built-in kind; custom resources have no protobuf form.
    pub(crate) fn of(resource: &'a Resource) -> Result<Form<'a>, Status> {
        match resource.protobuf() {
            Some(ty) => Ok(Form { resource, ty }),
            None => Err(Status::internal("the kind has no protobuf form")),
        }
    }

    /// The message of an object. Those that are shown as they are kept are shared with the
    /// next who asks, if `keep`.
    pub(crate) fn raw(&self, entry: &Entry, keep: bool) -> Result<Bytes, Status> {
        if self.resource.seen.is_some() {
            return self.encode(&entry.json);
        }
        if let Some(raw) = entry.protobuf() {
            return Ok(raw);
        }
        let raw = self.encode(&entry.json)?;
        if keep {
            entry.keep_protobuf(raw.clone());
        }
        Ok(raw)
    }

    /// The message of an object that is there as JSON.
    pub(crate) fn encode(&self, json: &[u8]) -> Result<Bytes, Status> {
        let tree = self.resource.shown(respond::decode(json)?);
        Ok(protobuf::encode(self.ty, &tree).into())
    }

    /// The envelope around a message.
    pub(crate) fn seal(&self, raw: &[u8]) -> Vec<u8> {
        let names = &self.resource.row.names;
        protobuf::seal(&names.api_version(), &names.kind, raw)
    }
}
