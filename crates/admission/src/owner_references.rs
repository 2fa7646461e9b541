//! OwnerReferencesPermissionEnforcement: who says that an object is owned by another must be
//! allowed to delete the object, and to hold the owner back where the reference does so.

use auth::Attributes;
use meta::{Object, Status};
use serde_json::Value;

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::tree::{list, text};

pub(crate) struct OwnerReferencesPermissionEnforcement;

impl Plugin for OwnerReferencesPermissionEnforcement {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        // Kubelets write statuses of pods, and owners are none of their business.
        let exempt = request.resource_is("pods") && request.subresource == "status";
        let Some(object) = object.filter(|_| writes && !exempt) else {
            return Ok(());
        };
        let (new, old) = (owners(object), request.old.map(owners).unwrap_or_default());
        if new == old {
            return Ok(());
        }
        if request.operation == Operation::Update && !lookup.may(request.user, &deletion(request)) {
            let why = "cannot set an ownerRef on a resource you can't delete: , <nil>";
            return Err(request.refused(Some(object), why));
        }
        let blocks = |owner: &&Value| owner["blockOwnerDeletion"] == true;
        let had = |owner: &Value| {
            let same = |one: &&Value| one["uid"] == owner["uid"];
            old.iter().filter(blocks).any(|one| same(&one))
        };
        let mut added = new
            .iter()
            .filter(blocks)
            .filter(|owner| !had(owner))
            .peekable();
        if added.peek().is_none() || lookup.may(request.user, &finalization("*", "*", "*")) {
            return Ok(());
        }
        added.try_for_each(|owner| may_hold(request, object, owner, lookup))
    }
}

fn owners(object: &Object) -> Vec<Value> {
    let metadata = object.0.get("metadata").unwrap_or(&Value::Null);
    list(metadata, "ownerReferences").cloned().collect()
}

fn deletion(request: &Request<'_>) -> Attributes {
    Attributes {
        verb: "delete".into(),
        namespace: request.namespace.into(),
        group: request.names.group.clone(),
        version: request.names.version.clone(),
        resource: request.names.plural.clone(),
        subresource: request.subresource.into(),
        name: request.name.into(),
        ..Attributes::default()
    }
}

fn finalization(group: &str, version: &str, resource: &str) -> Attributes {
    Attributes {
        verb: "update".into(),
        group: group.into(),
        version: version.into(),
        resource: resource.into(),
        subresource: "finalizers".into(),
        name: "*".into(),
        ..Attributes::default()
    }
}

/// Whether the user may set finalizers of an owner that is to wait for the object.
fn may_hold(
    request: &Request<'_>,
    object: &Object,
    owner: &Value,
    lookup: &dyn Lookup,
) -> Result<(), Status> {
    let (api_version, kind) = (text(owner, "apiVersion"), text(owner, "kind"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let Some(names) = lookup.kind(group, version, kind) else {
        let why = format!(
            "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for \
             APIVersion {api_version} Kind {kind}: no matches for kind {kind:?} in version \
             {api_version:?}"
        );
        return Err(request.refused(Some(object), &why));
    };
    let mut asked = finalization(group, version, &names.plural);
    asked.name = text(owner, "name").into();
    if names.is_namespaced() {
        asked.namespace = request.namespace.into();
    }
    if lookup.may(request.user, &asked) {
        return Ok(());
    }
    let why = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't \
               set finalizers on: , <nil>";
    Err(request.refused(Some(object), why))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use auth::Identity;
    use meta::Names;
    use serde_json::json;

    use super::*;
    use crate::testing::{object, request};

    /// A user with these rights, as `verb resource/subresource name`.
    struct Rights(&'static [&'static str]);

    impl Lookup for Rights {
        fn get(&self, _: &str, _: &str, _: &str) -> Option<Arc<Object>> {
            None
        }

        fn list(&self, _: &str, _: &str) -> Vec<Arc<Object>> {
            Vec::new()
        }

        fn may(&self, _: &Identity, asked: &Attributes) -> bool {
            let part = match asked.subresource.as_str() {
                "" => String::new(),
                part => format!("/{part}"),
            };
            let asked = format!("{} {}{part} {}", asked.verb, asked.resource, asked.name);
            self.0.contains(&asked.as_str())
        }

        fn kind(&self, group: &str, version: &str, kind: &str) -> Option<Names> {
            let known = (group, version, kind) == ("apps", "v1", "ReplicaSet");
            known.then(|| Names::namespaced("apps", "v1", "ReplicaSet", "replicasets"))
        }
    }

    fn owned(blocks: bool) -> Value {
        json!({"metadata": {"name": "p", "ownerReferences": [{"apiVersion": "apps/v1",
            "kind": "ReplicaSet", "name": "web", "uid": "u", "blockOwnerDeletion": blocks}]}})
    }

    fn check(resource: &str, old: Option<Value>, new: Value, rights: Rights, expected: &str) {
        let operation = match old {
            Some(_) => Operation::Update,
            None => Operation::Create,
        };
        let mut asked = request(operation, resource, "p");
        asked.old = old.map(object);
        let new = object(new);
        let plugin = OwnerReferencesPermissionEnforcement;
        let judged = plugin.validate(&asked.borrow(), Some(&new), &rights);
        let why = judged.err().map(|status| status.message);
        assert!(
            why.as_deref().unwrap_or("").contains(expected) && why.is_some() != expected.is_empty(),
            "{why:?}"
        );
    }

    #[test]
    fn owners_are_named_by_those_who_may() {
        let bare = || Some(json!({"metadata": {"name": "p"}}));
        let none = || Rights(&[]);
        let deletes = || Rights(&["delete pods p"]);
        check("pods", None, owned(false), none(), "");
        check("pods", bare(), owned(false), deletes(), "");
        let undeletable = "pods \"p\" is forbidden: cannot set an ownerRef on a resource you can't";
        check("pods", bare(), owned(false), none(), undeletable);
        check("pods/status", bare(), owned(true), none(), "");
        check("pods", Some(owned(true)), owned(true), none(), "");
        check("pods", Some(owned(true)), owned(false), deletes(), "");
        let held = "refers to a resource you can't set finalizers on";
        check("pods", None, owned(true), none(), held);
        check("pods", Some(owned(false)), owned(true), deletes(), held);
        let one = Rights(&["update replicasets/finalizers web"]);
        check("pods", None, owned(true), one, "");
        check(
            "pods",
            None,
            owned(true),
            Rights(&["update */finalizers *"]),
            "",
        );
        let mut unknown = owned(true);
        unknown["metadata"]["ownerReferences"][0]["kind"] = "Other".into();
        check(
            "pods",
            None,
            unknown,
            none(),
            "cannot find RESTMapping for APIVersion apps/v1 Kind Other",
        );
    }
}
