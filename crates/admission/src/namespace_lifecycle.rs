//! NamespaceLifecycle: nothing is written into namespaces that do not exist or are going away.

use meta::names::Names;
use meta::status::Cause;
use meta::{Object, Status};

use crate::plugin::{Lookup, Operation, Plugin, Request};

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(crate) struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        check(request, Some(object), lookup)
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        check(request, object, lookup)
    }
}

/// Whether the state of the request's namespace matters. A permission check tells nothing of it.
fn matters(request: &Request<'_>) -> bool {
    !request.namespace.is_empty()
        && !request.resource_is("namespaces")
        && !request.resource_is("localsubjectaccessreviews.authorization.k8s.io")
        && request.operation != Operation::Delete
}

fn check(
    request: &Request<'_>,
    object: Option<&Object>,
    lookup: &dyn Lookup,
) -> Result<(), Status> {
    let deletion = request.operation == Operation::Delete;
    if deletion && request.is_on("namespaces") && IMMORTAL.contains(&request.name) {
        return Err(request.refused(object, "this namespace may not be deleted"));
    }
    if !matters(request) {
        return Ok(());
    }
    let Some(namespace) = lookup.get("namespaces", "", request.namespace) else {
        let names = Names::cluster("", "v1", "Namespace", "namespaces");
        return Err(Status::not_found(&names, request.namespace));
    };
    let terminating = namespace.text("/status/phase") == "Terminating"
        || namespace.deletion_timestamp().is_some();
    if request.operation != Operation::Create || !terminating {
        return Ok(());
    }
    let name = request.namespace;
    let why =
        format!("unable to create new content in namespace {name} because it is being terminated");
    let mut status = request.refused(object, &why);
    status.causes.push(Cause {
        reason: "NamespaceTerminating".into(),
        message: format!("namespace {name} is being terminated"),
        field: "metadata.namespace".into(),
    });
    Err(status)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{World, object, request};

    fn message(world: &World, operation: Operation, resource: &str, name: &str) -> Option<String> {
        let asked = request(operation, resource, name);
        let pod = object(json!({"metadata": {"name": name}}));
        let judged = NamespaceLifecycle.validate(&asked.borrow(), Some(&pod), world);
        judged
            .err()
            .map(|status| format!("{} {}", status.code, status.message))
    }

    #[test]
    fn a_namespace_must_exist() {
        let world = World::default();
        assert_eq!(
            message(&world, Operation::Create, "pods", "web").as_deref(),
            Some("404 namespaces \"default\" not found")
        );
        assert_eq!(message(&world, Operation::Delete, "pods", "web"), None);
        assert_eq!(message(&world, Operation::Create, "nodes", "a"), None);
        let review = "localsubjectaccessreviews.authorization.k8s.io";
        assert_eq!(message(&world, Operation::Create, review, ""), None);
        let there = world.with("namespaces", json!({"metadata": {"name": "default"}}));
        assert_eq!(message(&there, Operation::Create, "pods", "web"), None);
    }

    #[test]
    fn nothing_is_added_to_a_dying_namespace() {
        let world = World::default().with(
            "namespaces",
            json!({"metadata": {"name": "default"}, "status": {"phase": "Terminating"}}),
        );
        assert_eq!(message(&world, Operation::Update, "pods", "web"), None);
        let asked = request(Operation::Create, "pods", "web");
        let refusal = NamespaceLifecycle
            .validate(&asked.borrow(), None, &world)
            .unwrap_err();
        assert_eq!(
            refusal.message,
            "pods \"web\" is forbidden: unable to create new content in namespace default because \
             it is being terminated"
        );
        assert_eq!(refusal.causes[0].reason, "NamespaceTerminating");
    }

    #[test]
    fn some_namespaces_are_immortal() {
        let world = World::default();
        for name in IMMORTAL {
            assert_eq!(
                message(&world, Operation::Delete, "namespaces", name),
                Some(format!(
                    "403 namespaces \"{name}\" is forbidden: this namespace may not be deleted"
                ))
            );
        }
        assert_eq!(
            message(&world, Operation::Delete, "namespaces", "mine"),
            None
        );
    }
}
