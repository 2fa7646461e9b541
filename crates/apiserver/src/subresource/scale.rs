//! `/scale`: `autoscaling/v1 Scale` in front of the paths that a kind names.

use std::sync::Arc;

use bytes::Bytes;
use client::Body;
use http::StatusCode;
use kinds::ScalePaths;
use meta::Status;
use meta::status::Cause;
use serde_json::{Value, json};

use super::face;
use super::scale_owners::Owners;
use crate::body;
use crate::cache::encode;
use crate::chain::Call;
use crate::dispatch::no_such_resource;
use crate::registry::{Resource, method_not_allowed};
use crate::respond::{self, Answer};
use crate::server::Core;
use crate::verbs::patch::{Patch, check_media, patched, read_patch};
use crate::verbs::update::{Made, change, check_name};
use crate::verbs::write::{Write, metadata, place, text};

pub(crate) const SCALE: (&str, &str, &str) = ("autoscaling", "v1", "Scale");

/// Reads or writes the scale.
pub(crate) async fn answer(
    core: &Arc<Core>,
    call: &Call,
    resource: &Resource,
    body: Body,
) -> Result<Answer, Status> {
    let face = face_of(resource);
    let json = match call.info.verb {
        "get" => {
            let entry = crate::verbs::get::found(core, call, resource).await?;
            let stored = resource.stored();
            encode(&stored.converted(entry.decode().0).await?).into()
        }
        "update" => update(core, call, resource, body).await?,
        "patch" => patch(core, call, resource, body).await?,
        _ => return Err(method_not_allowed()),
    };
    let object = respond::decode(&json)?;
    let paths = paths(resource)?;
    if resource.custom && object.pointer(&paths.spec_replicas).is_none() {
        let path = paths.spec_replicas.replace('/', ".");
        let why = format!("the spec replicas field {path:?} does not exist");
        let cause = Cause {
            message: why.clone(),
            reason: String::new(),
            field: String::new(),
        };
        return Err(Status {
            causes: vec![cause],
            ..Status::internal(why)
        });
    }
    let scale = scale_of(resource.stored(), &object)?;
    respond::object(call, face, StatusCode::OK, encode(&scale).into())
}

fn face_of(resource: &Resource) -> &'static Resource {
    match resource.custom {
        true => &face::CUSTOM_SCALE,
        false => &face::SCALE,
    }
}

fn paths(resource: &Resource) -> Result<&ScalePaths, Status> {
    let paths = resource.stored().row.scale.as_ref();
    paths.ok_or_else(no_such_resource)
}

async fn update(
    core: &Arc<Core>,
    call: &Call,
    resource: &Resource,
    body: Body,
) -> Result<Bytes, Status> {
    let bytes = body::read(body).await?;
    let write = Write::of(core, call, resource)?;
    let mut given = body::object(call, face_of(resource), &bytes)?;
    check_name(&given, &call.info.name)?;
    place(write.names(), write.namespace, &mut given)?;
    let make = |old: &Value| {
        let before = owned_scale(&write, old)?;
        let mut given = given.clone();
        record(&write, &before, &mut given);
        scaled(&write, old, &given)
    };
    change(&write, &call.info.name, &make).await
}

async fn patch(
    core: &Arc<Core>,
    call: &Call,
    resource: &Resource,
    body: Body,
) -> Result<Bytes, Status> {
    let bytes = body::read(body).await?;
    check_media(call, resource)?;
    let write = Write::of(core, call, resource)?;
    let mut patch = read_patch(call, &bytes)?;
    let face = face_of(resource);
    patch.check_applied(&write, face)?;
    let make = |old: &Value| rescaled(&write, face, &patch, old);
    change(&write, &call.info.name, &make).await
}

