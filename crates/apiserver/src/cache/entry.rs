//! One object as the cache keeps it: its encoded bytes, and what is asked about it most.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use kinds::Strategy;
use meta::Object;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;

/// Where `metadata` begins in what [`encode`] writes.
const METADATA: &[u8] = b"\"metadata\":{";
/// Room for an object of usual size.
const ENCODED: usize = 1024;
/// How far into the bytes `metadata` may begin: after kind and apiVersion only.
const METADATA_WITHIN: usize = 512;

/// An object at one revision.
pub(crate) struct Entry {
    /// `namespace/name`, or `name` for cluster-wide kinds.
    pub(crate) key: Box<str>,
    /// Store revision of this version.
    pub(crate) revision: i64,
    pub(crate) uid: Box<str>,
    pub(crate) labels: Box<[(Box<str>, Box<str>)]>,
    /// What field selectors may ask for besides name and namespace.
    pub(crate) fields: Box<[(&'static str, Box<str>)]>,
    /// The lease the object is attached to; 0 for none.
    pub(crate) lease: i64,
    /// How the object is encrypted in the store.
    pub(crate) seal: encryption::Seal,
    /// The object with its resourceVersion.
    pub(crate) json: Bytes,
    tree: OnceLock<Arc<Object>>,
    /// The protobuf message, while somebody lists in that form.
    protobuf: Mutex<Option<Box<Bytes>>>,
}

/// An object's bytes cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("stored object {key} does not decode: {error}")]
pub(crate) struct EntryError {
    key: String,
    error: serde_json::Error,
}

#[derive(Deserialize)]
struct Shell<'a> {
    #[serde(borrow)]
    metadata: ShellMeta<'a>,
}

#[derive(Deserialize)]
struct ShellMeta<'a> {
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(borrow, default)]
    labels: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
}

impl Entry {
    /// Reads stored bytes once, unless their tree is known. `key` is what follows the resource's
    /// prefix.
    pub(crate) fn read(
        key: &str,
        stored: &[u8],
        known: Option<&Object>,
        (revision, lease): (i64, i64),
        strategy: &dyn Strategy,
    ) -> Result<Entry, EntryError> {
        let bad = |error| EntryError {
            key: key.to_owned(),
            error,
        };
        let boxed = |text: &str| -> Box<str> { text.into() };
        let reshaped = match strategy.reshapes() {
            true => reshape(stored, strategy).map_err(bad)?,
            false => None,
        };
        let stored = reshaped.as_deref().unwrap_or(stored);
        // The whole tree only where fields beyond the metadata are asked for.
        let of_tree = |tree: &Object| {
            let labels = tree.labels().map(|(key, value)| (boxed(key), boxed(value)));
            let fields = strategy.selectable_fields(&tree.0).into_iter();
            let fields = fields.map(|(name, value)| (name, value.into())).collect();
            (boxed(tree.uid()), labels.collect(), fields)
        };
        let known = known.filter(|_| reshaped.is_none());
        let (uid, labels, fields) = match (known, strategy.selectable_field_names()) {
            (Some(tree), _) => of_tree(tree),
            (None, []) => {
                let shell: Shell<'_> = serde_json::from_slice(stored).map_err(bad)?;
                let labels = shell.metadata.labels.unwrap_or_default();
                let labels = labels.iter().map(|(key, value)| (boxed(key), boxed(value)));
                (boxed(&shell.metadata.uid), labels.collect(), Box::default())
            }
            (None, _) => of_tree(&Object(serde_json::from_slice(stored).map_err(bad)?)),
        };
        let json = match with_revision(stored, revision) {
            Some(json) => json,
            None => {
                let mut tree: Value = serde_json::from_slice(stored).map_err(bad)?;
                tree["metadata"]["resourceVersion"] = revision.to_string().into();
                encode(&tree).into()
            }
        };
        Ok(Entry {
            key: key.into(),
            revision,
            uid,
            labels,
            fields,
            lease,
            seal: encryption::Seal::PLAIN,
            json,
            tree: OnceLock::new(),
            protobuf: Mutex::new(None),
        })
    }

    /// The namespace; empty for cluster-wide kinds.
    pub(crate) fn namespace(&self) -> &str {
        self.key.split_once('/').map_or("", |(ns, _)| ns)
    }

    /// The name.
    pub(crate) fn name(&self) -> &str {
        self.key.split_once('/').map_or(&self.key, |(_, name)| name)
    }

    /// One label's value.
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        let found = self.labels.binary_search_by(|(own, _)| (**own).cmp(key));
        found.ok().map(|at| &*self.labels[at].1)
    }

    /// One selectable field's value.
    pub(crate) fn field(&self, path: &str) -> Option<&str> {
        match path {
            "metadata.name" => Some(self.name()),
            "metadata.namespace" => Some(self.namespace()),
            path => {
                let mut found = self.fields.iter().filter(|(name, _)| *name == path);
                found.next().map(|(_, value)| &**value)
            }
        }
    }

    /// The protobuf message, if somebody had one made.
    pub(crate) fn protobuf(&self) -> Option<Bytes> {
        self.protobuf.lock().as_deref().cloned()
    }

    /// Keeps the message for the next who asks.
    pub(crate) fn keep_protobuf(&self, raw: Bytes) {
        *self.protobuf.lock() = Some(Box::new(raw));
    }

    /// Forgets the message.
    pub(super) fn drop_protobuf(&self) {
        *self.protobuf.lock() = None;
    }

    /// The object decoded for whoever looks at it often; kept from the first call on.
    pub(crate) fn shared_tree(&self) -> Arc<Object> {
        Arc::clone(self.tree.get_or_init(|| Arc::new(self.decode())))
    }

    /// The object decoded for one use.
    pub(crate) fn decode(&self) -> Object {
        match self.tree.get() {
            Some(tree) => (**tree).clone(),
            // The bytes were read once already.
            None => Object(serde_json::from_slice(&self.json).unwrap_or(Value::Null)),
        }
    }

    /// The object's bytes as of a later revision: how a deletion shows what was deleted.
    pub(crate) fn json_at(&self, revision: i64) -> Bytes {
        if revision == self.revision {
            return self.json.clone();
        }
        replace_revision(&self.json, revision).unwrap_or_else(|| self.json.clone())
    }
}

