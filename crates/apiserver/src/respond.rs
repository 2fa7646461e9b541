//! Answers: objects in the form the client asked for, statuses, trees.

use std::io::Write;

use bytes::Bytes;
use client::{Body, full};
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY, WARNING};
use http::{HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use meta::Status;
use serde_json::{Value, json};

use crate::chain::Call;
use crate::chain::accept::{Shape, Text};
use crate::registry::Resource;
use crate::table;

/// What an API request is answered with.
pub(crate) type Answer = Response<Body>;

/// Bodies from this size on are compressed for clients that accept it.
const GZIP_BYTES_MIN: usize = 128 << 10;

/// One object, as JSON bytes with its resourceVersion.
pub(crate) fn object(
    call: &Call,
    resource: &Resource,
    code: StatusCode,
    json: Bytes,
) -> Result<Answer, Status> {
    match call.accept.shape {
        Shape::Object => text(call, code, resource.shown_json(&json)),
        Shape::Table => {
            let tree = decode(&json)?;
            let include = table::Include::read(&call.query)?;
            let rows = vec![table::row(resource, tree, include, Timestamp::now())];
            value(
                call,
                code,
                &table::table(&resource.row, rows, json!({}), true),
            )
        }
        Shape::Metadata => value(call, code, &table::metadata_only(decode(&json)?)),
    }
}

/// A tree as it is.
pub(crate) fn value(call: &Call, code: StatusCode, tree: &Value) -> Result<Answer, Status> {
    text(call, code, Bytes::from(crate::cache::encode(tree)))
}

/// JSON bytes, turned into YAML or compressed if asked for.
pub(crate) fn text(call: &Call, code: StatusCode, json: Bytes) -> Result<Answer, Status> {
    if call.accept.text == Text::Yaml {
        let tree = decode(&json)?;
        let yaml = serde_saphyr::to_string(&tree).map_err(Status::internal)?;
        return Ok(plain(code, "application/yaml", yaml));
    }
    if !call.accept.gzip || json.len() < GZIP_BYTES_MIN {
        return Ok(plain(code, "application/json", json));
    }
    let mut answer = plain(code, "application/json", compress(&json)?);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    Ok(answer)
}

/// A whole body of any media type.
pub(crate) fn plain(code: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(full(body));
    *answer.status_mut() = code;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    answer
}

/// A failure.
pub(crate) fn failure(status: &Status) -> Answer {
    failure_body(status, &status.to_value())
}

/// A failure whose body says more than the status.
pub(crate) fn failure_body(status: &Status, body: &Value) -> Answer {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = plain(code, "application/json", crate::cache::encode(body));
    if let Some(seconds) = status.retry_after_seconds {
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    answer
}

/// `Status` of a deletion.
pub(crate) fn deleted(resource: &Resource, name: &str, uid: &str) -> Value {
    let names = &resource.row.names;
    let mut details = json!({"name": name, "kind": names.plural});
    if !names.group.is_empty() {
        details["group"] = names.group.as_str().into();
    }
    if !uid.is_empty() {
        details["uid"] = uid.into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": details})
}

/// Adds what the user was warned of.
pub(crate) fn add_warnings(answer: &mut Answer, warnings: Vec<String>) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        let quoted: String = quoted.chars().filter(|sign| !sign.is_control()).collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            answer.headers_mut().append(WARNING, value);
        }
    }
}

/// Bytes of an object as a tree.
pub(crate) fn decode(json: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(json).map_err(Status::internal)
}

/// gzip at its quickest: lists are sent once.
pub(crate) fn compress(bytes: &[u8]) -> Result<Vec<u8>, Status> {
    let sink = Vec::with_capacity(bytes.len() / 8);
    let mut encoder = flate2::write::GzEncoder::new(sink, flate2::Compression::fast());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.map_err(Status::internal)
}
