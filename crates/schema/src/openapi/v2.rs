//! The OpenAPI v2 document of all groups, made of their v3 documents: clients up to kubectl 1.27
//! validate and explain by it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value, json};

use super::{gnostic, gnostic_v2, merge};
use crate::protobuf::wire::Writer;

/// Methods of a path item, as against what holds for all of them.
const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];
/// Encodings in the order of preference.
const MEDIA: [&str; 3] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];
/// The versions of groups in which options of deletions and events of watches stand.
const VERSIONS: [(&str, &str); 26] = [
    ("", "v1"),
    ("admission.k8s.io", "v1 v1beta1"),
    ("admissionregistration.k8s.io", "v1 v1alpha1 v1beta1"),
    ("apiextensions.k8s.io", "v1 v1beta1"),
    ("apiregistration.k8s.io", "v1 v1beta1"),
    ("apps", "v1 v1beta1 v1beta2"),
    ("authentication.k8s.io", "v1 v1alpha1 v1beta1"),
    ("authorization.k8s.io", "v1 v1beta1"),
    ("autoscaling", "v1 v2"),
    ("batch", "v1 v1beta1"),
    ("certificates.k8s.io", "v1 v1alpha1 v1beta1"),
    ("coordination.k8s.io", "v1 v1alpha2 v1beta1"),
    ("discovery.k8s.io", "v1 v1beta1"),
    ("events.k8s.io", "v1 v1beta1"),
    ("extensions", "v1beta1"),
    ("flowcontrol.apiserver.k8s.io", "v1 v1beta1 v1beta2 v1beta3"),
    ("imagepolicy.k8s.io", "v1alpha1"),
    ("internal.apiserver.k8s.io", "v1alpha1"),
    ("networking.k8s.io", "v1 v1beta1"),
    ("node.k8s.io", "v1 v1alpha1 v1beta1"),
    ("policy", "v1 v1beta1"),
    ("rbac.authorization.k8s.io", "v1 v1alpha1 v1beta1"),
    ("resource.k8s.io", "v1 v1alpha3 v1beta1 v1beta2"),
    ("scheduling.k8s.io", "v1 v1alpha2 v1beta1"),
    ("storage.k8s.io", "v1 v1alpha1 v1beta1"),
    ("storagemigration.k8s.io", "v1beta1"),
];
/// What v2 does not have.
const DROPPED: [&str; 6] = ["default", "nullable", "oneOf", "anyOf", "not", "allOf"];

/// Takes v3 documents one by one, so that no two trees are in memory at one time.
#[derive(Debug, Default)]
pub struct Builder {
    /// By path; JSON, and the message of name and value.
    paths: BTreeMap<String, (Vec<u8>, Vec<u8>)>,
    definitions: BTreeMap<String, (Vec<u8>, Vec<u8>)>,
}

/// One document in both of its forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub json: Vec<u8>,
    /// The message that Go clients read.
    pub protobuf: Vec<u8>,
}

impl Builder {
    /// Takes in the v3 document of one group and version.
    pub fn add(&mut self, mut document: Value) {
        let paths = document["paths"].take();
        for (path, item) in entries(paths) {
            let item = path_item(item);
            let piece = piece(2, &path, &item, gnostic_v2::path_item);
            self.paths.insert(path, piece);
        }
        let schemas = document["components"]["schemas"].take();
        for (name, tree) in entries(schemas) {
            // The shared types are in every document.
            if let Entry::Vacant(place) = self.definitions.entry(name) {
                let tree = definition(place.key(), tree);
                let piece = piece(1, place.key(), &tree, gnostic_v2::schema);
                place.insert(piece);
            }
        }
    }

    /// Takes in what another server says in v2 (see [`below`](super::below)). Paths that are known
    /// stay as they are; definitions of the same name and another content get a new one.
    pub fn add_other(&mut self, mut document: Value) {
        let definitions = entries(document["definitions"].take());
        let mut renames = BTreeMap::new();
        for (name, tree) in &definitions {
            let (mut count, mut new) = (1, name.clone());
            loop {
                match self.definitions.get(&new) {
                    Some((own, _)) if merge::is_same(&content(own), tree) => break,
                    None if new == *name || !definitions.contains_key(&new) => break,
                    _ => {}
                }
                count += 1;
                new = format!("{name}_v{count}");
            }
            if new != *name {
                renames.insert(name.clone(), new);
            }
        }
        for (name, mut tree) in definitions {
            merge::rename(&mut tree, &renames);
            let name = renames.get(&name).cloned().unwrap_or(name);
            self.define(name, tree);
        }
        for (path, mut item) in entries(document["paths"].take()) {
            if let Entry::Vacant(place) = self.paths.entry(path) {
                merge::rename(&mut item, &renames);
                let piece = piece(2, place.key(), &item, gnostic_v2::path_item);
                place.insert(piece);
            }
        }
    }

