//! Whether an applied configuration is of its type, in upstream's words.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::ApplyError;
use super::set::Element;
use super::typed::{self, Atom};
use crate::types::{Shape, Type};

/// Refuses configurations of another version, with managed fields, or not of the type.
pub(super) fn configuration(
    ty: &Type,
    applied: &Value,
    api_version: &str,
) -> Result<(), ApplyError> {
    let text = |pointer: &str| {
        applied
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or("")
    };
    let version = text("/apiVersion");
    if version != api_version {
        return Err(ApplyError::Invalid(format!(
            "Incorrect version specified in apply patch. Specified patch version: {version}, expected: {api_version}"
        )));
    }
    if applied
        .pointer("/metadata/managedFields")
        .is_some_and(|fields| !fields.is_null())
    {
        return Err(ApplyError::Invalid(
            "metadata.managedFields must be nil".into(),
        ));
    }
    let mut faults = Vec::new();
    structure(ty, applied, &Place::Root, &mut faults);
    let faults = match faults.as_slice() {
        [] => return Ok(()),
        [fault] => fault.clone(),
        several => format!("errors:\n  {}", several.join("\n  ")),
    };
    let place = match (text("/metadata/namespace"), text("/metadata/name")) {
        ("", name) => format!("/{name}"),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    let kind = text("/kind");
    Err(ApplyError::Invalid(format!(
        "failed to create typed patch object ({place}; {version}, Kind={kind}): {faults}"
    )))
}

/// A value as Go source would have it.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".into(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(map) => {
            let mut pairs: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{key:?}:{}", go_syntax(value)))
                .collect();
            pairs.sort_unstable();
            format!("map[string]interface {{}}{{{}}}", pairs.join(", "))
        }
        other => other.to_string(),
    }
}

/// The way from the root, on the stack: only faults are told where they are.
enum Place<'up> {
    Root,
    Field(&'up Place<'up>, &'up str),
    /// An item that is known by its place.
    Index(&'up Place<'up>, usize),
    /// An item that is known by what is in it.
    Item(&'up Place<'up>, &'up Element<'up>),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Root => Ok(()),
            Place::Field(parent, name) => write!(f, "{parent}.{name}"),
            Place::Index(parent, index) => write!(f, "{parent}[{index}]"),
            Place::Item(parent, step) => write!(f, "{parent}{step}"),
        }
    }
}

fn structure(ty: &Type, value: &Value, place: &Place<'_>, faults: &mut Vec<String>) {
    let Value::Object(map) = value else {
        faults.push(format!(
            "{place}: expected map, got &{{{}}}",
            go_value(value)
        ));
        return;
    };
    for (key, value) in map {
        let below = Place::Field(place, key);
        match ty.field(key) {
            Some(field) => walk(&field.shape, value, &below, faults),
            None if ty.keep_unknown => {}
            None => faults.push(format!("{below}: field not declared in schema")),
        }
    }
}

fn walk(shape: &Shape, value: &Value, place: &Place<'_>, faults: &mut Vec<String>) {
    let fault = match (shape, value) {
        (_, Value::Null) => return,
        (Shape::Struct(reference), value) => {
            return structure(reference.get(), value, place, faults);
        }
        (Shape::Map(item, _), Value::Object(map)) => {
            for (key, value) in map {
                walk(item, value, &Place::Field(place, key), faults);
            }
            return;
        }
        (Shape::List(item, _), Value::Array(items)) => {
            return list(shape, item, items, place, faults);
        }
        (Shape::Map(..), other) => format!("expected map, got &{{{}}}", go_value(other)),
        (Shape::List(..), other) => format!("expected list, got &{{{}}}", go_value(other)),
        (Shape::Bool, Value::Bool(_)) => return,
        (Shape::Bool, other) => format!("expected boolean, got &{{{}}}", go_value(other)),
        (Shape::Int32 | Shape::Int64 | Shape::Double, Value::Number(_)) => return,
        (Shape::Int32 | Shape::Int64 | Shape::Double, other) => {
            format!("expected numeric (int or float), got {}", go_type(other))
        }
        (Shape::Text | Shape::Bytes | Shape::Time | Shape::MicroTime | Shape::Duration, other) => {
            match other {
                Value::String(_) => return,
                other => format!(
                    "expected string, got &value.valueUnstructured{{Value:{}}}",
                    go_syntax(other)
                ),
            }
        }
        _ => return,
    };
    faults.push(format!("{place}: {fault}"));
}

/// Items are named by their keys, and no key may occur twice.
fn list(
    shape: &Shape,
    item_shape: &Shape,
    items: &[Value],
    place: &Place<'_>,
    faults: &mut Vec<String>,
) {
    let atom = typed::atom(shape);
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        if matches!(atom, Atom::Leaf) {
            walk(item_shape, item, &Place::Index(place, index), faults);
            continue;
        }
        let Some(step) = typed::step(atom, item) else {
            faults.push(format!("{place}: element {index}: {}", keyless(atom, item)));
            continue;
        };
        if seen.contains(&step) {
            faults.push(format!("{place}: duplicate entries for key {step}"));
        }
        walk(item_shape, item, &Place::Item(place, &step), faults);
        seen.insert(step);
    }
}

fn keyless(atom: Atom<'_>, item: &Value) -> String {
    let keyed = match atom {
        Atom::Keyed(keys, _) => Some(keys),
        _ => None,
    };
    match (keyed, item) {
        (Some(_), Value::Null) => "associative list with keys may not have a null element".into(),
        (Some(keys), Value::Object(_)) => {
            let keys: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
            format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                keys.join(" ")
            )
        }
        (Some(_), _) => "associative list with keys may not have non-map elements".into(),
        (None, Value::Object(_)) => {
            "associative list without keys has an element that's a map type".into()
        }
        (None, Value::Array(_)) => "not supported: associative list with lists as elements".into(),
        (None, _) => "associative list without keys has an element that's an explicit null".into(),
    }
}

/// A value as Go's `%v` has it.
fn go_value(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entries: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{key}:{}", go_value(value)))
                .collect();
            format!("map[{}]", entries.join(" "))
        }
        Value::Array(items) => format!(
            "[{}]",
            items.iter().map(go_value).collect::<Vec<_>>().join(" ")
        ),
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".into(),
        other => other.to_string(),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
