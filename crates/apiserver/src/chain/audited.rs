//! Requests on the audit trail: what is recorded when, and what follows them to the end.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use audit::{Asked, Event, Level, ObjectReference, Record, Stage, UserInfo};
use auth::Identity;
use bytes::Bytes;
use client::{Body, BoxError};
use http::header::{HeaderName, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::BodyExt;
use meta::Status;
use serde_json::Value;

use super::accept::{Media, Offer};
use super::impersonate::Impersonated;
use super::{Accept, Call, Query, RequestInfo};
use crate::respond::Answer;
use crate::server::Core;

/// Names a request in the trail; clients may choose it.
pub(crate) const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// Longer names are cut.
const ID_BYTES_MAX: usize = 64;
/// Longer user agents are cut.
const AGENT_BYTES_MAX: usize = 1024;

/// Where a request came from; set by the listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source(pub(crate) SocketAddr);

/// The request's name: the client's, or a new one. From here on it is among the headers.
pub(crate) fn identify(headers: &mut HeaderMap) -> HeaderValue {
    let given = headers.get(AUDIT_ID).filter(|value| !value.is_empty());
    let bytes = given.map(|value| &value.as_bytes()[..value.len().min(ID_BYTES_MAX)]);
    let given = bytes.and_then(|bytes| HeaderValue::from_bytes(bytes).ok());
    let id = given.unwrap_or_else(|| {
        let mut text = uuid::Uuid::encode_buffer();
        let text = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text);
        HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unknown"))
    });
    headers.insert(AUDIT_ID, id.clone());
    id
}

/// Begins the record of an authenticated request, if there is a policy that wants it.
pub(crate) fn begin(
    core: &Core,
    parts: &Parts,
    info: &RequestInfo,
    user: Option<&Identity>,
) -> Option<Arc<Record>> {
    let audit = core.config.audit.as_ref()?;
    let nobody = Identity::default();
    let user = user.unwrap_or(&nobody);
    let asked = Asked {
        user: &user.name,
        groups: &user.groups,
        verb: info.verb,
        is_resource: info.is_resource,
        path: &info.path,
        namespace: &info.namespace,
        group: &info.group,
        resource: &info.resource,
        subresource: &info.subresource,
        name: &info.name,
    };
    audit.begin(&asked, || event(parts, info, user))
}

fn event(parts: &Parts, info: &RequestInfo, user: &Identity) -> Event {
    let text = |name: HeaderName| {
        let value = parts.headers.get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    };
    let reference = || ObjectReference {
        resource: info.resource.clone(),
        namespace: info.namespace.clone(),
        name: info.name.clone(),
        api_group: info.group.clone(),
        api_version: info.version.clone(),
        subresource: info.subresource.clone(),
        ..ObjectReference::default()
    };
    let agent = text(USER_AGENT);
    let agent = match agent.get(..AGENT_BYTES_MAX) {
        Some(cut) if agent.len() > AGENT_BYTES_MAX => format!("{cut}...TRUNCATED"),
        _ => agent.to_owned(),
    };
    let mut event = Event::default();
    event.audit_id = text(AUDIT_ID).to_owned();
    event.request_uri = parts
        .uri
        .path_and_query()
        .map_or_else(|| info.path.clone(), ToString::to_string);
    event.verb = info.verb.to_owned();
    event.user = shown(user);
    event.source_ips = sources(parts);
    event.user_agent = agent;
    event.object_ref = info.is_resource.then(reference);
    event.request_received_timestamp = meta::time::now_micro();
    event
}

fn shown(user: &Identity) -> UserInfo {
    UserInfo {
        username: user.name.clone(),
        uid: user.uid.clone(),
        groups: user.groups.clone(),
        extra: user.extra.clone(),
    }
}

/// The addresses that proxies name, and that of the connection.
fn sources(parts: &Parts) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let named = ["x-forwarded-for", "x-real-ip"].iter();
    let named = named.flat_map(|name| parts.headers.get_all(*name));
    let texts = named.filter_map(|value| value.to_str().ok());
    for text in texts.flat_map(|text| text.split(',')) {
        if let Ok(address) = text.trim().parse::<std::net::IpAddr>() {
            found.push(address.to_string());
        }
    }
    let own = match parts.extensions.get::<Source>() {
        Some(Source(address)) => address.ip().to_canonical().to_string(),
        None => "127.0.0.1".to_owned(),
    };
    if !found.contains(&own) {
        found.push(own);
    }
    found
}

