//! Types from OpenAPI and structural schemas.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::escape::escape;
use crate::types::{Decl, Field, ListKind, ListType, MapType, ObjectType, Type};

/// What a request may hold in all; bounds what a schema leaves open.
const MAX_REQUEST_BYTES: u64 = 3 * 1024 * 1024;
/// `true` or `0`, quotes included where they belong.
const MIN_BOOL: u64 = 4;
const MIN_NUMBER: u64 = 1;
const MIN_STRING: u64 = 2;
const MIN_DURATION: u64 = 3;
const MAX_DURATION: u64 = 32;
const DATE: u64 = 12;
const MIN_DATE_TIME: u64 = 21;
const MAX_DATE_TIME: u64 = 32;

impl Decl {
    /// How many values of this type one request can hold.
    pub fn max_cardinality(&self) -> u64 {
        MAX_REQUEST_BYTES / (self.min_bytes + 1)
    }

    /// The type that a schema describes, or `None` where expressions may not look (no type, or unknown fields kept).
    /// `root` is set for whole resources: `apiVersion`, `kind` and the names in `metadata` are always there.
    pub fn of_schema(schema: &Json, root: bool) -> Option<Decl> {
        of_schema(schema, root, "object")
    }
}

impl Type {
    /// The type that a schema describes; [`Type::Dyn`] where it says nothing. See [`Decl::of_schema`].
    pub fn of_schema(schema: &Json) -> Type {
        Decl::of_schema(schema, false).map_or(Type::Dyn, |decl| decl.ty)
    }
}

fn sized(ty: Type, max: u64, min_bytes: u64) -> Option<Decl> {
    Some(Decl { ty, max, min_bytes })
}

fn flag(schema: &Json, name: &str) -> bool {
    schema.get(name).and_then(Json::as_bool).unwrap_or(false)
}

/// A limit of the schema; a negative one counts as none at all left.
fn limit(schema: &Json, name: &str) -> Option<u64> {
    let limit = schema.get(name)?;
    Some(limit.as_i64().map_or_else(
        || limit.as_f64().unwrap_or(0.0) as u64,
        |limit| limit.max(0) as u64,
    ))
}

fn of_schema(schema: &Json, root: bool, path: &str) -> Option<Decl> {
    if flag(schema, "x-kubernetes-int-or-string") {
        return sized(Type::Dyn, string_limit(schema), 1);
    }
    let kind = schema.get("type").and_then(Json::as_str);
    match kind {
        _ if root => object(schema, true, path),
        Some("array") => list(schema, path),
        Some("object") => match schema.get("additionalProperties") {
            Some(values) if values.is_object() => {
                let value =
                    of_schema(values, flag(values, "x-kubernetes-embedded-resource"), path)?;
                // Two quotes, a colon and a comma around what an entry holds.
                let max = limit(schema, "maxProperties")
                    .unwrap_or_else(|| (MAX_REQUEST_BYTES - 2) / (value.min_bytes + 6));
                sized(
                    Type::Map(Arc::new(MapType {
                        key: Type::String,
                        value,
                    })),
                    max,
                    2,
                )
            }
            _ => object(schema, false, path),
        },
        Some("string") => string(schema),
        Some("boolean") => sized(Type::Bool, crate::types::UNBOUNDED, MIN_BOOL),
        Some("number") => sized(Type::Double, crate::types::UNBOUNDED, MIN_NUMBER),
        Some("integer") => sized(Type::Int, crate::types::UNBOUNDED, MIN_NUMBER),
        _ => None,
    }
}

/// Characters of a string that the schema limits or that a request can hold; a character takes four bytes at most.
fn string_limit(schema: &Json) -> u64 {
    let whole = MAX_REQUEST_BYTES - 2;
    limit(schema, "maxLength").map_or(whole, |length| length.saturating_mul(4))
}

