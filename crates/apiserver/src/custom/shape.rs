//! A definition's schema as a type of the schema table.

use std::sync::Arc;

use meta::Names;
use schema::types::Text;
use schema::{Field, Kind, ListKind, MapKind, PatchStrategy, Presence, Shape, Type, TypeRef};
use serde_json::{Map, Value};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The type at the root of a custom kind.
pub(super) fn root(names: &Names, schema: &Value) -> TypeRef {
    // As upstream names them: the group reversed.
    let reversed: Vec<&str> = names.group.rsplit('.').collect();
    let name = format!("{}.{}.{}", reversed.join("."), names.version, names.kind);
    let mut ty = structure(&name, schema);
    ty.kinds = vec![Kind {
        group: Text::Owned(names.group.clone()),
        version: Text::Owned(names.version.clone()),
        kind: Text::Owned(names.kind.clone()),
    }];
    ty.fields
        .retain(|field| !matches!(&*field.json, "apiVersion" | "kind" | "metadata"));
    ty.fields
        .push(field("apiVersion", Shape::Text, &Value::Null));
    ty.fields.push(field("kind", Shape::Text, &Value::Null));
    let metadata = schema::table::reference(OBJECT_META).map_or(Shape::Json, Shape::Struct);
    ty.fields.push(field("metadata", metadata, &Value::Null));
    ty.fields.sort_by(|a, b| a.json.cmp(&b.json));
    TypeRef::Owned(Arc::new(ty))
}

fn text<'a>(schema: &'a Value, field: &str) -> &'a str {
    schema.get(field).and_then(Value::as_str).unwrap_or("")
}

fn flag(schema: &Value, field: &str) -> bool {
    schema.get(field).and_then(Value::as_bool).unwrap_or(false)
}

fn structure(name: &str, schema: &Value) -> Type {
    let required = schema.get("required").and_then(Value::as_array);
    let empty = Map::new();
    let properties = schema
        .get("properties")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    let mut fields: Vec<Field> = properties
        .iter()
        .map(|(key, schema)| {
            let mut own = field(key, shape(&format!("{name}.{key}"), schema), schema);
            own.required = required.is_some_and(|list| list.iter().any(|one| one == key));
            own
        })
        .collect();
    fields.sort_by(|a, b| a.json.cmp(&b.json));
    Type {
        name: Text::Owned(name.to_owned()),
        doc: Text::Owned(text(schema, "description").to_owned()),
        kinds: Vec::new(),
        fields,
        atomic: text(schema, "x-kubernetes-map-type") == "atomic",
        keep_unknown: flag(schema, "x-kubernetes-preserve-unknown-fields"),
    }
}

fn field(json: &str, shape: Shape, schema: &Value) -> Field {
    let listed = schema
        .get("enum")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    Field {
        json: Text::Owned(json.to_owned()),
        tag: 0,
        within: Vec::new(),
        shape,
        required: false,
        // Custom resources keep what clients send, empty or not.
        presence: Presence::Pointer,
        patch: PatchStrategy::default(),
        patch_merge_key: None,
        default: schema.get("default").cloned(),
        enumeration: listed
            .filter_map(|one| one.as_str().map(|one| Text::Owned(one.to_owned())))
            .collect(),
        doc: Text::Owned(text(schema, "description").to_owned()),
    }
}

fn shape(name: &str, schema: &Value) -> Shape {
    if flag(schema, "x-kubernetes-int-or-string") {
        return Shape::IntOrString;
    }
    if flag(schema, "x-kubernetes-embedded-resource") {
        return Shape::Json;
    }
    match text(schema, "type") {
        "boolean" => Shape::Bool,
        "integer" if text(schema, "format") == "int32" => Shape::Int32,
        "integer" => Shape::Int64,
        "number" => Shape::Double,
        "string" => Shape::Text,
        "array" => list(name, schema),
        "object" => map_or_structure(name, schema),
        _ => Shape::Json,
    }
}

fn list(name: &str, schema: &Value) -> Shape {
    let item = schema
        .get("items")
        .map_or(Shape::Json, |items| shape(&format!("{name}.items"), items));
    let keys = schema
        .get("x-kubernetes-list-map-keys")
        .and_then(Value::as_array);
    let kind = match text(schema, "x-kubernetes-list-type") {
        "set" => ListKind::Set,
        "map" => ListKind::Map {
            keys: keys
                .into_iter()
                .flatten()
                .filter_map(|key| key.as_str().map(|key| Text::Owned(key.to_owned())))
                .collect(),
        },
        _ => ListKind::Atomic,
    };
    Shape::List(Box::new(item), kind)
}

fn map_or_structure(name: &str, schema: &Value) -> Shape {
    let atomic = text(schema, "x-kubernetes-map-type") == "atomic";
    let kind = if atomic {
        MapKind::Atomic
    } else {
        MapKind::Granular
    };
    match schema.get("additionalProperties") {
        Some(Value::Object(value)) => {
            let value = shape(&format!("{name}.values"), &Value::Object(value.clone()));
            return Shape::Map(Box::new(value), kind);
        }
        Some(Value::Bool(true)) => return Shape::Map(Box::new(Shape::Json), kind),
        _ => {}
    }
    let is_open = flag(schema, "x-kubernetes-preserve-unknown-fields");
    if is_open && schema.get("properties").is_none() {
        return Shape::Json;
    }
    Shape::Struct(TypeRef::Owned(Arc::new(structure(name, schema))))
}
