//! Brings a tree into the shape of its type, as upstream's decoder and encoder would together:
//! wrong types are refused, unknown fields pruned, empty values dropped, quantities and times
//! written in their one form.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::types::{Presence, Shape, Type};

/// Unknown fields beyond this many are not reported.
const MAX_UNKNOWN: usize = 100;
/// Neither are empty lists and maps.
const MAX_EMPTY: usize = 100;

/// A value does not fit its field; the text is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    /// The JSON type is not what the field holds.
    #[error("json: cannot unmarshal {value} into Go {place} of type {go_type}")]
    Mismatch {
        /// Such as `string` or `number 1.5`.
        value: String,
        /// `struct field DeploymentSpec.spec.replicas` or `value`.
        place: String,
        /// Such as `int32`.
        go_type: String,
    },
    /// The text of a field is not what it should be.
    #[error("{0}")]
    Format(String),
}

/// What was taken out of a tree.
#[derive(Debug, Default)]
pub struct Dropped {
    /// The paths of fields that the type does not have (`spec.containers[0].foo`).
    pub unknown: Vec<String>,
    /// Lists and maps without anything in them, by where they stood.
    pub empty: Vec<(String, Value)>,
}

/// Checks and cleans a tree, and returns the paths of fields that the type does not have
/// (`spec.containers[0].foo`), now removed.
pub fn check(ty: &Type, tree: &mut Value) -> Result<Vec<String>, TypeError> {
    check_beside(ty, tree, None)
}

/// The same, telling all that was removed.
pub fn check_telling(ty: &Type, tree: &mut Value) -> Result<Dropped, TypeError> {
    checked(ty, tree, None)
}

/// The same where much may be as in a tree that was checked before, which is not done again.
pub(crate) fn check_beside(
    ty: &Type,
    tree: &mut Value,
    known: Option<&Value>,
) -> Result<Vec<String>, TypeError> {
    checked(ty, tree, known).map(|dropped| dropped.unknown)
}

fn checked(ty: &Type, tree: &mut Value, known: Option<&Value>) -> Result<Dropped, TypeError> {
    let mut dropped = Dropped::default();
    let root = Path {
        parent: None,
        step: Step::Root,
        ty,
    };
    match tree {
        Value::Object(map) => structure(ty, (map, known), &root, &mut dropped)?,
        other => return Err(root.mismatch(other, &format!("{}.{}", ty.package(), ty.short_name()))),
    }
    Ok(dropped)
}

/// The way from the root, on the stack.
struct Path<'up> {
    parent: Option<&'up Path<'up>>,
    step: Step<'up>,
    /// The innermost struct.
    ty: &'up Type,
}

enum Step<'up> {
    Root,
    Field(&'up str),
    Key(&'up str),
    Item(usize),
}

impl<'up> Path<'up> {
    fn down(&'up self, step: Step<'up>) -> Path<'up> {
        Path {
            parent: Some(self),
            step,
            ty: self.ty,
        }
    }

    fn steps(&self) -> Vec<&Step<'up>> {
        let ways = std::iter::successors(Some(self), |path| path.parent);
        let mut steps: Vec<&Step<'up>> = ways.map(|path| &path.step).collect();
        steps.reverse();
        steps
    }

    /// `spec.containers[0].image`, as strict decoding words it.
    fn strict(&self) -> String {
        let mut text = String::new();
        for step in self.steps() {
            match step {
                Step::Root => {}
                Step::Item(index) => {
                    let _ = write!(text, "[{index}]");
                }
                Step::Field(name) | Step::Key(name) => {
                    text.push_str(if text.is_empty() { "" } else { "." });
                    text.push_str(name);
                }
            }
        }
        text
    }

    /// `/spec/containers/0/args`.
    fn pointer(&self) -> String {
        let mut text = String::new();
        for step in self.steps() {
            match step {
                Step::Root => {}
                Step::Item(index) => {
                    let _ = write!(text, "/{index}");
                }
                Step::Field(name) | Step::Key(name) => {
                    text.push('/');
                    text.push_str(&name.replace('~', "~0").replace('/', "~1"));
                }
            }
        }
        text
    }

    fn mismatch(&self, value: &Value, go_type: &str) -> TypeError {
        let fields: Vec<&str> = self
            .steps()
            .iter()
            .filter_map(|step| match step {
                Step::Field(name) => Some(*name),
                _ => None,
            })
            .collect();
        TypeError::Mismatch {
            value: match value {
                Value::Null => "null".into(),
                Value::Bool(_) => "bool".into(),
                Value::Number(number) if matches!(go_type, "int32" | "int64") => {
                    format!("number {number}")
                }
                Value::Number(_) => "number".into(),
                Value::String(_) => "string".into(),
                Value::Array(_) => "array".into(),
                Value::Object(_) => "object".into(),
            },
            place: match fields.as_slice() {
                [] => "value".into(),
                fields => format!("struct field {}.{}", self.ty.short_name(), fields.join(".")),
            },
            go_type: go_type.into(),
        }
    }
}

