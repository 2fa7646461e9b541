//! Validating policies, then validating webhooks: all side by side, on the final object.

use admission::Operation;
use futures::future::join_all;
use meta::Status;
use serde_json::Value;

use super::Asked;
use super::call::{self, Trouble, ask};
use super::matching::{Objects, concerns};
use super::trail;

/// Asks all policies and webhooks that the write concerns about the new and the old object; the
/// first in order that refuses is heard. Deletions pass the mutating webhooks too, which then have
/// nothing to change.
pub(crate) async fn validate(
    asked: &Asked<'_>,
    (new, old): (Option<&Value>, Option<&Value>),
) -> Result<(), Status> {
    let objects = Objects { new, old };
    if asked.operation == Operation::Delete {
        ask_mutating(asked, objects).await?;
    }
    if asked.core.policies.may_refuse() {
        let subject = asked.subject();
        let core = asked.core;
        loop {
            let judged = core.policies.validate(&subject, new, old).await;
            // What a webhook had to say about rights may change it all.
            if !asked.call.find_answers(&core.authorizer).await {
                judged?;
                break;
            }
        }
    }
    ask_validating(asked, objects).await
}

async fn ask_validating(asked: &Asked<'_>, objects: Objects<'_>) -> Result<(), Status> {
    let hooks = asked.core.hooks.validating.all.load_full();
    if hooks.is_empty() {
        return Ok(());
    }
    let mut calls = Vec::new();
    for hook in hooks.iter() {
        let Some(resource) = concerns(hook, asked, objects).await? else {
            continue;
        };
        let place = (0, calls.len());
        calls.push(async move {
            match ask(hook, asked, &resource, objects, false).await {
                Ok(_) => Ok(()),
                Err(Trouble::Calling(why)) => call::failed(hook, asked, &why, "validating", place),
                Err(Trouble::Refused(status)) => Err(*status),
            }
        });
    }
    join_all(calls).await.into_iter().collect()
}

/// Asks mutating webhooks where nothing is there that a patch could change.
async fn ask_mutating(asked: &Asked<'_>, objects: Objects<'_>) -> Result<(), Status> {
    let hooks = asked.core.hooks.mutating.all.load_full();
    for (index, hook) in hooks.iter().enumerate() {
        let Some(resource) = concerns(hook, asked, objects).await? else {
            continue;
        };
        let (place, verdict) = ((0, index), ask(hook, asked, &resource, objects, true).await);
        trail::mutated(asked, hook, place, false);
        match verdict {
            Ok(verdict) if !verdict.changes() => {}
            Ok(_) => {
                return Err(Status::internal(format!(
                    "admission webhook {:?} attempted to modify the object, which is not \
                     supported for this operation",
                    hook.name
                )));
            }
            Err(Trouble::Calling(why)) => call::failed(hook, asked, &why, "mutation", place)?,
            Err(Trouble::Refused(status)) => return Err(*status),
        }
    }
    Ok(())
}
