//! Messages to trees.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::wire::{self, Reader};
use super::{MAX_DEPTH, ProtobufError};
use crate::types::{Field, Shape, Type};

type Tree = Map<String, Value>;

/// Reads the fields of a struct, or those within its embedded messages `path`.
pub(super) fn structure(
    ty: &Type,
    path: &[u32],
    bytes: &[u8],
    tree: &mut Tree,
    depth: usize,
) -> Result<(), ProtobufError> {
    if depth > MAX_DEPTH {
        return Err(ProtobufError::Depth);
    }
    let mut reader = Reader::new(bytes);
    while let Some((tag, content)) = reader.next()? {
        let here = |field: &&Field| field.tag == tag && field.within == path;
        if let Some(field) = ty.fields.iter().find(here) {
            read_field(field, content, tree, depth)?;
            continue;
        }
        let embeds = |field: &Field| {
            field.within.starts_with(path) && field.within.get(path.len()) == Some(&tag)
        };
        // What no version of the type that is known here has is skipped.
        if let (true, wire::Field::Bytes(inner)) = (ty.fields.iter().any(embeds), content) {
            let path: Vec<u32> = path.iter().copied().chain([tag]).collect();
            structure(ty, &path, inner, tree, depth + 1)?;
        }
    }
    Ok(())
}

fn read_field(
    field: &Field,
    content: wire::Field<'_>,
    tree: &mut Tree,
    depth: usize,
) -> Result<(), ProtobufError> {
    let name = &*field.json;
    match &field.shape {
        Shape::List(item, _) => {
            let mut items = match tree.remove(name) {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            };
            read_item(item, content, name, &mut items, depth)?;
            tree.insert(name.to_owned(), Value::Array(items));
        }
        Shape::Map(item, _) => {
            let mut map = match tree.remove(name) {
                Some(Value::Object(map)) => map,
                _ => Map::new(),
            };
            let (key, value) = entry(item, content, name, depth)?;
            map.insert(key, value);
            tree.insert(name.to_owned(), Value::Object(map));
        }
        shape => {
            let value = read(shape, content, name, depth)?;
            tree.insert(name.to_owned(), value);
        }
    }
    Ok(())
}

/// Numbers may come packed.
fn read_item(
    item: &Shape,
    content: wire::Field<'_>,
    name: &str,
    items: &mut Vec<Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    if let (Shape::Int32 | Shape::Int64 | Shape::Bool, wire::Field::Bytes(bytes)) = (item, content)
    {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            items.push(read(
                item,
                wire::Field::Varint(reader.varint()?),
                name,
                depth,
            )?);
        }
        return Ok(());
    }
    items.push(read(item, content, name, depth)?);
    Ok(())
}

fn entry(
    item: &Shape,
    content: wire::Field<'_>,
    name: &str,
    depth: usize,
) -> Result<(String, Value), ProtobufError> {
    let mut reader = Reader::new(bytes(content, name)?);
    let (mut key, mut value) = (String::new(), None);
    while let Some((tag, content)) = reader.next()? {
        match tag {
            1 => key = text(content, name)?,
            2 => value = Some(read(item, content, name, depth)?),
            _ => {}
        }
    }
    let value = match (value, item) {
        (Some(value), _) => value,
        (None, Shape::Text | Shape::Bytes) => "".into(),
        (None, _) => Value::Null,
    };
    Ok((key, value))
}

fn read(
    shape: &Shape,
    content: wire::Field<'_>,
    name: &str,
    depth: usize,
) -> Result<Value, ProtobufError> {
    let value = match shape {
        Shape::Bool => (varint(content, name)? != 0).into(),
        // An int32 stands in the low half, whatever the upper half says.
        Shape::Int32 => i64::from(varint(content, name)? as i32).into(),
        Shape::Int64 => varint(content, name)?.cast_signed().into(),
        Shape::Double => match content {
            wire::Field::Fixed64(bits) => {
                Number::from_f64(f64::from_bits(bits)).map_or(Value::Null, Value::Number)
            }
            other => return Err(wrong(other, name)),
        },
        Shape::Text => text(content, name)?.into(),
        Shape::Bytes => STANDARD.encode(bytes(content, name)?).into(),
        Shape::Struct(reference) => {
            let mut tree = Map::new();
            structure(
                reference.get(),
                &[],
                bytes(content, name)?,
                &mut tree,
                depth + 1,
            )?;
            Value::Object(tree)
        }
        Shape::IntOrString => int_or_string(bytes(content, name)?, name)?,
        Shape::Quantity => {
            let mut reader = Reader::new(bytes(content, name)?);
            let mut quantity = String::from("0");
            while let Some((tag, content)) = reader.next()? {
                if tag == 1 {
                    quantity = text(content, name)?;
                }
            }
            quantity.into()
        }
        Shape::Time => time(bytes(content, name)?, name, meta::time::rfc3339)?,
        Shape::MicroTime => time(bytes(content, name)?, name, meta::time::rfc3339_micro)?,
        Shape::Duration => format!("{}ns", numbers(bytes(content, name)?, name)?[0]).into(),
        Shape::Json | Shape::Raw | Shape::FieldsV1 => embedded(bytes(content, name)?, name)?,
        Shape::List(item, _) => {
            let mut reader = Reader::new(bytes(content, name)?);
            let mut items = Vec::new();
            while let Some((tag, content)) = reader.next()? {
                if tag == 1 {
                    read_item(item, content, name, &mut items, depth + 1)?;
                }
            }
            items.into()
        }
        Shape::Map(item, _) => {
            let mut reader = Reader::new(bytes(content, name)?);
            let mut map = Map::new();
            while let Some((_, content)) = reader.next()? {
                let (key, value) = entry(item, content, name, depth + 1)?;
                map.insert(key, value);
            }
            map.into()
        }
        Shape::OneOf(shapes) => one_of(shapes, bytes(content, name)?, name, depth)?,
    };
    Ok(value)
}