fn string(schema: &Json) -> Option<Decl> {
    match schema.get("format").and_then(Json::as_str) {
        Some("byte") => {
            let max = limit(schema, "maxLength").unwrap_or(MAX_REQUEST_BYTES - 2);
            sized(Type::Bytes, max, MIN_STRING)
        }
        Some("duration") => sized(Type::Duration, MAX_DURATION, MIN_DURATION),
        Some("date") => sized(Type::Timestamp, DATE, DATE),
        Some("date-time") => sized(Type::Timestamp, MAX_DATE_TIME, MIN_DATE_TIME),
        _ => {
            let longest =
                |values: &Vec<Json>| values.iter().filter_map(Json::as_str).map(str::len).max();
            let enumerated = schema
                .get("enum")
                .and_then(Json::as_array)
                .filter(|values| !values.is_empty());
            let max = match enumerated {
                Some(values) if schema.get("maxLength").is_none() => {
                    longest(values).unwrap_or(0) as u64
                }
                _ => string_limit(schema),
            };
            sized(Type::String, max, MIN_STRING)
        }
    }
}

fn list(schema: &Json, path: &str) -> Option<Decl> {
    let items = schema.get("items")?;
    let elem = of_schema(
        items,
        flag(items, "x-kubernetes-embedded-resource"),
        &format!("{path}.@items"),
    )?;
    let max =
        limit(schema, "maxItems").unwrap_or_else(|| (MAX_REQUEST_BYTES - 2) / (elem.min_bytes + 1));
    let kind = match schema.get("x-kubernetes-list-type").and_then(Json::as_str) {
        Some("set") => ListKind::Set,
        Some("map") => ListKind::Map,
        _ => ListKind::Atomic,
    };
    let keys = schema
        .get("x-kubernetes-list-map-keys")
        .and_then(Json::as_array);
    let keys = keys
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .map(str::to_owned)
        .collect();
    sized(Type::List(Arc::new(ListType { elem, kind, keys })), max, 2)
}

fn object(schema: &Json, root: bool, path: &str) -> Option<Decl> {
    let mut fields = BTreeMap::new();
    let mut min_bytes = 2;
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .collect();
    for (name, property) in schema
        .get("properties")
        .and_then(Json::as_object)
        .into_iter()
        .flatten()
    {
        let embedded = flag(property, "x-kubernetes-embedded-resource");
        let Some(escaped) = escape(name) else {
            continue;
        };
        let Some(decl) = of_schema(property, embedded, &format!("{path}.{escaped}")) else {
            continue;
        };
        if required.contains(&name.as_str()) && property.get("default").is_none() {
            min_bytes += name.len() as u64 + decl.min_bytes + 4;
        }
        let field = Field {
            json: name.clone(),
            decl,
        };
        // A reserved word can be spelled as it is, too.
        if crate::words::is_reserved(name) {
            fields.insert(name.clone(), field.clone());
        }
        fields.insert(escaped, field);
    }
    if root {
        complete_root(&mut fields, path);
    }
    sized(
        Type::Object(Arc::new(ObjectType {
            name: path.to_owned(),
            fields,
        })),
        crate::types::UNBOUNDED,
        min_bytes,
    )
}

/// Adds what every resource has.
fn complete_root(fields: &mut BTreeMap<String, Field>, path: &str) {
    let text = || Decl {
        ty: Type::String,
        max: MAX_REQUEST_BYTES - 2,
        min_bytes: MIN_STRING,
    };
    let field = |name: &str, decl| {
        (
            name.to_owned(),
            Field {
                json: name.to_owned(),
                decl,
            },
        )
    };
    let is_text = |fields: &BTreeMap<String, Field>, name: &str| {
        fields
            .get(name)
            .is_some_and(|field| field.decl.ty == Type::String)
    };
    let named = matches!(fields.get("metadata"), Some(Field { decl: Decl { ty: Type::Object(metadata), .. }, .. })
        if is_text(&metadata.fields, "name") && is_text(&metadata.fields, "generateName"));
    if named && is_text(fields, "kind") && is_text(fields, "apiVersion") {
        return;
    }
    fields.extend([field("kind", text()), field("apiVersion", text())]);
    let names = BTreeMap::from([field("name", text()), field("generateName", text())]);
    let metadata = Type::Object(Arc::new(ObjectType {
        name: format!("{path}.metadata"),
        fields: names,
    }));
    fields.extend([field(
        "metadata",
        Decl {
            ty: metadata,
            max: crate::types::UNBOUNDED,
            min_bytes: 2,
        },
    )]);
}
