//! Questions that are answered and not kept: TokenReview, access reviews, SelfSubjectReview.

use std::sync::Arc;

use admission::Operation;
use auth::token::Bearer;
use auth::{Attributes, Decision, Identity};
use client::Body;
use http::StatusCode;
use meta::{FaultKind, Faults, FieldSelector, LabelSelector, Names, Status};
use serde_json::{Value, json};

use crate::body;
use crate::cache::encode;
use crate::chain::Call;
use crate::registry::Resource;
use crate::respond::{self, Answer};
use crate::review_selectors;
use crate::server::{ApiServer, Core};
use crate::verbs::write::{Write, metadata, place, text};
use crate::webhooks;

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
    let write = Write::of(core, call, resource)?;
    let kind = (
        names.group.as_str(),
        names.version.as_str(),
        names.kind.as_str(),
    );
    let name = text(&review, "/metadata/name").to_owned();
    if !names.is_namespaced() {
        metadata(&mut review).remove("namespace");
    }
    review = webhooks::ask_about(&write, Operation::Create, &name, kind, review).await?;
    let status = match names.kind.as_str() {
        "TokenReview" => token(core, &review).await?,
        "SelfSubjectReview" => {
            review["metadata"] = json!({"creationTimestamp": meta::time::now()});
            json!({"userInfo": auth::authenticator::user_info(&call.user)})
        }
        "SubjectAccessReview" => {
            check_access(names, &review, true)?;
            access(core, &subject(&review), &review).await
        }
        "SelfSubjectAccessReview" => {
            check_access(names, &review, false)?;
            access(core, &call.user, &review).await
        }
        "LocalSubjectAccessReview" => {
            place(names, &call.info.namespace, &mut review)?;
            check_access(names, &review, true)?;
            let namespace = text(&review, "/spec/resourceAttributes/namespace");
            if namespace != call.info.namespace {
                return Err(Status::bad_request(format!(
                    "spec.resourceAttributes.namespace must match namespace: {namespace} != {}",
                    call.info.namespace
                )));
            }
            access(core, &subject(&review), &review).await
        }
        "SelfSubjectRulesReview" => {
            let namespace = text(&review, "/spec/namespace");
            if namespace.is_empty() {
                return Err(Status::bad_request("no namespace on request"));
            }
            let rules = core.authorizer.rules_review(&call.user, namespace);
            // Upstream's answer does not repeat the question.
            review["spec"] = json!({});
            review["metadata"] = json!({});
            rules
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

async fn access(core: &Core, identity: &Identity, review: &Value) -> Value {
    let asked = match review.pointer("/spec/resourceAttributes") {
        Some(wanted) if !wanted.is_null() => Attributes {
            verb: text(wanted, "/verb").into(),
            namespace: text(wanted, "/namespace").into(),
            group: text(wanted, "/group").into(),
            version: text(wanted, "/version").into(),
            resource: text(wanted, "/resource").into(),
            subresource: text(wanted, "/subresource").into(),
            name: text(wanted, "/name").into(),
            path: String::new(),
            field_selector: fields(wanted),
            label_selector: labels(wanted),
        },
        _ => Attributes {
            verb: text(review, "/spec/nonResourceAttributes/verb").into(),
            path: text(review, "/spec/nonResourceAttributes/path").into(),
            ..Attributes::default()
        },
    };
    let (mut status, reason) = match core.authorizer.decide(identity, &asked).await {
        Decision::Allow(reason) => (json!({"allowed": true}), reason),
        Decision::NoOpinion(reason) => (json!({"allowed": false}), reason),
        Decision::Deny(reason) => (json!({"allowed": false, "denied": true}), reason),
    };
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    let error = review_selectors::evaluation_error(review);
    if !error.is_empty() {
        status["evaluationError"] = error.into();
    }
    status
}

/// The field selector that is asked for; what is not understood narrows nothing.
fn fields(wanted: &Value) -> FieldSelector {
    let raw = text(wanted, "/fieldSelector/rawSelector");
    if !raw.is_empty() {
        return FieldSelector::parse(raw).unwrap_or_default();
    }
    let list = wanted
        .pointer("/fieldSelector/requirements")
        .and_then(Value::as_array);
    let read = |requirement: &Value| {
        let values = strings(requirement, "/values");
        match (text(requirement, "/operator"), values.as_slice()) {
            ("In", [one]) => Some((text(requirement, "/key").to_owned(), true, one.clone())),
            ("NotIn", [one]) => Some((text(requirement, "/key").to_owned(), false, one.clone())),
            _ => None,
        }
    };
    FieldSelector {
        requirements: list.into_iter().flatten().filter_map(read).collect(),
    }
}

fn labels(wanted: &Value) -> LabelSelector {
    let raw = text(wanted, "/labelSelector/rawSelector");
    if !raw.is_empty() {
        return LabelSelector::parse(raw).unwrap_or_default();
    }
    let list = wanted.pointer("/labelSelector/requirements").cloned();
    let expressions = json!({"matchExpressions": list.unwrap_or_else(|| json!([]))});
    LabelSelector::from_value(&expressions).unwrap_or_default()
}

/// A local review asks of its own namespace.
fn check_local(review: &Value, faults: &mut Faults) {
    let attributes = review.pointer("/spec/resourceAttributes");
    let namespace = attributes.map(|wanted| text(wanted, "/namespace"));
    let own = text(review, "/metadata/namespace");
    if let Some(namespace) = namespace.filter(|namespace| *namespace != own) {
        let rule = "must match metadata.namespace";
        faults.invalid("spec.resourceAttributes.namespace", namespace, rule);
    }
    if let Some(path) = review.pointer("/spec/nonResourceAttributes") {
        let rule = "disallowed on this kind of request";
        refuse_path(path, rule, faults);
    }
}

fn refuse_path(path: &Value, rule: &str, faults: &mut Faults) {
    let (verb, own) = (path["verb"].clone(), path["path"].clone());
    let text = |value: Value| if value.is_null() { "".into() } else { value };
    // Upstream shows its own names of the fields.
    let shown = format!("{{\"Path\":{},\"Verb\":{}}}", text(own), text(verb));
    let at = "spec.nonResourceAttributes";
    faults.add_shown(at, FaultKind::Invalid, shown, rule);
}

/// A question has no metadata but its place.
fn check_metadata(names: &Names, review: &Value, faults: &mut Faults) {
    const FIELDS: [&str; 8] = [
        "name",
        "generateName",
        "namespace",
        "resourceVersion",
        "labels",
        "annotations",
        "ownerReferences",
        "finalizers",
    ];
    let metadata = &review["metadata"];
    let mut given = FIELDS.to_vec();
    given.retain(|field| !(metadata[field].is_null() || metadata[field] == ""));
    let is_fine = |field: &&str| names.is_namespaced() && *field == "namespace";
    if given.iter().all(is_fine) {
        return;
    }
    let shown = given
        .iter()
        .map(|field| format!("{field:?}:{}", metadata[field]));
    let shown = format!("{{{}}}", shown.collect::<Vec<String>>().join(","));
    let rule = match names.is_namespaced() {
        true => "must be empty except for namespace",
        false => "must be empty",
    };
    faults.add_shown("metadata", FaultKind::Invalid, shown, rule);
}

/// 422 for an access review that asks nothing, or two things.
fn check_access(names: &Names, review: &Value, has_subject: bool) -> Result<(), Status> {
    let mut faults = Faults::new();
    let given = |field: &str| {
        let value = review.pointer(&format!("/spec/{field}"));
        value.filter(|value| !value.is_null())
    };
    match (given("resourceAttributes"), given("nonResourceAttributes")) {
        (Some(_), Some(path)) => {
            let rule = "cannot be specified in combination with resourceAttributes";
            refuse_path(path, rule, &mut faults);
        }
        (None, None) => {
            let rule =
                "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            faults.invalid("spec.resourceAttributes", Value::Null, rule);
        }
        _ => {}
    }
    let nobody =
        text(review, "/spec/user").is_empty() && strings(review, "/spec/groups").is_empty();
    if has_subject && nobody {
        let rule = "at least one of user or group must be specified";
        faults.invalid("spec.user", "", rule);
    }
    for kind in ["fieldSelector", "labelSelector"] {
        let pointer = format!("/spec/resourceAttributes/{kind}");
        let Some(selector) = review.pointer(&pointer).filter(|one| one.is_object()) else {
            continue;
        };
        let path = format!("spec.resourceAttributes.{kind}");
        let raw = text(selector, "/rawSelector");
        let list = selector.get("requirements").and_then(Value::as_array);
        match (raw.is_empty(), list.is_none_or(Vec::is_empty)) {
            (false, false) => {
                let rule = "may not specified at the same time as requirements";
                faults.invalid(format!("{path}.rawSelector"), raw, rule);
            }
            (true, true) => {
                let rule =
                    format!("when {path} is specified, requirements or rawSelector is required");
                faults.required(format!("{path}.requirements"), rule);
            }
            _ => {}
        }
        review_selectors::validate(kind, list, &path, &mut faults);
    }
    check_metadata(names, review, &mut faults);
    if names.is_namespaced() {
        check_local(review, &mut faults);
    }
    // Upstream names the group alone.
    let nameless = Names {
        kind: String::new(),
        ..names.clone()
    };
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid(&nameless, "", &faults)),
    }
}
