//! DefaultStorageClass and DefaultIngressClass: who names no class gets the cluster's default one.

use std::sync::Arc;

use meta::object::map_at;
use meta::{Object, Status};
use serde_json::Value;

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::tree::spec;

/// One kind of class, and what refers to it.
pub(crate) struct DefaultClass {
    plugin: &'static str,
    classes: &'static str,
    /// Annotations that mark the default class.
    marks: &'static [&'static str],
    /// What refers to a class, and by which field or (older) annotation.
    resource: &'static str,
    field: &'static str,
    annotation: &'static str,
}

pub(crate) const STORAGE: DefaultClass = DefaultClass {
    plugin: "DefaultStorageClass",
    classes: "storageclasses.storage.k8s.io",
    marks: &[
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ],
    resource: "persistentvolumeclaims",
    field: "storageClassName",
    annotation: "volume.beta.kubernetes.io/storage-class",
};

pub(crate) const INGRESS: DefaultClass = DefaultClass {
    plugin: "DefaultIngressClass",
    classes: "ingressclasses.networking.k8s.io",
    marks: &["ingressclass.kubernetes.io/is-default-class"],
    resource: "ingresses.networking.k8s.io",
    field: "ingressClassName",
    annotation: "kubernetes.io/ingress.class",
};

impl Plugin for DefaultClass {
    fn name(&self) -> &'static str {
        self.plugin
    }

    fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let asked = request.operation == Operation::Create
            && request.is_on(self.resource)
            && spec(object).get(self.field).is_none_or(Value::is_null)
            && object.annotation(self.annotation).is_none();
        if asked && let Some(class) = self.default(lookup) {
            map_at(&mut object.0, "spec").insert(self.field.into(), class.name().into());
        }
        Ok(())
    }
}

impl DefaultClass {
    /// The newest class that is marked; of those, the first by name.
    fn default(&self, lookup: &dyn Lookup) -> Option<Arc<Object>> {
        let marked = |class: &Arc<Object>| {
            self.marks
                .iter()
                .any(|mark| class.annotation(mark) == Some("true"))
        };
        let created = |class: &Object| class.text("/metadata/creationTimestamp").to_owned();
        let mut classes: Vec<_> = lookup
            .list(self.classes, "")
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
        STORAGE.mutate(&asked.borrow(), &mut claim, world).unwrap();
        claim.0["spec"].clone()
    }

    #[test]
    fn the_newest_default_is_taken() {
        let world = World::default().with(
            STORAGE.classes,
            class("plain", "2026-01-03T00:00:00Z", "false"),
        );
        assert_eq!(admitted(&world, json!({})), json!({}));
        let world = world
            .with(
                STORAGE.classes,
                class("old", "2026-01-01T00:00:00Z", "true"),
            )
            .with(
                STORAGE.classes,
                class("new", "2026-01-02T00:00:00Z", "true"),
            );
        assert_eq!(
            admitted(&world, json!({})),
            json!({"storageClassName": "new"})
        );
        for given in ["", "own"] {
            let spec = json!({"storageClassName": given});
            assert_eq!(admitted(&world, spec.clone()), spec);
        }
    }

    #[test]
    fn ingresses_have_a_default_too() {
        let mark = json!({"ingressclass.kubernetes.io/is-default-class": "true"});
        let class = json!({"metadata": {"name": "front", "annotations": mark}});
        let world = World::default().with(INGRESS.classes, class);
        let admitted = |annotations: Value| {
            let mut ingress = object(json!({"metadata": {"annotations": annotations}}));
            let asked = request(Operation::Create, INGRESS.resource, "web");
            INGRESS
                .mutate(&asked.borrow(), &mut ingress, &world)
                .unwrap();
            ingress.text("/spec/ingressClassName").to_owned()
        };
        assert_eq!(admitted(json!({})), "front");
        assert_eq!(admitted(json!({"kubernetes.io/ingress.class": "own"})), "");
    }
}
