//! NodeRestriction: what the node authorizer cannot see, because it is in the body: a kubelet
//! writes its own node, pods bound to it, and nothing that would give it more.

use std::collections::BTreeSet;

use auth::Identity;
use meta::{Object, Status};
use serde_json::Value;

use crate::plugin::{Lookup, Operation, Plugin, Request};
use crate::tree::{spec, text};

const USER_PREFIX: &str = "system:node:";
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Labels that tell pods apart from nodes they must not run on; no kubelet sets them.
const RESTRICTED: &str = "node-restriction.kubernetes.io";
/// Labels under `kubernetes.io` and `k8s.io` that a kubelet may set.
const OWN_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
const OWN_LABEL_SPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

pub(crate) struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Object>,
        lookup: &dyn Lookup,
    ) -> Result<(), Status> {
        let Some(node) = node_of(request.user) else {
            return Ok(());
        };
        let judged = match (request.names.group.as_str(), request.names.plural.as_str()) {
            ("", "pods") => pod(node, request, object, lookup),
            ("", "nodes") => own_node(node, request, object),
            ("", "serviceaccounts") => token(node, request, object, lookup),
            ("coordination.k8s.io", "leases") => own_name(node, request, object, "lease"),
            ("storage.k8s.io", "csinodes") => own_name(node, request, object, "CSINode"),
            _ => Ok(()),
        };
        judged.map_err(|why| request.refused(object, &why))
    }
}

fn node_of(user: &Identity) -> Option<&str> {
    user.name
        .strip_prefix(USER_PREFIX)
        .filter(|_| user.is_in("system:nodes"))
}

fn pod(
    node: &str,
    request: &Request<'_>,
    object: Option<&Object>,
    lookup: &dyn Lookup,
) -> Result<(), String> {
    let bound_here = |pod: &Object| text(spec(pod), "nodeName") == node;
    let stored = || lookup.get("pods", request.namespace, request.name);
    match (request.subresource, request.operation) {
        ("", Operation::Create) => mirror_pod(node, object, lookup),
        ("", Operation::Delete) => match request
            .old
            .cloned()
            .or_else(|| stored().map(|pod| (*pod).clone()))
        {
            Some(pod) if !bound_here(&pod) => Err(format!(
                "node {node:?} can only delete pods with spec.nodeName set to itself"
            )),
            _ => Ok(()),
        },
        ("status", Operation::Update) => {
            if !request.old.is_some_and(bound_here) {
                return Err(format!(
                    "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
                ));
            }
            let labels = |pod: &Object| pod.0.pointer("/metadata/labels").cloned();
            match object.is_some_and(|pod| labels(pod) != request.old.and_then(labels)) {
                true => Err(format!(
                    "node {node:?} cannot update labels through pod status"
                )),
                false => Ok(()),
            }
        }
        ("eviction", Operation::Create) => match stored() {
            Some(pod) if !bound_here(&pod) => Err(format!(
                "node {node} can only evict pods with spec.nodeName set to itself"
            )),
            _ => Ok(()),
        },
        ("", operation) => Err(format!(
            "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
            format!("{operation:?}").to_uppercase()
        )),
        ("status" | "eviction", operation) => Err(format!(
            "unexpected operation {:?}",
            format!("{operation:?}").to_uppercase()
        )),
        (other, _) => Err(format!(
            "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
        )),
    }
}

fn mirror_pod(node: &str, object: Option<&Object>, lookup: &dyn Lookup) -> Result<(), String> {
    let Some(pod) = object else {
        return Ok(());
    };
    if pod.annotation(MIRROR).is_none() {
        return Err(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if text(spec(pod), "nodeName") != node {
        return Err(format!(
            "node {node:?} can only create pods with spec.nodeName set to itself"
        ));
    }
    let owners = pod.owners();
    let [owner] = owners.as_slice() else {
        let single = if owners.is_empty() { "an" } else { "a single" };
        return Err(format!(
            "node {node:?} can only create pods with {single} owner reference set to itself"
        ));
    };
    if (
        owner.api_version.as_str(),
        owner.kind.as_str(),
        owner.name.as_str(),
    ) != ("v1", "Node", node)
    {
        return Err(format!(
            "node {node:?} can only create pods with an owner reference set to itself"
        ));
    }
    if owner.controller != Some(true) {
        return Err(format!(
            "node {node:?} can only create pods with a controller owner reference set to itself"
        ));
    }
    if owner.block_owner_deletion == Some(true) {
        return Err(format!(
            "node {node:?} must not set blockOwnerDeletion on an owner reference"
        ));
    }
    match lookup.get("nodes", "", node) {
        Some(known) if known.uid() != owner.uid => Err(format!(
            "node {node} UID mismatch: expected {} got {}",
            owner.uid,
            known.uid()
        )),
        _ => Ok(()),
    }
}

fn own_node(node: &str, request: &Request<'_>, object: Option<&Object>) -> Result<(), String> {
    let asked = [request.name, object.map(Object::name).unwrap_or_default()];
    let asked = asked
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or_default();
    if asked != node {
        return Err(format!(
            "node {node:?} is not allowed to modify node {asked:?}"
        ));
    }
    let Some(object) = object else {
        return Ok(());
    };
    let old = request
        .old
        .filter(|_| request.operation == Operation::Update);
    if let Some(old) = old {
        for (pointer, word) in [
            ("/spec/taints", "taints"),
            ("/metadata/ownerReferences", "ownerReferences"),
        ] {
            if list_at(object, pointer) != list_at(old, pointer) {
                return Err(format!("node {node:?} is not allowed to modify {word}"));
            }
        }
    }
    let labels = forbidden_labels(old, object);
    if labels.is_empty() {
        return Ok(());
    }
    let labels = labels.into_iter().collect::<Vec<_>>().join(", ");
    Err(match old {
        Some(_) => format!("is not allowed to modify labels: {labels}"),
        None => format!("node {node:?} is not allowed to set the following labels: {labels}"),
    })
}

/// An absent list and an empty one are the same.
fn list_at<'a>(object: &'a Object, pointer: &str) -> &'a [Value] {
    let list = object.0.pointer(pointer).and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default()
}