/// The object after its scale was patched.
fn rescaled(
    write: &Write<'_>,
    face: &Resource,
    patch: &Patch,
    old: &Value,
) -> Result<Made, Status> {
    let before = owned_scale(write, old)?;
    let mut made = patched(write, face, patch, &before)?;
    if !made.owned {
        record(write, &before, &mut made.object);
    }
    let scale = &made.object;
    let paths = paths(write.resource)?;
    let is_empty = scale.pointer("/spec/replicas").is_none_or(Value::is_null);
    if write.resource.custom && is_empty && old.pointer(&paths.spec_replicas).is_none() {
        let path = paths.spec_replicas.replace('/', ".");
        let why = format!("the spec replicas field {path:?} cannot be empty");
        return Err(Status::bad_request(why));
    }
    scaled(write, old, scale)
}

fn entries(object: &Value) -> &[Value] {
    let list = object.pointer("/metadata/managedFields");
    list.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn owners<'w>(write: &Write<'w>) -> Result<Owners<'w>, Status> {
    let info = &write.call.info;
    Ok(Owners {
        api_version: match info.group.as_str() {
            "" => info.version.clone(),
            group => format!("{group}/{}", info.version),
        },
        replicas: &paths(write.resource)?.spec_replicas,
    })
}

/// The scale of an object, with those who own its number.
fn owned_scale(write: &Write<'_>, object: &Value) -> Result<Value, Status> {
    let mut scale = scale_of(write.resource, object)?;
    let list = owners(write)?.of_scale(entries(object));
    if !list.is_empty() {
        metadata(&mut scale).insert("managedFields".into(), list.into());
    }
    Ok(scale)
}

/// Records who set the number.
fn record(write: &Write<'_>, before: &Value, scale: &mut Value) {
    if let Some(ty) = &face::SCALE.ty {
        let options = schema::UpdateOptions {
            manager: &write.call.field_manager(),
            api_version: &face::SCALE.row.names.api_version(),
            subresource: write.subresource,
            now: &meta::time::now(),
            reset: &[],
        };
        schema::update_managed_fields(ty.get(), Some(before), scale, options);
    }
}

/// The object with the number of replicas that its new scale says.
fn scaled(write: &Write<'_>, old: &Value, scale: &Value) -> Result<Made, Status> {
    let (names, name) = (write.names(), &write.call.info.name);
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64);
    let replicas = replicas.unwrap_or(0);
    if !write.resource.custom {
        let row = &face::SCALE.row;
        let mut faults = meta::Faults::new();
        kinds::metadata::validate_create(&row.names, scale, &*row.strategy, &mut faults);
        if replicas < 0 {
            let rule = "must be greater than or equal to 0";
            faults.invalid("spec.replicas", replicas, rule);
        }
        if !faults.is_empty() {
            return Err(Status::invalid(&row.names, name, &faults));
        }
    }
    let (uid, own) = (text(scale, "/metadata/uid"), text(old, "/metadata/uid"));
    let is_patch = write.call.info.verb == "patch";
    if is_patch && !write.resource.custom && !uid.is_empty() && uid != own {
        let plural = format!("{}/scale", names.plural);
        let names = meta::Names {
            plural,
            ..names.clone()
        };
        let why =
            format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {own}");
        return Err(Status::conflict(&names, name, &why));
    }
    let mut object = old.clone();
    set(
        &mut object,
        &paths(write.resource)?.spec_replicas,
        replicas.into(),
    );
    let into = metadata(&mut object);
    // Both are judged like those of any other update.
    if !is_patch && !uid.is_empty() {
        into.insert("uid".into(), uid.into());
    }
    let version = text(scale, "/metadata/resourceVersion");
    if !version.is_empty() {
        into.insert("resourceVersion".into(), version.into());
    }
    let list = owners(write)?.of_parent(entries(old), entries(scale));
    match list.is_empty() {
        true => drop(into.remove("managedFields")),
        false => drop(into.insert("managedFields".into(), list.into())),
    }
    Ok(Made {
        object,
        owned: true,
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
    let spec = match number(&paths.spec_replicas) {
        0 => json!({}),
        replicas => json!({"replicas": replicas}),
    };
    Ok(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec,
        "status": status,
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
