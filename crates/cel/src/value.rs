//! Values: scalars, and views of JSON that are read only where an expression looks.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value as Json;

use crate::opaque::Opaque;
use crate::types::{Decl, ListKind, ListType, ObjectType, Type};

/// A value while an expression is evaluated. `'a` is the life of the objects it looks at.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A floating point number.
    Double(f64),
    /// Text.
    String(Text<'a>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A span of time.
    Duration(SignedDuration),
    /// A point in time.
    Timestamp(Timestamp),
    /// A list that the expression made.
    List(Arc<Vec<Value<'a>>>),
    /// A map that the expression made.
    Map(Arc<BTreeMap<Key<'a>, Value<'a>>>),
    /// A list of an object of JSON.
    JsonList(JsonList<'a>),
    /// A map or an object of JSON.
    JsonMap(JsonMap<'a>),
    /// An object that the expression made.
    Object(Arc<Made<'a>>),
    /// A value that may be absent.
    Optional(Option<Arc<Value<'a>>>),
    /// A type.
    Type(Arc<str>),
    /// A value of a library.
    Opaque(Arc<Opaque>),
}

/// An object made by the expression: its type's name and its fields, by their names in JSON.
#[derive(Debug)]
pub struct Made<'a> {
    /// The type's name as the expression gave it.
    pub name: Arc<str>,
    /// The fields that were set.
    pub fields: BTreeMap<String, Value<'a>>,
}

/// Text, borrowed from an object or owned.
#[derive(Debug, Clone)]
pub enum Text<'a> {
    /// Of an object.
    Borrowed(&'a str),
    /// Of the expression, or computed by it.
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

/// A list in JSON, its elements' type, and what makes such lists equal.
#[derive(Debug, Clone)]
pub struct JsonList<'a> {
    pub(crate) items: &'a [Json],
    pub(crate) ty: Option<Cow<'a, Arc<ListType>>>,
}

impl<'a> JsonList<'a> {
    pub(crate) fn get(&self, index: usize) -> Option<Value<'a>> {
        let item = self.items.get(index)?;
        Some(
            self.ty
                .as_ref()
                .map_or_else(|| Value::untyped(item), |ty| Value::typed(item, &ty.elem)),
        )
    }

    pub(crate) fn kind(&self) -> ListKind {
        self.ty.as_ref().map_or(ListKind::Atomic, |ty| ty.kind)
    }
}

/// An object in JSON, and what is known of its fields.
#[derive(Debug, Clone)]
pub struct JsonMap<'a> {
    pub(crate) map: &'a serde_json::Map<String, Json>,
    pub(crate) shape: Shape,
}

#[derive(Debug, Clone)]
pub(crate) enum Shape {
    Open,
    Values(Arc<crate::types::MapType>),
    Fields(Arc<ObjectType>),
}

impl<'a> JsonMap<'a> {
    /// The value of a field or key, by the name that the expression uses.
    pub(crate) fn get(&self, name: &str) -> Option<Value<'a>> {
        match &self.shape {
            Shape::Open => self.map.get(name).map(Value::untyped),
            Shape::Values(ty) => self
                .map
                .get(name)
                .map(|value| Value::typed(value, &ty.value)),
            Shape::Fields(ty) => {
                let field = ty.fields.get(name)?;
                // A field that is null is as good as absent.
                let value = self.map.get(&field.json);
                value
                    .filter(|value| !value.is_null())
                    .map(|value| Value::typed(value, &field.decl))
            }
        }
    }

    /// Whether keys can be listed: an object's fields cannot.
    pub(crate) fn is_map(&self) -> bool {
        !matches!(self.shape, Shape::Fields(_))
    }

    fn entry(&self, name: &'a str, value: &'a Json) -> (Value<'a>, Value<'a>) {
        let value = match &self.shape {
            Shape::Values(ty) => Value::typed(value, &ty.value),
            _ => Value::untyped(value),
        };
        (Value::String(Text::Borrowed(name)), value)
    }
}

/// A key of a map. Numbers are equal across their kinds.
#[derive(Debug, Clone)]
pub enum Key<'a> {
    /// `true` or `false`
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// Text.
    String(Text<'a>),
}

impl<'a> Key<'a> {
    /// The key that a value is, if it can be one.
    pub(crate) fn of(value: &Value<'a>) -> Option<Key<'a>> {
        Some(match value {
            Value::Bool(value) => Key::Bool(*value),
            Value::Int(value) => Key::Int(*value),
            Value::Uint(value) => Key::Uint(*value),
            Value::Double(value) if value.fract() == 0.0 && value.abs() < 9.2e18 => {
                Key::Int(*value as i64)
            }
            Value::String(value) => Key::String(value.clone()),
            _ => return None,
        })
    }

    pub(crate) fn value(&self) -> Value<'a> {
        match self {
            Key::Bool(value) => Value::Bool(*value),
            Key::Int(value) => Value::Int(*value),
            Key::Uint(value) => Value::Uint(*value),
            Key::String(value) => Value::String(value.clone()),
        }
    }

    fn rank(&self) -> (u8, i128, &str) {
        match self {
            Key::Bool(value) => (0, i128::from(*value), ""),
            Key::Int(value) => (1, i128::from(*value), ""),
            Key::Uint(value) => (1, i128::from(*value), ""),
            Key::String(value) => (2, 0, value),
        }
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}
impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Key<'_> {}

impl<'a> Value<'a> {
    /// Looks at JSON of which nothing is known.
    pub fn untyped(json: &'a Json) -> Value<'a> {
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Value::Int(number),
                (None, Some(number)) => Value::Uint(number),
                _ => Value::Double(number.as_f64().unwrap_or(0.0)),
            },
            Json::String(text) => Value::String(Text::Borrowed(text)),
            Json::Array(items) => Value::JsonList(JsonList { items, ty: None }),
            Json::Object(map) => Value::JsonMap(JsonMap {
                map,
                shape: Shape::Open,
            }),
        }
    }

    /// Looks at JSON of a declared type. What does not fit the type is seen as it is.
    pub fn typed(json: &'a Json, decl: &Decl) -> Value<'a> {
        match (&decl.ty, json) {
            (Type::List(ty), Json::Array(items)) => Value::JsonList(JsonList {
                items,
                ty: Some(Cow::Owned(ty.clone())),
            }),
            (Type::Map(ty), Json::Object(map)) => Value::JsonMap(JsonMap {
                map,
                shape: Shape::Values(ty.clone()),
            }),
            (Type::Object(ty), Json::Object(map)) => Value::JsonMap(JsonMap {
                map,
                shape: Shape::Fields(ty.clone()),
            }),
            (Type::Double, Json::Number(number)) => Value::Double(number.as_f64().unwrap_or(0.0)),
            (Type::Int, Json::Number(number)) => match number.as_i64() {
                Some(number) => Value::Int(number),
                None => Value::untyped(json),
            },
            (Type::Timestamp, Json::String(text)) => crate::time::parse_timestamp(text)
                .or_else(|| crate::time::parse_date(text))
                .map_or_else(|| Value::untyped(json), Value::Timestamp),
            (Type::Duration, Json::String(text)) => crate::time::parse_duration(text)
                .map_or_else(|| Value::untyped(json), Value::Duration),
            (Type::Bytes, Json::String(text)) => {
                use base64::Engine as _;
                match base64::engine::general_purpose::STANDARD.decode(text) {
                    Ok(bytes) => Value::Bytes(bytes.into()),
                    Err(_) => Value::untyped(json),
                }
            }
            _ => Value::untyped(json),
        }
    }

    /// Text of one's own.
    pub fn text(text: impl Into<Arc<str>>) -> Value<'a> {
        Value::String(Text::Shared(text.into()))
    }

    /// A list of values.
    pub fn list(items: Vec<Value<'a>>) -> Value<'a> {
        Value::List(Arc::new(items))
    }

    /// A map from names to values.
    pub fn map(entries: impl IntoIterator<Item = (String, Value<'a>)>) -> Value<'a> {
        let key = |name: String| Key::String(Text::Shared(name.into()));
        Value::Map(Arc::new(
            entries
                .into_iter()
                .map(|(name, value)| (key(name), value))
                .collect(),
        ))
    }

    pub(crate) fn opaque(opaque: Opaque) -> Value<'a> {
        Value::Opaque(Arc::new(opaque))
    }

    pub(crate) fn some(value: Value<'a>) -> Value<'a> {
        Value::Optional(Some(Arc::new(value)))
    }

    /// The boolean it is.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The text it is.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The name of its type, as `type()` gives it.
    pub(crate) fn type_name(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::List(_) | Value::JsonList(_) => "list",
            Value::Map(_) => "map",
            Value::JsonMap(map) => match &map.shape {
                Shape::Fields(ty) => return Cow::Owned(ty.name.clone()),
                _ => "map",
            },
            Value::Object(made) => &made.name,
            Value::Optional(_) => "optional_type",
            Value::Type(_) => "type",
            Value::Opaque(opaque) => opaque.type_name(),
        })
    }

    /// How many elements it has: characters, bytes, items, entries.
    pub(crate) fn size(&self) -> Option<usize> {
        Some(match self {
            Value::String(text) => text.chars().count(),
            Value::Bytes(bytes) => bytes.len(),
            Value::List(items) => items.len(),
            Value::JsonList(list) => list.items.len(),
            Value::Map(map) => map.len(),
            Value::JsonMap(map) if map.is_map() => map.map.len(),
            _ => return None,
        })
    }

    /// Item of a list.
    pub(crate) fn item(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Value::List(items) => items.get(index).cloned(),
            Value::JsonList(list) => list.get(index),
            _ => None,
        }
    }

    /// The items of a list; `None` if it is not one.
    pub(crate) fn items(&self) -> Option<Vec<Value<'a>>> {
        match self {
            Value::List(items) => Some(items.as_ref().clone()),
            Value::JsonList(list) => Some(
                (0..list.items.len())
                    .filter_map(|index| list.get(index))
                    .collect(),
            ),
            _ => None,
        }
    }

    /// The entries of a map; `None` if it is not one.
    pub(crate) fn entries(&self) -> Option<Vec<(Value<'a>, Value<'a>)>> {
        match self {
            Value::Map(map) => Some(
                map.iter()
                    .map(|(key, value)| (key.value(), value.clone()))
                    .collect(),
            ),
            Value::JsonMap(json) if json.is_map() => {
                let map = json.map;
                Some(
                    map.iter()
                        .map(|(key, value)| json.entry(key, value))
                        .collect(),
                )
            }
            _ => None,
        }
    }

    /// The value of a field or of a text key; `None` if there is none, or if it has no fields at all.
    pub(crate) fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Value::JsonMap(map) => map.get(name),
            Value::Map(map) => map.get(&Key::String(Text::Borrowed(name))).cloned(),
            Value::Object(made) => made.fields.get(&crate::escape::unescape(name)).cloned(),
            _ => None,
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Value<'a> {
        Value::String(Text::Borrowed(text))
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}
