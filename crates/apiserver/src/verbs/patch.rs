//! patch: JSON, merge, strategic, and server-side apply.

use std::sync::Arc;

use client::Body;
use http::StatusCode;
use meta::{Reason, Status};
use schema::{ApplyError, ApplyOptions, Parsed, PatchError, Type};
use serde_json::{Value, json};

use super::create;
use super::get::newest;
use super::given::APPLY;
use super::update::{Made, change_shown};
use super::write::{Write, place, reset_paths, text};
use super::{patch_shown, unfit};
use crate::body::{self, FieldValidation};
use crate::chain::Call;
use crate::custom::Views;
use crate::registry::Resource;
use crate::respond::{self, Answer};
use crate::server::Core;

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// A patch of one of the four kinds, and what stands twice in it or means nothing.
pub(crate) struct Patch {
    form: Form,
    odd: Vec<String>,
}

enum Form {
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
    check_media(call, resource)?;
    let write = Write::of(core, call, resource)?;
    let patch = match read_patch(call, &bytes) {
        Ok(patch) => patch,
        // Upstream reads a patch once it has what is to be patched.
        Err(refused) if call.content_type() != APPLY => {
            newest(core, resource, write.namespace, &call.info.name).await?;
            return Err(refused);
        }
        Err(refused) => return Err(refused),
    };
    if let Form::Apply(applied) = patch.form {
        return apply(&write, resource, applied).await;
    }
    let make = |old: &Value, _: Option<&Views<'_>>| patched(&write, resource, &patch, old);
    let json = change_shown(&write, resource, &call.info.name, &make).await?;
    respond::object(call, resource, StatusCode::OK, json)
}

/// 415 for what is no patch. What is routed by media type upstream is refused by the router.
pub(crate) fn check_media(call: &Call, resource: &Resource) -> Result<(), Status> {
    let mut known = vec![JSON, MERGE, STRATEGIC, APPLY];
    known.retain(|kind| !(resource.custom && *kind == STRATEGIC));
    if known.contains(&call.content_type()) {
        return Ok(());
    }
    let text = match resource.custom {
        true => format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            known.join(", ")
        ),
        false => "415: Unsupported Media Type".to_owned(),
    };
    Err(Status::new(Reason::UnsupportedMediaType, text))
}

/// Reads a patch of a media type that is known here.
pub(crate) fn read_patch(call: &Call, bytes: &[u8]) -> Result<Patch, Status> {
    let media = call.content_type();
    if media == APPLY {
        return read_apply(call, bytes);
    }
    let prefix = match media {
        STRATEGIC => "",
        _ => "error decoding patch: ",
    };
    let bad = |why: &str| Status::bad_request(format!("{prefix}{why}"));
    let parsed = schema::parse_json(bytes).map_err(|error| bad(&error.to_string()))?;
    let (json, wanted) = match media {
        JSON => (true, "[]handlers.jsonPatchOp"),
        _ => (false, "map[string]interface {}"),
    };
    let found = match &parsed.tree {
        Value::Null if media == MERGE => return Err(Status::bad_request("Invalid JSON Patch")),
        Value::Object(_) if !json => None,
        Value::Array(_) if json => None,
        Value::Null => None,
        Value::Object(_) => Some("object"),
        Value::Array(_) => Some("array"),
        Value::String(_) => Some("string"),
        Value::Number(_) => Some("number"),
        Value::Bool(_) => Some("bool"),
    };
    if let Some(found) = found {
        let why = format!("json: cannot unmarshal {found} into Go value of type {wanted}");
        return Err(bad(&why));
    }
    let twice = parsed.duplicates.iter().map(|path| body::duplicate(path));
    let mut odd: Vec<String> = twice.collect();
    let form = match media {
        JSON => {
            odd.extend(unknown_parts(&parsed.tree));
            odd = odd.iter().map(|one| format!("json patch {one}")).collect();
            match parsed.tree.is_null() {
                true => Form::Json(b"[]".to_vec()),
                false => Form::Json(bytes.to_vec()),
            }
        }
        MERGE => Form::Merge(parsed.tree),
        _ if parsed.tree.is_null() => Form::Strategic(Value::Object(serde_json::Map::new())),
        _ => Form::Strategic(parsed.tree),
    };
    Ok(Patch { form, odd })
}

/// Fields of operations that no operation has.
fn unknown_parts(operations: &Value) -> Vec<String> {
    let known = ["op", "path", "from", "value"];
    let operations = operations.as_array().into_iter().flatten().enumerate();
    let unknown = operations.flat_map(|(at, operation)| {
        let fields = operation.as_object().into_iter().flat_map(|map| map.keys());
        let fields = fields.filter(|field| !known.contains(&field.as_str()));
        fields.map(move |field| format!("unknown field \"[{at}].{field}\""))
    });
    unknown.collect()
}

