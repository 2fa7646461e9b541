//! What is published of a version: its schema and that of its list, for OpenAPI v3 and v2.

use meta::Names;
use serde_json::{Map, Value, json};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const CONVENTIONS: &str =
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";

/// For whom a schema is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenApi {
    V2,
    V3,
}

/// One version, as OpenAPI documents show it.
#[derive(Clone, Debug)]
pub struct Published {
    schema: Value,
    selectable: Vec<String>,
}

/// `com.example.v1.CronTab`: the name of a kind's definition.
pub fn definition_name(names: &Names, kind: &str) -> String {
    let group: Vec<&str> = names.group.rsplit('.').collect();
    format!("{}.{}.{kind}", group.join("."), names.version)
}

impl Published {
    /// From an entry of `spec.versions`.
    pub fn new(version: &Value) -> Published {
        let schema = version.pointer("/schema/openAPIV3Schema").cloned();
        let fields = version.get("selectableFields").and_then(Value::as_array);
        let fields = fields.into_iter().flatten();
        let paths = fields.filter_map(|field| field.get("jsonPath")?.as_str());
        Published {
            schema: schema.unwrap_or_default(),
            selectable: paths
                .map(|path| path.trim_start_matches('.').into())
                .collect(),
        }
    }

    /// The schema of the kind.
    pub fn kind(&self, names: &Names, form: OpenApi) -> Value {
        let is_open = self.schema.get(PRESERVE) == Some(&Value::Bool(true));
        // Clients of v2 take what is named for all there may be.
        let bare = !self.schema.is_object() || (form == OpenApi::V2 && is_open);
        let mut schema = match bare {
            true => json!({"type": "object"}),
            false => self.schema.clone(),
        };
        if !bare {
            if form == OpenApi::V2 {
                simplify(&mut schema);
            }
            identify(&mut schema, "");
            embed(&mut schema, form);
        }
        self.name(&mut schema, names, &names.kind);
        schema
    }

    /// The schema of its list.
    pub fn list(&self, names: &Names) -> Value {
        let item = definition_name(names, &names.kind);
        let mut schema = json!({
            "type": "object", "required": ["items"],
            "description": format!("{} is a list of {}", names.list_kind, names.kind),
            "properties": {
                "items": {
                    "type": "array", "items": {"$ref": format!("#/components/schemas/{item}")},
                    "description": format!("List of {}. More info: {CONVENTIONS}", names.plural),
                },
                "metadata": reference(LIST_META, &format!(
                    "Standard list metadata. More info: {CONVENTIONS}#types-kinds")),
            },
        });
        let properties = meta::object::map_at(&mut schema, "properties");
        properties.extend(type_fields());
        self.name(&mut schema, names, &names.list_kind);
        schema
    }

    fn name(&self, schema: &mut Value, names: &Names, kind: &str) {
        schema["x-kubernetes-group-version-kind"] =
            json!([{"group": names.group, "version": names.version, "kind": kind}]);
        if !self.selectable.is_empty() {
            let fields = self.selectable.iter();
            let fields = fields.map(|path| json!({"fieldPath": path}));
            schema["x-kubernetes-selectable-fields"] = fields.collect();
        }
    }
}

fn reference(name: &str, description: &str) -> Value {
    json!({"description": description,
        "allOf": [{"$ref": format!("#/components/schemas/{name}")}]})
}

/// `apiVersion` and `kind`, in the words that all kinds have for them.
fn type_fields() -> Map<String, Value> {
    let pod = schema::named("io.k8s.api.core.v1.Pod");
    let field = |name: &str| {
        let doc = pod
            .and_then(|pod| pod.field(name))
            .map(|field| field.doc.to_string());
        let own = json!({"type": "string", "description": doc.unwrap_or_default()});
        (name.to_owned(), own)
    };
    ["apiVersion", "kind"].into_iter().map(field).collect()
}

/// Every object has these, whatever its schema names.
fn identify(schema: &mut Value, prefix: &str) {
    let properties = meta::object::map_at(schema, "properties");
    let text = format!("Standard object's metadata. More info: {CONVENTIONS}#metadata");
    properties.insert("metadata".into(), reference(OBJECT_META, &text));
    for (name, mut field) in type_fields() {
        if !prefix.is_empty() {
            let words = match name.as_str() {
                "kind" => format!(
                    "kind is a string value representing the type of this object. In CamelCase. \
                     More info: {CONVENTIONS}#types-kinds"
                ),
                _ => format!(
                    "apiVersion defines the versioned schema of this representation of an \
                     object. More info: {CONVENTIONS}#resources"
                ),
            };
            field["description"] = words.into();
        }
        properties.insert(name, field);
    }
}

fn is_set(schema: &Value, field: &str) -> bool {
    schema.get(field) == Some(&Value::Bool(true))
}

