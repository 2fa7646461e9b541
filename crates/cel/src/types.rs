//! Types of expressions, structural: an object type knows its fields.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The type of an expression or of a variable.
#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    /// Anything: checked at run time only.
    Dyn,
    /// What a faulty expression has, so that one fault is reported once.
    Error,
    /// `null`
    Null,
    /// `bool`
    Bool,
    /// Signed 64 bits.
    Int,
    /// Unsigned 64 bits.
    Uint,
    /// Floating point.
    Double,
    /// Text.
    String,
    /// Bytes.
    Bytes,
    /// A span of time.
    Duration,
    /// A point in time.
    Timestamp,
    /// A list.
    List(Arc<ListType>),
    /// A map.
    Map(Arc<MapType>),
    /// An object with known fields.
    Object(Arc<ObjectType>),
    /// A value that may be absent.
    Optional(Arc<Type>),
    /// A type as a value.
    Type(Arc<Type>),
    /// A type of a library, by name.
    Opaque(&'static str),
    /// A type that is still to be found.
    Param(usize),
}

/// How big something may be when nothing says so.
pub const UNBOUNDED: u64 = u64::MAX;

/// A type and how many elements (characters, items, entries) a value of it has at most.
#[derive(Debug, Clone, PartialEq)]
pub struct Decl {
    /// The type.
    pub ty: Type,
    /// The largest size, for estimates of cost; [`UNBOUNDED`] if nothing limits it.
    pub max: u64,
    /// The least bytes a value takes in JSON; bounds how many of them one request can hold.
    pub(crate) min_bytes: u64,
}

impl From<Type> for Decl {
    fn from(ty: Type) -> Decl {
        Decl {
            ty,
            max: UNBOUNDED,
            min_bytes: 1,
        }
    }
}

/// What makes two lists equal, and what `+` means (`x-kubernetes-list-type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListKind {
    Atomic,
    Set,
    Map,
}

/// A list's elements.
#[derive(Debug, Clone, PartialEq)]
pub struct ListType {
    pub(crate) elem: Decl,
    pub(crate) kind: ListKind,
    /// The keys that identify an element, for `ListKind::Map`.
    pub(crate) keys: Vec<String>,
}

/// A map's keys and values.
#[derive(Debug, Clone, PartialEq)]
pub struct MapType {
    pub(crate) key: Type,
    pub(crate) value: Decl,
}

/// An object's fields.
#[derive(Debug)]
pub struct ObjectType {
    /// As messages show it.
    pub name: String,
    /// By the name expressions use (escaped).
    pub fields: BTreeMap<String, Field>,
}

/// One field of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The name in JSON, not escaped.
    pub json: String,
    /// Its type.
    pub decl: Decl,
}

impl PartialEq for ObjectType {
    fn eq(&self, other: &ObjectType) -> bool {
        self.name == other.name && self.fields.len() == other.fields.len()
    }
}

impl ObjectType {
    /// An object type of these fields; names that cannot be escaped are left out.
    pub fn new(
        name: impl Into<String>,
        fields: impl IntoIterator<Item = (String, Decl)>,
    ) -> ObjectType {
        let field = |(json, decl): (String, Decl)| {
            Some((crate::escape::escape(&json)?, Field { json, decl }))
        };
        ObjectType {
            name: name.into(),
            fields: fields.into_iter().filter_map(field).collect(),
        }
    }
}

impl Type {
    /// The type of the `authorizer` variable.
    pub const AUTHORIZER: Type = Type::Opaque("kubernetes.authorization.Authorizer");
    /// The type of `authorizer.requestResource`.
    pub const RESOURCE_CHECK: Type = Type::Opaque("kubernetes.authorization.ResourceCheck");

    /// `list(elem)`
    pub fn list(elem: impl Into<Decl>) -> Type {
        Type::List(Arc::new(ListType {
            elem: elem.into(),
            kind: ListKind::Atomic,
            keys: Vec::new(),
        }))
    }

    /// `map(key, value)`
    pub fn map(key: Type, value: impl Into<Decl>) -> Type {
        Type::Map(Arc::new(MapType {
            key,
            value: value.into(),
        }))
    }

    /// An object with fields.
    pub fn object(
        name: impl Into<String>,
        fields: impl IntoIterator<Item = (String, Decl)>,
    ) -> Type {
        Type::Object(Arc::new(ObjectType::new(name, fields)))
    }

    /// `optional_type(inner)`
    pub fn optional(inner: Type) -> Type {
        Type::Optional(Arc::new(inner))
    }

    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Type::Dyn | Type::Error)
    }

    /// The name without parameters.
    pub(crate) fn name(&self) -> &str {
        match self {
            Type::Dyn => "dyn",
            Type::Error => "!error!",
            Type::Null => "null_type",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Duration => "google.protobuf.Duration",
            Type::Timestamp => "google.protobuf.Timestamp",
            Type::List(_) => "list",
            Type::Map(_) => "map",
            Type::Object(object) => &object.name,
            Type::Optional(_) => "optional_type",
            Type::Type(_) => "type",
            Type::Opaque(name) => name,
            Type::Param(_) => "param",
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Null => f.write_str("null"),
            Type::Duration => f.write_str("duration"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::List(list) => write!(f, "list({})", list.elem.ty),
            Type::Map(map) => write!(f, "map({}, {})", map.key, map.value.ty),
            Type::Optional(inner) => write!(f, "optional_type({inner})"),
            Type::Type(inner) => write!(f, "type({inner})"),
            Type::Param(number) => write!(f, "_var{number}"),
            other => f.write_str(other.name()),
        }
    }
}

/// Reads the notation of the function tables: `list<A>`, `optional<string>`, `net.IP`; a capital is a parameter.
pub(crate) fn parse(text: &'static str) -> Type {
    let inner = |prefix: &str| {
        text.strip_prefix(prefix)
            .and_then(|rest| rest.strip_suffix('>'))
    };
    if let Some(elem) = inner("list<") {
        return Type::list(parse(elem));
    }
    if let Some((key, value)) = inner("map<").and_then(|both| both.split_once(',')) {
        return Type::map(parse(key), parse(value));
    }
    if let Some(value) = inner("optional<") {
        return Type::optional(parse(value));
    }
    if let Some(value) = inner("type<") {
        return Type::Type(Arc::new(parse(value)));
    }
    match text {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "A" => Type::Param(0),
        "B" => Type::Param(1),
        other => Type::Opaque(other),
    }
}
