//! One question to one webhook.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use meta::Status;
use serde_json::Value;

use super::Asked;
use super::hook::Hook;
use super::matching::{Objects, word};
use super::review::{self, Verdict};
use super::trail;
use crate::measure::{Heard, WebhookCall};
use crate::registry::Resource;

/// Why a webhook's word does not count as a yes.
pub(super) enum Trouble {
    /// It could not be asked, or what it said cannot be understood. Its failure policy decides.
    Calling(String),
    /// It said no, or may not be asked at all.
    Refused(Box<Status>),
}

impl From<Status> for Trouble {
    fn from(status: Status) -> Trouble {
        Trouble::Refused(Box::new(status))
    }
}

/// Asks, and passes on warnings. An answer that denies is a [`Trouble::Refused`].
pub(super) async fn ask(
    hook: &Hook,
    asked: &Asked<'_>,
    resource: &Arc<Resource>,
    objects: Objects<'_>,
    mutating: bool,
) -> Result<Verdict, Trouble> {
    if asked.dry_run && !hook.dry_run {
        let text = format!("admission webhook {:?} does not support dry run", hook.name);
        return Err(Status::bad_request(text).into());
    }
    let Some(version) = hook.review else {
        return Err(Trouble::Calling(
            "could not create admission objects: webhook does not accept known AdmissionReview \
             versions (v1, v1beta1)"
                .into(),
        ));
    };
    let client = hook
        .client
        .as_ref()
        .map_err(|error| Trouble::Calling(format!("could not get REST client: {error}")))?;
    let shown = async |object: Option<&Value>| match object {
        Some(object) => asked.shown(resource, object).await.map(Cow::into_owned),
        None => Ok(Value::Null),
    };
    let trees = (shown(objects.new).await?, shown(objects.old).await?);
    let uid = uuid::Uuid::new_v4().to_string();
    let question = review::question(asked, version, &uid, resource, trees);
    let begun = Instant::now();
    let answered = client.call_json(&question, hook.timeout).await;
    let took = begun.elapsed();
    asked.call.note_wait(took);
    let verdict = answered
        .map_err(|error| format!("failed to call webhook: {error}"))
        .and_then(|answered| {
            review::answer(version, &uid, mutating, &answered)
                .map_err(|error| format!("received invalid webhook response: {error}"))
        });
    let heard = match &verdict {
        Err(_) => Heard::Failed,
        Ok(verdict) if verdict.allowed => Heard::Allowed,
        Ok(verdict) => Heard::Refused(verdict.refusal(&hook.name).code),
    };
    let counted = WebhookCall {
        name: &hook.name,
        operation: word(asked.operation),
        mutating,
    };
    counted.heard(heard, hook.ignore, took);
    let verdict = verdict.map_err(Trouble::Calling)?;
    trail::told(asked, hook, &verdict);
    for warning in &verdict.warnings {
        asked.call.warn(warning.as_str());
    }
    if !verdict.allowed {
        asked.call.refuse_by_webhook();
        return Err(verdict.refusal(&hook.name).into());
    }
    Ok(verdict)
}

/// The end of a write whose webhook could not be asked, unless its policy is to go on. `kind` and
/// `place` are for the audit trail.
pub(super) fn failed(
    hook: &Hook,
    asked: &Asked<'_>,
    why: &str,
    kind: &str,
    place: trail::Place,
) -> Result<(), Status> {
    let text = format!("failed calling webhook {:?}: {why}", hook.name);
    if hook.ignore {
        let configuration = hook.configuration.as_str();
        tracing::warn!(
            configuration,
            webhook = hook.name,
            why,
            "failed calling webhook, failing open"
        );
        trail::failed_open(asked, hook, kind, place);
        return Ok(());
    }
    asked.call.refuse_by_webhook();
    Err(Status::internal(text))
}
