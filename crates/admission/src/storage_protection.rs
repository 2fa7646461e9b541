//! StorageObjectInUseProtection: what storage is made of gets a finalizer, which controllers take
//! off once nobody uses it.

use meta::object::map_at;
use meta::{Object, Status};

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::tree::push;

/// Resources, and what protects their objects.
const FINALIZERS: [(&str, &str); 3] = [
    ("persistentvolumes", "kubernetes.io/pv-protection"),
    ("persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    (
        "volumeattributesclasses.storage.k8s.io",
        "kubernetes.io/vac-protection",
    ),
];

pub(crate) struct StorageObjectInUseProtection;

impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        _lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        if request.operation != Operation::Create {
            return Ok(());
        }
        let protected = FINALIZERS.iter().find(|(name, _)| request.is_on(name));
        let Some((_, finalizer)) = protected else {
            return Ok(());
        };
        let metadata = map_at(&mut object.0, "metadata");
        let known = metadata.get("finalizers").and_then(|own| own.as_array());
        if !known.is_some_and(|own| own.iter().any(|one| one == finalizer)) {
            push(metadata, "finalizers", (*finalizer).into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{World, object, request};

    #[test]
    fn storage_is_protected_once() {
        let check = |operation: Operation, resource: &str, given: serde_json::Value, expected| {
            let mut one = object(json!({"metadata": {"name": "a", "finalizers": given}}));
            let asked = request(operation, resource, "a");
            StorageObjectInUseProtection
                .mutate(&asked.borrow(), &mut one, &World::default())
                .unwrap();
            assert_eq!(one.0["metadata"]["finalizers"], expected, "{resource}");
        };
        let (new, old) = (Operation::Create, Operation::Update);
        let claim = "kubernetes.io/pvc-protection";
        check(new, "persistentvolumeclaims", json!([]), json!([claim]));
        let both = json!([claim, "a.b/c"]);
        check(new, "persistentvolumeclaims", both.clone(), both);
        check(old, "persistentvolumeclaims", json!([]), json!([]));
        check(new, "persistentvolumeclaims/status", json!([]), json!([]));
        let volume = json!(["kubernetes.io/pv-protection"]);
        check(new, "persistentvolumes", json!([]), volume);
        let class = json!(["kubernetes.io/vac-protection"]);
        check(new, FINALIZERS[2].0, json!([]), class);
        check(new, "pods", json!([]), json!([]));
    }
}
