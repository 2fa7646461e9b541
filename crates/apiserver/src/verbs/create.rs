//! create.

use std::sync::Arc;

use admission::Operation;
use bytes::Bytes;
use client::Body;
use http::StatusCode;
use meta::{Faults, Object, Reason, Status};
use rand::Rng;
use serde_json::Value;

use super::sent;
use super::write::{Write, metadata, place, text};
use crate::allocate::claims;
use crate::body;
use crate::cache::encode;
use crate::chain::Call;
use crate::keep::{self, Outcome};
use crate::registry::Resource;
use crate::respond::{self, Answer};
use crate::server::Core;

/// Names tried for an object with `generateName`.
const NAME_ATTEMPTS: usize = 8;
/// Characters of generated names: no vowels, and nothing that looks like another.
const NAME_CHARACTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const NAME_RANDOM: usize = 5;
/// Prefixes are cut here, so that generated names are labels.
const NAME_PREFIX_MAX: usize = 63 - NAME_RANDOM;

/// Creates the object in the request's body.
pub(crate) async fn create(
    core: &Arc<Core>,
    call: &Call,
    resource: &Resource,
    body: Body,
) -> Result<Answer, Status> {
    let bytes = body::read(body).await?;
    let write = Write::of(core, call, resource)?;
    let read = || body::object(call, resource, &bytes).map(|object| resource.kept(object));
    let object = read()?;
    // Fields are owned in the version that the client speaks.
    let by = match resource.is_converted_by_webhook() {
        true => resource,
        false => write.resource,
    };
    let json = match std::ptr::eq(by, write.resource) {
        // Read again should it be needed again: nearly never.
        true if resource.conversion.is_none() => {
            let object = fresh(&write, by, object)?;
            create_owned(&write, object, || fresh(&write, by, read()?)).await?
        }
        true => create_object(&write, resource.stored().converted(object).await?).await?,
        false => {
            let object = fresh(&write, by, object)?;
            create_kept(&write, resource.stored().converted(object).await?).await?
        }
    };
    let json = resource.converted_json(json).await?;
    respond::object(call, resource, StatusCode::CREATED, json)
}

/// Creates an object that has its schema's shape.
pub(crate) async fn create_object(write: &Write<'_>, object: Value) -> Result<Bytes, Status> {
    create_kept(write, fresh(write, write.resource, object)?).await
}

