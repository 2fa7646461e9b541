//! Trees to messages.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::wire::Writer;
use crate::types::{Field, Presence, Shape, Type, TypeRef};

/// Writes the fields of a struct that stands alone.
pub(super) fn structure(ty: &Type, tree: &Value, out: &mut Writer) {
    steps(ty, &Layout::of(ty).0, tree, out);
}

/// In which order fields are written: that of their tags.
pub(crate) struct Layout(Vec<Step>);

enum Step {
    /// A field, by its place in the type.
    Field(usize),
    /// A message around fields that JSON has inline.
    Embedded(u32, Vec<Step>),
}

impl Layout {
    /// The layout of a type; built-in types keep theirs.
    pub(crate) fn of(ty: &Type) -> Layout {
        Layout(level(ty, &[]))
    }
}

/// The fields within the embedded messages `path`.
fn level(ty: &Type, path: &[u32]) -> Vec<Step> {
    let here = |(_, field): &(usize, &Field)| field.within.starts_with(path) && field.tag != 0;
    let tag_of = |field: &Field| field.within.get(path.len()).copied().unwrap_or(field.tag);
    let mut fields: Vec<(usize, &Field)> = ty.fields.iter().enumerate().filter(here).collect();
    fields.sort_by_key(|(_, field)| tag_of(field));
    let mut embedded = 0;
    let mut steps = Vec::with_capacity(fields.len());
    for (place, field) in fields {
        match field.within.get(path.len()) {
            // All fields of one embedded message are written with the first.
            Some(tag) if *tag == embedded => {}
            Some(tag) => {
                embedded = *tag;
                let path: Vec<u32> = path.iter().copied().chain([*tag]).collect();
                steps.push(Step::Embedded(*tag, level(ty, &path)));
            }
            None => steps.push(Step::Field(place)),
        }
    }
    steps
}

fn steps(ty: &Type, layout: &[Step], tree: &Value, out: &mut Writer) {
    for step in layout {
        match step {
            Step::Field(place) => {
                let field = &ty.fields[*place];
                write_field(field, &tree[&*field.json], out);
            }
            Step::Embedded(tag, inner) => out.message(*tag, |out| steps(ty, inner, tree, out)),
        }
    }
}

fn reference(reference: &TypeRef, tree: &Value, out: &mut Writer) {
    match reference {
        TypeRef::Builtin(slot) => steps(slot.get(), &slot.layout().0, tree, out),
        TypeRef::Owned(ty) => structure(ty, tree, out),
    }
}

fn write_field(field: &Field, value: &Value, out: &mut Writer) {
    // What is no pointer is written even when it is empty.
    let always = matches!(field.presence, Presence::Always | Presence::OmitEmpty);
    match (&field.shape, value) {
        (Shape::List(item, _), Value::Array(items)) => {
            items
                .iter()
                .for_each(|value| write(item, field.tag, value, out));
        }
        (Shape::Map(item, _), Value::Object(map)) => {
            for (key, value) in map {
                out.message(field.tag, |out| {
                    out.bytes(1, key.as_bytes());
                    write(item, 2, value, out);
                });
            }
        }
        (
            Shape::List(..) | Shape::Map(..) | Shape::Bytes | Shape::OneOf(_) | Shape::Json,
            Value::Null,
        ) => {}
        (shape, Value::Null) if always => write(shape, field.tag, value, out),
        (_, Value::Null) => {}
        (shape, value) => write(shape, field.tag, value, out),
    }
}

fn write(shape: &Shape, tag: u32, value: &Value, out: &mut Writer) {
    let text = value.as_str().unwrap_or("");
    match shape {
        Shape::Bool => out.int(tag, i64::from(value == true)),
        Shape::Int32 | Shape::Int64 => out.int(tag, value.as_i64().unwrap_or(0)),
        Shape::Double => out.double(tag, value.as_f64().unwrap_or(0.0)),
        Shape::Text => out.bytes(tag, text.as_bytes()),
        Shape::Bytes => out.bytes(tag, &STANDARD.decode(text).unwrap_or_default()),
        Shape::IntOrString => out.message(tag, |out| {
            out.int(1, i64::from(value.is_string()));
            out.int(2, value.as_i64().unwrap_or(0));
            out.bytes(3, text.as_bytes());
        }),
        Shape::Quantity => out.message(tag, |out| {
            out.bytes(
                1,
                if text.is_empty() {
                    b"0"
                } else {
                    text.as_bytes()
                },
            );
        }),
        Shape::Time | Shape::MicroTime => out.message(tag, |out| {
            if let Some(at) = meta::time::parse(text) {
                out.int(1, at.as_second());
                out.int(2, i64::from(at.subsec_nanosecond()));
            }
        }),
        Shape::Duration => out.message(tag, |out| out.int(1, nanoseconds(text))),
        Shape::Json | Shape::Raw | Shape::FieldsV1 => out.message(tag, |out| {
            if !value.is_null() {
                out.bytes(1, value.to_string().as_bytes());
            }
        }),
        Shape::Struct(ty) => out.message(tag, |out| reference(ty, value, out)),
        // A list within a map or list is a message with items.
        Shape::List(item, _) => out.message(tag, |out| {
            let items = value.as_array().into_iter().flatten();
            items.for_each(|value| write(item, 1, value, out));
        }),
        Shape::Map(item, _) => out.message(tag, |out| {
            for (key, value) in value.as_object().into_iter().flatten() {
                out.message(1, |out| {
                    out.bytes(1, key.as_bytes());
                    write(item, 2, value, out);
                });
            }
        }),
        Shape::OneOf(shapes) => out.message(tag, |out| one_of(shapes, value, out)),
    }
}

/// `JSONSchemaPropsOrBool` has the flag first, and `true` beside a schema; the others have the
/// schema first.
fn one_of(shapes: &[Shape], value: &Value, out: &mut Writer) {
    let (Some(schema), Some(other)) = (shapes.first(), shapes.get(1)) else {
        return;
    };
    match (other, value) {
        (Shape::Bool, Value::Bool(allows)) => out.int(1, i64::from(*allows)),
        (Shape::Bool, value) => {
            out.int(1, 1);
            write(schema, 2, value, out);
        }
        (Shape::List(item, _), Value::Array(items)) => {
            items.iter().for_each(|value| write(item, 2, value, out));
        }
        (_, value) => write(schema, 1, value, out),
    }
}

/// Go's text form of a duration, such as `1h2m3.5s`.
fn nanoseconds(text: &str) -> i64 {
    let units = [
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 6e10),
        ("h", 3.6e12),
    ];
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text),
    };
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().unwrap_or(0.0);
        let unit_end = rest[end..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |at| end + at);
        let unit = &rest[end..unit_end];
        total += number
            * units
                .iter()
                .find(|(name, _)| *name == unit)
                .map_or(0.0, |(_, size)| *size);
        rest = &rest[unit_end..];
    }
    (sign * total) as i64
}
