//! `/scale`: `autoscaling/v1 Scale` in front of the paths that a kind names.

use std::sync::Arc;

use client::Body;
use http::StatusCode;
use meta::Status;
use serde_json::{Value, json};

use crate::body;
use crate::cache::encode;
use crate::chain::Call;
use crate::dispatch::no_such_resource;
use crate::registry::{Resource, method_not_allowed};
use crate::respond::{self, Answer};
use crate::server::Core;
use crate::verbs::get::newest;
use crate::verbs::update::{MODIFIED, Made, change};
use crate::verbs::write::{Write, text};

pub(crate) const SCALE: (&str, &str, &str) = ("autoscaling", "v1", "Scale");

/// Reads or writes the scale.
pub(crate) async fn answer(
    core: &Arc<Core>,
    call: &Call,
    resource: &Resource,
    body: Body,
) -> Result<Answer, Status> {
    let write = Write::of(core, call, resource)?;
    let name = call.info.name.as_str();
    let json = match call.info.verb {
        "get" => newest(core, resource, write.namespace, name)
            .await?
            .json
            .clone(),
        "update" => {
            let bytes = body::read(body).await?;
            let given = body::foreign(call, SCALE, &bytes)?;
            let make = |old: &Value| scaled(&write, old, &given);
            change(&write, name, &make).await?
        }
        "patch" => {
            let bytes = body::read(body).await?;
            let kind = call.content_type();
            let make = |old: &Value| {
                let now = scale_of(resource, old)?;
                let given = patched(kind, &now, &bytes)?;
                scaled(&write, old, &given)
            };
            change(&write, name, &make).await?
        }
        _ => return Err(method_not_allowed()),
    };
    let scale = scale_of(resource, &respond::decode(&json)?)?;
    respond::text(call, StatusCode::OK, encode(&scale).into())
}

fn patched(kind: &str, now: &Value, bytes: &[u8]) -> Result<Value, Status> {
    let bad = |error: &dyn std::fmt::Display| Status::bad_request(error.to_string());
    match kind {
        "application/json-patch+json" => {
            schema::json_patch(now, bytes).map_err(|error| bad(&error))
        }
        // A Scale has no lists: strategic and merge patches do the same.
        _ => {
            let patch = body::parse_yaml(bytes)?.tree;
            Ok(schema::merge_patch(now, &patch))
        }
    }
}

fn scaled(write: &Write<'_>, old: &Value, given: &Value) -> Result<Made, Status> {
    let paths = write
        .resource
        .row
        .scale
        .as_ref()
        .ok_or_else(no_such_resource)?;
    let name = &write.call.info.name;
    let version = text(given, "/metadata/resourceVersion");
    if !version.is_empty() && version != text(old, "/metadata/resourceVersion") {
        return Err(Status::conflict(write.names(), name, MODIFIED));
    }
    let replicas = given
        .pointer("/spec/replicas")
        .and_then(Value::as_i64)
        .unwrap_or(0);
    if replicas < 0 {
        let mut faults = meta::Faults::new();
        faults.invalid(
            "spec.replicas",
            replicas,
            "must be greater than or equal to 0",
        );
        let names = meta::Names::namespaced(SCALE.0, SCALE.1, SCALE.2, "scales");
        return Err(Status::invalid(&names, name, &faults));
    }
    let mut object = old.clone();
    set(&mut object, &paths.spec_replicas, replicas.into());
    Ok(Made {
        object,
        owned: false,
    })
}

/// Sets what a JSON pointer names, making the maps on the way.
pub(crate) fn set(tree: &mut Value, pointer: &str, value: Value) {
    match pointer.trim_start_matches('/').split_once('/') {
        Some((step, rest)) => {
            meta::object::map_at(tree, step);
            set(&mut tree[step], rest, value);
        }
        None => tree[pointer.trim_start_matches('/')] = value,
    }
}

/// The scale of an object.
pub(crate) fn scale_of(resource: &Resource, object: &Value) -> Result<Value, Status> {
    let paths = resource.row.scale.as_ref().ok_or_else(no_such_resource)?;
    let number = |path: &str| object.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    let mut metadata = json!({});
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(value) = object.pointer(&format!("/metadata/{field}")) {
            metadata[field] = value.clone();
        }
    }
    let mut status = json!({"replicas": number(&paths.status_replicas)});
    if let Some(selector) = paths
        .selector
        .as_deref()
        .and_then(|path| object.pointer(path))
    {
        status["selector"] = selector_text(selector).into();
    }
    Ok(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": number(&paths.spec_replicas)}, "status": status,
    }))
}

/// A selector as text: a LabelSelector, a plain map of labels, or text already.
fn selector_text(selector: &Value) -> String {
    if let Some(text) = selector.as_str() {
        return text.to_owned();
    }
    let is_label_selector =
        selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some();
    let wrapped = match is_label_selector {
        true => selector.clone(),
        false => json!({"matchLabels": selector}),
    };
    meta::LabelSelector::from_value(&wrapped)
        .map(|selector| selector.to_string())
        .unwrap_or_default()
}