    /// A definition of another server, or kinds that it adds to one that is known.
    fn define(&mut self, name: String, tree: Value) {
        let tree = match self.definitions.get(&name) {
            None => tree,
            Some((own, _)) => {
                let mut own = content(own);
                if !merge::add_kinds(&mut own, &tree) {
                    return;
                }
                own
            }
        };
        let piece = piece(1, &name, &tree, gnostic_v2::schema);
        self.definitions.insert(name, piece);
    }

    /// The whole.
    pub fn finish(self, version: &str) -> Document {
        let head = json!({
            "swagger": "2.0", "info": {"title": "Kubernetes", "version": version},
            "securityDefinitions": {"BearerToken": {"description": "Bearer Token authentication",
                "type": "apiKey", "name": "authorization", "in": "header"}},
            "security": [{"BearerToken": []}],
        });
        let mut json = head.to_string().into_bytes();
        json.pop();
        let mut out = Writer::default();
        out.bytes(1, b"2.0");
        out.message(2, |out| gnostic_v2::info(&head["info"], out));
        let parts = [
            (8, "paths", self.paths),
            (9, "definitions", self.definitions),
        ];
        for (tag, name, pieces) in parts {
            let length = pieces.values().map(|(_, message)| message.len()).sum();
            out.length(tag, length);
            json.extend_from_slice(format!(",\"{name}\":{{").as_bytes());
            for (index, (text, message)) in pieces.into_values().enumerate() {
                if index > 0 {
                    json.push(b',');
                }
                json.extend_from_slice(&text);
                out.raw(&message);
            }
            json.push(b'}');
        }
        json.push(b'}');
        let requirement = &head["security"][0];
        out.message(12, |out| gnostic_v2::security_requirement(requirement, out));
        let definitions = &head["securityDefinitions"];
        out.message(13, |out| {
            gnostic::named(1, definitions, gnostic_v2::security_definition, out);
        });
        Document {
            json,
            protobuf: out.finish(),
        }
    }
}

/// One entry in both forms: `"name":value`, and a message under this tag.
fn piece(tag: u32, name: &str, tree: &Value, write: gnostic::Write) -> (Vec<u8>, Vec<u8>) {
    let text = format!("{}:{tree}", Value::from(name));
    let mut out = Writer::default();
    gnostic::entry(tag, name, tree, write, &mut out);
    (text.into_bytes(), out.finish())
}

/// The tree of an entry that was written.
fn content(text: &[u8]) -> Value {
    let whole = [b"{", text, b"}"].concat();
    let mut own = entries(serde_json::from_slice(&whole).unwrap_or_default()).into_iter();
    own.next().map(|(_, tree)| tree).unwrap_or_default()
}

