//! Answers: objects in the form the client asked for, statuses, trees.

use std::io::Write;

use bytes::Bytes;
use client::{Body, full};
use http::header::X_CONTENT_TYPE_OPTIONS;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY, WARNING};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use meta::{Reason, Status};
use serde_json::{Value, json};

use crate::chain::accept::{Media, Offer, Shape};
use crate::chain::{Accept, Call, Query, impersonate};
use crate::registry::Resource;
use crate::{body, pretty, protobuf, table};

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
        Shape::Object | Shape::Groups => text(call, code, resource.shown_json(&json)),
        Shape::Table => {
            let tree = decode(&json)?;
            let include = table::Include::read(&call.query)?;
            let version = match tree.pointer("/metadata/resourceVersion") {
                Some(version) => json!({"resourceVersion": version}),
                None => json!({}),
            };
            let rows = vec![table::row(resource, tree, include, Timestamp::now())];
            let table = table::table(&resource.row, rows, version, true);
            value(call, code, &call.accept.versioned(table))
        }
        Shape::Metadata if call.accept.many => Err(not_of_number(resource, false)),
        Shape::Metadata => {
            let metadata = table::metadata_only(decode(&json)?);
            value(call, code, &call.accept.versioned(metadata))
        }
    }
}

/// 406 for metadata of one object that is asked for as a list, or the other way round.
pub(crate) fn not_of_number(resource: &Resource, is_list: bool) -> Status {
    let names = &resource.row.names;
    let ty = match (resource.custom, is_list) {
        (true, false) => "unstructured.Unstructured".to_owned(),
        (true, true) => "unstructured.UnstructuredList".to_owned(),
        (false, false) => format!("{}.{}", body::package(names), names.kind),
        (false, true) => format!("{}.{}", body::package(names), names.list_kind),
    };
    let text = match is_list {
        true => format!(
            "you requested PartialObjectMetadata, but the requested object is a list (*{ty})"
        ),
        false => format!(
            "you requested PartialObjectMetadataList, but the requested object is not a list \
             (*{ty})"
        ),
    };
    Status::new(Reason::NotAcceptable, text)
}

/// One object as it is kept.
pub(crate) fn entry(
    call: &Call,
    resource: &Resource,
    entry: &crate::cache::Entry,
) -> Result<Answer, Status> {
    if (call.accept.media, call.accept.shape) != (Media::Protobuf, Shape::Object) {
        return object(call, resource, StatusCode::OK, entry.json.clone());
    }
    let form = protobuf::Form::of(resource)?;
    let sealed = form.seal(&form.raw(entry, false)?);
    whole(&call.accept, StatusCode::OK, sealed.into())
}

/// A tree as it is.
pub(crate) fn value(call: &Call, code: StatusCode, tree: &Value) -> Result<Answer, Status> {
    text(call, code, Bytes::from(crate::cache::encode(tree)))
}

/// A tree in an encoding that was negotiated anew.
pub(crate) fn value_as(accept: &Accept, code: StatusCode, tree: &Value) -> Result<Answer, Status> {
    let json = Bytes::from(crate::cache::encode(tree));
    whole(accept, code, encoded(accept, json)?)
}

/// JSON bytes in the encoding asked for.
pub(crate) fn text(call: &Call, code: StatusCode, json: Bytes) -> Result<Answer, Status> {
    whole(&call.accept, code, encoded(&call.accept, json)?)
}

/// JSON bytes in another encoding, or indented.
fn encoded(accept: &Accept, json: Bytes) -> Result<Bytes, Status> {
    Ok(match accept.media {
        Media::Json if accept.pretty => pretty::indent(&json).into(),
        Media::Json => json,
        Media::Yaml => serde_saphyr::to_string(&decode(&json)?)
            .map_err(Status::internal)?
            .into(),
        Media::Protobuf => protobuf::seal_tree(&decode(&json)?)?.into(),
    })
}

/// Encoded bytes, compressed if that is worth it and asked for.
pub(crate) fn whole(accept: &Accept, code: StatusCode, bytes: Bytes) -> Result<Answer, Status> {
    let media = accept.media;
    if !accept.gzip || bytes.len() < GZIP_BYTES_MIN {
        return Ok(plain(code, media.name(), bytes));
    }
    let mut answer = plain(code, media.name(), compress(&bytes)?);
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

/// A failure, for whoever cannot say in which encoding.
pub(crate) fn failure(status: &Status) -> Answer {
    failure_body(&HeaderMap::new(), status, &status.to_value())
}

/// A failure in the encoding that the request's headers ask for.
pub(crate) fn failure_for(headers: &HeaderMap, status: &Status) -> Answer {
    failure_body(headers, status, &status.to_value())
}

/// A failure whose body says more than the status.
pub(crate) fn failure_body(headers: &HeaderMap, status: &Status, body: &Value) -> Answer {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = Bytes::from(crate::cache::encode(body));
    // Whoever accepts nothing that is spoken here is told so in JSON.
    let accept = Accept::read(headers, &Query::default(), Offer::PLAIN).unwrap_or_default();
    let mut answer = match encoded(&accept, json.clone()) {
        Ok(bytes) => plain(code, accept.media.name(), bytes),
        Err(_) => plain(code, Media::Json.name(), json),
    };
    if let Some(seconds) = status.retry_after_seconds {
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    // As upstream marks what its authorizer has refused, and who asks to be nobody in particular.
    let unauthorized = status.reason == Reason::Forbidden && status.message.contains(": User \"");
    if unauthorized || status.message.ends_with(impersonate::NOBODY) {
        let nosniff = HeaderValue::from_static("nosniff");
        answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, nosniff);
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