/// An object as it is before anybody else changes it: without what only the server says, with the
/// defaults of its version, and with an owner for each field.
fn fresh(write: &Write<'_>, by: &Resource, mut object: Value) -> Result<Value, Status> {
    place(write.names(), write.namespace, &mut object)?;
    let metadata = metadata(&mut object);
    let version = metadata.remove("resourceVersion");
    if let Some(version) = version.filter(|version| *version != "") {
        if !write.dry_run {
            return Err(Status::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        // A dry run reaches no store, which is where upstream notices.
        metadata.insert("resourceVersion".into(), version);
    }
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "managedFields",
    ] {
        metadata.remove(field);
    }
    by.row.strategy.default(&mut object);
    write.own_fields(by, None, &mut object);
    Ok(object)
}

/// Creates an object whose fields have their owners already.
pub(crate) async fn create_kept(write: &Write<'_>, object: Value) -> Result<Bytes, Status> {
    let kept = object.clone();
    create_owned(write, object, || Ok(kept.clone())).await
}

/// The same; `again` makes the object anew, for another attempt.
async fn create_owned(
    write: &Write<'_>,
    object: Value,
    again: impl Fn() -> Result<Value, Status> + Sync,
) -> Result<Bytes, Status> {
    let generated = text(&object, "/metadata/name").is_empty()
        && !text(&object, "/metadata/generateName").is_empty();
    let attempts = if generated { NAME_ATTEMPTS } else { 1 };
    let mut waited = false;
    let mut attempt = 0;
    let mut first = Some(object);
    loop {
        attempt += 1;
        let stale = write.may_be_stale();
        let object = first.take().map_or_else(&again, Ok)?;
        match try_create(write, object).await {
            // The namespace, account or quota may have been written just before.
            Err(status) if stale && !waited && refused_by_cache(write, &status) => {
                waited = true;
                write.core.feed.fresh().await;
            }
            Err(status) if status.is_already_exists() && generated => {
                if attempt >= attempts {
                    let text = "the server was not able to generate a unique name for the object";
                    let message = format!("{}: {text}", status.message);
                    return Err(Status { message, ..status });
                }
            }
            done => return done,
        }
    }
}

fn refused_by_cache(write: &Write<'_>, status: &Status) -> bool {
    // A webhook's refusal is final; it must not be asked twice.
    !write.call.refused_by_webhook()
        && matches!(
            status.reason,
            Reason::Forbidden | Reason::NotFound | Reason::Invalid
        )
}

async fn try_create(write: &Write<'_>, object: Value) -> Result<Bytes, Status> {
    let resource = write.resource;
    let row = &resource.row;
    let requested = text(&object, "/metadata/name").to_owned();
    if resource.terminating {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(Status::forbidden(write.names(), &requested, why));
    }
    let object = write.await_needs(&requested, object).await;
    let mut object = write
        .mutate(Operation::Create, &requested, object, None)
        .await?;
    row.strategy.default(&mut object);
    identify(resource, &mut object);
    // A kubelet registers its node with all it knows.
    let keeps_status = !row.has_status || row.names.group_resource() == "nodes";
    if let Some(map) = object.as_object_mut().filter(|_| !keeps_status) {
        map.remove("status");
    }
    row.strategy.prepare_create(&mut object);
    if let Some(ty) = resource.stored().protobuf() {
        schema::fill_status(ty, &mut object);
    }
    name_requestor(write, &mut object);
    let name = text(&object, "/metadata/name").to_owned();
    let key = resource.key(write.namespace, &name);
    let charge = write
        .core
        .allocations
        .create(resource, &key, &mut object, write.dry_run)?;
    let seen = match write.spoken {
        None => None,
        Some(spoken) => Some((&spoken.row.strategy, spoken.seen(&object).await?)),
    };
    let rules = write.rules;
    let judge = |object: &Value| {
        let mut faults = Faults::new();
        crate::device_rights::check(write, object, &mut faults);
        kinds::metadata::validate_create(&rules.names, object, &*rules.strategy, &mut faults);
        match &seen {
            None => rules.strategy.validate_create(object, &mut faults),
            Some((strategy, seen)) => strategy.validate_create(seen, &mut faults),
        }
        crate::policy_rights::check(write, object, None, &mut faults);
        faults
    };
    write.check(&name, &sent::faults(write.call, &object, judge))?;
    let object = Arc::new(Object(object));
    let admitted = write
        .admit(Operation::Create, &name, Some(&object), None)
        .await?;
    write.warn(&object.0);
    let cache = resource.cache()?;
    if write.dry_run {
        return match cache.get(&key) {
            Some(_) => Err(Status::already_exists(write.names(), &name)),
            None => Ok(encode(&object.0).into()),
        };
    }
    let lease = lease(write.core, resource).await?;
    let store = &*write.core.store;
    let beside = claims::beside_write(write.core, &key, &charge, (&object.0, None), resource)?;
    match keep::put(store, cache, &key, 0, (&object, lease), beside).await? {
        Outcome::Lost(None) => Err(claims::lost(&name, &object.0)),
        Outcome::Lost(_) => Err(Status::already_exists(write.names(), &name)),
        Outcome::Written(written) => {
            admitted.stored();
            write.settle(written.revision).await;
            drop(charge);
            Ok(written.json)
        }
    }
}

/// A certificate signing request says who sent it, and nobody else may say so.
fn name_requestor(write: &Write<'_>, object: &mut Value) {
    if write.names().group_resource() != "certificatesigningrequests.certificates.k8s.io" {
        return;
    }
    let user = &write.call.user;
    let spec = meta::object::map_at(object, "spec");
    spec.insert("username".into(), user.name.as_str().into());
    if !user.uid.is_empty() {
        spec.insert("uid".into(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        spec.insert("groups".into(), serde_json::json!(user.groups));
    }
    if !user.extra.is_empty() {
        spec.insert("extra".into(), serde_json::json!(user.extra));
    }
}

/// Gives the object its name, uid and time.
fn identify(resource: &Resource, object: &mut Value) {
    let has_generation = resource.row.has_generation;
    let metadata = metadata(object);
    let own = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or("");
    let (name, prefix) = (own("name"), own("generateName"));
    if name.is_empty() && !prefix.is_empty() {
        let name = generate_name(prefix);
        metadata.insert("name".into(), name.into());
    }
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".into(), meta::time::now().into());
    if has_generation {
        metadata.insert("generation".into(), 1.into());
    }
}

fn generate_name(prefix: &str) -> String {
    let mut random = rand::rng();
    let mut name: String = prefix.chars().take(NAME_PREFIX_MAX).collect();
    for _ in 0..NAME_RANDOM {
        let at = random.random_range(0..NAME_CHARACTERS.len());
        name.push(char::from(NAME_CHARACTERS[at]));
    }
    name
}

/// The lease that an object of this resource is kept by; 0 for ever.
pub(crate) async fn lease(core: &Core, resource: &Resource) -> Result<i64, Status> {
    match resource.row.names.plural.as_str() {
        "events" if !resource.custom => core.event_leases.get(&core.store).await,
        _ => Ok(0),
    }
}
