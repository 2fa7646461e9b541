//! Reading what clients send.

use bytes::{Bytes, BytesMut};
use client::Body;
use http_body::Body as _;
use http_body_util::BodyExt;
use meta::{Reason, Status};
use schema::{Parsed, Type};
use serde_json::Value;

use crate::chain::Call;
use crate::protobuf;
use crate::registry::Resource;

/// Greatest body, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 3 << 20;

/// What to do about fields that the schema does not have, or that stand twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl FieldValidation {
    /// The `fieldValidation` parameter.
    pub(crate) fn read(call: &Call) -> Result<FieldValidation, Status> {
        match call.query.get("fieldValidation") {
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => Err(Status::bad_request(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \
                 \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// Whether nothing is to be stored.
pub(crate) fn is_dry_run(call: &Call) -> Result<bool, Status> {
    let mut values = call.query.all("dryRun").filter(|value| !value.is_empty());
    match values.find(|value| *value != "All") {
        Some(other) => Err(Status::bad_request(format!(
            "dryRun: Unsupported value: {other:?}: supported values: \"All\""
        ))),
        None => Ok(call.query.get("dryRun").is_some()),
    }
}

/// The whole body, up to [`BODY_BYTES_MAX`].
pub(crate) async fn read(mut body: Body) -> Result<Bytes, Status> {
    let too_large = || {
        let text = format!("Request entity too large: limit is {BODY_BYTES_MAX}");
        Status::new(Reason::RequestEntityTooLarge, text)
    };
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Status::bad_request(format!("request body could not be read: {error}"))
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if whole.len() + data.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        if whole.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// Reads JSON, YAML or protobuf, as the content type says; `ty` is what protobuf is read by.
pub(crate) fn parse(bytes: &[u8], content_type: &str, ty: Option<&Type>) -> Result<Parsed, Status> {
    match content_type {
        "" | "application/json" => schema::parse_json(bytes)
            .map_err(|error| unreadable(&format!("json parse error: {error}"))),
        "application/yaml" => parse_yaml(bytes),
        _ => match ty {
            Some(ty) if content_type == protobuf::MEDIA_TYPE => protobuf::read(bytes, ty),
            ty => Err(unsupported(ty.is_some())),
        },
    }
}

fn unsupported(protobuf: bool) -> Status {
    let last = if protobuf {
        ", application/vnd.kubernetes.protobuf"
    } else {
        ""
    };
    let text = format!(
        "the body of the request was in an unknown format - accepted media types include: \
         application/json, application/yaml{last}"
    );
    Status::new(Reason::UnsupportedMediaType, text)
}

/// Reads YAML; JSON is YAML too.
pub(crate) fn parse_yaml(bytes: &[u8]) -> Result<Parsed, Status> {
    if let Ok(parsed) = schema::parse_json(bytes) {
        return Ok(parsed);
    }
    let fault = match serde_saphyr::from_slice(bytes) {
        Ok(tree) => {
            let duplicates = Vec::new();
            return Ok(Parsed { tree, duplicates });
        }
        Err(fault) => fault,
    };
    let refused = |error: &serde_saphyr::Error| {
        unreadable(&format!("error converting YAML to JSON: {error}"))
    };
    let Some(twice) = repeated_key(&fault) else {
        return Err(refused(&fault));
    };
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
    };
    let tree = serde_saphyr::from_slice_with_options(bytes, options);
    Ok(Parsed {
        tree: tree.map_err(|error| refused(&error))?,
        duplicates: vec![twice],
    })
}

/// Begins what YAML says of a key that stands twice; JSON names the path of the field.
const YAML: &str = "yaml: ";

/// What upstream says of a key that stands twice.
fn repeated_key(fault: &serde_saphyr::Error) -> Option<String> {
    let fault = fault.without_snippet();
    let serde_saphyr::Error::DuplicateMappingKey { key, location } = fault else {
        return None;
    };
    let (line, key) = (location.line(), key.as_deref().unwrap_or_default());
    Some(format!(
        "{YAML}unmarshal errors:\n  line {line}: key {key:?} already set in map"
    ))
}

/// What is said of a field that stands twice.
pub(crate) fn duplicate(path: &str) -> String {
    match path.starts_with(YAML) {
        true => path.to_owned(),
        false => format!("duplicate field {path:?}"),
    }
}

fn unreadable(why: &str) -> Status {
    Status::bad_request(format!("couldn't get version/kind; {why}"))
}

/// The object of a create or update: of this resource's kind, and in its schema's shape.
pub(crate) fn object(call: &Call, resource: &Resource, bytes: &[u8]) -> Result<Value, Status> {
    let validation = FieldValidation::read(call)?;
    let ty = resource.protobuf();
    let parsed = parse(bytes, call.content_type(), ty).map_err(|mut status| {
        if status.code == 400 {
            let kind = &resource.row.names.kind;
            status.message = format!(
                "the object provided is unrecognized (must be of type {kind}): {} ({})",
                status.message,
                summary(bytes)
            );
        }
        status
    })?;
    let tree = shape(call, resource, parsed, validation)?;
    if let Some(record) = &call.audit {
        record.request_object(&tree);
    }
    Ok(tree)
}

/// The body of a subresource that is of another kind, such as a Binding.
pub(crate) fn foreign(
    call: &Call,
    (group, version, kind): (&str, &str, &str),
    bytes: &[u8],
) -> Result<Value, Status> {
    let ty = schema::builtin(group, version, kind);
    let mut tree = parse(bytes, call.content_type(), ty)?.tree;
    let api_version = match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    };
    let Some(map) = tree.as_object_mut() else {
        return Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): ({})",
            summary(bytes)
        )));
    };
    let own = |field: &str| map.get(field).and_then(Value::as_str).unwrap_or("");
    let (given_version, given_kind) = (own("apiVersion"), own("kind"));
    let fits = |given: &str, expected: &str| given.is_empty() || given == expected;
    if !fits(given_version, &api_version) || !fits(given_kind, kind) {
        return Err(Status::bad_request(format!(
            "{given_kind} in version {given_version:?} cannot be handled as a {kind}"
        )));
    }
    map.insert("apiVersion".into(), api_version.into());
    map.insert("kind".into(), kind.into());
    if let Some(ty) = ty {
        let checked = schema::check(ty, &mut tree);
        checked.map_err(|error| {
            Status::bad_request(format!(
                "{kind} in version {version:?} cannot be handled as a {kind}: {error}"
            ))
        })?;
    }
    if let Some(record) = &call.audit {
        record.request_object(&tree);
    }
    Ok(tree)
}

