//! DefaultStorageClass: claims without a class get the cluster's default one.

use std::sync::Arc;

use meta::object::map_at;
use meta::{Object, Status};
use serde_json::Value;

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::tree::spec;

const CLASSES: &str = "storageclasses.storage.k8s.io";
const DEFAULT: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];
const LEGACY_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub(crate) struct DefaultStorageClass;

impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let asked = request.operation == Operation::Create
            && request.is_on("persistentvolumeclaims")
            && spec(object)
                .get("storageClassName")
                .is_none_or(Value::is_null)
            && object.annotation(LEGACY_CLASS).is_none();
        if asked && let Some(class) = default_class(lookup) {
            map_at(&mut object.0, "spec").insert("storageClassName".into(), class.name().into());
        }
        Ok(())
    }
}

/// The newest class that is marked; of those, the first by name.
fn default_class(lookup: &dyn Lookup) -> Option<Arc<Object>> {
    let marked = |class: &Arc<Object>| {
        DEFAULT
            .iter()
            .any(|annotation| class.annotation(annotation) == Some("true"))
    };
    let created = |class: &Object| class.text("/metadata/creationTimestamp").to_owned();
    let mut classes: Vec<_> = lookup
        .list(CLASSES, "")
        .into_iter()
        .filter(marked)
        .collect();
    classes.sort_by(|a, b| {
        created(b)
            .cmp(&created(a))
            .then_with(|| a.name().cmp(b.name()))
    });
    classes.into_iter().next()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{World, object, request};

    fn class(name: &str, created: &str, default: &str) -> Value {
        json!({"metadata": {"name": name, "creationTimestamp": created,
            "annotations": {"storageclass.kubernetes.io/is-default-class": default}}})
    }

    fn admitted(world: &World, spec: Value) -> Value {
        let mut claim = object(json!({"spec": spec}));
        let asked = request(Operation::Create, "persistentvolumeclaims", "data");
        DefaultStorageClass
            .mutate(&asked.borrow(), &mut claim, world)
            .unwrap();
        claim.0["spec"].clone()
    }

    #[test]
    fn the_newest_default_is_taken() {
        let world = World::default().with(CLASSES, class("plain", "2026-01-03T00:00:00Z", "false"));
        assert_eq!(admitted(&world, json!({})), json!({}));
        let world = world
            .with(CLASSES, class("old", "2026-01-01T00:00:00Z", "true"))
            .with(CLASSES, class("new", "2026-01-02T00:00:00Z", "true"));
        assert_eq!(
            admitted(&world, json!({})),
            json!({"storageClassName": "new"})
        );
        for given in ["", "own"] {
            let spec = json!({"storageClassName": given});
            assert_eq!(admitted(&world, spec.clone()), spec);
        }
    }
}
