//! NamespaceExists: nothing happens in namespaces that do not exist, not even deletions.

use meta::names::Names;
use meta::{Object, Status};

use crate::plugin::{Lookup, Operation, Plugin, Request};

pub(crate) struct NamespaceExists;

impl Plugin for NamespaceExists {
    fn name(&self) -> &'static str {
        "NamespaceExists"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        _object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let namespace = request.namespace;
        let exempt = namespace.is_empty()
            || request.resource_is("namespaces")
            || request.operation == Operation::Connect;
        if exempt || lookup.get("namespaces", "", namespace).is_some() {
            return Ok(());
        }
        let names = Names::cluster("", "v1", "Namespace", "namespaces");
        Err(Status::not_found(&names, namespace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, request};

    #[test]
    fn a_missing_namespace_is_not_found() {
        let asked = request(Operation::Delete, "pods", "web");
        let judged = NamespaceExists.validate(&asked.borrow(), None, &World::default());
        let message = judged.map_err(|status| status.message);
        assert_eq!(message, Err("namespaces \"default\" not found".into()));
    }
}