fn read_apply(call: &Call, bytes: &[u8]) -> Result<Patch, Status> {
    let Parsed { tree, duplicates } = body::parse_yaml(bytes).map_err(|status| {
        let why = status.message;
        let why = why
            .strip_prefix("couldn't get version/kind; ")
            .unwrap_or(&why);
        Status::bad_request(format!("error decoding YAML: {why}"))
    })?;
    let found = match &tree {
        Value::Object(_) | Value::Null => None,
        Value::Array(_) => Some("array"),
        Value::String(_) => Some("string"),
        Value::Number(_) => Some("number"),
        Value::Bool(_) => Some("bool"),
    };
    if let Some(found) = found {
        return Err(Status::bad_request(format!(
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot \
             unmarshal {found} into Go value of type map[string]interface {{}}"
        )));
    }
    let list: Vec<_> = duplicates
        .iter()
        .map(|path| body::duplicate(path))
        .collect();
    let converting = match list.iter().any(|one| one.starts_with("yaml: ")) {
        true => "error converting YAML to JSON: ",
        false => "",
    };
    match FieldValidation::read(call) {
        FieldValidation::Strict if !list.is_empty() => {
            let list = list.join(", ");
            let text = format!("error strict decoding YAML: {converting}{list}");
            return Err(Status::bad_request(text));
        }
        FieldValidation::Warn => list.into_iter().for_each(|one| call.warn(one)),
        _ => {}
    }
    let (form, odd) = (Form::Apply(tree), Vec::new());
    Ok(Patch { form, odd })
}

/// What an object becomes by a patch; a Scale is one for this.
pub(crate) fn patched(
    write: &Write<'_>,
    resource: &Resource,
    patch: &Patch,
    old: &Value,
) -> Result<Made, Status> {
    let shown = resource.shown(old.clone());
    let old = &shown;
    let mut tree = match &patch.form {
        Form::Json(patch) => {
            schema::json_patch(old, patch).map_err(|error| patch_refused(&error))?
        }
        Form::Merge(patch) => schema::merge_patch(old, patch),
        Form::Strategic(patch) => match &resource.ty {
            Some(ty) => {
                let merged = schema::strategic_merge_patch(ty.get(), old, patch);
                let mut merged = merged.map_err(|error| patch_refused(&error))?;
                // Which kind it is was known before.
                for field in ["apiVersion", "kind"] {
                    merged[field] = old[field].clone();
                }
                merged
            }
            None => schema::merge_patch(old, patch),
        },
        Form::Apply(applied) => {
            let manager = write.call.query.get("fieldManager").unwrap_or("");
            let object = merged(write, resource, (Some(old), None), applied, manager)?;
            return Ok(Made {
                object,
                owned: true,
            });
        }
    };
    let whole = match FieldValidation::read(write.call) {
        FieldValidation::Strict => tree.clone(),
        _ => Value::Null,
    };
    let kind = &resource.row.names.kind;
    let ordered = resource.ty.as_ref().filter(|_| !resource.custom);
    let shown = |patched: &Value| patch.form.shown(ordered.map(|ty| ty.get()), (old, patched));
    if let Err(misfit) = body::check_kind(resource, &mut tree) {
        return Err(match misfit.why().filter(|_| !resource.custom) {
            Some(why) => unfit::refused(&shown(&tree), why),
            None => misfit.status(kind, b""),
        });
    }
    let unknown = body::pruned(write.call, resource, &mut tree)
        .map_err(|why| unfit::refused(&shown(&tree), &patch.form.worded(&why)))?;
    let faults: Vec<String> = patch.odd.iter().cloned().chain(unknown).collect();
    match FieldValidation::read(write.call) {
        FieldValidation::Strict if !faults.is_empty() => {
            let why = format!("strict decoding error: {}", faults.join(", "));
            return Err(unfit::refused(&shown(&whole), &why));
        }
        FieldValidation::Warn => faults.into_iter().for_each(|fault| write.call.warn(fault)),
        _ => {}
    }
    let mut object = resource.kept(tree);
    fits(write, &mut object)?;
    Ok(Made {
        object,
        owned: false,
    })
}