/// A value that is to be checked, and the checked one in the same place of another tree.
type Beside<'t, T> = (&'t mut T, Option<&'t Value>);

fn structure(
    ty: &Type,
    (map, known): Beside<'_, Map<String, Value>>,
    path: &Path<'_>,
    dropped: &mut Dropped,
) -> Result<(), TypeError> {
    let here = Path {
        parent: path.parent,
        step: path.step.copy(),
        ty,
    };
    let mut fault = None;
    map.retain(|key, value| {
        let known = known.and_then(|known| known.get(key));
        if fault.is_some() || known.is_some_and(|known| known == value) {
            return true;
        }
        let at = here.down(Step::Field(key));
        let Some(field) = ty.field(key) else {
            if !ty.keep_unknown && dropped.unknown.len() < MAX_UNKNOWN {
                dropped.unknown.push(at.strict());
            }
            return ty.keep_unknown;
        };
        if value.is_null() {
            return false;
        }
        match walk(&field.shape, (value, known), &at, dropped) {
            Ok(()) => {
                let collection = matches!(&*value, Value::Array(_) | Value::Object(_));
                let kept = matches!(field.shape, Shape::Struct(_) | Shape::Json | Shape::Raw);
                if collection && !kept && is_empty(value) && dropped.empty.len() < MAX_EMPTY {
                    dropped.empty.push((at.pointer(), value.clone()));
                }
                // What is stored without items comes back as nothing at all.
                if collection && !kept && field.presence == Presence::Always && is_empty(value) {
                    *value = Value::Null;
                }
                !(field.presence == Presence::OmitEmpty && is_empty(value))
            }
            Err(error) => {
                fault = Some(error);
                true
            }
        }
    });
    match fault {
        Some(error) => Err(error),
        None => {
            fill(ty, map);
            Ok(())
        }
    }
}

impl<'up> Step<'up> {
    fn copy(&self) -> Step<'up> {
        match self {
            Step::Root => Step::Root,
            Step::Field(name) => Step::Field(name),
            Step::Key(name) => Step::Key(name),
            Step::Item(index) => Step::Item(*index),
        }
    }
}

/// Adds a status that the object lacks, with what an encoder would write of it.
pub fn fill_status(ty: &Type, object: &mut Value) {
    let (Some(field), Some(map)) = (ty.field("status"), object.as_object_mut()) else {
        return;
    };
    let Shape::Struct(inner) = &field.shape else {
        return;
    };
    if field.presence == Presence::Always {
        let status = map.entry("status").or_insert_with(|| Map::new().into());
        if let Value::Object(status) = status {
            fill(inner.get(), status);
        }
    }
}

/// Adds what an encoder always writes, with its empty value.
fn fill(ty: &Type, map: &mut Map<String, Value>) {
    for field in &ty.fields {
        let written = matches!(field.presence, Presence::Always | Presence::Nullable);
        if !written || map.contains_key(&*field.json) {
            continue;
        }
        if field.presence == Presence::Nullable {
            map.insert(field.json.to_string(), Value::Null);
            continue;
        }
        let empty = match &field.shape {
            Shape::Struct(inner) => {
                let mut empty = Map::new();
                fill(inner.get(), &mut empty);
                empty.into()
            }
            Shape::Text | Shape::Duration => "".into(),
            Shape::Int32 | Shape::Int64 => 0.into(),
            Shape::Bool => false.into(),
            Shape::Quantity => "0".into(),
            Shape::List(..) | Shape::Map(..) | Shape::Bytes | Shape::Time | Shape::MicroTime => {
                Value::Null
            }
            _ => continue,
        };
        map.insert(field.json.to_string(), empty);
    }
}

/// Whether Go's `omitempty` leaves the value out.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn walk(
    shape: &Shape,
    (value, known): Beside<'_, Value>,
    path: &Path<'_>,
    dropped: &mut Dropped,
) -> Result<(), TypeError> {
    let fits = match (shape, &mut *value) {
        (Shape::Json | Shape::Raw | Shape::FieldsV1, _) => true,
        (Shape::Bool, Value::Bool(_)) | (Shape::Text | Shape::Duration, Value::String(_)) => true,
        (Shape::Double, Value::Number(_)) => true,
        (Shape::Int32 | Shape::IntOrString, Value::Number(_)) => {
            integer(value, i32::MIN.into(), i32::MAX.into())
        }
        (Shape::IntOrString, Value::String(_)) => true,
        (Shape::Int64, Value::Number(_)) => integer(value, i64::MIN, i64::MAX),
        (Shape::Quantity, _) => return quantity(value),
        (Shape::Bytes, Value::String(text)) => return bytes(text),
        (Shape::Time, Value::String(text)) => return time(text, "", meta::time::rfc3339),
        (Shape::MicroTime, Value::String(text)) => {
            return time(text, ".000000", meta::time::rfc3339_micro);
        }
        (Shape::Struct(ty), Value::Object(map)) => {
            return structure(ty.get(), (map, known), path, dropped);
        }
        (Shape::List(item, _), Value::Array(items)) => {
            for (index, value) in items.iter_mut().enumerate() {
                let known = known.and_then(|known| known.get(index));
                let at = path.down(Step::Item(index));
                entry(item, (value, known), &at, dropped)?;
            }
            return Ok(());
        }
        (Shape::Map(item, _), Value::Object(map)) => {
            for (key, value) in map.iter_mut() {
                let known = known.and_then(|known| known.get(key));
                entry(item, (value, known), &path.down(Step::Key(key)), dropped)?;
            }
            return Ok(());
        }
        (Shape::OneOf(shapes), _) => {
            let fitting = shapes.iter().find(|shape| may_hold(shape, value));
            return match fitting.or(shapes.first()) {
                // Upstream reads these by hand, and never strictly.
                Some(shape) => walk(shape, (value, known), path, &mut Dropped::default()),
                None => Ok(()),
            };
        }
        _ => false,
    };
    match fits {
        true => Ok(()),
        false => Err(path.mismatch(value, &go_type(shape))),
    }
}

