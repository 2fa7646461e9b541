//! Owner references: who controls an object, and how to be its controller.

use client::{Change, Key, Kind};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// The owner with `controller: true`.
pub fn controller_of(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true))
}

/// Whether the object with `uid` controls this one.
pub fn is_controlled_by(metadata: &ObjectMeta, uid: &str) -> bool {
    controller_of(metadata).is_some_and(|owner| owner.uid == uid)
}

/// A controlling reference to `owner`.
pub fn controller_reference<K: Kind>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::API_VERSION.into(),
        kind: K::KIND.into(),
        name: owner.metadata().name.clone().unwrap_or_default(),
        uid: owner.metadata().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The keys of the controllers of kind `kind` that a change concerns, before and after it.
pub fn controllers<K: Kind>(change: &Change<K>, kind: &str) -> Vec<Key> {
    let mut keys = Vec::new();
    for object in [&change.old, &change.new].into_iter().flatten() {
        if let Some(owner) = controller_of(object.metadata()).filter(|owner| owner.kind == kind) {
            let key = Key::new(change.key.namespace.clone(), owner.name.clone());
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    keys
}