/// Notes that the request goes on as somebody else.
pub(crate) fn impersonated(record: Option<&Arc<Record>>, found: Impersonated) -> Identity {
    if let Some(record) = record {
        record.impersonate(shown(&found.user), found.constraint);
    }
    found.user
}

/// Passes a failure on, and notes that the request ended with it.
pub(crate) fn noted<T>(
    record: Option<&Arc<Record>>,
    outcome: Result<T, Status>,
) -> Result<T, Status> {
    if let (Some(record), Err(status)) = (record, &outcome) {
        failed(record, status);
        record.stage(Stage::ResponseComplete);
    }
    outcome
}

fn failed(record: &Record, status: &Status) {
    let body = status.to_value();
    record.response_status(status.code, Some(&body));
    record.response_object(&body);
}

/// The same form in JSON and not compressed, if the answer is to be recorded and may be JSON.
pub(crate) fn readable(
    record: Option<&Arc<Record>>,
    accept: Accept,
    query: &Query,
    headers: &HeaderMap,
) -> Accept {
    if record.is_none_or(|record| record.level() < Level::RequestResponse) {
        return accept;
    }
    let offer = Offer {
        protobuf: false,
        shapes: true,
        tables: true,
        ..Offer::PLAIN
    };
    let accept = match accept.media {
        Media::Protobuf => Accept::read(headers, query, offer).unwrap_or(accept),
        _ => accept,
    };
    Accept {
        gzip: false,
        ..accept
    }
}

/// Notes bodies that are no objects: patches, and options of deletions. Objects are noted where
/// they are decoded.
pub(crate) async fn note_body(call: &Call, body: Body) -> Result<Body, Status> {
    let Some(record) = &call.audit else {
        return Ok(body);
    };
    let wanted = matches!(call.info.verb, "patch" | "delete" | "deletecollection");
    if !wanted || record.level() < Level::Request {
        return Ok(body);
    }
    let bytes = crate::body::read(body).await?;
    let tree = serde_json::from_slice::<Value>(&bytes).ok();
    let tree = tree.or_else(|| serde_saphyr::from_slice::<Value>(&bytes).ok());
    if let Some(tree) = tree.filter(|tree| !tree.is_null()) {
        record.request_body(&tree);
    }
    Ok(client::full(bytes))
}

/// Notes how the request was answered. The end is noted when the last of the answer is gone.
pub(crate) async fn note_answer(
    call: &Call,
    outcome: &Result<(), Status>,
    answer: Answer,
) -> Answer {
    let Some(record) = &call.audit else {
        return answer;
    };
    if let Err(status) = outcome {
        failed(record, status);
        record.stage(Stage::ResponseComplete);
        return answer;
    }
    let code = answer.status().as_u16();
    if call.info.is_long_running() {
        record.response_status(code, None);
        record.stage(Stage::ResponseStarted);
        let record = Arc::clone(record);
        return answer.map(|body| Followed { body, record }.boxed_unsync());
    }
    let answer = match record.level() {
        Level::RequestResponse => note_object(record, code, answer).await,
        _ => {
            record.response_status(code, None);
            answer
        }
    };
    record.stage(Stage::ResponseComplete);
    answer
}

async fn note_object(record: &Record, code: u16, answer: Answer) -> Answer {
    let (head, body) = answer.into_parts();
    let bytes = match body.collect().await {
        Ok(whole) => whole.to_bytes(),
        Err(error) => {
            tracing::debug!(%error, "an answer broke off");
            Bytes::new()
        }
    };
    let tree = serde_json::from_slice::<Value>(&bytes).ok();
    if let Some(tree) = &tree {
        record.response_object(tree);
    }
    let status = tree.filter(|tree| tree["kind"] == "Status" && tree["apiVersion"] == "v1");
    record.response_status(code, status.as_ref());
    Answer::from_parts(head, client::full(bytes))
}

/// A body that keeps the record of its request open.
struct Followed {
    body: Body,
    record: Arc<Record>,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.record.stage(Stage::ResponseComplete);
    }
}
