//! Questions that are answered and not kept: TokenReview, access reviews, SelfSubjectReview.

use std::sync::Arc;

use auth::token::Bearer;
use auth::{Attributes, Decision, Identity};
use client::Body;
use http::StatusCode;
use meta::{FieldSelector, Status};
use serde_json::{Value, json};

use crate::body;
use crate::cache::encode;
use crate::chain::Call;
use crate::registry::Resource;
use crate::respond::{self, Answer};
use crate::server::{ApiServer, Core};
use crate::verbs::write::{metadata, place, text};

/// Answers a question.
pub(crate) async fn answer(
    core: &Arc<Core>,
    call: &Call,
    resource: &Resource,
    body: Body,
) -> Result<Answer, Status> {
    let bytes = body::read(body).await?;
    let mut review = body::object(call, resource, &bytes)?;
    let names = &resource.row.names;
    let status = match names.kind.as_str() {
        "TokenReview" => token(core, &review).await?,
        "SelfSubjectReview" => {
            json!({"userInfo": auth::authenticator::user_info(&call.user)})
        }
        "SubjectAccessReview" => access(core, &subject(&review), &review),
        "SelfSubjectAccessReview" => access(core, &call.user, &review),
        "LocalSubjectAccessReview" => {
            place(names, &call.info.namespace, &mut review)?;
            let namespace = text(&review, "/spec/resourceAttributes/namespace");
            if namespace != call.info.namespace {
                return Err(Status::bad_request(format!(
                    "spec.resourceAttributes.namespace must match namespace: {namespace} != {}",
                    call.info.namespace
                )));
            }
            access(core, &subject(&review), &review)
        }
        "SelfSubjectRulesReview" => {
            let namespace = text(&review, "/spec/namespace");
            if namespace.is_empty() {
                return Err(Status::bad_request("no namespace on request"));
            }
            core.authorizer.rules_review(&call.user, namespace)
        }
        _ => return Err(crate::registry::method_not_allowed()),
    };
    review["status"] = status;
    metadata(&mut review);
    respond::object(call, resource, StatusCode::CREATED, encode(&review).into())
}

async fn token(core: &Arc<Core>, review: &Value) -> Result<Value, Status> {
    let token = text(review, "/spec/token");
    if token.is_empty() {
        return Err(Status::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let audiences = strings(review, "/spec/audiences");
    let reviewed = core.authenticator.review(token, &audiences, &core.lookup);
    let (status, bearer) = reviewed.await;
    record_use(core, &bearer).await;
    Ok(status)
}

/// Writes onto a token's secret that it was used today; once a day and token.
pub(crate) async fn record_use(core: &Arc<Core>, bearer: &Bearer) {
    let Some((namespace, name)) = &bearer.used_secret else {
        return;
    };
    let server = ApiServer {
        core: Arc::clone(core),
    };
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let patch = json!({"metadata": {"labels": {"kubernetes.io/legacy-token-last-used": today}}});
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
    let client = server.client(Identity::loopback());
    let media_type = "application/merge-patch+json";
    let written = client.patch_value(&path, media_type, patch.to_string().into_bytes());
    if let Err(error) = written.await {
        tracing::warn!(%error, namespace, name, "cannot record the use of a token");
    }
}

fn strings(tree: &Value, pointer: &str) -> Vec<String> {
    let list = tree
        .pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    list.filter_map(|one| one.as_str().map(str::to_owned))
        .collect()
}

fn subject(review: &Value) -> Identity {
    let mut identity = Identity {
        name: text(review, "/spec/user").into(),
        uid: text(review, "/spec/uid").into(),
        groups: strings(review, "/spec/groups"),
        ..Identity::default()
    };
    let extra = review.pointer("/spec/extra").and_then(Value::as_object);
    for (key, values) in extra.into_iter().flatten() {
        let values = strings(values, "");
        identity.extra.insert(key.to_lowercase(), values);
    }
    identity
}

fn access(core: &Core, identity: &Identity, review: &Value) -> Value {
    let asked = match review.pointer("/spec/resourceAttributes") {
        Some(wanted) => Attributes {
            verb: text(wanted, "/verb").into(),
            namespace: text(wanted, "/namespace").into(),
            group: text(wanted, "/group").into(),
            version: text(wanted, "/version").into(),
            resource: text(wanted, "/resource").into(),
            subresource: text(wanted, "/subresource").into(),
            name: text(wanted, "/name").into(),
            path: String::new(),
            field_selector: FieldSelector::default(),
        },
        None => Attributes {
            verb: text(review, "/spec/nonResourceAttributes/verb").into(),
            path: text(review, "/spec/nonResourceAttributes/path").into(),
            ..Attributes::default()
        },
    };
    match core.authorizer.authorize(identity, &asked) {
        Decision::Allow(reason) if reason.is_empty() => json!({"allowed": true}),
        Decision::Allow(reason) => json!({"allowed": true, "reason": reason}),
        Decision::NoOpinion(reason) if reason.is_empty() => json!({"allowed": false}),
        Decision::NoOpinion(reason) => json!({"allowed": false, "reason": reason}),
    }
}