fn entries(tree: Value) -> Map<String, Value> {
    match tree {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn path_item(tree: Value) -> Value {
    let mut item = Map::new();
    for (key, value) in entries(tree) {
        let value = match key.as_str() {
            method if METHODS.contains(&method) => operation(value),
            "parameters" => parameters(value).into(),
            _ => value,
        };
        item.insert(key, value);
    }
    Value::Object(item)
}

fn operation(mut tree: Value) -> Value {
    let mut parameters = parameters(tree["parameters"].take());
    let body = entries(tree["requestBody"].take());
    let action = tree["x-kubernetes-action"].as_str();
    let consumes = match action {
        Some("patch") => media(body.get("content")),
        Some(_) => vec!["*/*".into()],
        // What groups, versions and resources there are; other pages take nothing.
        None if matches!(tree["tags"][0].as_str(), Some("WellKnown" | "openid")) => Vec::new(),
        None => media(tree.pointer("/responses/200/content")),
    };
    if let Some(own) = schema_of(body.get("content")) {
        let mut parameter = json!({"in": "body", "name": "body", "schema": schema(own)});
        if let Some(required) = body.get("required") {
            parameter["required"] = required.clone();
        }
        parameters.insert(0, parameter);
    }
    let mut produces = Vec::new();
    let mut responses = Map::new();
    for (code, mut response) in entries(tree["responses"].take()) {
        if let Some(anything) = response.pointer_mut("/content/*~1*") {
            // Whatever comes, not one of ours.
            produces = vec!["*/*".into()];
            let own = anything["schema"].take();
            responses.insert(
                code,
                json!({"description": response["description"], "schema": own}),
            );
            continue;
        }
        let mut kept = json!({"description": response["description"]});
        if let Some(own) = schema_of(response.get("content")) {
            kept["schema"] = schema(own);
        }
        if produces.is_empty() {
            produces = media(response.get("content"));
        }
        responses.insert(code, kept);
    }
    let mut operation = entries(tree);
    operation.retain(|_, value| !value.is_null());
    if !consumes.is_empty() {
        operation.insert("consumes".into(), consumes.into());
    }
    if !produces.is_empty() {
        operation.insert("produces".into(), produces.into());
    }
    operation.insert("schemes".into(), json!(["https"]));
    if !parameters.is_empty() {
        operation.insert("parameters".into(), parameters.into());
    }
    operation.insert("responses".into(), Value::Object(responses));
    Value::Object(operation)
}

/// The media types of a content, the usual ones first.
fn media(content: Option<&Value>) -> Vec<Value> {
    let place = |name: &str| {
        let plain = name.split(';').next().unwrap_or(name);
        let known = MEDIA.iter().position(|media| *media == plain);
        (name.len() > plain.len(), known.unwrap_or(MEDIA.len()))
    };
    let content = content.and_then(Value::as_object);
    let mut names: Vec<&str> = content
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_by_key(|name| place(name));
    names.into_iter().map(Value::from).collect()
}

/// All media types of one content have the same schema.
fn schema_of(content: Option<&Value>) -> Option<Value> {
    let first = content?.as_object()?.values().next()?;
    first.get("schema").cloned()
}

/// In v2 a parameter is its own schema.
fn parameters(tree: Value) -> Vec<Value> {
    let Value::Array(list) = tree else {
        return Vec::new();
    };
    let flat = |mut parameter: Value| {
        let own = entries(parameter["schema"].take());
        let mut parameter = entries(parameter);
        parameter.remove("schema");
        parameter.extend(own);
        Value::Object(parameter)
    };
    list.into_iter().map(flat).collect()
}

/// Built-in types list no values, and those that stand in every version of every group name these.
fn refine(name: &str, tree: &mut Value) {
    let properties = tree.get_mut("properties").and_then(Value::as_object_mut);
    for property in properties.into_iter().flat_map(Map::values_mut) {
        for place in ["", "/items", "/additionalProperties"] {
            if let Some(Value::Object(own)) = property.pointer_mut(place) {
                own.remove("enum");
            }
        }
    }
    let kind = name.strip_prefix("io.k8s.apimachinery.pkg.apis.meta.v1.");
    if let Some(kind) = kind.filter(|kind| matches!(*kind, "DeleteOptions" | "WatchEvent")) {
        let versions = VERSIONS.iter().flat_map(|(group, versions)| {
            let one = move |version| json!({"group": group, "kind": kind, "version": version});
            versions.split(' ').map(one)
        });
        tree["x-kubernetes-group-version-kind"] = versions.collect();
    }
}

/// A named type; the two that are of several types are called texts.
fn definition(name: &str, tree: Value) -> Value {
    let mut tree = schema(tree);
    if crate::named(name).is_some() {
        refine(name, &mut tree);
    }
    let last = name.rsplit('.').next().unwrap_or("");
    if matches!(last, "IntOrString" | "Quantity") && name.starts_with("io.k8s.apimachinery.") {
        tree["type"] = "string".into();
    }
    tree
}

fn schema(tree: Value) -> Value {
    let Value::Object(map) = tree else {
        return tree;
    };
    let mut kept = Map::new();
    for (key, value) in map {
        match (key.as_str(), value) {
            // A reference that was wrapped for what stands beside it.
            ("allOf", Value::Array(mut parts)) if parts.len() == 1 => {
                kept.extend(entries(schema(parts.remove(0))));
            }
            ("$ref", Value::String(target)) => {
                let target = target.replace("#/components/schemas/", "#/definitions/");
                kept.insert(key, target.into());
            }
            ("properties", value) => {
                let own = entries(value).into_iter();
                let own: Map<_, _> = own.map(|(name, value)| (name, schema(value))).collect();
                kept.insert(key, Value::Object(own));
            }
            ("items" | "additionalProperties", value) => drop(kept.insert(key, schema(value))),
            (name, _) if DROPPED.contains(&name) => {}
            (_, value) => drop(kept.insert(key, value)),
        }
    }
    Value::Object(kept)
}
