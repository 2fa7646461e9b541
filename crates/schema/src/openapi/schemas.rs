//! Types as OpenAPI schemas.

use std::collections::BTreeMap;

use meta::GroupVersion;
use serde_json::{Map, Value, json};

use super::extensions;
use crate::types::{Field, ListKind, MapKind, Presence, Shape, Type, TypeRef};

/// Values of several types, by name.
const ANY: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";
const SCHEMA_OR_BOOL: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool";
const SCHEMA_OR_SCHEMAS: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray";
const SCHEMA_OR_TEXTS: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray";

/// The schemas of a document, by name, with all that they refer to.
#[derive(Default)]
pub(super) struct Schemas {
    done: Map<String, Value>,
    waiting: Vec<String>,
    kinds: BTreeMap<String, Vec<Value>>,
}

impl Schemas {
    /// Adds a type.
    pub(super) fn add(&mut self, ty: &TypeRef) {
        match ty {
            TypeRef::Builtin(_) => self.want(ty.name()),
            // Nobody else knows it by name: it is written now.
            TypeRef::Owned(ty) => {
                let schema = self.schema(ty);
                self.done.insert(ty.name.to_string(), schema);
            }
        }
    }

    /// A reference to a built-in type, which is added.
    pub(super) fn reference(&mut self, name: &str) -> Value {
        self.want(name);
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    /// Lists the versions of groups in which a type stands as a kind.
    pub(super) fn kinds(&mut self, name: &str, kind: &str, versions: [&GroupVersion; 2]) {
        let mut all: Vec<Value> = versions
            .map(|own| json!({"group": own.group, "version": own.version, "kind": kind}))
            .into();
        all.dedup();
        self.kinds.insert(name.to_owned(), all);
    }

    /// All schemas.
    pub(super) fn finish(mut self) -> Map<String, Value> {
        while let Some(name) = self.waiting.pop() {
            if let Some(ty) = crate::named(&name) {
                let schema = self.schema(ty);
                self.done.insert(name, schema);
            }
        }
        for (name, kinds) in self.kinds {
            if let Some(Value::Object(schema)) = self.done.get_mut(&name) {
                schema.insert("x-kubernetes-group-version-kind".into(), kinds.into());
            }
        }
        self.done
    }

    fn want(&mut self, name: &str) {
        if !self.done.contains_key(name) {
            self.done.insert(name.to_owned(), Value::Null);
            self.waiting.push(name.to_owned());
        }
    }

    fn schema(&mut self, ty: &Type) -> Value {
        let mut schema = special(&ty.name);
        describe(&mut schema, &ty.doc);
        let any = [ANY, SCHEMA_OR_BOOL, SCHEMA_OR_SCHEMAS, SCHEMA_OR_TEXTS];
        if schema.contains_key("type") || schema.contains_key("oneOf") || any.contains(&&*ty.name) {
            return Value::Object(schema);
        }
        schema.insert("type".into(), "object".into());
        let mut properties: Map<String, Value> = ty
            .fields
            .iter()
            .map(|field| (field.json.to_string(), self.property(field)))
            .collect();
        if ty.name.ends_with("List") && !ty.kinds.is_empty() {
            // Nobody applies lists.
            let items = properties.get_mut("items").and_then(Value::as_object_mut);
            items.map(|items| items.remove("x-kubernetes-list-type"));
        }
        if !properties.is_empty() {
            schema.insert("properties".into(), Value::Object(properties));
        }
        let required = ty.fields.iter().filter(|field| field.required);
        let required: Vec<&str> = required.map(|field| &*field.json).collect();
        if !required.is_empty() {
            schema.insert("required".into(), required.into());
        }
        extensions::add(ty, &mut schema);
        if ty.keep_unknown {
            schema.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
        }
        if ty.atomic {
            schema.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
        if !ty.kinds.is_empty() {
            let kinds = ty.kinds.iter().map(
                |kind| json!({"group": kind.group, "version": kind.version, "kind": kind.kind}),
            );
            schema.insert("x-kubernetes-group-version-kind".into(), kinds.collect());
        }
        Value::Object(schema)
    }

    fn property(&mut self, field: &Field) -> Value {
        let mut schema = self.shape(&field.shape);
        describe(&mut schema, &field.doc);
        let default = match (&field.default, &field.shape, field.presence) {
            (Some(default), ..) => Some(default.clone()),
            (None, Shape::Struct(_), Presence::Always) => Some(json!({})),
            (None, Shape::Text, Presence::Always) => Some("".into()),
            (None, Shape::Int32 | Shape::Int64, Presence::Always) => Some(0.into()),
            (None, Shape::Bool, Presence::Always) => Some(false.into()),
            _ => None,
        };
        schema.extend(default.map(|default| ("default".to_owned(), default)));
        let mut extend = |key: &str, value: Option<Value>| {
            schema.extend(value.map(|value| (format!("x-kubernetes-{key}"), value)));
        };
        match &field.shape {
            Shape::List(_, ListKind::Atomic) => extend("list-type", Some("atomic".into())),
            Shape::List(_, ListKind::Set) => extend("list-type", Some("set".into())),
            Shape::List(_, ListKind::Map { keys }) => {
                extend("list-type", Some("map".into()));
                extend(
                    "list-map-keys",
                    Some(keys.iter().map(|key| Value::from(&**key)).collect()),
                );
            }
            Shape::Map(_, MapKind::Atomic) => extend("map-type", Some("atomic".into())),
            _ => {}
        }
        extend(
            "patch-merge-key",
            field.patch_merge_key.as_deref().map(Value::from),
        );
        let strategy = [
            (field.patch.merge, "merge"),
            (field.patch.retain_keys, "retainKeys"),
            (field.patch.replace, "replace"),
        ];
        let strategy: Vec<&str> = strategy
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, name)| *name)
            .collect();
        extend(
            "patch-strategy",
            (!strategy.is_empty()).then(|| strategy.join(",").into()),
        );
        if !field.enumeration.is_empty() {
            let values = field.enumeration.iter().map(|value| Value::from(&**value));
            let inner = match &field.shape {
                Shape::Map(..) => "additionalProperties",
                _ => "items",
            };
            let holder = match schema.get_mut(inner).and_then(Value::as_object_mut) {
                Some(inner) => inner,
                None => &mut schema,
            };
            holder.insert("enum".into(), values.collect());
        }
        Value::Object(wrap(schema))
    }