/// Labels that are set, changed or removed though no kubelet may do so.
fn forbidden_labels<'a>(old: Option<&'a Object>, new: &'a Object) -> BTreeSet<&'a str> {
    let before: BTreeSet<(&str, &str)> = old.into_iter().flat_map(|old| old.labels()).collect();
    let after: BTreeSet<(&str, &str)> = new.labels().collect();
    let changed = before.symmetric_difference(&after).map(|(key, _)| *key);
    changed.filter(|key| !is_own_label(key)).collect()
}

fn is_own_label(key: &str) -> bool {
    let space = key
        .split_once('/')
        .map(|(space, _)| space)
        .unwrap_or_default();
    let within = |parent: &str| space == parent || space.ends_with(&format!(".{parent}"));
    if within(RESTRICTED) {
        return false;
    }
    if !within("kubernetes.io") && !within("k8s.io") {
        return true;
    }
    OWN_LABELS.contains(&key) || OWN_LABEL_SPACES.into_iter().any(within)
}

/// Tokens are asked for on behalf of a pod that runs here.
fn token(
    node: &str,
    request: &Request<'_>,
    object: Option<&Object>,
    lookup: &dyn Lookup,
) -> Result<(), String> {
    if request.operation != Operation::Create || request.subresource != "token" {
        return Ok(());
    }
    let reference = object.and_then(|object| object.0.pointer("/spec/boundObjectRef"));
    let Some(reference) = reference.filter(|reference| reference.is_object()) else {
        return Err("node requested token not bound to a pod".into());
    };
    if text(reference, "apiVersion") != "v1" || text(reference, "kind") != "Pod" {
        return Err("node requested token not bound to a pod".into());
    }
    let (name, uid) = (text(reference, "name"), text(reference, "uid"));
    if uid.is_empty() {
        return Err("node requested token with a pod binding without a uid".into());
    }
    let Some(pod) = lookup.get("pods", request.namespace, name) else {
        return Err(format!("pod {name:?} not found"));
    };
    if pod.uid() != uid {
        return Err(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The \
             object might have been deleted and then recreated"
        ));
    }
    match text(spec(&pod), "nodeName") == node {
        true => Ok(()),
        false => Err("node requested token bound to a pod scheduled on a different node".into()),
    }
}

