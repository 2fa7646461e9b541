//! Mutating webhooks: one after the other, each on what the one before has made.

use std::collections::HashSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use meta::{Object, Status};
use serde_json::Value;

use super::Asked;
use super::call::{self, Trouble, ask};
use super::hook::Hook;
use super::matching::{Objects, concerns};
use super::review::Verdict;
use super::trail;
use crate::registry::Resource;
use crate::verbs::write::{metadata, text};

/// Which webhooks are to be called once more.
#[derive(Default)]
struct Rounds {
    /// Called, and willing to be called again.
    called: Vec<usize>,
    again: HashSet<usize>,
    /// Whether any webhook has changed the object.
    changed: bool,
}

/// Lets all webhooks that the write concerns complete the object. `replay` runs the plugins
/// before them once more, when a webhook has changed what they had seen.
pub(crate) async fn mutate<'r>(
    asked: &Asked<'_>,
    object: Value,
    old: Option<&Object>,
    replay: impl FnOnce(Object) -> BoxFuture<'r, Result<Object, Status>>,
) -> Result<Value, Status> {
    let hooks = asked.core.hooks.mutating.all.load_full();
    let mut rounds = Rounds::default();
    let object = round(&hooks, asked, object, old, &mut rounds, false).await?;
    if !rounds.changed {
        return Ok(object);
    }
    let replayed = replay(Object(object.clone())).await?;
    if replayed.0 != object {
        rounds.require();
    }
    match rounds.again.is_empty() {
        true => Ok(replayed.0),
        false => round(&hooks, asked, replayed.0, old, &mut rounds, true).await,
    }
}

impl Rounds {
    /// Those called so far are to be called again.
    fn require(&mut self) {
        self.again.extend(self.called.drain(..));
    }
}

async fn round(
    hooks: &[Arc<Hook>],
    asked: &Asked<'_>,
    mut object: Value,
    old: Option<&Object>,
    rounds: &mut Rounds,
    again: bool,
) -> Result<Value, Status> {
    let old = old.map(|old| &old.0);
    for (index, hook) in hooks.iter().enumerate() {
        if again && !rounds.again.contains(&index) {
            continue;
        }
        let objects = Objects {
            new: Some(&object),
            old,
        };
        let Some(resource) = concerns(hook, asked, objects).await? else {
            continue;
        };
        let place = (usize::from(again), index);
        let patched = match ask(hook, asked, &resource, objects, true).await {
            Ok(verdict) => {
                let patched = apply(hook, asked, &resource, &object, &verdict).await;
                if matches!(patched, Ok(Some(_))) {
                    trail::patched(asked, hook, place, &verdict);
                }
                patched
            }
            Err(trouble) => Err(trouble),
        };
        let changed = matches!(&patched, Ok(Some(patched)) if *patched != object);
        trail::mutated(asked, hook, place, changed);
        match patched {
            Ok(Some(patched)) => {
                if changed {
                    rounds.changed = true;
                    rounds.require();
                }
                object = patched;
            }
            Ok(None) => {}
            Err(Trouble::Calling(why)) => call::failed(hook, asked, &why, "mutation", place)?,
            Err(Trouble::Refused(status)) => return Err(*status),
        }
        if hook.reinvoke {
            rounds.called.push(index);
        }
    }
    Ok(object)
}

/// The object after a webhook's patch, as it is kept; `None`: there is no patch.
async fn apply(
    hook: &Hook,
    asked: &Asked<'_>,
    resource: &Resource,
    object: &Value,
    verdict: &Verdict,
) -> Result<Option<Value>, Trouble> {
    if !verdict.changes() {
        return Ok(None);
    }
    verdict.check_type().map_err(Trouble::Calling)?;
    let shown = asked.shown(resource, object).await?;
    let patched = schema::json_patch(&shown, &verdict.patch).map_err(|error| match error {
        schema::PatchError::Malformed(why) => Trouble::Calling(format!(
            "received undecodable patch in webhook response: {why}"
        )),
        error => Status::internal(error).into(),
    });
    let mut patched = patched?;
    let managed = shown.pointer("/metadata/managedFields");
    restore_managed(asked, managed, &mut patched);
    check_identity(hook, &shown, &patched)?;
    Ok(Some(asked.kept(resource, patched, object).await?))
}

/// A webhook may take fields, but not leave a record that nobody can read.
fn restore_managed(asked: &Asked<'_>, before: Option<&Value>, patched: &mut Value) {
    let after = patched.pointer("/metadata/managedFields");
    if after == before || !after.is_some_and(is_garbled) {
        return;
    }
    asked.call.warn(
        ".metadata.managedFields was in an invalid state after admission; this could be caused \
         by an outdated mutating admission controller; please fix your requests: entry is not \
         valid",
    );
    match before.cloned() {
        Some(before) => drop(metadata(patched).insert("managedFields".into(), before)),
        None => drop(metadata(patched).remove("managedFields")),
    }
}

/// A patch makes no other kind of object.
fn check_identity(hook: &Hook, before: &Value, after: &Value) -> Result<(), Trouble> {
    let same = |field: &str| before.get(field) == after.get(field);
    match same("kind") && same("apiVersion") && after.is_object() {
        true => Ok(()),
        false => Err(Status::internal(format!(
            "admission webhook {:?} attempted to change the kind of the object",
            hook.name
        ))
        .into()),
    }
}

/// Whether a record of managed fields cannot be read.
fn is_garbled(managed: &Value) -> bool {
    let sound = |entry: &Value| {
        matches!(text(entry, "/operation"), "Apply" | "Update")
            && !text(entry, "/apiVersion").is_empty()
            && text(entry, "/fieldsType") == "FieldsV1"
            && entry.get("fieldsV1").is_some_and(Value::is_object)
    };
    match managed {
        Value::Array(entries) => !entries.iter().all(sound),
        Value::Null => false,
        _ => true,
    }
}