fn one_of(
    shapes: &[Shape],
    bytes: &[u8],
    name: &str,
    depth: usize,
) -> Result<Value, ProtobufError> {
    let (Some(schema), Some(other)) = (shapes.first(), shapes.get(1)) else {
        return Ok(Value::Null);
    };
    let flag_first = matches!(other, Shape::Bool);
    let mut reader = Reader::new(bytes);
    let (mut found, mut items, mut flag) = (None, Vec::new(), None);
    while let Some((tag, content)) = reader.next()? {
        match (tag, other) {
            (1, Shape::Bool) => flag = Some(read(other, content, name, depth)?),
            (2, Shape::List(item, _)) => read_item(item, content, name, &mut items, depth)?,
            (1, _) if !flag_first => found = Some(read(schema, content, name, depth + 1)?),
            (2, _) if flag_first => found = Some(read(schema, content, name, depth + 1)?),
            _ => {}
        }
    }
    Ok(match (found, flag) {
        (Some(schema), _) => schema,
        (None, Some(flag)) => flag,
        (None, None) => items.into(),
    })
}

fn int_or_string(bytes: &[u8], name: &str) -> Result<Value, ProtobufError> {
    let mut reader = Reader::new(bytes);
    let (mut is_text, mut number, mut words) = (false, 0_i32, String::new());
    while let Some((tag, content)) = reader.next()? {
        match tag {
            1 => is_text = varint(content, name)? != 0,
            2 => number = varint(content, name)? as i32,
            3 => words = text(content, name)?,
            _ => {}
        }
    }
    Ok(if is_text { words.into() } else { number.into() })
}

/// An absent or zero time is no time.
fn time(bytes: &[u8], name: &str, write: fn(Timestamp) -> String) -> Result<Value, ProtobufError> {
    match numbers(bytes, name)? {
        [0, 0] => Ok(Value::Null),
        [seconds, nanos] => {
            let nanos = i32::try_from(nanos).map_err(|_| invalid(name))?;
            let at = Timestamp::new(seconds, nanos).map_err(|_| invalid(name))?;
            Ok(write(at).into())
        }
    }
}

/// The numbers with tags 1 and 2.
fn numbers(bytes: &[u8], name: &str) -> Result<[i64; 2], ProtobufError> {
    let mut reader = Reader::new(bytes);
    let mut found = [0; 2];
    while let Some((tag, content)) = reader.next()? {
        if let Some(place) = found.get_mut((tag as usize).wrapping_sub(1)) {
            *place = varint(content, name)?.cast_signed();
        }
    }
    Ok(found)
}

/// JSON in the field `raw`.
fn embedded(content: &[u8], name: &str) -> Result<Value, ProtobufError> {
    let mut reader = Reader::new(content);
    let mut raw: &[u8] = b"null";
    while let Some((tag, content)) = reader.next()? {
        if tag == 1 {
            raw = bytes(content, name)?;
        }
    }
    match raw {
        [] => Ok(Value::Null),
        raw => crate::parse_json(raw)
            .map(|parsed| parsed.tree)
            .map_err(|_| invalid(name)),
    }
}

fn varint(content: wire::Field<'_>, name: &str) -> Result<u64, ProtobufError> {
    match content {
        wire::Field::Varint(value) => Ok(value),
        other => Err(wrong(other, name)),
    }
}

fn bytes<'a>(content: wire::Field<'a>, name: &str) -> Result<&'a [u8], ProtobufError> {
    match content {
        wire::Field::Bytes(bytes) => Ok(bytes),
        other => Err(wrong(other, name)),
    }
}

fn text(content: wire::Field<'_>, name: &str) -> Result<String, ProtobufError> {
    let bytes = bytes(content, name)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| invalid(name))
}

fn wrong(content: wire::Field<'_>, name: &str) -> ProtobufError {
    ProtobufError::WireType {
        wire: content.wire(),
        field: name.to_owned(),
    }
}

fn invalid(name: &str) -> ProtobufError {
    ProtobufError::Value(name.to_owned())
}
