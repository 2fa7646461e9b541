//! Mutating policies and webhooks: one after the other, each on what the one before has made.

use std::sync::Arc;

use admission::Rounds;
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

/// Lets all policies and webhooks that the write concerns complete the object. When one has
/// changed what others had seen, `replay` runs the plugins before them once more, and those who
/// wish it are asked again.
pub(crate) async fn mutate<'r>(
    asked: &Asked<'_>,
    object: Value,
    old: Option<&Object>,
    replay: impl FnOnce(Object) -> BoxFuture<'r, Result<Object, Status>>,
) -> Result<Value, Status> {
    let mut passes = Passes::default();
    let object = passes.run(asked, object, old).await?;
    if !passes.changed {
        return Ok(object);
    }
    let replayed = replay(Object(object)).await?;
    passes.again = true;
    passes.run(asked, replayed.0, old).await
}

/// What the second pass must know of the first.
#[derive(Default)]
struct Passes {
    policies: Rounds,
    webhooks: Rounds,
    /// Whether anybody has changed the object.
    changed: bool,
    /// This is the second pass.
    again: bool,
}

impl Passes {
    async fn run(
        &mut self,
        asked: &Asked<'_>,
        object: Value,
        old: Option<&Object>,
    ) -> Result<Value, Status> {
        let old = old.map(|old| &old.0);
        let core = asked.core;
        let object = match core.policies.may_mutate() {
            true => self.ask_policies(asked, object, old).await?,
            false => object,
        };
        let hooks = core.hooks.mutating.all.load_full();
        match hooks.is_empty() {
            true => Ok(object),
            false => self.round(&hooks, asked, object, old).await,
        }
    }

    async fn ask_policies(
        &mut self,
        asked: &Asked<'_>,
        object: Value,
        old: Option<&Value>,
    ) -> Result<Value, Status> {
        let (core, subject) = (asked.core, asked.subject());
        let before = asked.call.answers.is_some().then(|| object.clone());
        let mut object = object;
        loop {
            let mut rounds = self.policies.clone();
            let policies = &core.policies;
            let mutated = policies.mutate(&subject, object, old, &mut rounds, self.again);
            let mutated = mutated.await;
            // What a webhook had to say about rights may change it all.
            match &before {
                Some(before) if asked.call.find_answers(&core.authorizer).await => {
                    object = before.clone();
                }
                _ => {
                    let (changed, object) = mutated?;
                    self.policies = rounds;
                    self.changed |= changed;
                    return Ok(object);
                }
            }
        }
    }

    async fn round(
        &mut self,
        hooks: &[Arc<Hook>],
        asked: &Asked<'_>,
        mut object: Value,
        old: Option<&Value>,
    ) -> Result<Value, Status> {
        if self.again {
            self.webhooks.begin_again(&object);
        }
        for (index, hook) in hooks.iter().enumerate() {
            let key = format!("{}/{}", hook.configuration, hook.name);
            if self.again && !self.webhooks.is_due(&key) {
                continue;
            }
            let objects = Objects {
                new: Some(&object),
                old,
            };
            let Some(resource) = concerns(hook, asked, objects).await? else {
                continue;
            };
            let place = (usize::from(self.again), index);
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
            if changed {
                self.changed = true;
                self.webhooks.require();
            }
            if hook.reinvoke {
                self.webhooks.called(key);
            }
            match patched {
                Ok(Some(patched)) => object = patched,
                Ok(None) => {}
                Err(Trouble::Calling(why)) => {
                    call::failed(hook, asked, &why, "mutation", place)?;
                }
                Err(Trouble::Refused(status)) => return Err(*status),
            }
        }
        self.webhooks.end(&object);
        Ok(object)
    }
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
