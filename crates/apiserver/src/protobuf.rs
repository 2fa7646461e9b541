//! Protobuf bodies as trees, by the tags of the schema table.
//!
//! kubectl and other Go clients send some requests in upstream's envelope: the magic `k8s\0`,
//! then a message with apiVersion, kind and the object's own bytes. Answers are JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use meta::Status;
use schema::{Shape, Type};
use serde_json::{Map, Value};

/// The media type of the envelope.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What the envelope begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Messages nested deeper than this are refused.
const DEPTH_MAX: usize = 64;

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtobufError {
    #[error("provided data does not appear to be a protobuf message, expected prefix 6b 38 73 00")]
    Magic,
    #[error("unexpected EOF")]
    Short,
    #[error("proto: illegal wireType")]
    WireType,
    #[error("proto: invalid text or number")]
    Content,
    #[error("proto: nested too deeply")]
    Depth,
    #[error("protobuf is not supported for this kind")]
    Unsupported,
}

/// What the envelope holds.
pub(crate) struct Envelope<'a> {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Opens the envelope.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Envelope<'a>, ProtobufError> {
        let mut message = Message(bytes.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?);
        let mut envelope = Envelope {
            api_version: String::new(),
            kind: String::new(),
            raw: &[],
        };
        while let Some((tag, value)) = message.field()? {
            match (tag, value) {
                (1, Wire::Bytes(meta)) => {
                    let mut meta = Message(meta);
                    while let Some((tag, value)) = meta.field()? {
                        match tag {
                            1 => envelope.api_version = value.text()?,
                            2 => envelope.kind = value.text()?,
                            _ => {}
                        }
                    }
                }
                (2, Wire::Bytes(raw)) => envelope.raw = raw,
                _ => {}
            }
        }
        Ok(envelope)
    }

    /// The object as a tree of this type.
    pub(crate) fn decode(&self, ty: &Type) -> Result<Value, ProtobufError> {
        let mut map = Map::new();
        structure(ty, &mut map, &[], self.raw, 0)?;
        if !self.api_version.is_empty() {
            map.insert("apiVersion".into(), self.api_version.clone().into());
        }
        if !self.kind.is_empty() {
            map.insert("kind".into(), self.kind.clone().into());
        }
        Ok(Value::Object(map))
    }
}

/// Reads a whole body; `kind_of` finds the type of what it holds.
pub(crate) fn read<'t>(
    bytes: &[u8],
    kind_of: impl FnOnce(&Envelope<'_>) -> Option<&'t Type>,
) -> Result<Value, Status> {
    let bad = |error: ProtobufError| Status::bad_request(error.to_string());
    let envelope = Envelope::open(bytes).map_err(bad)?;
    let ty = kind_of(&envelope).ok_or_else(|| {
        Status::bad_request(format!(
            "no kind {:?} is registered for version {:?}",
            envelope.kind, envelope.api_version
        ))
    })?;
    envelope.decode(ty).map_err(bad)
}

/// One field's value on the wire.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed(u64),
}

impl Wire<'_> {
    fn text(self) -> Result<String, ProtobufError> {
        match self {
            Wire::Bytes(bytes) => {
                String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError::Content)
            }
            _ => Err(ProtobufError::WireType),
        }
    }

    fn number(self) -> Result<i64, ProtobufError> {
        match self {
            Wire::Number(number) => Ok(number.cast_signed()),
            _ => Err(ProtobufError::WireType),
        }
    }
}

struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    fn field(&mut self) -> Result<Option<(u32, Wire<'a>)>, ProtobufError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).map_err(|_| ProtobufError::Content)?;
        let value = match key & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Fixed(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| ProtobufError::Short)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed(u64::from(u32::from_le_bytes(self.array()?))),
            _ => return Err(ProtobufError::WireType),
        };
        Ok(Some((tag, value)))
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(ProtobufError::Short)?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(ProtobufError::Content)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(ProtobufError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtobufError> {
        self.take(N)?.try_into().map_err(|_| ProtobufError::Short)
    }
}