/// Checks kind and version, prunes unknown fields and reports them as asked.
pub(crate) fn shape(
    call: &Call,
    resource: &Resource,
    parsed: Parsed,
    validation: FieldValidation,
) -> Result<Value, Status> {
    let Parsed {
        mut tree,
        duplicates,
    } = parsed;
    check_kind(resource, &mut tree)?;
    let names = &resource.row.names;
    let cannot = |why: &dyn std::fmt::Display| {
        Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {why}",
            kind = names.kind,
            version = names.version
        ))
    };
    let unknown = match (&resource.shape, &resource.ty) {
        (Some(schema), _) => ::custom::coerce(schema, &mut tree).map_err(|error| cannot(&error))?,
        (None, Some(ty)) => schema::check(ty.get(), &mut tree).map_err(|error| cannot(&error))?,
        (None, None) => Vec::new(),
    };
    let unknown = unknown.iter().map(|path| format!("unknown field {path:?}"));
    let twice = duplicates.iter().map(|path| duplicate(path));
    // Custom resources are read before their schema is looked at.
    let faults: Vec<String> = match resource.custom {
        true => twice.chain(unknown).collect(),
        false => unknown.chain(twice).collect(),
    };
    match validation {
        FieldValidation::Strict if !faults.is_empty() => Err(cannot(&format!(
            "strict decoding error: {}",
            faults.join(", ")
        ))),
        FieldValidation::Warn => {
            faults.into_iter().for_each(|fault| call.warn(fault));
            Ok(tree)
        }
        _ => Ok(tree),
    }
}

fn check_kind(resource: &Resource, tree: &mut Value) -> Result<(), Status> {
    let names = &resource.row.names;
    let Some(map) = tree.as_object_mut() else {
        return Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get \
             version/kind; json parse error: json: cannot unmarshal into Go value of type struct",
            names.kind
        )));
    };
    let expected = names.api_version();
    let text = |field: &str| map.get(field).and_then(Value::as_str).unwrap_or("");
    let (version, kind) = (text("apiVersion"), text("kind"));
    if !version.is_empty() && version != expected {
        return Err(Status::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version \
             ({expected})"
        )));
    }
    if !kind.is_empty() && kind != names.kind {
        return Err(Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {}: no kind {kind:?} is \
             registered for this path",
            names.kind
        )));
    }
    map.insert("apiVersion".into(), expected.into());
    map.insert("kind".into(), names.kind.clone().into());
    if !map.get("metadata").is_some_and(Value::is_object) && !map.contains_key("metadata") {
        map.insert("metadata".into(), Value::Object(serde_json::Map::new()));
    }
    Ok(())
}

/// The beginning of a body as upstream's errors show it.
fn summary(bytes: &[u8]) -> String {
    const SHOWN: usize = 30;
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    match bytes.len() {
        0 => "<empty>".into(),
        1..=SHOWN => hex(bytes),
        _ => format!("{} ...", hex(&bytes[..SHOWN])),
    }
}
