//! Reading what clients send.

use bytes::{Bytes, BytesMut};
use client::Body;
use http_body::Body as _;
use http_body_util::BodyExt;
use meta::{Faults, Names, Reason, Status};
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
    /// The `fieldValidation` parameter; that the word is known has been checked.
    pub(crate) fn read(call: &Call) -> FieldValidation {
        match call.query.get("fieldValidation") {
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            _ => FieldValidation::Warn,
        }
    }
}

/// Whether nothing is to be stored; that the word is known has been checked.
pub(crate) fn is_dry_run(call: &Call) -> bool {
    call.query.all("dryRun").next().is_some()
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
    let is = |media: &str| content_type.eq_ignore_ascii_case(media);
    match content_type {
        "" => parse_json(bytes),
        _ if is("application/json") => parse_json(bytes),
        _ if is("application/yaml") => parse_yaml(bytes),
        _ => match ty {
            Some(ty) if is(protobuf::MEDIA_TYPE) => protobuf::read(bytes, ty),
            _ => Err(unsupported()),
        },
    }
}

fn parse_json(bytes: &[u8]) -> Result<Parsed, Status> {
    schema::parse_json(bytes).map_err(|error| unreadable(&format!("json parse error: {error}")))
}

fn unsupported() -> Status {
    let text = "the body of the request was in an unknown format - accepted media types include: \
                application/json, application/yaml, application/vnd.kubernetes.protobuf";
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
/// Begins the list of them.
const YAML_FAULTS: &str = "yaml: unmarshal errors:\n";

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
    let validation = FieldValidation::read(call);
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
    let tree = shape(call, resource, parsed, (validation, bytes))?;
    if let Some(record) = &call.audit {
        record.request_object(&tree);
    }
    Ok(tree)
}

/// Checks kind and version, prunes unknown fields and reports them as asked.
fn shape(
    call: &Call,
    resource: &Resource,
    parsed: Parsed,
    (validation, bytes): (FieldValidation, &[u8]),
) -> Result<Value, Status> {
    let Parsed {
        mut tree,
        duplicates,
    } = parsed;
    let names = &resource.row.names;
    check_kind(resource, &mut tree).map_err(|misfit| misfit.status(&names.kind, bytes))?;
    let cannot = |why: &dyn std::fmt::Display| {
        Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {why}",
            kind = names.kind,
            version = names.version
        ))
    };
    let unknown = pruned(call, resource, &mut tree).map_err(|why| cannot(&why))?;
    if let Some(why) = resource.row.strategy.misread(&tree) {
        return Err(cannot(&why));
    }
    let unknown = unknown.into_iter();
    let twice = duplicates.iter().map(|path| duplicate(path));
    let mut faults: Vec<String> = twice.chain(unknown).collect();
    // Custom resources are pruned after they were read, and YAML has lost its order by then.
    let is_json = bytes.trim_ascii_start().starts_with(b"{");
    if !resource.custom && is_json && (2..=SORTED_MAX).contains(&faults.len()) {
        faults.sort_by_key(|fault| place(fault, bytes));
    }
    match validation {
        FieldValidation::Strict if !faults.is_empty() => Err(cannot(&format!(
            "strict decoding error: {}",
            faults.join(", ")
        ))),
        FieldValidation::Warn => {
            faults
                .iter()
                .for_each(|fault| match fault.strip_prefix(YAML_FAULTS) {
                    None => call.warn(fault),
                    Some(lines) => lines.lines().for_each(|line| call.warn(line.trim())),
                });
            Ok(tree)
        }
        _ => Ok(tree),
    }
}

/// So many faults are told in the order of the body; more would cost too much to find.
const SORTED_MAX: usize = 32;