/// Fields of `ty` that are `within` embedded messages already entered.
fn structure(
    ty: &Type,
    map: &mut Map<String, Value>,
    within: &[u32],
    bytes: &[u8],
    depth: usize,
) -> Result<(), ProtobufError> {
    if depth > DEPTH_MAX {
        return Err(ProtobufError::Depth);
    }
    let mut message = Message(bytes);
    while let Some((tag, value)) = message.field()? {
        let own = |field: &&schema::Field| field.tag == tag && *field.within == *within;
        if let Some(field) = ty.fields.iter().find(own) {
            put(&field.shape, map, &field.json, value, depth)?;
            continue;
        }
        let inner: Vec<u32> = within.iter().copied().chain([tag]).collect();
        let embeds = ty
            .fields
            .iter()
            .any(|field| field.within.starts_with(&inner));
        if let (true, Wire::Bytes(bytes)) = (embeds, value) {
            structure(ty, map, &inner, bytes, depth + 1)?;
        }
    }
    Ok(())
}

/// Adds one occurrence of a field; lists and maps occur once per item.
fn put(
    shape: &Shape,
    map: &mut Map<String, Value>,
    name: &str,
    value: Wire<'_>,
    depth: usize,
) -> Result<(), ProtobufError> {
    match shape {
        Shape::List(item, _) => {
            let list = map.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            let Some(list) = list.as_array_mut() else {
                return Err(ProtobufError::Content);
            };
            let is_packed = matches!(&**item, Shape::Int32 | Shape::Int64 | Shape::Bool);
            if let (true, Wire::Bytes(bytes)) = (is_packed, value) {
                let mut packed = Message(bytes);
                while !packed.0.is_empty() {
                    let number = Wire::Number(packed.varint()?);
                    list.push(one(item, number, depth)?);
                }
                return Ok(());
            }
            list.push(one(item, value, depth)?);
        }
        Shape::Map(item, _) => {
            let Wire::Bytes(bytes) = value else {
                return Err(ProtobufError::WireType);
            };
            let (key, value) = entry(item, bytes, depth)?;
            let entries = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
            if let Some(entries) = entries.as_object_mut() {
                entries.insert(key, value);
            }
        }
        shape => drop(map.insert(name.to_owned(), one(shape, value, depth)?)),
    }
    Ok(())
}

fn entry(item: &Shape, bytes: &[u8], depth: usize) -> Result<(String, Value), ProtobufError> {
    let (mut key, mut value) = (String::new(), None);
    let mut message = Message(bytes);
    while let Some((tag, wire)) = message.field()? {
        match tag {
            1 => key = wire.text()?,
            2 => value = Some(wire),
            _ => {}
        }
    }
    let value = match (item, value) {
        // A list as a map's value is a message of its own, with the items under tag 1.
        (Shape::List(..), Some(Wire::Bytes(bytes))) => {
            let mut holder = Map::new();
            let mut list = Message(bytes);
            while let Some((tag, wire)) = list.field()? {
                if tag == 1 {
                    put(item, &mut holder, "items", wire, depth + 1)?;
                }
            }
            holder
                .remove("items")
                .unwrap_or_else(|| Value::Array(Vec::new()))
        }
        (item, Some(wire)) => one(item, wire, depth)?,
        (Shape::Bytes | Shape::Text, None) => "".into(),
        (_, None) => Value::Object(Map::new()),
    };
    Ok((key, value))
}

fn one(shape: &Shape, value: Wire<'_>, depth: usize) -> Result<Value, ProtobufError> {
    match (shape, value) {
        (Shape::Bool, value) => Ok((value.number()? != 0).into()),
        // Negative numbers are sign-extended to 64 bits.
        (Shape::Int32 | Shape::Int64, value) => Ok(value.number()?.into()),
        (Shape::Double, Wire::Fixed(bits)) => Ok(f64::from_bits(bits).into()),
        (Shape::Text, value) => Ok(value.text()?.into()),
        (Shape::Bytes, Wire::Bytes(bytes)) => Ok(STANDARD.encode(bytes).into()),
        (Shape::Struct(ty), Wire::Bytes(bytes)) => {
            let mut map = Map::new();
            structure(ty.get(), &mut map, &[], bytes, depth + 1)?;
            Ok(Value::Object(map))
        }
        (Shape::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes),
        (Shape::Quantity, Wire::Bytes(bytes)) => {
            let text = first(bytes)?.map(Wire::text).transpose()?;
            Ok(text.unwrap_or_else(|| "0".into()).into())
        }
        (Shape::Time | Shape::MicroTime, Wire::Bytes(bytes)) => time(shape, bytes),
        (Shape::Duration, Wire::Bytes(bytes)) => {
            let nanoseconds = first(bytes)?.map(Wire::number).transpose()?.unwrap_or(0);
            let whole = nanoseconds / 1_000_000_000;
            match nanoseconds % 1_000_000_000 {
                0 => Ok(format!("{whole}s").into()),
                rest => Ok(format!("{whole}.{:09}s", rest.unsigned_abs()).into()),
            }
        }
        (Shape::Json | Shape::Raw | Shape::FieldsV1, Wire::Bytes(bytes)) => match first(bytes)? {
            Some(Wire::Bytes(json)) => {
                serde_json::from_slice(json).map_err(|_| ProtobufError::Content)
            }
            _ => Ok(Value::Null),
        },
        (Shape::OneOf(_) | Shape::List(..) | Shape::Map(..), _) => Err(ProtobufError::Unsupported),
        _ => Err(ProtobufError::WireType),
    }
}