    fn shape(&mut self, shape: &Shape) -> Map<String, Value> {
        let name = match shape {
            // A kind stands under its name; the parts of a custom resource stand where they are.
            Shape::Struct(TypeRef::Owned(ty)) if ty.kinds.is_empty() => {
                return match self.schema(ty) {
                    Value::Object(map) => map,
                    _ => Map::new(),
                };
            }
            Shape::Struct(reference) => reference.name(),
            Shape::IntOrString => "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
            Shape::Quantity => "io.k8s.apimachinery.pkg.api.resource.Quantity",
            Shape::Time => "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
            Shape::MicroTime => "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
            Shape::FieldsV1 => "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
            Shape::Raw => "io.k8s.apimachinery.pkg.runtime.RawExtension",
            Shape::Json => ANY,
            Shape::OneOf(shapes) => match shapes.get(1) {
                Some(Shape::Bool) => SCHEMA_OR_BOOL,
                Some(Shape::List(item, _)) if matches!(**item, Shape::Text) => SCHEMA_OR_TEXTS,
                _ => SCHEMA_OR_SCHEMAS,
            },
            _ => "",
        };
        if !name.is_empty() {
            return object(self.reference(name));
        }
        let (kind, format) = shape.openapi_type();
        let mut schema = Map::new();
        let mut set = |key: &str, text: &str| {
            if !text.is_empty() {
                schema.insert(key.into(), text.into());
            }
        };
        set("type", kind);
        set("format", format);
        match shape {
            Shape::List(item, _) => {
                let item = self.shape(item);
                schema.insert("items".into(), Value::Object(item));
            }
            Shape::Map(item, _) => {
                let item = self.shape(item);
                schema.insert("additionalProperties".into(), Value::Object(item));
            }
            _ => {}
        }
        schema
    }
}

/// What stands beside a reference is ignored: a reference with company is wrapped.
pub(super) fn wrap(mut schema: Map<String, Value>) -> Map<String, Value> {
    if schema.len() > 1
        && let Some(target) = schema.remove("$ref")
    {
        schema.insert("allOf".into(), json!([{"$ref": target}]));
    }
    schema
}

/// Types that are no structs.
fn special(name: &str) -> Map<String, Value> {
    let schema = match name.rsplit('.').next() {
        Some("Quantity") => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        Some("IntOrString") => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        Some("Time" | "MicroTime") => json!({"type": "string", "format": "date-time"}),
        Some("FieldsV1" | "RawExtension" | "Patch") => json!({"type": "object"}),
        _ => json!({}),
    };
    object(schema)
}

fn describe(schema: &mut Map<String, Value>, doc: &str) {
    if !doc.is_empty() {
        schema.insert("description".into(), doc.into());
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
