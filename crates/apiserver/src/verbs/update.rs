//! update, and the loop in which every change of an existing object is made.

use kinds::Row;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use admission::Operation;
use bytes::Bytes;
use client::Body;
use http::StatusCode;
use meta::{Faults, Names, Object, Status};
use serde_json::Value;

use super::create;
use super::parts::{Part, keep_status};
use super::sent;
use super::write::{Write, metadata, place, reset_paths, same, text};
use crate::allocate::{Charge, claims};
use crate::body;
use crate::cache::{Entry, encode};
use crate::chain::Call;
use crate::custom::Views;
use crate::keep::{self, Outcome};
use crate::registry::Resource;
use crate::respond::{self, Answer};
use crate::server::Core;

/// How often a change is made anew because another writer was faster.
const ATTEMPTS_MAX: usize = 100;
/// What upstream tells the slower of two writers.
pub(crate) const MODIFIED: &str = "the object has been modified; please apply your changes to the \
     latest version and try again";

/// How a change comes about: from the newest version (with its resourceVersion) to the new one.
pub(crate) struct Made {
    pub(crate) object: Value,
    /// Whether `metadata.managedFields` is up to date, as after an apply.
    pub(crate) owned: bool,
}

/// Replaces the object named in the path by the one in the body.
pub(crate) async fn update(
    core: &Arc<Core>,
    call: &Call,
    resource: &Resource,
    body: Body,
) -> Result<Answer, Status> {
    let bytes = body::read(body).await?;
    let write = Write::of(core, call, resource)?;
    let mut object = resource.kept(body::object(call, resource, &bytes)?);
    check_name(&object, &call.info.name)?;
    place(write.names(), write.namespace, &mut object)?;
    let name = call.info.name.clone();
    if resource.is_converted_by_webhook() {
        let make = |_: &Value, _: Option<&Views<'_>>| {
            Ok(Made {
                object: object.clone(),
                owned: false,
            })
        };
        let json = change_shown(&write, resource, &name, &make).await?;
        return respond::object(call, resource, StatusCode::OK, json);
    }
    let mut object = resource.stored().converted(object).await?;
    let creates = resource.row.create_on_update && write.subresource.is_empty();
    if creates {
        core.feed.fresh().await;
        if resource
            .cache()?
            .get(&resource.key(write.namespace, &name))
            .is_none()
        {
            metadata(&mut object).remove("resourceVersion");
            let json = create::create_object(&write, object).await?;
            let json = resource.converted_json(json).await?;
            return respond::object(call, resource, StatusCode::CREATED, json);
        }
    }
    let make = |_: &Value| {
        Ok(Made {
            object: object.clone(),
            owned: false,
        })
    };
    let json = change(&write, &name, &make).await?;
    let json = resource.converted_json(json).await?;
    respond::object(call, resource, StatusCode::OK, json)
}

pub(crate) fn check_name(object: &Value, expected: &str) -> Result<(), Status> {
    let name = text(object, "/metadata/name");
    if name == expected {
        return Ok(());
    }
    Err(Status::bad_request(match name {
        "" => format!(
            "the name of the object ({expected} based on URL) was undeterminable: name must be \
             provided"
        ),
        name => format!(
            "the name of the object ({name}) does not match the name on the URL ({expected})"
        ),
    }))
}

/// Changes one object: `make` turns its newest version into the next, again whenever another
/// writer was faster. Returns the object as stored.
pub(crate) async fn change(
    write: &Write<'_>,
    name: &str,
    make: &(dyn Fn(&Value) -> Result<Made, Status> + Send + Sync),
) -> Result<Bytes, Status> {
    let cache = write.resource.cache()?;
    let mut entry = super::get::newest(write.core, write.resource, write.namespace, name).await?;
    for _ in 0..ATTEMPTS_MAX {
        let old = write.resource.converted(entry.decode().0).await?;
        let made = make(&old)?;
        match attempt(write, name, &entry, old, made).await? {
            Attempt::Done(json) => return Ok(json),
            Attempt::Lost(Some(newer)) => entry = newer,
            Attempt::Lost(None) => return Err(Status::not_found(write.names(), name)),
        }
    }
    tracing::warn!(
        prefix = cache.prefix,
        name,
        "gave up changing a contended object"
    );
    Err(Status::conflict(write.names(), name, MODIFIED))
}