impl Patch {
    /// What is applied, filled in and checked, for a patch that applies.
    pub(crate) fn check_applied(
        &mut self,
        write: &Write<'_>,
        resource: &Resource,
    ) -> Result<(), Status> {
        match &mut self.form {
            Form::Apply(applied) => {
                *applied = applicable(write, resource, applied.take())?;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Form {
    /// What upstream shows of a patch whose outcome cannot be read.
    fn shown(&self, ty: Option<&Type>, (old, patched): (&Value, &Value)) -> String {
        match self {
            Form::Strategic(patch) => unfit::go_text(patch),
            Form::Json(patch) => patch_shown::json(ty, old, patched, &patch_shown::touched(patch)),
            Form::Merge(patch) => patch_shown::json(ty, old, patched, patch),
            Form::Apply(_) => patched.to_string(),
        }
    }

    /// Why it cannot be read, in the words of the reader that upstream uses here.
    fn worded(&self, why: &str) -> String {
        match self {
            Form::Strategic(_) => unfit::reworded(why),
            _ => why.to_owned(),
        }
    }
}

/// A patch may not rename or move its object.
fn fits(write: &Write<'_>, object: &mut Value) -> Result<(), Status> {
    super::update::check_name(object, &write.call.info.name)?;
    place(write.names(), write.namespace, object)
}

fn patch_refused(error: &PatchError) -> Status {
    match error {
        PatchError::Malformed(_) => Status::bad_request(error.to_string()),
        PatchError::TooLarge(_) => Status::new(
            Reason::RequestEntityTooLarge,
            format!("Request entity too large: {error}"),
        ),
        // Upstream keeps to itself which operation does not apply.
        PatchError::Unprocessable(_) => Status::new(
            Reason::Invalid,
            "the server rejected our request due to an error in our request",
        ),
    }
}

async fn apply(write: &Write<'_>, resource: &Resource, applied: Value) -> Result<Answer, Status> {
    let (core, call) = (write.core, write.call);
    let manager = call.query.get("fieldManager").unwrap_or("");
    let applied = applicable(write, resource, applied)?;
    core.feed.fresh().await;
    let key = resource.key(write.namespace, &call.info.name);
    let exists = resource.cache()?.get(&key).is_some();
    if !exists && write.subresource.is_empty() {
        let object = merged(write, resource, (None, None), &applied, manager)?;
        let mut object = resource.stored().converted(object).await?;
        place(write.names(), write.namespace, &mut object)?;
        let uid = text(&object, "/metadata/uid");
        if !uid.is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object \
                 was found"
            );
            return Err(Status::conflict(write.names(), &call.info.name, &why));
        }
        super::write::metadata(&mut object).remove("resourceVersion");
        let strategy = &resource.row.strategy;
        strategy.default(&mut object);
        let json = create::create_kept(write, object).await?;
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

/// What is applied, with its name; an error where it is of another kind or place.
fn applicable(write: &Write<'_>, resource: &Resource, applied: Value) -> Result<Value, Status> {
    check_type(resource, &applied)?;
    // As the user wrote it: what is filled in or dropped here would count as the user's wish.
    let mut applied = resource.kept(applied);
    if text(&applied, "/metadata/name").is_empty() {
        let name = write.call.info.name.clone();
        super::write::metadata(&mut applied).insert("name".into(), name.into());
    }
    // Looked at in its place, but merged without the namespace that the path adds.
    fits(write, &mut json!({"metadata": applied.get("metadata")}))?;
    let managed = applied.pointer("/metadata/managedFields");
    let managed = managed.and_then(Value::as_array);
    if managed.is_some_and(|list| !list.is_empty()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    Ok(applied)
}

/// What is said of an applied object that does not fit its schema, in upstream's words. Upstream
/// calls it a fault of its own (500), but it is the client's.
fn apply_refused(applied: &Value, why: &str) -> Status {
    if why.starts_with("metadata.managedFields") {
        return Status::bad_request(why);
    }
    if why.starts_with("failed to create typed patch object") {
        return Status::bad_request(why);
    }
    let kind = format!(
        "{}, Kind={}",
        text(applied, "/apiVersion"),
        text(applied, "/kind")
    );
    let (namespace, name) = (
        text(applied, "/metadata/namespace"),
        text(applied, "/metadata/name"),
    );
    Status::bad_request(format!(
        "failed to convert new object ({namespace}/{name}; {kind}) to proper version: unable \
         to convert unstructured object to {kind}: {}",
        unfit::reworded(why)
    ))
}

/// 400 for an object of another kind, or of none.
fn check_type(resource: &Resource, applied: &Value) -> Result<(), Status> {
    let names = &resource.row.names;
    let (version, kind) = (text(applied, "/apiVersion"), text(applied, "/kind"));
    if version == names.api_version() && kind == names.kind {
        return Ok(());
    }
    let whole = match version.contains('/') {
        true => version.to_owned(),
        false => format!("/{version}"),
    };
    Err(Status::bad_request(format!(
        "invalid object type: {whole}, Kind={kind}"
    )))
}

fn merged(
    write: &Write<'_>,
    resource: &Resource,
    (live, views): (Option<&Value>, Option<&Views<'_>>),
    applied: &Value,
    manager: &str,
) -> Result<Value, Status> {
    // What a webhook converts is applied as it is shown, all else as it is kept.
    let is_scale = resource.row.names.kind != write.resource.row.names.kind;
    let by = match resource.conversion {
        Some(_) => resource,
        None if is_scale => resource,
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
        (ApplyError::Invalid(why), _) => apply_refused(applied, why),
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
