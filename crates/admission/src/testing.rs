//! A world of objects and a way to ask, for the tests of plugins.

use std::collections::BTreeMap;
use std::sync::Arc;

use auth::Identity;
use meta::{Names, Object};
use parking_lot::Mutex;
use serde_json::Value;

use crate::plugin::{Lookup, Notes, Operation, Request};

/// Objects by resource, namespace and name.
#[derive(Default)]
pub(crate) struct World(Mutex<BTreeMap<(String, String, String), Arc<Object>>>);

impl World {
    pub(crate) fn with(self, resource: &str, value: Value) -> World {
        self.put(resource, value);
        self
    }

    pub(crate) fn put(&self, resource: &str, value: Value) {
        let object = object(value);
        let key = (
            resource.to_owned(),
            object.namespace().to_owned(),
            object.name().to_owned(),
        );
        self.0.lock().insert(key, Arc::new(object));
    }

    pub(crate) fn remove(&self, resource: &str, namespace: &str, name: &str) {
        self.0
            .lock()
            .remove(&(resource.to_owned(), namespace.to_owned(), name.to_owned()));
    }
}

impl Lookup for World {
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        self.0.lock().get(&key).cloned()
    }
    fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Object>> {
        let objects = self.0.lock();
        let fits = |key: &(String, String, String)| {
            key.0 == resource && (namespace.is_empty() || key.1 == namespace)
        };
        objects
            .iter()
            .filter(|(key, _)| fits(key))
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }
}

pub(crate) fn object(value: Value) -> Object {
    Object::new(value).unwrap()
}

/// A [`Request`] that owns what it refers to; on namespace `default` unless told otherwise.
pub(crate) struct Asked {
    pub(crate) operation: Operation,
    pub(crate) names: Names,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
    pub(crate) user: Identity,
    pub(crate) old: Option<Object>,
    pub(crate) dry_run: bool,
    pub(crate) notes: Heard,
}

/// What plugins said: warnings as they are, audit annotations as `key=value`.
#[derive(Default)]
pub(crate) struct Heard(pub(crate) Mutex<Vec<String>>);

impl Notes for Heard {
    fn warn(&self, text: String) {
        self.0.lock().push(text);
    }

    fn annotate(&self, key: &str, value: &str) {
        self.0.lock().push(format!("{key}={value}"));
    }
}

/// `resource` as `pods`, `pods/status` or `deployments.apps`.
pub(crate) fn request(operation: Operation, resource: &str, name: &str) -> Asked {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    let namespaced = !["nodes", "namespaces", "priorityclasses"].contains(&plural);
    let names = match namespaced {
        true => Names::namespaced(group, "v1", "Kind", plural),
        false => Names::cluster(group, "v1", "Kind", plural),
    };
    Asked {
        operation,
        names,
        namespace: if namespaced {
            "default".into()
        } else {
            String::new()
        },
        name: name.into(),
        subresource: subresource.into(),
        user: Identity::user("jane", &[]),
        old: None,
        dry_run: false,
        notes: Heard::default(),
    }
}

impl Asked {
    pub(crate) fn borrow(&self) -> Request<'_> {
        Request {
            operation: self.operation,
            names: &self.names,
            namespace: &self.namespace,
            name: &self.name,
            subresource: &self.subresource,
            user: &self.user,
            old: self.old.as_ref(),
            dry_run: self.dry_run,
            notes: &self.notes,
        }
    }
}