/// Makes the next version of an object in the version of it that a client speaks. The views are
/// there where only a webhook knows the others.
pub(crate) type Shown<'m> =
    dyn Fn(&Value, Option<&Views<'_>>) -> Result<Made, Status> + Send + Sync + 'm;

/// The same, but `make` sees and makes the object in the version of `resource`, which only a
/// webhook may be able to convert.
pub(crate) async fn change_shown(
    write: &Write<'_>,
    resource: &Resource,
    name: &str,
    make: &Shown<'_>,
) -> Result<Bytes, Status> {
    if resource.conversion.is_none() {
        return change(write, name, &|old: &Value| make(old, None)).await;
    }
    let views = Views::of(resource.conversion.as_deref());
    for _ in 0..ATTEMPTS_MAX {
        let entry = super::get::newest(write.core, resource, write.namespace, name).await?;
        let old = resource.converted(entry.decode().0).await?;
        let made = viewed(views.as_ref(), || {
            let made = make(&old, views.as_ref())?;
            match &views {
                Some(views) if !made.owned => owned(write, resource, &old, made, views),
                _ => Ok(made),
            }
        })
        .await?;
        let kept = resource.stored().converted(made.object).await?;
        let seen = entry.revision.to_string();
        let moved = AtomicBool::new(false);
        let put = |old: &Value| {
            if text(old, "/metadata/resourceVersion") != seen {
                moved.store(true, Ordering::Relaxed);
                return Err(Status::conflict(write.names(), name, MODIFIED));
            }
            Ok(Made {
                object: kept.clone(),
                owned: made.owned,
            })
        };
        match change(write, name, &put).await {
            Err(_) if moved.load(Ordering::Relaxed) => {}
            done => return resource.converted_json(done?).await,
        }
    }
    Err(Status::conflict(write.names(), name, MODIFIED))
}

/// Tries again whenever a version was lacking, once it is there.
pub(crate) async fn viewed<T>(
    views: Option<&Views<'_>>,
    attempt: impl Fn() -> Result<T, Status>,
) -> Result<T, Status> {
    loop {
        match (attempt(), views) {
            (Err(status), Some(views)) => match views.fetched().await? {
                true => {}
                false => return Err(status),
            },
            (done, _) => return done,
        }
    }
}

/// Records who set which field, in the version that the client speaks.
fn owned(
    write: &Write<'_>,
    resource: &Resource,
    old: &Value,
    mut made: Made,
    views: &Views<'_>,
) -> Result<Made, Status> {
    if let Some(ty) = &resource.ty {
        let manager = write.call.field_manager();
        let options = schema::UpdateOptions {
            manager: &manager,
            api_version: &resource.row.names.api_version(),
            subresource: write.subresource,
            now: &meta::time::now(),
            reset: reset_paths(resource, write.subresource),
        };
        let object = &mut made.object;
        schema::update_managed_fields_between(ty.get(), old, object, options, views)
            .map_err(|wanted| views.lack(wanted))?;
    }
    Ok(Made {
        owned: true,
        ..made
    })
}

enum Attempt {
    Done(Bytes),
    Lost(Option<Arc<Entry>>),
}

async fn attempt(
    write: &Write<'_>,
    name: &str,
    entry: &Arc<Entry>,
    old: Value,
    made: Made,
) -> Result<Attempt, Status> {
    let (resource, row) = (write.resource, &write.resource.row);
    let mut new = made.object;
    carry_over(write, name, &old, &mut new)?;
    let part = Part::of(write.subresource);
    match part {
        Part::All => row.strategy.default(&mut new),
        part => {
            // What is sent is defaulted as it is read. Pods have no defaults for their status, and
            // come often.
            if write.resource.custom || (is_defaulted(part) && row.names.plural != "pods") {
                row.strategy.default(&mut new);
            }
            new = part.of_given(resource, &old, new);
            row.strategy
                .prepare_subresource(write.subresource, &mut new, &old);
        }
    }
    if !made.owned {
        write.own_fields(resource, Some(&old), &mut new);
    }
    let old = Object(old);
    let mut new = write
        .mutate(Operation::Update, name, new, Some(&old))
        .await?;
    if part == Part::All {
        row.strategy.default(&mut new);
        keep_status(row.has_status, &old.0, &mut new);
        row.strategy.prepare_update(&mut new, &old.0);
    }
    let key = resource.key(write.namespace, name);
    let allocations = &write.core.allocations;
    let charge = match part {
        Part::All => allocations.update(resource, &key, &mut new, &old.0, write.dry_run)?,
        _ => Charge::nothing(),
    };
    count_generation(write, &old.0, &mut new);
    validate(write, name, &new, &old.0).await?;
    let new = Arc::new(Object(new));
    let admitted = write
        .admit(Operation::Update, name, Some(&new), Some(&old))
        .await?;
    if part == Part::All {
        write.warn_of_change(&new.0, &old.0);
    }
    if same(&old.0, &new.0) && !resource.cache()?.is_stale(entry) {
        return Ok(Attempt::Done(entry.json.clone()));
    }
    if write.dry_run {
        return Ok(Attempt::Done(encode(&new.0).into()));
    }
    let (cache, leaves) = (resource.cache()?, is_finished(&new.0));
    let outcome = replace(write, &key, entry, (&new, &old.0), &charge).await?;
    match outcome {
        Outcome::Lost(kv) => Ok(Attempt::Lost(kv.and_then(|kv| cache.read_entry(&kv)))),
        Outcome::Written(written) => {
            admitted.stored();
            write.settle(written.revision).await;
            drop(charge);
            Ok(Attempt::Done(match leaves {
                true => encode(&new.0).into(),
                false => written.json,
            }))
        }
    }
}

/// Whether this part of a built-in kind has defaults of its own.
fn is_defaulted(part: Part) -> bool {
    matches!(part, Part::Status | Part::Finalizers)
}

/// Puts the new version, or removes the object where nothing holds it any more.
async fn replace(
    write: &Write<'_>,
    key: &str,
    entry: &Entry,
    (new, old): (&Arc<Object>, &Value),
    charge: &Charge,
) -> Result<Outcome, Status> {
    let (core, resource) = (write.core, write.resource);
    let (store, cache) = (&*core.store, resource.cache()?);
    if is_finished(&new.0) {
        let beside = claims::beside_removal(core, resource, key, old);
        return keep::remove(store, cache, key, entry.revision, beside).await;
    }
    let beside = claims::beside_write(core, key, charge, (&new.0, Some(old)), resource)?;
    keep::put(
        store,
        cache,
        key,
        entry.revision,
        (new, entry.lease),
        beside,
    )
    .await
}

/// 422 for an update that does not say what it replaces. Upstream names the resource here.
fn version_missing(names: &Names, name: &str) -> Status {
    let mut faults = Faults::new();
    let rule = "must be specified for an update";
    faults.invalid("metadata.resourceVersion", 0, rule);
    let kind = names.plural.clone();
    let names = Names {
        kind,
        ..names.clone()
    };
    Status::invalid(&names, name, &faults)
}

/// What clients may leave out but not change.
fn carry_over(write: &Write<'_>, name: &str, old: &Value, new: &mut Value) -> Result<(), Status> {
    let conflict = |why: &str| Status::conflict(write.names(), name, why);
    let version = text(new, "/metadata/resourceVersion");
    if !version.is_empty() && version.parse::<u64>().is_err() {
        let text = format!("strconv.ParseUint: parsing {version:?}: invalid syntax");
        return Err(Status::bad_request(text));
    }
    if !version.is_empty() && version != "0" && version != text(old, "/metadata/resourceVersion") {
        return Err(conflict(MODIFIED));
    }
    if matches!(version, "" | "0") && write.resource.row.needs_version {
        return Err(version_missing(write.names(), name));
    }
    let (uid, old_uid) = (text(new, "/metadata/uid"), text(old, "/metadata/uid"));
    // A patched object is judged as a whole, like any other fault of its metadata.
    if !uid.is_empty() && uid != old_uid && write.call.info.verb == "update" {
        let key = write.resource.key(write.namespace, name);
        let prefix = write.resource.cache()?.prefix.as_str();
        let prefix = prefix.strip_prefix("/registry").unwrap_or(prefix);
        return Err(conflict(&format!(
            "StorageError: invalid object, Code: 4, Key: {prefix}{key}, ResourceVersion: 0, \
             AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object \
             meta: {old_uid}"
        )));
    }
    let from = old.get("metadata").and_then(Value::as_object);
    let into = metadata(new);
    let always = [
        "resourceVersion",
        "deletionTimestamp",
        "generation",
        "creationTimestamp",
    ];
    let absent = [
        "uid",
        "deletionGracePeriodSeconds",
        "name",
        "namespace",
        "generateName",
    ];
    let get = |field: &str| from.and_then(|from| from.get(field)).cloned();
    for field in always {
        match get(field) {
            Some(value) => drop(into.insert(field.into(), value)),
            None if field == "generation" => drop(into.remove(field)),
            None => {}
        }
    }
    for field in absent {
        if into
            .get(field)
            .is_none_or(|value| value.is_null() || value == "")
            && let Some(value) = get(field)
        {
            into.insert(field.into(), value);
        }
    }
    Ok(())
}

/// The generation counts the changes that the kind says count. That a pod is put on a node is none:
/// its kubelet has seen no other.
fn count_generation(write: &Write<'_>, old: &Value, new: &mut Value) {
    let row = &write.resource.row;
    let counts = row.has_generation && !matches!(write.subresource, "status" | "binding");
    if !counts || !row.strategy.moves_generation(new, old) {
        return;
    }
    let generation = old.pointer("/metadata/generation").and_then(Value::as_i64);
    metadata(new).insert("generation".into(), (generation.unwrap_or(0) + 1).into());
}

async fn validate(write: &Write<'_>, name: &str, new: &Value, old: &Value) -> Result<(), Status> {
    match write.spoken {
        None => judge(write, write.rules, name, (new, old)),
        Some(spoken) => {
            let (new, old) = (spoken.seen(new).await?, spoken.seen(old).await?);
            judge(write, &spoken.row, name, (&new, &old))
        }
    }
}

fn judge(
    write: &Write<'_>,
    by: &Row,
    name: &str,
    (new, old): (&Value, &Value),
) -> Result<(), Status> {
    let strategy = &*by.strategy;
    let part = Part::of(write.subresource);
    // Upstream writes these past its strategies.
    if write.subresource == "binding" {
        return Ok(());
    }
    let whole = matches!(part, Part::All);
    let faults = sent::faults(write.call, new, |new| {
        let mut faults = Faults::new();
        kinds::metadata::validate_update(&by.names, new, old, strategy, whole, &mut faults);
        match part {
            Part::All => {
                strategy.validate_update(new, old, &mut faults);
                crate::policy_rights::check(write, new, Some(old), &mut faults);
            }
            Part::Status => {
                crate::claim_rights::check(write, new, old, &mut faults);
                strategy.validate_status(new, old, &mut faults);
            }
            Part::Ephemeral | Part::Resources | Part::Approval | Part::Finalizers => {
                strategy.validate_subresource(write.subresource, new, old, &mut faults);
            }
            Part::Given => {}
        }
        faults
    });
    write.check(name, &faults)
}

/// Whether nothing holds a deleted object any more.
pub(crate) fn is_finished(object: &Value) -> bool {
    let holds = |pointer: &str| {
        let list = object.pointer(pointer).and_then(Value::as_array);
        list.is_some_and(|list| !list.is_empty())
    };
    let grace = object.pointer("/metadata/deletionGracePeriodSeconds");
    let is_namespace = object.get("kind").is_some_and(|kind| kind == "Namespace")
        && object
            .get("apiVersion")
            .is_some_and(|version| version == "v1");
    object.pointer("/metadata/deletionTimestamp").is_some()
        && grace.and_then(Value::as_i64).unwrap_or(0) == 0
        && !holds("/metadata/finalizers")
        && !(is_namespace && holds("/spec/finalizers"))
}
