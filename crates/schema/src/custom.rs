//! Types of custom resources, made from the schema in their definition.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::table;
use crate::types::{
    Field, Heads, Kind, ListKind, MapKind, PatchStrategy, Presence, Shape, Text, Type, TypeRef,
};

/// Definitions nest no deeper than this; what is below is taken as it is.
const MAX_DEPTH: usize = 100;

impl Type {
    /// The type of a custom resource. `schema` is `openAPIV3Schema` of a structural schema (or
    /// `null`: anything goes). `apiVersion`, `kind` and `metadata` are always those of all kinds.
    pub fn from_openapi(kind: Kind, schema: &Value) -> Type {
        let name = full_name(&kind);
        let mut ty = structure(&name, schema, 0);
        ty.keep_unknown |= !schema.is_object();
        add_meta(&mut ty);
        ty.kinds = vec![kind];
        ty
    }

    /// The list of a custom resource.
    pub fn list_of(item: &Arc<Type>, list_kind: &str) -> Type {
        let kind = item.kinds.first();
        let kind = kind.map(|kind| Kind {
            kind: Cow::Owned(list_kind.to_owned()),
            ..kind.clone()
        });
        let shape = Shape::List(
            Box::new(Shape::Struct(TypeRef::Owned(Arc::clone(item)))),
            ListKind::Atomic,
        );
        let doc = format!("{list_kind} is a list of {}", item.short_name());
        let mut items = field("items", shape, &Value::Null);
        items.required = true;
        items.doc = format!("List of {}.", item.short_name()).into();
        let mut fields = vec![text_field("apiVersion"), items, text_field("kind")];
        fields.extend(meta_field("ListMeta"));
        Type {
            name: kind.as_ref().map(full_name).unwrap_or_default().into(),
            doc: doc.into(),
            kinds: kind.into_iter().collect(),
            fields,
            atomic: false,
            keep_unknown: false,
            heads: Heads::default(),
        }
    }
}

/// `com.example.v1.CronTab`, as upstream names models of custom resources.
fn full_name(kind: &Kind) -> String {
    let group: Vec<&str> = kind.group.rsplit('.').collect();
    format!("{}.{}.{}", group.join("."), kind.version, kind.kind)
}

fn structure(name: &str, schema: &Value, depth: usize) -> Type {
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    let required = schema["required"].as_array();
    let is_required =
        |json: &str| required.is_some_and(|names| names.iter().any(|name| name == json));
    let make = |(json, schema): (&String, &Value)| {
        let shape = shape(&format!("{name}.{json}"), schema, depth + 1);
        Field {
            required: is_required(json),
            ..field(json, shape, schema)
        }
    };
    let mut ty = Type {
        name: Cow::Owned(name.to_owned()),
        doc: text(schema, "description"),
        kinds: Vec::new(),
        fields: properties.iter().map(make).collect(),
        atomic: schema["x-kubernetes-map-type"] == "atomic",
        keep_unknown: schema["x-kubernetes-preserve-unknown-fields"] == true,
        heads: Heads::default(),
    };
    if schema["x-kubernetes-embedded-resource"] == true {
        add_meta(&mut ty);
    }
    ty
}

fn shape(name: &str, schema: &Value, depth: usize) -> Shape {
    if schema["x-kubernetes-int-or-string"] == true {
        return Shape::IntOrString;
    }
    match schema["type"].as_str().unwrap_or("") {
        _ if depth > MAX_DEPTH => Shape::Json,
        "boolean" => Shape::Bool,
        "integer" => Shape::Int64,
        "number" => Shape::Double,
        "string" => Shape::Text,
        "array" => Shape::List(
            Box::new(shape(name, &schema["items"], depth + 1)),
            list_kind(schema),
        ),
        "object" => match &schema["additionalProperties"] {
            Value::Object(item) => {
                let item = shape(name, &Value::Object(item.clone()), depth + 1);
                Shape::Map(Box::new(item), map_kind(schema))
            }
            Value::Bool(true) => Shape::Map(Box::new(Shape::Json), map_kind(schema)),
            _ => Shape::Struct(TypeRef::Owned(Arc::new(structure(name, schema, depth)))),
        },
        _ => Shape::Json,
    }
}

fn list_kind(schema: &Value) -> ListKind {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"]
                .as_array()
                .into_iter()
                .flatten();
            let keys = keys
                .filter_map(Value::as_str)
                .map(|key| Cow::Owned(key.to_owned()));
            ListKind::Map {
                keys: keys.collect(),
            }
        }
        _ => ListKind::Atomic,
    }
}

fn map_kind(schema: &Value) -> MapKind {
    match schema["x-kubernetes-map-type"].as_str() {
        Some("atomic") => MapKind::Atomic,
        _ => MapKind::Granular,
    }
}

fn field(json: &str, shape: Shape, schema: &Value) -> Field {
    let values = schema["enum"].as_array().into_iter().flatten();
    let values = values
        .filter_map(Value::as_str)
        .map(|value| Cow::Owned(value.to_owned()));
    Field {
        json: Cow::Owned(json.to_owned()),
        tag: 0,
        within: Vec::new(),
        shape,
        required: false,
        // Custom resources keep what was written, empty or not.
        presence: Presence::Pointer,
        patch: PatchStrategy::default(),
        patch_merge_key: None,
        default: schema.get("default").cloned(),
        enumeration: values.collect(),
        doc: text(schema, "description"),
    }
}

fn text(schema: &Value, key: &str) -> Text {
    Cow::Owned(schema[key].as_str().unwrap_or("").to_owned())
}

/// Puts the fields of all kinds in place of those that the schema may name.
fn add_meta(ty: &mut Type) {
    let fields = [text_field("apiVersion"), text_field("kind")]
        .into_iter()
        .chain(meta_field("ObjectMeta"));
    for field in fields {
        match ty
            .fields
            .binary_search_by(|other| other.json.cmp(&field.json))
        {
            Ok(place) => ty.fields[place] = field,
            Err(place) => ty.fields.insert(place, field),
        }
    }
}

/// `apiVersion` or `kind`, in the words that all kinds have for it.
fn text_field(json: &str) -> Field {
    let pod = table::named("io.k8s.api.core.v1.Pod");
    let doc = pod
        .and_then(|pod| pod.field(json))
        .map(|field| field.doc.clone());
    Field {
        doc: doc.unwrap_or_default(),
        ..field(json, Shape::Text, &Value::Null)
    }
}

fn meta_field(ty: &str) -> Option<Field> {
    let reference = table::reference(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{ty}"))?;
    let always = Field {
        presence: Presence::Always,
        doc: Cow::Borrowed("Standard object's metadata."),
        ..field("metadata", Shape::Struct(reference), &Value::Null)
    };
    Some(always)
}
