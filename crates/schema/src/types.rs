//! The shape of API objects: what one row of the schema table holds.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::table::Slot;

/// Text that is either part of the built-in table or owned by a custom resource's type.
pub type Text = Cow<'static, str>;

/// One structured type: a kind or a part of one.
#[derive(Clone, Debug)]
pub struct Type {
    /// Full name, such as `io.k8s.api.apps.v1.DeploymentSpec`.
    pub name: Text,
    /// What it is for, for `explain` and OpenAPI.
    pub doc: Text,
    /// The kinds that have this type at their root; empty for parts.
    pub kinds: Vec<Kind>,
    /// Fields, ordered by JSON name; they stay as they are once one was looked up.
    pub fields: Vec<Field>,
    /// What is looked at first in a search for a field.
    pub(crate) heads: Heads,
    /// Whether the whole struct is owned and replaced as one (`+structType=atomic`).
    pub atomic: bool,
    /// Whether fields that the type does not name are kept (only in custom resources).
    pub keep_unknown: bool,
}

/// How the names of fields begin, in their order, so that a search compares numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heads(OnceLock<Box<[u64]>>);

impl Heads {
    /// The first bytes of a name as a number; numbers are ordered as names are.
    fn head(name: &str) -> u64 {
        let mut first = [0; 8];
        let count = name.len().min(first.len());
        first[..count].copy_from_slice(&name.as_bytes()[..count]);
        u64::from_be_bytes(first)
    }

    fn of(&self, fields: &[Field]) -> &[u64] {
        let heads = || fields.iter().map(|field| Heads::head(&field.json));
        self.0.get_or_init(|| heads().collect())
    }
}

/// Group, version and kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    pub group: Text,
    pub version: Text,
    pub kind: Text,
}

/// One field of a [`Type`].
#[derive(Clone, Debug)]
pub struct Field {
    /// Name in JSON.
    pub json: Text,
    /// Protobuf tag; 0 when the field is not in the protobuf form.
    pub tag: u32,
    /// Tags of the embedded messages around the field in protobuf, outermost first, where JSON
    /// has it inline.
    pub within: Vec<u32>,
    /// What it holds.
    pub shape: Shape,
    /// Whether the published schema requires it.
    pub required: bool,
    /// What an encoder does with an empty value.
    pub presence: Presence,
    /// How a strategic merge patch treats it.
    pub patch: PatchStrategy,
    /// The key that identifies items in a strategic merge patch.
    pub patch_merge_key: Option<Text>,
    /// The value that an absent field stands for.
    pub default: Option<Value>,
    /// The only values allowed; empty when any is.
    pub enumeration: Vec<Text>,
    /// What it is for.
    pub doc: Text,
}

/// What upstream's encoder does with an empty value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// A pointer: absent and empty differ, and both survive.
    Pointer,
    /// A value left out when it is empty (zero, "", false, no items).
    OmitEmpty,
    /// A value that is always written, even when it is empty.
    Always,
    /// A pointer that is written as `null` when it is absent.
    Nullable,
}

/// `+patchStrategy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Lists merge by their merge key (or as sets) instead of being replaced.
    pub merge: bool,
    /// The patch names the keys to keep (`$retainKeys`).
    pub retain_keys: bool,
    /// Maps are replaced instead of merged.
    pub replace: bool,
}

/// What a field, an item or a map entry holds.
#[derive(Clone, Debug)]
pub enum Shape {
    Bool,
    Int32,
    Int64,
    Double,
    Text,
    /// Base64 in JSON, bytes in protobuf.
    Bytes,
    /// An int32 or a text.
    IntOrString,
    /// A number with a suffix.
    Quantity,
    /// An RFC 3339 time to the second.
    Time,
    /// An RFC 3339 time to the microsecond.
    MicroTime,
    /// Go's text form of a duration, such as `1m30s`.
    Duration,
    /// Any JSON value.
    Json,
    /// Any JSON object: an embedded object of a kind that is not known here.
    Raw,
    /// The field set of one manager.
    FieldsV1,
    Struct(TypeRef),
    List(Box<Shape>, ListKind),
    Map(Box<Shape>, MapKind),
    /// A value of the first shape that fits by JSON type.
    OneOf(Box<[Shape]>),
}

/// How lists merge (`+listType`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// One value, replaced as a whole.
    Atomic,
    /// Unordered, no value twice.
    Set,
    /// Items identified by the values of these fields.
    Map { keys: Vec<Text> },
}

/// How maps merge (`+mapType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// One value, replaced as a whole.
    Atomic,
    /// Each entry on its own.
    Granular,
}

/// A reference to a [`Type`]: into the built-in table, where it is read at first use, or owned.
#[derive(Clone)]
pub enum TypeRef {
    /// A row of the built-in table.
    Builtin(&'static Slot),
    /// A type made at run time.
    Owned(Arc<Type>),
}

impl TypeRef {
    /// The type.
    pub fn get(&self) -> &Type {
        match self {
            TypeRef::Builtin(slot) => slot.get(),
            TypeRef::Owned(ty) => ty,
        }
    }

    /// Its full name, without reading the type.
    pub fn name(&self) -> &str {
        match self {
            TypeRef::Builtin(slot) => slot.name(),
            TypeRef::Owned(ty) => &ty.name,
        }
    }
}

impl fmt::Debug for TypeRef {
    /// Only the name: types may hold themselves.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Type {
    /// The field with this JSON name.
    pub fn field(&self, json: &str) -> Option<&Field> {
        let (heads, wanted) = (self.heads.of(&self.fields), Heads::head(json));
        let start = heads.partition_point(|head| *head < wanted);
        let alike = heads.iter().zip(&self.fields).skip(start);
        let mut alike = alike.take_while(|(head, _)| **head == wanted);
        let found = alike.find(|(_, field)| field.json == json);
        found.map(|(_, field)| field)
    }

    /// The last part of the name, as Go's errors have it.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    /// The version part of the name, which is Go's package.
    pub fn package(&self) -> &str {
        self.name.rsplit('.').nth(1).unwrap_or("")
    }
}

impl Shape {
    /// The type behind a struct shape.
    pub fn as_type(&self) -> Option<&Type> {
        match self {
            Shape::Struct(ty) => Some(ty.get()),
            Shape::OneOf(shapes) => shapes.iter().find_map(Shape::as_type),
            _ => None,
        }
    }

    /// OpenAPI's `type` and `format`; empty where there is none.
    pub fn openapi_type(&self) -> (&'static str, &'static str) {
        match self {
            Shape::Bool => ("boolean", ""),
            Shape::Int32 => ("integer", "int32"),
            Shape::Int64 => ("integer", "int64"),
            Shape::Double => ("number", "double"),
            Shape::Text | Shape::Duration => ("string", ""),
            Shape::Bytes => ("string", "byte"),
            Shape::IntOrString => ("", "int-or-string"),
            Shape::Quantity | Shape::Json | Shape::OneOf(_) => ("", ""),
            Shape::Time | Shape::MicroTime => ("string", "date-time"),
            Shape::Raw | Shape::FieldsV1 | Shape::Struct(_) | Shape::Map(..) => ("object", ""),
            Shape::List(..) => ("array", ""),
        }
    }

    /// Whether the shape has no parts that could be owned on their own.
    pub fn is_leaf(&self) -> bool {
        match self {
            Shape::Struct(ty) => ty.get().atomic,
            Shape::List(_, kind) => *kind == ListKind::Atomic,
            Shape::Map(_, kind) => *kind == MapKind::Atomic,
            _ => true,
        }
    }
}