/// The field with tag 1.
fn first(bytes: &[u8]) -> Result<Option<Wire<'_>>, ProtobufError> {
    let mut message = Message(bytes);
    while let Some((tag, value)) = message.field()? {
        if tag == 1 {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn int_or_string(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    let mut message = Message(bytes);
    while let Some((tag, value)) = message.field()? {
        match tag {
            1 => is_text = value.number()? == 1,
            2 => number = value.number()?,
            3 => text = value.text()?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

fn time(shape: &Shape, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let (mut seconds, mut nanoseconds) = (0, 0);
    let mut message = Message(bytes);
    let mut is_empty = true;
    while let Some((tag, value)) = message.field()? {
        is_empty = false;
        match tag {
            1 => seconds = value.number()?,
            2 => nanoseconds = value.number()?,
            _ => {}
        }
    }
    // Go's zero time; an absent one in JSON.
    if is_empty || seconds == -62_135_596_800 {
        return Ok(Value::Null);
    }
    let nanoseconds = i32::try_from(nanoseconds).map_err(|_| ProtobufError::Content)?;
    let at = Timestamp::new(seconds, nanoseconds).map_err(|_| ProtobufError::Content)?;
    Ok(match shape {
        Shape::MicroTime => meta::time::rfc3339_micro(at),
        _ => meta::time::rfc3339(at),
    }
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![tag << 3 | 2, bytes.len() as u8];
        out.extend_from_slice(bytes);
        out
    }

    #[test]
    fn a_pod_is_read_from_its_envelope() {
        let metadata = [
            field(1, b"web"),
            field(11, &[field(1, b"a"), field(2, b"b")].concat()),
        ];
        let port = [&[3 << 3, 80][..], &field(4, b"TCP")].concat();
        let container = [field(1, b"c"), field(2, b"image"), field(6, &port)].concat();
        // A volume's source is embedded in protobuf and inline in JSON: emptyDir is 2.
        let volume = [field(1, b"v"), field(2, &field(2, b""))].concat();
        let spec = [field(1, &volume), field(2, &container)].concat();
        let raw = [field(1, &metadata.concat()), field(2, &spec)].concat();
        let kind = [field(1, b"v1"), field(2, b"Pod")].concat();
        let bytes = [MAGIC, &field(1, &kind), &field(2, &raw)].concat();
        let pod = read(&bytes, |_| schema::builtin("", "v1", "Pod")).unwrap();
        assert_eq!(pod["metadata"]["labels"]["a"], "b");
        assert_eq!(
            pod["spec"]["containers"][0]["ports"][0]["containerPort"],
            80
        );
        assert_eq!(pod["spec"]["volumes"][0]["emptyDir"], serde_json::json!({}));
        assert_eq!(pod["kind"], "Pod");
    }

    #[test]
    fn broken_bytes_are_refused() {
        let pod = |bytes: &[u8]| read(bytes, |_| schema::builtin("", "v1", "Pod"));
        assert!(pod(b"{}").is_err());
        assert!(pod(b"k8s\0\x12\x7f").is_err());
        assert!(pod(b"k8s\0\x12\x03\x0a\x7f\x00").is_err());
        assert!(pod(b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
    }
}
