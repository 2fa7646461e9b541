//! An object of any kind as a tree, with its metadata at hand.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An API object of any kind. The tree is always a JSON object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Object(pub Value);

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    #[serde(default)]
    pub controller: Option<bool>,
    #[serde(default)]
    pub block_owner_deletion: Option<bool>,
}

impl Object {
    /// Wraps a tree; `None` unless it is a JSON object.
    pub fn new(tree: Value) -> Option<Object> {
        tree.is_object().then_some(Object(tree))
    }

    /// `apiVersion`, or the empty string.
    pub fn api_version(&self) -> &str {
        self.text("/apiVersion")
    }

    /// `kind`, or the empty string.
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// `metadata.name`, or the empty string.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// `metadata.namespace`, or the empty string.
    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    /// `metadata.uid`, or the empty string.
    pub fn uid(&self) -> &str {
        self.text("/metadata/uid")
    }

    /// `metadata.resourceVersion`, or the empty string.
    pub fn resource_version(&self) -> &str {
        self.text("/metadata/resourceVersion")
    }

    /// `metadata.generation`, or 0.
    pub fn generation(&self) -> i64 {
        at(&self.0, "/metadata/generation")
            .and_then(Value::as_i64)
            .unwrap_or(0)
    }

    /// `metadata.deletionTimestamp`, when the object is being deleted.
    pub fn deletion_timestamp(&self) -> Option<&str> {
        at(&self.0, "/metadata/deletionTimestamp").and_then(Value::as_str)
    }

    /// `metadata.labels` as pairs.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs("/metadata/labels")
    }

    /// `metadata.annotations` as pairs.
    pub fn annotations(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs("/metadata/annotations")
    }

    /// One label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.0.get("metadata")?.get("labels")?.get(key)?.as_str()
    }

    /// One annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.0
            .get("metadata")?
            .get("annotations")?
            .get(key)?
            .as_str()
    }

    /// `metadata.finalizers`.
    pub fn finalizers(&self) -> Vec<&str> {
        let list = at(&self.0, "/metadata/finalizers").and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    }

    /// `metadata.ownerReferences`; entries that do not decode are left out.
    pub fn owners(&self) -> Vec<OwnerReference> {
        let list = at(&self.0, "/metadata/ownerReferences").and_then(Value::as_array);
        let decode = |entry: &Value| OwnerReference::deserialize(entry).ok();
        list.into_iter().flatten().filter_map(decode).collect()
    }

    /// The text at a JSON pointer, or the empty string.
    pub fn text(&self, pointer: &str) -> &str {
        at(&self.0, pointer).and_then(Value::as_str).unwrap_or("")
    }

    /// The fields of the object.
    pub fn fields(&self) -> &Map<String, Value> {
        static EMPTY: std::sync::OnceLock<Map<String, Value>> = std::sync::OnceLock::new();
        self.0
            .as_object()
            .unwrap_or_else(|| EMPTY.get_or_init(Map::new))
    }

    /// `metadata`, created when it is absent or not a map.
    pub fn metadata_mut(&mut self) -> &mut Map<String, Value> {
        map_at(&mut self.0, "metadata")
    }

    /// Sets one field of `metadata`.
    pub fn set_metadata(&mut self, field: &str, value: impl Into<Value>) {
        self.metadata_mut().insert(field.to_owned(), value.into());
    }

    fn pairs(&self, pointer: &str) -> impl Iterator<Item = (&str, &str)> {
        let map = at(&self.0, pointer).and_then(Value::as_object);
        map.into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }
}

/// The value at a JSON pointer whose names need no escapes and are no places in lists. A tree's own
/// `pointer` allocates twice for each name.
pub fn at<'tree>(tree: &'tree Value, pointer: &str) -> Option<&'tree Value> {
    let mut value = tree;
    for name in pointer.split('/').skip(1) {
        value = value.as_object()?.get(name)?;
    }
    Some(value)
}

/// The map in field `field` of `tree`, created (replacing any other value) when it is not one.
pub fn map_at<'tree>(tree: &'tree mut Value, field: &str) -> &'tree mut Map<String, Value> {
    let parent = as_map(tree);
    as_map(parent.entry(field).or_insert(Value::Null))
}

fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made a map above"),
    }
}
