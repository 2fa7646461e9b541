//! delete: at once, after a grace period, or when the last finalizer is gone.

use std::sync::Arc;

use admission::Operation;
use bytes::Bytes;
use client::Body;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use meta::{FaultKind, Faults, Object, Status};
use serde_json::{Value, json};

use super::given;
use super::update::is_finished;
use super::write::{Write, metadata, text};
use crate::allocate::claims;
use crate::body;
use crate::cache::Entry;
use crate::chain::Call;
use crate::keep::{self, Beside, Outcome};
use crate::registry::Resource;
use crate::respond::{self, Answer};
use crate::server::Core;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// How often a deletion is tried anew because another writer was faster.
const ATTEMPTS_MAX: usize = 100;

/// `metav1.DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace: Option<i64>,
    pub(crate) policy: Option<String>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) dry_run: bool,
    /// As admission sees them.
    pub(crate) tree: Value,
}

impl DeleteOptions {
    /// From the body, or from the query when there is none.
    pub(crate) fn read(call: &Call, bytes: &[u8]) -> Result<DeleteOptions, Status> {
        const TYPE: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return DeleteOptions::of(call, None);
        }
        let ty = schema::named(TYPE);
        let mut tree = body::parse(bytes, call.content_type(), ty)?.tree;
        let bad = |why: String| Err(Status::bad_request(why));
        if !matches!(tree, Value::Object(_) | Value::Null) {
            return bad(body::kind_unread(&tree));
        }
        let (version, kind) = (text(&tree, "/apiVersion"), text(&tree, "/kind"));
        if !matches!(kind, "" | "DeleteOptions") {
            return bad(format!(
                "no kind {kind:?} is registered for version {version:?} in scheme \
                 \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\""
            ));
        }
        // What cannot be read must not delete more than was meant.
        if let (Some(ty), true) = (ty, tree.is_object())
            && let Err(misfit) = schema::check(ty, &mut tree)
        {
            return bad(misfit.to_string());
        }
        DeleteOptions::of(call, Some(&tree))
    }

    /// From a tree, and from the query for what it leaves out.
    pub(crate) fn of(call: &Call, tree: Option<&Value>) -> Result<DeleteOptions, Status> {
        let mut options = DeleteOptions {
            grace: call.query.number("gracePeriodSeconds")?,
            policy: call.query.get("propagationPolicy").map(str::to_owned),
            dry_run: body::is_dry_run(call),
            ..DeleteOptions::default()
        };
        let mut faults = Faults::new();
        let mut orphan = call
            .query
            .get("orphanDependents")
            .map(|word| word == "true");
        let mut runs: Vec<&str> = call.query.all("dryRun").collect();
        if let Some(tree) = tree {
            let word = |pointer: &str| {
                let value = tree.pointer(pointer).and_then(Value::as_str);
                value.filter(|value| !value.is_empty()).map(str::to_owned)
            };
            let grace = tree.get("gracePeriodSeconds").and_then(Value::as_i64);
            options.grace = grace.or(options.grace);
            options.policy = word("/propagationPolicy").or(options.policy);
            options.uid = word("/preconditions/uid");
            options.resource_version = word("/preconditions/resourceVersion");
            orphan = tree
                .get("orphanDependents")
                .and_then(Value::as_bool)
                .or(orphan);
            let given = tree.get("dryRun").and_then(Value::as_array);
            runs.extend(given.into_iter().flatten().filter_map(Value::as_str));
            options.dry_run |= !runs.is_empty();
        }
        check_policy(options.policy.as_deref(), orphan, &mut faults);
        given::dry_run_faults(&runs, &mut faults);
        given::verdict("DeleteOptions", &faults)?;
        if options.policy.is_none() {
            options.policy =
                orphan.map(|orphan| if orphan { "Orphan" } else { "Background" }.to_owned());
        }
        options.tree = options.tree(tree.unwrap_or(&Value::Null));
        Ok(options)
    }
}

fn check_policy(policy: Option<&str>, orphan: Option<bool>, faults: &mut Faults) {
    const FIELD: &str = "propagationPolicy";
    let Some(policy) = policy else {
        return;
    };
    if orphan.is_some() {
        let rule = "orphanDependents and deletionPropagation cannot be both set";
        faults.invalid(FIELD, policy, rule);
    }
    if !matches!(policy, "Orphan" | "Background" | "Foreground") {
        let detail = "supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"";
        faults.add(FIELD, FaultKind::NotSupported, policy.into(), detail);
    }
}