/// An item or a map's value: `null` there is the type's empty value.
fn entry(
    shape: &Shape,
    (value, known): Beside<'_, Value>,
    path: &Path<'_>,
    dropped: &mut Dropped,
) -> Result<(), TypeError> {
    if known.is_some_and(|known| known == value) {
        return Ok(());
    }
    if value.is_null() {
        *value = match shape {
            Shape::Bool => false.into(),
            Shape::Int32 | Shape::Int64 | Shape::Double | Shape::IntOrString => 0.into(),
            Shape::Text | Shape::Bytes | Shape::Duration => "".into(),
            Shape::Quantity => "0".into(),
            Shape::Struct(_) | Shape::Map(..) => Map::new().into(),
            _ => return Ok(()),
        };
    }
    walk(shape, (value, known), path, dropped)
}

fn may_hold(shape: &Shape, value: &Value) -> bool {
    match shape {
        Shape::Bool => value.is_boolean(),
        Shape::Struct(_) | Shape::Map(..) => value.is_object(),
        Shape::List(..) => value.is_array(),
        _ => true,
    }
}

/// Makes a whole number of the value; false when it is none within the limits.
fn integer(value: &mut Value, least: i64, most: i64) -> bool {
    let whole = match value.as_i64() {
        Some(whole) => Some(whole),
        // Beyond 2^53 a float does not tell which integer was meant.
        None => value
            .as_f64()
            .filter(|float| float.fract() == 0.0 && float.abs() < 9.0e15)
            .map(|float| float as i64),
    };
    match whole.filter(|whole| (least..=most).contains(whole)) {
        Some(whole) => {
            *value = whole.into();
            true
        }
        None => false,
    }
}

fn quantity(value: &mut Value) -> Result<(), TypeError> {
    let parsed = match &*value {
        Value::String(text) => meta::Quantity::parse(text),
        other => meta::Quantity::parse(&other.to_string()),
    };
    let canonical = parsed
        .map_err(|error| TypeError::Format(error.to_string()))?
        .to_string();
    if value.as_str() != Some(&canonical) {
        *value = canonical.into();
    }
    Ok(())
}

/// Base64 with line breaks is read, and written without.
fn bytes(text: &mut String) -> Result<(), TypeError> {
    if text.contains(['\n', '\r']) {
        text.retain(|character| character != '\n' && character != '\r');
    }
    match STANDARD.decode(&*text) {
        Ok(_) => Ok(()),
        Err(error) => Err(TypeError::Format(format!(
            "illegal base64 data at input byte {}",
            fault_at(text, &error)
        ))),
    }
}

fn fault_at(text: &str, error: &base64::DecodeError) -> usize {
    match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => {
            *at
        }
        // Go names the start of the quantum that is not whole.
        _ => text.trim_end_matches('=').len() / 4 * 4,
    }
}

fn time(
    text: &mut String,
    fraction: &str,
    write: fn(jiff::Timestamp) -> String,
) -> Result<(), TypeError> {
    let at = meta::time::parse(text).ok_or_else(|| {
        TypeError::Format(format!(
            "parsing time {text:?} as \"2006-01-02T15:04:05{fraction}Z07:00\": cannot parse {text:?} as \"2006\""
        ))
    })?;
    *text = write(at);
    Ok(())
}

/// The type's name in Go.
fn go_type(shape: &Shape) -> String {
    match shape {
        Shape::Bool => "bool".into(),
        Shape::Int32 | Shape::IntOrString => "int32".into(),
        Shape::Int64 => "int64".into(),
        Shape::Double => "float64".into(),
        Shape::Bytes => "[]uint8".into(),
        Shape::Struct(ty) => format!("{}.{}", ty.get().package(), ty.get().short_name()),
        Shape::List(item, _) => format!("[]{}", go_type(item)),
        Shape::Map(item, _) => format!("map[string]{}", go_type(item)),
        Shape::Quantity => "resource.Quantity".into(),
        Shape::OneOf(shapes) => shapes.first().map(go_type).unwrap_or_default(),
        _ => "string".into(),
    }
}