/// The authorizer has seen the name of all but creations.
fn own_name(
    node: &str,
    request: &Request<'_>,
    object: Option<&Object>,
    word: &str,
) -> Result<(), String> {
    let created = object.map(Object::name).unwrap_or_default();
    let name = if request.name.is_empty() {
        created
    } else {
        request.name
    };
    match name == node {
        true => Ok(()),
        false => Err(format!(
            "can only access {}{word} with the same name as the requesting node",
            if word == "lease" { "node " } else { "" }
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Asked, World, object, request};

    fn from_node(operation: Operation, resource: &str, name: &str) -> Asked {
        let mut asked = request(operation, resource, name);
        asked.user = Identity::user("system:node:a", &["system:nodes"]);
        asked
    }

    fn judge(asked: &Asked, body: Option<Value>) -> Result<(), String> {
        let pod = |name: &str, node: &str| {
            json!({"metadata": {"name": name, "namespace": "default", "uid": name},
                "spec": {"nodeName": node}})
        };
        let world = World::default()
            .with("pods", pod("here", "a"))
            .with("pods", pod("there", "b"))
            .with("nodes", json!({"metadata": {"name": "a", "uid": "node-a"}}));
        let body = body.map(object);
        let judged = NodeRestriction.validate(&asked.borrow(), body.as_ref(), &world);
        judged.map_err(|status| status.message)
    }

    #[test]
    fn pods_of_other_nodes_are_out_of_reach() {
        let delete = |name: &str| judge(&from_node(Operation::Delete, "pods", name), None);
        assert_eq!(delete("here"), Ok(()));
        assert_eq!(
            delete("there").unwrap_err(),
            "pods \"there\" is forbidden: node \"a\" can only delete pods with spec.nodeName set to itself"
        );
        let mut status = from_node(Operation::Update, "pods/status", "there");
        status.old = Some(object(json!({"spec": {"nodeName": "b"}})));
        assert!(judge(&status, Some(json!({}))).is_err());
        status.old = Some(object(json!({"spec": {"nodeName": "a"}})));
        assert_eq!(judge(&status, Some(json!({}))), Ok(()));
        let relabel = json!({"metadata": {"labels": {"x": "y"}}});
        assert!(
            judge(&status, Some(relabel))
                .unwrap_err()
                .contains("cannot update labels")
        );
        let stranger = request(Operation::Delete, "pods", "there");
        assert_eq!(judge(&stranger, None), Ok(()));
    }

    #[test]
    fn only_mirror_pods_are_created() {
        let create = |body: Value| judge(&from_node(Operation::Create, "pods", ""), Some(body));
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "node-a",
            "controller": true});
        let mirror = json!({"metadata": {"name": "m", "annotations": {MIRROR: "x"},
            "ownerReferences": [owner]}, "spec": {"nodeName": "a"}});
        assert_eq!(create(mirror.clone()), Ok(()));
        assert!(
            create(json!({"spec": {"nodeName": "a"}}))
                .unwrap_err()
                .contains("mirror pods")
        );
        let mut elsewhere = mirror.clone();
        elsewhere["spec"]["nodeName"] = "b".into();
        assert!(create(elsewhere).is_err());
        let mut other = mirror;
        other["metadata"]["ownerReferences"][0]["uid"] = "x".into();
        assert!(create(other).unwrap_err().contains("UID mismatch"));
    }

    #[test]
    fn a_node_changes_itself_a_little() {
        let node = |labels: Value, taints: Value| json!({"metadata": {"name": "a", "labels": labels}, "spec": {"taints": taints}});
        let create = |name: &str, labels: Value| {
            let mut body = node(labels, json!([{"key": "x"}]));
            body["metadata"]["name"] = name.into();
            judge(&from_node(Operation::Create, "nodes", ""), Some(body))
        };
        assert_eq!(
            create("a", json!({"kubernetes.io/hostname": "a", "own": "x"})),
            Ok(())
        );
        assert!(
            create("b", json!({}))
                .unwrap_err()
                .contains("is not allowed to modify node \"b\"")
        );
        assert!(
            create("a", json!({"node-restriction.kubernetes.io/x": "y"}))
                .unwrap_err()
                .ends_with(
                    "not allowed to set the following labels: node-restriction.kubernetes.io/x"
                )
        );
        let mut update = from_node(Operation::Update, "nodes", "a");
        update.old = Some(object(node(json!({}), json!([]))));
        assert_eq!(judge(&update, Some(node(json!({}), json!(null)))), Ok(()));
        let untainted = judge(&update, Some(node(json!({}), json!([{"key": "y"}]))));
        assert!(
            untainted
                .unwrap_err()
                .ends_with("is not allowed to modify taints")
        );
    }

    #[test]
    fn tokens_are_for_own_pods() {
        let ask = |name: &str, uid: &str| {
            let reference = json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid});
            let body = json!({"spec": {"boundObjectRef": reference}});
            judge(
                &from_node(Operation::Create, "serviceaccounts/token", "web"),
                Some(body),
            )
        };
        assert_eq!(ask("here", "here"), Ok(()));
        assert!(
            ask("there", "there")
                .unwrap_err()
                .contains("different node")
        );
        assert!(
            ask("here", "other")
                .unwrap_err()
                .contains("does not match the UID")
        );
        let unbound = from_node(Operation::Create, "serviceaccounts/token", "web");
        assert!(
            judge(&unbound, Some(json!({})))
                .unwrap_err()
                .contains("not bound to a pod")
        );
    }

    #[test]
    fn leases_have_the_nodes_name() {
        let lease = "leases.coordination.k8s.io";
        let create = |name: &str| {
            let body = json!({"metadata": {"name": name}});
            judge(&from_node(Operation::Create, lease, ""), Some(body))
        };
        assert_eq!(create("a"), Ok(()));
        assert!(
            create("b")
                .unwrap_err()
                .contains("same name as the requesting node")
        );
    }
}