impl DeleteOptions {
    /// What was given in the body, completed by the query.
    fn tree(&self, given: &Value) -> Value {
        let mut tree = match given {
            Value::Object(map) => Value::Object(map.clone()),
            _ => json!({}),
        };
        if let Some(grace) = self.grace {
            tree["gracePeriodSeconds"] = grace.into();
        }
        let orphans = tree.get("orphanDependents").is_some();
        if let Some(policy) = self.policy.as_ref().filter(|_| !orphans) {
            tree["propagationPolicy"] = policy.as_str().into();
        }
        tree
    }
}

/// What became of the object.
pub(crate) enum Deleted {
    /// It is gone; this is how it was.
    Gone(Arc<Entry>),
    /// It waits for its grace period or finalizers.
    Waits(Bytes),
}

/// Deletes the object named in the path.
pub(crate) async fn delete(
    core: &Arc<Core>,
    call: &Call,
    resource: &Resource,
    body: Body,
) -> Result<Answer, Status> {
    let bytes = body::read(body).await?;
    let options = DeleteOptions::read(call, &bytes)?;
    let mut write = Write::of(core, call, resource)?;
    write.dry_run = options.dry_run;
    write.delete_options = Some(&options.tree);
    match delete_object(&write, &call.info.name, &options).await? {
        Deleted::Waits(json) => {
            let json = resource.converted_json(json).await?;
            respond::object(call, resource, StatusCode::OK, json)
        }
        Deleted::Gone(entry) if returns_object(resource) => {
            respond::object(call, resource, StatusCode::OK, entry.json.clone())
        }
        Deleted::Gone(entry) => {
            let status = respond::deleted(resource, entry.name(), &entry.uid);
            respond::text(call, StatusCode::OK, crate::cache::encode(&status).into())
        }
    }
}

/// Kinds whose deletion upstream answers with the object.
fn returns_object(resource: &Resource) -> bool {
    const KINDS: [&str; 9] = [
        "pods",
        "services",
        "podtemplates",
        "resourcequotas",
        "serviceaccounts",
        "persistentvolumes",
        "persistentvolumeclaims",
        "storageclasses.storage.k8s.io",
        "volumeattachments.storage.k8s.io",
    ];
    KINDS.contains(&resource.row.names.group_resource().as_str())
}

/// Deletes one object, or begins to.
pub(crate) async fn delete_object(
    write: &Write<'_>,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deleted, Status> {
    let mut entry = super::get::newest(write.core, write.resource, write.namespace, name).await?;
    for _ in 0..ATTEMPTS_MAX {
        match attempt(write, name, &entry, options).await? {
            Attempt::Done(deleted) => return Ok(deleted),
            Attempt::Lost(Some(newer)) => entry = newer,
            Attempt::Lost(None) => return Err(Status::not_found(write.names(), name)),
        }
    }
    Err(Status::conflict(
        write.names(),
        name,
        super::update::MODIFIED,
    ))
}

enum Attempt {
    Done(Deleted),
    Lost(Option<Arc<Entry>>),
}

async fn attempt(
    write: &Write<'_>,
    name: &str,
    entry: &Arc<Entry>,
    options: &DeleteOptions,
) -> Result<Attempt, Status> {
    check_preconditions(write, entry, options)?;
    let old = entry.decode();
    let admitted = write
        .admit(Operation::Delete, name, None, Some(&old))
        .await?;
    let (resource, cache) = (write.resource, write.resource.cache()?);
    let mut new = old.0.clone();
    let row = &resource.row;
    let grace = row.strategy.grace_period_seconds(&old.0, options.grace);
    mark(&mut new, &old, grace.unwrap_or(0), Timestamp::now());
    let orphans = old.deletion_timestamp().is_none() && row.strategy.orphans_dependents();
    set_finalizers(&mut new, options.policy.as_deref(), orphans);
    if old.deletion_timestamp().is_none() {
        row.strategy.prepare_delete(&mut new);
    }
    if row.names.group.is_empty() && row.names.kind == "Namespace" {
        meta::object::map_at(&mut new, "status").insert("phase".into(), "Terminating".into());
        // Namespaces wait for their finalizer, not for a time.
        metadata(&mut new).remove("deletionGracePeriodSeconds");
    }
    let gone = is_finished(&new);
    if write.dry_run {
        return Ok(Attempt::Done(match gone {
            // Upstream shows when a graceful deletion would end, though it ends at once.
            true if grace.is_none() => Deleted::Gone(Arc::clone(entry)),
            _ => Deleted::Waits(crate::cache::encode(&new).into()),
        }));
    }
    if !gone && new == old.0 {
        return Ok(Attempt::Done(Deleted::Waits(entry.json.clone())));
    }
    let key = resource.key(write.namespace, name);
    let store = &*write.core.store;
    let outcome = if gone {
        let beside = claims::beside_removal(write.core, resource, &key, &old.0);
        keep::remove(store, cache, &key, entry.revision, beside).await?
    } else {
        let kept = Arc::new(Object(new));
        let kept = (&kept, entry.lease);
        keep::put(store, cache, &key, entry.revision, kept, Beside::default()).await?
    };
    match outcome {
        Outcome::Lost(kv) => Ok(Attempt::Lost(kv.and_then(|kv| cache.read_entry(&kv)))),
        Outcome::Written(written) => {
            admitted.stored();
            write.settle(written.revision).await;
            Ok(Attempt::Done(match gone {
                true => Deleted::Gone(Arc::clone(entry)),
                false => Deleted::Waits(written.json),
            }))
        }
    }
}