/// A stored object in today's shape; `None` when it has that.
fn reshape(stored: &[u8], strategy: &dyn Strategy) -> Result<Option<Vec<u8>>, serde_json::Error> {
    let before: Value = serde_json::from_slice(stored)?;
    let mut tree = before.clone();
    strategy.reshape(&mut tree);
    Ok((tree != before).then(|| encode(&tree)))
}

/// Encodes an object: kind, apiVersion, metadata, then the rest by name.
pub(crate) fn encode(tree: &Value) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ENCODED);
    encode_into(&mut bytes, tree, write);
    bytes
}

/// The same without resourceVersion, which [`with_revision`] adds once the store has assigned it.
pub(crate) fn encode_stored(tree: &Value) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ENCODED);
    encode_into(&mut bytes, tree, |bytes, metadata| {
        let Some(map) = metadata.as_object() else {
            return write(bytes, metadata);
        };
        bytes.push(b'{');
        let kept = map.iter().filter(|(name, _)| *name != "resourceVersion");
        for (at, (name, value)) in kept.enumerate() {
            if at > 0 {
                bytes.push(b',');
            }
            write(bytes, name);
            bytes.push(b':');
            write(bytes, value);
        }
        bytes.push(b'}');
    });
    bytes
}

fn encode_into(bytes: &mut Vec<u8>, tree: &Value, metadata: impl Fn(&mut Vec<u8>, &Value)) {
    const FIRST: [&str; 3] = ["kind", "apiVersion", "metadata"];
    let Some(map) = tree.as_object() else {
        write(bytes, tree);
        return;
    };
    let first = FIRST.iter().filter_map(|name| map.get_key_value(*name));
    let rest = map
        .iter()
        .filter(|(name, _)| !FIRST.contains(&name.as_str()));
    let first = first.map(|(name, value)| (name, value, name == "metadata"));
    let rest = rest.map(|(name, value)| (name, value, false));
    bytes.push(b'{');
    for (at, (name, value, is_metadata)) in first.chain(rest).enumerate() {
        if at > 0 {
            bytes.push(b',');
        }
        write(bytes, name);
        bytes.push(b':');
        match is_metadata {
            true => metadata(bytes, value),
            false => write(bytes, value),
        }
    }
    bytes.push(b'}');
}

fn write(bytes: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    // Writing a tree to memory cannot fail.
    if let Err(error) = serde_json::to_writer(bytes, value) {
        tracing::error!(%error, "a tree did not encode");
    }
}

/// Adds the resourceVersion to what [`encode`] wrote; `None` for bytes of another writer.
pub(crate) fn with_revision(stored: &[u8], revision: i64) -> Option<Bytes> {
    let window = &stored[..stored.len().min(METADATA_WITHIN)];
    let at = find(window, METADATA)? + METADATA.len();
    let rest = &stored[at..];
    if !stored.starts_with(b"{\"kind\":") || rest.starts_with(b"\"resourceVersion\"") {
        return None;
    }
    let mut json = Vec::with_capacity(stored.len() + 48);
    json.extend_from_slice(&stored[..at]);
    json.extend_from_slice(b"\"resourceVersion\":\"");
    json.extend_from_slice(revision.to_string().as_bytes());
    json.push(b'"');
    if !rest.starts_with(b"}") {
        json.push(b',');
    }
    json.extend_from_slice(rest);
    Some(json.into())
}

fn replace_revision(json: &[u8], revision: i64) -> Option<Bytes> {
    const FIELD: &[u8] = b"\"metadata\":{\"resourceVersion\":\"";
    let start = find(&json[..json.len().min(METADATA_WITHIN)], FIELD)? + FIELD.len();
    let end = start + json[start..].iter().position(|byte| *byte == b'"')?;
    let mut changed = Vec::with_capacity(json.len() + 8);
    changed.extend_from_slice(&json[..start]);
    changed.extend_from_slice(revision.to_string().as_bytes());
    changed.extend_from_slice(&json[end..]);
    Some(changed.into())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn revision_is_added_and_replaced() {
        let tree = json!({"data": {"metadata": "x"}, "metadata": {"name": "a"}, "kind": "ConfigMap",
            "apiVersion": "v1"});
        let stored = encode_stored(&tree);
        assert_eq!(stored, encode(&tree));
        assert!(stored.starts_with(br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"#));
        let json = with_revision(&stored, 7).unwrap();
        let read: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            read["metadata"],
            json!({"name": "a", "resourceVersion": "7"})
        );
        let later = replace_revision(&json, 1234).unwrap();
        let read: Value = serde_json::from_slice(&later).unwrap();
        assert_eq!(read["metadata"]["resourceVersion"], "1234");
        assert_eq!(read["data"]["metadata"], "x");
        assert_eq!(encode_stored(&read), stored);
    }
}
