//! OpenAPI documents as the protobuf messages that Go clients read: a message is a table of JSON
//! names, tags and how each is written.

use serde_json::{Map, Value};

use crate::protobuf::wire::Writer;

/// Writes the content of one message.
pub(super) type Write = fn(&Value, &mut Writer);

/// How a field is written.
pub(super) enum As {
    Text,
    Bool,
    Int,
    Double,
    /// A text for each item; a single one is a list of one.
    Texts,
    /// Any JSON, as text.
    Any,
    /// The same for each item.
    Anys,
    /// One message.
    One(Write),
    /// A message for each item.
    Each(Write),
    /// A message with name and value for each entry, all within one message.
    Named(Write),
}

/// The fields of one message, and the tag of what begins with `x-`.
pub(super) struct Message {
    pub(super) fields: &'static [(&'static str, u32, As)],
    pub(super) extensions: u32,
}

impl Message {
    pub(super) fn write(&self, tree: &Value, out: &mut Writer) {
        let Some(map) = tree.as_object() else {
            return;
        };
        for (name, tag, how) in self.fields {
            if let Some(value) = map.get(*name) {
                field(*tag, how, value, out);
            }
        }
        if self.extensions > 0 {
            extensions(self.extensions, map, out);
        }
    }
}

fn field(tag: u32, how: &As, value: &Value, out: &mut Writer) {
    match how {
        As::Text => out.bytes(tag, value.as_str().unwrap_or("").as_bytes()),
        As::Bool => out.int(tag, i64::from(value == true)),
        As::Int => out.int(tag, value.as_i64().unwrap_or(0)),
        As::Double => out.double(tag, value.as_f64().unwrap_or(0.0)),
        As::Texts => {
            let texts = items(value).filter_map(Value::as_str);
            texts.for_each(|text| out.bytes(tag, text.as_bytes()));
        }
        As::Any => out.message(tag, |out| any(value, out)),
        As::Anys => items(value).for_each(|item| out.message(tag, |out| any(item, out))),
        As::One(write) => out.message(tag, |out| write(value, out)),
        As::Each(write) => items(value).for_each(|item| out.message(tag, |out| write(item, out))),
        As::Named(write) => out.message(tag, |out| named(1, value, *write, out)),
    }
}

/// The items of a list, or the one value.
fn items(value: &Value) -> std::slice::Iter<'_, Value> {
    match value {
        Value::Array(items) => items.iter(),
        value => std::slice::from_ref(value).iter(),
    }
}

/// Name and value of each entry that is no extension.
pub(super) fn named(tag: u32, tree: &Value, write: Write, out: &mut Writer) {
    for (name, value) in tree.as_object().into_iter().flatten() {
        entry(tag, name, value, write, out);
    }
}

/// One name with its value.
pub(super) fn entry(tag: u32, name: &str, value: &Value, write: Write, out: &mut Writer) {
    out.message(tag, |out| {
        out.bytes(1, name.as_bytes());
        out.message(2, |out| write(value, out));
    });
}

fn extensions(tag: u32, map: &Map<String, Value>, out: &mut Writer) {
    for (name, value) in map.iter().filter(|(name, _)| name.starts_with("x-")) {
        entry(tag, name, value, any, out);
    }
}

/// JSON is YAML, which readers expect here.
fn any(value: &Value, out: &mut Writer) {
    out.bytes(2, value.to_string().as_bytes());
}

/// Texts under tag 1.
pub(super) fn texts(value: &Value, out: &mut Writer) {
    field(1, &As::Texts, value, out);
}
