//! patch: JSON, merge, strategic, and server-side apply.

use std::sync::Arc;

use client::Body;
use http::StatusCode;
use meta::{Reason, Status};
use schema::{ApplyError, ApplyOptions, Parsed, PatchError};
use serde_json::Value;

use super::create;
use super::update::{Made, change_shown};
use super::write::{Write, place, reset_paths, text};
use crate::body::{self, FieldValidation};
use crate::chain::Call;
use crate::custom::Views;
use crate::registry::Resource;
use crate::respond::{self, Answer};
use crate::server::Core;

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY_YAML: &str = "application/apply-patch+yaml";
const APPLY_JSON: &str = "application/apply-patch+json";

/// A patch of one of the four kinds.
enum Patch {
    Json(Vec<u8>),
    Merge(Value),
    Strategic(Value),
    Apply(Value),
}

/// Changes part of the object named in the path.
pub(crate) async fn patch(
    core: &Arc<Core>,
    call: &Call,
    resource: &Resource,
    body: Body,
) -> Result<Answer, Status> {
    let bytes = body::read(body).await?;
    let write = Write::of(core, call, resource)?;
    match read(call, resource, &bytes)? {
        Patch::Apply(applied) => apply(&write, resource, applied).await,
        patch => {
            let validation = FieldValidation::read(call)?;
            let make = |old: &Value, _: Option<&Views<'_>>| {
                patched(&write, resource, &patch, old, validation)
            };
            let json = change_shown(&write, resource, &call.info.name, &make).await?;
            respond::object(call, resource, StatusCode::OK, json)
        }
    }
}

fn read(call: &Call, resource: &Resource, bytes: &[u8]) -> Result<Patch, Status> {
    let tree = || {
        let parsed = schema::parse_json(bytes);
        let parsed = parsed.map_err(|error| Status::bad_request(error.to_string()))?;
        match parsed.tree.is_object() {
            true => Ok(parsed.tree),
            false => Err(Status::bad_request(
                "json: cannot unmarshal array into Go value of type map[string]interface {}",
            )),
        }
    };
    match call.content_type() {
        JSON => Ok(Patch::Json(bytes.to_vec())),
        MERGE => tree().map(Patch::Merge),
        STRATEGIC if !resource.custom => tree().map(Patch::Strategic),
        APPLY_YAML | APPLY_JSON => {
            let Parsed { tree, duplicates } = body::parse_yaml(bytes).map_err(|status| {
                Status::bad_request(format!("error decoding YAML: {}", status.message))
            })?;
            let list: Vec<_> = duplicates
                .iter()
                .map(|path| body::duplicate(path))
                .collect();
            let converting = match list.iter().any(|one| one.starts_with("yaml: ")) {
                true => "error converting YAML to JSON: ",
                false => "",
            };
            match FieldValidation::read(call)? {
                FieldValidation::Strict if !list.is_empty() => {
                    let list = list.join(", ");
                    let text = format!("error strict decoding YAML: {converting}{list}");
                    return Err(Status::bad_request(text));
                }
                FieldValidation::Warn => list.into_iter().for_each(|one| call.warn(one)),
                _ => {}
            }
            Ok(Patch::Apply(tree))
        }
        _ => {
            let mut known = vec![JSON, MERGE, STRATEGIC, APPLY_YAML];
            known.retain(|kind| !(resource.custom && *kind == STRATEGIC));
            let text = format!(
                "the body of the request was in an unknown format - accepted media types \
                 include: {}",
                known.join(", ")
            );
            Err(Status::new(Reason::UnsupportedMediaType, text))
        }
    }
}

fn patched(
    write: &Write<'_>,
    resource: &Resource,
    patch: &Patch,
    old: &Value,
    validation: FieldValidation,
) -> Result<Made, Status> {
    let shown = resource.shown(old.clone());
    let old = &shown;
    let refused = |error: PatchError| patch_refused(write, &error);
    let tree = match patch {
        Patch::Json(patch) => schema::json_patch(old, patch).map_err(refused)?,
        Patch::Merge(patch) => schema::merge_patch(old, patch),
        Patch::Strategic(patch) => match &resource.ty {
            Some(ty) => schema::strategic_merge_patch(ty.get(), old, patch).map_err(refused)?,
            None => schema::merge_patch(old, patch),
        },
        Patch::Apply(_) => return Err(Status::internal("apply takes another way")),
    };
    let parsed = Parsed {
        tree,
        duplicates: Vec::new(),
    };
    let object = resource.kept(body::shape(write.call, resource, parsed, validation)?);
    fits(write, &object)?;
    Ok(Made {
        object,
        owned: false,
    })
}