/// 409 unless this is the object, and the version of it, that the options name.
pub(crate) fn check_preconditions(
    write: &Write<'_>,
    entry: &Entry,
    options: &DeleteOptions,
) -> Result<(), Status> {
    let conflict = |why: String| {
        // Upstream names the kind here.
        let names = meta::Names {
            plural: write.names().kind.clone(),
            ..write.names().clone()
        };
        Err(Status::conflict(&names, entry.name(), &why))
    };
    if let Some(uid) = options.uid.as_deref().filter(|uid| **uid != *entry.uid) {
        return conflict(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The \
             object might have been deleted and then recreated",
            entry.uid
        ));
    }
    let version = entry.revision.to_string();
    if let Some(wanted) = options
        .resource_version
        .as_deref()
        .filter(|own| *own != version)
    {
        return conflict(format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the \
             ResourceVersion in record ({version}). The object might have been modified"
        ));
    }
    Ok(())
}

/// Sets when the object is to go. A later request may shorten the period, never lengthen it.
fn mark(new: &mut Value, old: &Object, grace: i64, now: Timestamp) {
    let existing = old.0.pointer("/metadata/deletionGracePeriodSeconds");
    let existing = existing.and_then(Value::as_i64);
    let at = match old.deletion_timestamp() {
        Some(_) if grace >= existing.unwrap_or(0) => return,
        Some(end) => {
            let end = meta::time::parse(end).unwrap_or(now);
            let shorter = SignedDuration::from_secs(grace - existing.unwrap_or(0));
            end.checked_add(shorter).unwrap_or(now).max(now)
        }
        None => {
            let generation = old.generation();
            if generation > 0 {
                metadata(new).insert("generation".into(), (generation + 1).into());
            }
            now.checked_add(SignedDuration::from_secs(grace))
                .unwrap_or(now)
        }
    };
    let metadata = metadata(new);
    metadata.insert("deletionTimestamp".into(), meta::time::rfc3339(at).into());
    metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
}

/// The propagation policy stands in the finalizers, where the garbage collector reads it.
/// Where nobody names one, dependents of a few old kinds stay.
fn set_finalizers(new: &mut Value, policy: Option<&str>, orphans: bool) {
    let named = metadata(new).get("finalizers").and_then(Value::as_array);
    let named = named.is_some_and(|list| list.iter().any(|one| one == ORPHAN || one == FOREGROUND));
    let policy = match policy {
        Some(policy) => policy,
        None if orphans && !named => "Orphan",
        None => return,
    };
    let own = match policy {
        "Orphan" => Some(ORPHAN),
        "Foreground" => Some(FOREGROUND),
        _ => None,
    };
    let metadata = metadata(new);
    let list = metadata
        .get("finalizers")
        .and_then(Value::as_array)
        .cloned();
    let mut list = list.unwrap_or_default();
    list.retain(|one| one != ORPHAN && one != FOREGROUND || own.is_some_and(|own| one == own));
    if let Some(own) = own.filter(|own| !list.iter().any(|one| one == own)) {
        list.push(own.into());
    }
    match list.is_empty() {
        true => drop(metadata.remove("finalizers")),
        false => drop(metadata.insert("finalizers".into(), list.into())),
    }
}

/// Whether an object of this tree is being deleted.
pub(crate) fn is_terminating(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}