/// Where in a JSON body the field stands that a fault names: for a duplicate, the second time.
fn place(fault: &str, bytes: &[u8]) -> usize {
    let (kind, path) = fault.rsplit_once(' ').unwrap_or(("", fault));
    let name = path.trim_matches('"').rsplit('.').next().unwrap_or(path);
    let key = format!("{name:?}");
    let at = |from: usize| {
        let mut rest = bytes[from..].windows(key.len());
        let found = rest.position(|part| part == key.as_bytes());
        found.map_or(bytes.len(), |found| from + found)
    };
    match kind.starts_with("duplicate") {
        true => at((at(0) + 1).min(bytes.len())),
        false => at(0),
    }
}

/// Drops the fields that the schema lacks, and says which; an error is about what is of a wrong
/// type. The call keeps in mind what was empty.
pub(crate) fn pruned(
    call: &Call,
    resource: &Resource,
    tree: &mut Value,
) -> Result<Vec<String>, String> {
    let unknown = match (&resource.shape, &resource.ty) {
        (Some(schema), _) => ::custom::coerce(schema, tree).map_err(|error| error.to_string())?,
        (None, Some(ty)) => {
            let dropped = schema::check_telling(ty.get(), tree);
            let dropped = dropped.map_err(|error| error.to_string())?;
            call.note_empty(dropped.empty);
            dropped.unknown
        }
        (None, None) => Vec::new(),
    };
    let unknown = unknown.iter().map(|path| format!("unknown field {path:?}"));
    Ok(unknown.collect())
}

/// Checks kind and version of what was sent, and fills them in. An error of upstream's reader,
/// which looks for the kind first, is told apart from what the reader of objects says.
pub(crate) fn check_kind(resource: &Resource, tree: &mut Value) -> Result<(), Misfit> {
    let names = &resource.row.names;
    // Nothing is an object without fields.
    if tree.is_null() {
        *tree = Value::Object(serde_json::Map::new());
    }
    let Some(map) = tree.as_object_mut() else {
        return Err(Misfit::Unrecognized(kind_unread(tree)));
    };
    for field in ["apiVersion", "kind"] {
        let value = map.get(field).unwrap_or(&Value::Null);
        if !value.is_string() && !value.is_null() {
            return Err(Misfit::Unrecognized(format!(
                "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go \
                 struct field .{field} of type string",
                go_kind(value)
            )));
        }
    }
    let expected = names.api_version();
    let text = |field: &str| map.get(field).and_then(Value::as_str).unwrap_or("");
    let (version, kind) = (text("apiVersion"), text("kind"));
    if version.split('/').count() > 2 {
        let why = format!("unexpected GroupVersion string: {version}");
        return Err(Misfit::Unrecognized(why));
    }
    // Upstream reads custom resources without knowing which it is about to read.
    if resource.custom && kind.is_empty() {
        return Err(Misfit::Kindless);
    }
    let fits =
        |given: &str, wanted: &str| given == wanted || (given.is_empty() && !resource.custom);
    if resource.custom && version == expected && kind != names.kind {
        let name = map.get("metadata").and_then(|own| own["name"].as_str());
        return Err(Misfit::Wrong(wrong_kind(names, kind, name.unwrap_or(""))));
    }
    if !fits(version, &expected) || !fits(kind, &names.kind) {
        return Err(Misfit::Other(misfit(resource, version, kind)));
    }
    map.insert("apiVersion".into(), expected.into());
    map.insert("kind".into(), names.kind.clone().into());
    if !map.get("metadata").is_some_and(Value::is_object) && !map.contains_key("metadata") {
        map.insert("metadata".into(), Value::Object(serde_json::Map::new()));
    }
    Ok(())
}

/// What upstream says of a body that is no object, where it looks for the kind.
pub(crate) fn kind_unread(tree: &Value) -> String {
    format!(
        "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of \
         type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
         \"json:\\\"kind,omitempty\\\"\" }}",
        go_kind(tree)
    )
}