/// Names the fields of all objects in embedded ones.
fn embed(schema: &mut Value, form: OpenApi) {
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for below in properties.into_iter().flat_map(Map::values_mut) {
        embed(below, form);
    }
    for field in ["items", "additionalProperties"] {
        if let Some(below) = schema.get_mut(field).filter(|below| below.is_object()) {
            embed(below, form);
        }
    }
    let open = form == OpenApi::V2 && is_set(schema, PRESERVE);
    if open || !is_set(schema, EMBEDDED) {
        return;
    }
    identify(schema, "embedded");
    let required = schema.get("required").and_then(Value::as_array).cloned();
    let mut required = required.unwrap_or_default();
    for name in ["kind", "apiVersion"] {
        if !required.iter().any(|own| own == name) {
            required.push(name.into());
        }
    }
    schema["required"] = required.into();
}

/// Leaves out what OpenAPI v2, or its oldest clients, have no room for.
fn simplify(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else {
        return;
    };
    for field in ["allOf", "oneOf", "anyOf", "not"] {
        map.remove(field);
    }
    let is = |map: &Map<String, Value>, field: &str| map.get(field) == Some(&Value::Bool(true));
    if is(map, "nullable") {
        for field in ["type", "nullable", "items", "properties"] {
            map.remove(field);
        }
    }
    let preserves = is(map, PRESERVE);
    if preserves {
        map.remove("items");
        map.remove("properties");
    }
    let kind = map.get("type").and_then(Value::as_str).unwrap_or("");
    let untyped =
        (kind == "array" && !map.contains_key("items")) || (kind == "object" && preserves);
    if untyped {
        map.remove("type");
    }
    let nullable: Vec<String> = match map.get("properties").and_then(Value::as_object) {
        Some(own) => {
            let own = own.iter().filter(|(_, below)| is_set(below, "nullable"));
            own.map(|(name, _)| name.clone()).collect()
        }
        None => Vec::new(),
    };
    let values = map.get("additionalProperties");
    let all = values.is_some_and(|values| is_set(values, "nullable"));
    if let Some(required) = map.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| !all && !nullable.iter().any(|own| name == own));
        if required.is_empty() {
            map.remove("required");
        }
    }
    let properties = map.get_mut("properties").and_then(Value::as_object_mut);
    properties
        .into_iter()
        .flat_map(Map::values_mut)
        .for_each(simplify);
    for field in ["items", "additionalProperties"] {
        map.get_mut(field).into_iter().for_each(simplify);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(schema: Value, form: OpenApi) -> Value {
        let version = json!({"schema": {"openAPIV3Schema": schema}});
        let names = Names::namespaced("stable.example.com", "v1", "CronTab", "crontabs");
        let mut own = Published::new(&version).kind(&names, form);
        assert_eq!(
            own["x-kubernetes-group-version-kind"],
            json!([{"group": "stable.example.com", "version": "v1", "kind": "CronTab"}])
        );
        let map = own.as_object_mut().unwrap();
        map.remove("x-kubernetes-group-version-kind");
        if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
            for name in ["metadata", "apiVersion", "kind"] {
                assert!(properties.remove(name).is_some());
            }
        }
        own
    }

    #[test]
    fn definitions_are_named_as_upstream_names_them() {
        let names = Names::namespaced("stable.example.com", "v1", "CronTab", "crontabs");
        assert_eq!(
            definition_name(&names, "CronTab"),
            "com.example.stable.v1.CronTab"
        );
    }

    #[test]
    fn plain_schemas_are_published_as_they_are() {
        let schema = json!({"type": "object", "description": "Foo", "properties": {"spec":
            {"type": "object", "required": ["a"], "properties": {"a": {"type": "string",
                "enum": ["x"]}}}}});
        for form in [OpenApi::V2, OpenApi::V3] {
            assert_eq!(published(schema.clone(), form), schema);
        }
    }

    #[test]
    fn open_schemas_say_little_in_v2() {
        let open =
            json!({"type": "object", PRESERVE: true, "properties": {"a": {"type": "string"}}});
        assert_eq!(
            published(open.clone(), OpenApi::V2),
            json!({"type": "object"})
        );
        assert_eq!(
            published(open, OpenApi::V3)["properties"],
            json!({"a": {"type": "string"}})
        );
        let nested = json!({"type": "object", "properties": {
            "spec": {"type": "object", PRESERVE: true, "properties": {"a": {"type": "string"}}},
            "null": {"type": "string", "nullable": true}}, "required": ["null", "spec"]});
        assert_eq!(
            published(nested, OpenApi::V2),
            json!({"type": "object", "properties": {"spec": {PRESERVE: true}, "null": {}},
                "required": ["spec"]})
        );
    }
}
