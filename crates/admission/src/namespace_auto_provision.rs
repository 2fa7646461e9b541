//! NamespaceAutoProvision: a namespace that is missing is made when something is created in it.

use meta::Object;

use crate::plugin::{Awaited, Lookup, Operation, Plugin, Request};

pub(crate) struct NamespaceAutoProvision;

impl Plugin for NamespaceAutoProvision {
    fn name(&self) -> &'static str {
        "NamespaceAutoProvision"
    }

    fn awaits(
        &self,
        request: &Request<'_>,
        _object: &Object,
        lookup: &dyn Lookup,
    ) -> Option<Awaited> {
        let applies = request.operation == Operation::Create
            && !request.namespace.is_empty()
            && !request.resource_is("namespaces")
            && !request.dry_run;
        let is_missing = || lookup.get("namespaces", "", request.namespace).is_none();
        (applies && is_missing()).then(|| Awaited {
            resource: "namespaces",
            namespace: String::new(),
            name: request.namespace.to_owned(),
            create: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{World, object, request};

    #[test]
    fn what_is_missing_is_to_be_made() {
        let asked = request(Operation::Create, "pods", "p");
        let pod = object(json!({}));
        let wanted = |world: &World| NamespaceAutoProvision.awaits(&asked.borrow(), &pod, world);
        let missing = wanted(&World::default()).map(|own| (own.name, own.create));
        assert_eq!(missing, Some(("default".to_owned(), true)));
        let world = World::default().with("namespaces", json!({"metadata": {"name": "default"}}));
        assert_eq!(wanted(&world), None);
    }
}
