//! `/binding`: a scheduler's decision.

use std::sync::Arc;

use admission::Operation;
use client::Body;
use http::StatusCode;
use meta::{Faults, Status};
use serde_json::{Value, json};

use super::face;
use crate::body;
use crate::chain::Call;
use crate::registry::Resource;
use crate::respond::{self, Answer};
use crate::server::Core;
use crate::verbs::update::{Made, change};
use crate::verbs::write::{Write, metadata, place, text};
use crate::webhooks;

/// Puts a pod on a node.
pub(crate) async fn bind(
    core: &Arc<Core>,
    call: &Call,
    pods: &Resource,
    body: Body,
) -> Result<Answer, Status> {
    let bytes = body::read(body).await?;
    let mut write = Write::of(core, call, pods)?;
    write.subresource = "binding";
    let mut binding = body::object(call, &face::BINDING, &bytes)?;
    place(write.names(), write.namespace, &mut binding)?;
    let name = match call.info.name.as_str() {
        "" => text(&binding, "/metadata/name").to_owned(),
        name => name.to_owned(),
    };
    let (name, kind) = (name.as_str(), ("", "v1", "Binding"));
    let binding = webhooks::ask_about(&write, Operation::Create, name, kind, binding).await?;
    if text(&binding, "/metadata/name") != name {
        let text = "name in URL does not match name in Binding object";
        return Err(Status::bad_request(text));
    }
    check(&binding, name)?;
    if name.is_empty() {
        return Err(Status::bad_request("Name parameter required."));
    }
    write.is_admitted = true;
    let make = |pod: &Value| bound(&write, name, pod, &binding);
    change(&write, name, &make).await?;
    let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "code": 201});
    respond::value(call, StatusCode::CREATED, &done)
}

fn check(binding: &Value, name: &str) -> Result<(), Status> {
    let mut faults = Faults::new();
    let kind = text(binding, "/target/kind");
    if !kind.is_empty() && kind != "Node" {
        faults.not_supported("target.kind", kind, &["Node", "<empty>"]);
    }
    if text(binding, "/target/name").is_empty() {
        faults.required("target.name", "");
    }
    let names = meta::Names::namespaced("", "v1", "Binding", "bindings");
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid(&names, name, &faults)),
    }
}

fn bound(write: &Write<'_>, name: &str, pod: &Value, binding: &Value) -> Result<Made, Status> {
    let names = meta::Names::namespaced("", "v1", "Pod", "pods/binding");
    preconditions(write, name, pod, binding)?;
    let conflict = |why: String| Err(Status::conflict(&names, name, &why));
    if crate::verbs::delete::is_terminating(pod) {
        return conflict(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        ));
    }
    let current = text(pod, "/spec/nodeName");
    if !current.is_empty() {
        return conflict(format!(
            "pod {name} is already assigned to node {current:?}"
        ));
    }
    let gates = pod
        .pointer("/spec/schedulingGates")
        .and_then(Value::as_array);
    if gates.is_some_and(|gates| !gates.is_empty()) {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut pod = pod.clone();
    meta::object::map_at(&mut pod, "spec")
        .insert("nodeName".into(), text(binding, "/target/name").into());
    for field in ["annotations", "labels"] {
        let given = binding
            .get("metadata")
            .and_then(|metadata| metadata.get(field));
        let Some(given) = given.and_then(Value::as_object) else {
            continue;
        };
        let own = metadata(&mut pod).entry(field).or_insert_with(|| json!({}));
        if let Some(own) = own.as_object_mut() {
            own.extend(given.clone());
        }
    }
    set_condition(&mut pod, "PodScheduled", "True", "", "");
    if let Some(status) = pod.get_mut("status").and_then(Value::as_object_mut) {
        // What was only hoped for is over.
        status.remove("nominatedNodeName");
    }
    // Nobody owns what a binding sets.
    Ok(Made {
        object: pod,
        owned: true,
    })
}

/// A binding may say which pod it means, and which version of it.
fn preconditions(
    write: &Write<'_>,
    name: &str,
    pod: &Value,
    binding: &Value,
) -> Result<(), Status> {
    let root = if write.dry_run { "" } else { "/registry" };
    for (field, what) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
        let pointer = format!("/metadata/{field}");
        let (wanted, own) = (text(binding, &pointer), text(pod, &pointer));
        if !wanted.is_empty() && wanted != own {
            let key = write.resource.key(write.namespace, name);
            let why = format!(
                "StorageError: invalid object, Code: 4, Key: {root}/pods/{key}, ResourceVersion: \
                 0, AdditionalErrorMsg: Precondition failed: {what} in precondition: {wanted}, \
                 {what} in object meta: {own}"
            );
            return Err(Status::conflict(write.names(), name, &why));
        }
    }
    Ok(())
}

/// Sets one condition of a pod's status; the time changes with the word only.
pub(crate) fn set_condition(pod: &mut Value, kind: &str, word: &str, reason: &str, message: &str) {
    let status = meta::object::map_at(pod, "status");
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    let Some(conditions) = conditions.as_array_mut() else {
        return;
    };
    let mut condition = json!({"type": kind, "status": word, "lastProbeTime": null,
        "lastTransitionTime": meta::time::now()});
    for (field, value) in [("reason", reason), ("message", message)] {
        if !value.is_empty() {
            condition[field] = value.into();
        }
    }
    match conditions.iter_mut().find(|own| own["type"] == kind) {
        Some(own) => {
            if own["status"] == word {
                condition["lastTransitionTime"] = own["lastTransitionTime"].clone();
            }
            *own = condition;
        }
        None => conditions.push(condition),
    }
}