/// Why a body is not of the expected kind.
pub(crate) enum Misfit {
    /// It is no object, or does not say soundly which; told with the beginning of the body.
    Unrecognized(String),
    /// It does not say which kind it is, and must.
    Kindless,
    /// It is of another kind.
    Other(String),
    /// It is of another kind than the custom one of this path, which is judged like its fields.
    Wrong(Status),
}

/// 422 about an object of the kind it says it is of.
fn wrong_kind(names: &Names, kind: &str, name: &str) -> Status {
    let mut faults = Faults::new();
    faults.invalid("kind", kind, format!("must be {}", names.kind));
    let names = Names {
        kind: kind.to_owned(),
        ..names.clone()
    };
    Status::invalid(&names, name, &faults)
}

impl Misfit {
    /// What is wrong with an object of another kind, without the words about the one expected.
    pub(crate) fn why(&self) -> Option<&str> {
        match self {
            Misfit::Unrecognized(_) | Misfit::Kindless | Misfit::Wrong(_) => None,
            Misfit::Other(text) => text.split_once(": ").map(|(_, why)| why),
        }
    }

    /// 400, but for a custom kind 422.
    pub(crate) fn status(self, kind: &str, bytes: &[u8]) -> Status {
        Status::bad_request(match self {
            Misfit::Wrong(status) => return status,
            Misfit::Unrecognized(why) => format!(
                "the object provided is unrecognized (must be of type {kind}): {why} ({})",
                summary(bytes)
            ),
            Misfit::Kindless => format!(
                "the object provided is unrecognized (must be of type {kind}): Object 'Kind' is \
                 missing in '{}' ({})",
                String::from_utf8_lossy(bytes),
                summary(bytes)
            ),
            Misfit::Other(text) => text,
        })
    }
}

/// What is said of an object of another kind or version: whether that one exists matters.
fn misfit(resource: &Resource, given_version: &str, given_kind: &str) -> String {
    let names = &resource.row.names;
    let expected = names.api_version();
    let or = |given: &str, usual: &str| match given {
        "" => usual.to_owned(),
        given => given.to_owned(),
    };
    let (whole, kind) = (or(given_version, &expected), or(given_kind, &names.kind));
    let (group, version) = whole.split_once('/').unwrap_or(("", &whole));
    if resource.custom {
        return format!(
            "the API version in the data ({given_version}) does not match the expected API \
             version ({expected})"
        );
    }
    let begin = format!(
        "{kind} in version {version:?} cannot be handled as a {}",
        names.kind
    );
    let shared = matches!(kind.as_str(), "Status" | "DeleteOptions" | "ListOptions");
    let item = kind.strip_suffix("List").unwrap_or(&kind);
    let is_known = [kind.as_str(), item]
        .iter()
        .any(|kind| schema::builtin(group, version, kind).is_some());
    if !is_known && !shared {
        return format!(
            "{begin}: no kind {kind:?} is registered for version {whole:?} in scheme \
             \"pkg/api/legacyscheme/scheme.go:30\""
        );
    }
    format!(
        "{begin}: converting ({version}.{kind}) to ({}.{}): unknown conversion",
        package(names),
        names.kind
    )
}

/// Where upstream keeps what objects of a kind are inside of it.
pub(crate) fn package(names: &Names) -> &str {
    match names.group.split('.').next() {
        None | Some("" | "events") => "core",
        Some(package) => package,
    }
}

fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The beginning of a body as upstream's errors show it.
fn summary(bytes: &[u8]) -> String {
    const SHOWN: usize = 30;
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    match bytes.len() {
        0 => "<empty>".into(),
        // What looks like JSON is shown as it is.
        1..=SHOWN if bytes[0] == b'{' => String::from_utf8_lossy(bytes).into_owned(),
        _ if bytes[0] == b'{' => format!("{} ...", String::from_utf8_lossy(&bytes[..SHOWN])),
        1..=SHOWN => hex(bytes),
        _ => format!("{} ...", hex(&bytes[..SHOWN])),
    }
}