/// A patch may not rename or move its object.
fn fits(write: &Write<'_>, object: &Value) -> Result<(), Status> {
    let (name, expected) = (text(object, "/metadata/name"), &write.call.info.name);
    if name != expected {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({expected})"
        )));
    }
    let namespace = text(object, "/metadata/namespace");
    if namespace != write.namespace {
        return Err(Status::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the \
             request ({})",
            write.namespace
        )));
    }
    Ok(())
}

fn patch_refused(write: &Write<'_>, error: &PatchError) -> Status {
    match error {
        PatchError::Malformed(_) => Status::bad_request(error.to_string()),
        PatchError::TooLarge(_) => Status::new(Reason::RequestEntityTooLarge, error.to_string()),
        PatchError::Unprocessable(_) => {
            let text =
                format!("the server rejected our request due to an error in our request: {error}");
            Status::new(Reason::Invalid, text).about(write.names(), &write.call.info.name)
        }
    }
}

async fn apply(write: &Write<'_>, resource: &Resource, applied: Value) -> Result<Answer, Status> {
    let (core, call) = (write.core, write.call);
    let manager = call.query.get("fieldManager").ok_or_else(|| {
        Status::new(
            Reason::Invalid,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required \
             for apply patch",
        )
    })?;
    if text(&applied, "/apiVersion").is_empty() || text(&applied, "/kind").is_empty() {
        return Err(Status::bad_request(
            "invalid object type: /, Kind=: Object 'apiVersion' and 'kind' must be set",
        ));
    }
    // As the user wrote it: what is filled in or dropped here would count as the user's wish.
    let mut applied = resource.kept(applied);
    if text(&applied, "/metadata/name").is_empty() {
        super::write::metadata(&mut applied).insert("name".into(), call.info.name.clone().into());
    }
    place(write.names(), write.namespace, &mut applied)?;
    fits(write, &applied)?;
    let managed = applied
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array);
    if managed.is_some_and(|list| !list.is_empty()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    core.feed.fresh().await;
    let key = resource.key(write.namespace, &call.info.name);
    let exists = resource.cache()?.get(&key).is_some();
    if !exists && write.subresource.is_empty() {
        let object = merged(write, resource, (None, None), &applied, manager)?;
        let mut object = resource.stored().converted(object).await?;
        super::write::metadata(&mut object).remove("resourceVersion");
        let strategy = &resource.row.strategy;
        strategy.default(&mut object);
        let json = create::create_owned(write, object).await?;
        let json = resource.converted_json(json).await?;
        return respond::object(call, resource, StatusCode::CREATED, json);
    }
    let make = |old: &Value, views: Option<&Views<'_>>| {
        Ok(Made {
            object: merged(write, resource, (Some(old), views), &applied, manager)?,
            owned: true,
        })
    };
    let json = change_shown(write, resource, &call.info.name, &make).await?;
    respond::object(call, resource, StatusCode::OK, json)
}

fn merged(
    write: &Write<'_>,
    resource: &Resource,
    (live, views): (Option<&Value>, Option<&Views<'_>>),
    applied: &Value,
    manager: &str,
) -> Result<Value, Status> {
    // What a webhook converts is applied as it is shown, all else as it is kept.
    let by = match resource.conversion {
        Some(_) => resource,
        None => write.resource,
    };
    let Some(ty) = &by.ty else {
        return Err(Status::internal("this kind has no schema to apply by"));
    };
    let options = ApplyOptions {
        manager,
        force: write.call.query.flag("force"),
        api_version: &by.row.names.api_version(),
        subresource: write.subresource,
        now: &meta::time::now(),
        reset: reset_paths(write.resource, write.subresource),
    };
    let merged = match views {
        None => schema::apply(ty.get(), live, applied, options),
        Some(views) => schema::apply_between(ty.get(), live, applied, options, views),
    };
    merged.map_err(|error| match (&error, views) {
        (ApplyError::Invalid(text), _) => Status::bad_request(text.clone()),
        (ApplyError::Unconverted(wanted), Some(views)) => views.lack(wanted.clone()),
        (ApplyError::Unconverted(_), None) => Status::internal(&error),
        (ApplyError::Conflicts(conflicts), _) => {
            let mut status = Status::new(Reason::Conflict, error.to_string());
            status.causes = conflicts
                .iter()
                .map(|conflict| meta::status::Cause {
                    reason: "FieldManagerConflict".into(),
                    message: conflict.message(),
                    field: conflict.field.clone(),
                })
                .collect();
            status
        }
    })
}
