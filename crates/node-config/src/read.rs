//! Reads one file: strictly, with the words of upstream's decoder; fills in what is not said.

use serde_json::{Map, Value, json};

use crate::duration::GoDuration;
use crate::table::{FIELDS, Row};
use crate::{API_VERSION, KIND, at, put};

/// A list of objects: its path, their Go type, their fields with the types of these.
type Items = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

/// The lists of objects.
const ITEMS: [Items; 3] = [
    (
        "shutdownGracePeriodByPodPriority",
        "ShutdownGracePeriodByPodPriority",
        &[
            ("priority", "int32"),
            ("shutdownGracePeriodSeconds", "int64"),
        ],
    ),
    (
        "reservedMemory",
        "MemoryReservation",
        &[("numaNode", "int32"), ("limits", "object")],
    ),
    (
        "registerWithTaints",
        "Taint",
        &[
            ("key", "string"),
            ("value", "string"),
            ("effect", "string"),
            ("timeAdded", "string"),
        ],
    ),
];

/// The Go types of objects in objects.
const STRUCTS: [(&str, &str); 9] = [
    ("authentication.x509", "KubeletX509Authentication"),
    ("authentication.webhook", "KubeletWebhookAuthentication"),
    ("authentication.anonymous", "KubeletAnonymousAuthentication"),
    ("authentication", "KubeletAuthentication"),
    ("authorization.webhook", "KubeletWebhookAuthorization"),
    ("authorization", "KubeletAuthorization"),
    ("memorySwap", "MemorySwapConfiguration"),
    ("crashLoopBackOff", "CrashLoopBackOffConfig"),
    ("userNamespaces", "UserNamespaces"),
];

/// A whole file; the error is empty where the file is.
pub(crate) fn file(text: &str) -> Result<Value, String> {
    if text.is_empty() {
        return Err(String::new());
    }
    let tree = parse(text)?;
    let said = |name: &str| tree.get(name).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (said("apiVersion"), said("kind"));
    if kind.is_empty() {
        return Err(format!("Object 'Kind' is missing in '{text}'"));
    }
    if version.is_empty() {
        return Err(format!("Object 'apiVersion' is missing in '{text}'"));
    }
    if (version, kind) != (API_VERSION, KIND) {
        return Err(format!(
            "no kind {kind:?} is registered for version {version:?} in scheme \
             \"pkg/kubelet/apis/config/scheme/scheme.go:33\""
        ));
    }
    strict(tree)
}

/// A drop-in.
pub(crate) fn dropin(text: &str) -> Result<Value, String> {
    let error = |why: &str| format!("error: {why}");
    if text.is_empty() {
        return Err(error("kubelet config file was empty"));
    }
    let tree = parse(text).map_err(|why| error(&why))?;
    let said = |name: &str| tree.get(name).and_then(Value::as_str).unwrap_or_default();
    match (said("apiVersion"), said("kind")) {
        (_, "") | ("", _) => Err("no apiVersion/kind".into()),
        (API_VERSION, KIND) => strict(tree).map_err(|why| error(&why)),
        (version, kind) => Err(format!("unknown apiVersion/kind: {version}, Kind={kind}")),
    }
}

pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let tree: Result<Value, _> = serde_saphyr::from_str(text);
    let tree = tree.map_err(|fault| match fault.without_snippet() {
        serde_saphyr::Error::DuplicateMappingKey { key, location } => format!(
            "strict decoding error: yaml: unmarshal errors:\n  line {}: key {:?} already set in map",
            location.line(),
            key.as_deref().unwrap_or_default()
        ),
        fault => format!("couldn't get version/kind; json parse error: {fault}"),
    })?;
    match tree {
        Value::Object(_) => Ok(tree),
        other => Err(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value \
             of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
             \"json:\\\"kind,omitempty\\\"\" }}",
            kind_of(&other)
        )),
    }
}

fn strict(tree: Value) -> Result<Value, String> {
    check(&tree)?;
    let mut unknown = Vec::new();
    strangers(&tree, "", &mut unknown);
    // YAML is read by way of JSON with its keys in order.
    unknown.sort();
    match unknown.is_empty() {
        true => Ok(tree),
        false => Err(format!("strict decoding error: {}", unknown.join(", "))),
    }
}

/// Names the fields that nobody knows.
fn strangers(tree: &Value, prefix: &str, unknown: &mut Vec<String>) {
    for (name, value) in tree.as_object().into_iter().flatten() {
        let path = match prefix {
            "" => name.clone(),
            prefix => format!("{prefix}.{name}"),
        };
        if prefix.is_empty() && matches!(name.as_str(), "apiVersion" | "kind") {
            continue;
        }
        if let Some((_, _, fields)) = ITEMS.iter().find(|(list, _, _)| *list == path) {
            for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                let names = item.as_object().into_iter().flat_map(Map::keys);
                let strange = names.filter(|name| !fields.iter().any(|(known, _)| known == name));
                unknown.extend(strange.map(|name| {
                    let path = format!("{path}[{index}].{name}");
                    format!("unknown field {path:?}")
                }));
            }
        } else if FIELDS.iter().any(|row| row.path == path) {
        } else if FIELDS.iter().any(|row| is_below(row.path, &path)) {
            strangers(value, &path, unknown);
        } else {
            unknown.push(format!("unknown field {path:?}"));
        }
    }
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// Whether every known field is of its type; the error is Go's.
fn check(tree: &Value) -> Result<(), String> {
    for (path, name) in STRUCTS {
        if let Some(value) = at(tree, path).filter(|v| !v.is_object() && !v.is_null()) {
            return Err(misfit(value, path, &format!("v1beta1.{name}")));
        }
    }
    for row in FIELDS {
        let Some(value) = at(tree, row.path) else {
            continue;
        };
        check_one(value, row.path, row.go.trim_start_matches('*'))?;
        let items = ITEMS.iter().find(|(list, _, _)| *list == row.path);
        let Some((_, of, fields)) = items else {
            continue;
        };
        for item in value.as_array().into_iter().flatten() {
            for (name, go) in *fields {
                if let Some(value) = item.get(*name) {
                    let path = format!("{}.{name}", row.path);
                    fits(value, go).map_err(|go| misfit_in(value, of, &path, &go))?;
                }
            }
        }
    }
    Ok(())
}

impl Row {
    /// Whether this is a duration of nothing.
    fn is_no_time(&self, value: &Value) -> bool {
        let text = value.as_str().filter(|_| self.go.ends_with("Duration"));
        text.is_some_and(|text| GoDuration::parse(text) == Ok(GoDuration::default()))
    }
}

fn check_one(value: &Value, path: &str, go: &str) -> Result<(), String> {
    if go == "Duration" {
        return match value {
            Value::Null => Ok(()),
            Value::String(text) => GoDuration::parse(text).map(drop),
            other => Err(format!(
                "json: cannot unmarshal {} into Go value of type string",
                kind_of(other)
            )),
        };
    }
    fits(value, go).map_err(|go| misfit(value, path, &go))
}

/// The error is the type that the value should have.
fn fits(value: &Value, go: &str) -> Result<(), String> {
    let number = |least: i64, most: i64| match value.as_i64() {
        Some(number) => (least..=most).contains(&number),
        // 1.0 is no integer for Go, either.
        None => false,
    };
    let fit = match go {
        _ if value.is_null() => true,
        "bool" => value.is_boolean(),
        "string" => value.is_string(),
        "int32" => number(i32::MIN.into(), i32::MAX.into()),
        "int64" => number(i64::MIN, i64::MAX),
        "float64" => value.is_number(),
        "object" => value.is_object(),
        _ => {
            let (list, of) = match (go.strip_prefix("[]"), go.strip_prefix("map[string]")) {
                (Some(of), _) => (true, of),
                (_, Some(of)) => (false, of),
                _ => return Err(go.to_owned()),
            };
            match (list, value) {
                (true, Value::Array(items)) => {
                    return items.iter().try_for_each(|item| fits(item, of));
                }
                (false, Value::Object(map)) => {
                    return map.values().try_for_each(|item| fits(item, of));
                }
                _ => false,
            }
        }
    };
    fit.then_some(()).ok_or_else(|| go.to_owned())
}

fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(_) => "array".into(),
        Value::Object(_) => "object".into(),
    }
}

fn misfit(value: &Value, path: &str, go: &str) -> String {
    let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
    let of = STRUCTS.iter().find(|(known, _)| *known == parent);
    misfit_in(value, of.map_or(KIND, |(_, name)| name), path, go)
}

fn misfit_in(value: &Value, of: &str, path: &str, go: &str) -> String {
    // A number of the right kind that is too large is shown itself.
    let kind = match value {
        Value::Number(number) if go.starts_with("int") => format!("number {number}"),
        value => kind_of(value),
    };
    format!("json: cannot unmarshal {kind} into Go struct field {of}.{path} of type {go}")
}

/// Fills in defaults, those of `own` before upstream's, writes durations as Go does, and leaves out
/// what Go leaves out.
pub(crate) fn complete(mut tree: Value, own: &Value) -> Result<Value, String> {
    check(&tree)?;
    upstream_conditions(&mut tree);
    let mut whole = json!({"kind": KIND, "apiVersion": API_VERSION, "memorySwap": {},
        "authentication": {"x509": {}}});
    for row in FIELDS {
        let pointer = row.go.starts_with('*');
        let said = at(&tree, row.path).filter(|value| !value.is_null());
        let said = said.filter(|value| {
            // A list that says nothing is not the same as no list.
            let list = value.is_array() && !row.default.is_empty();
            pointer || list || !(is_zero(value) || row.is_no_time(value))
        });
        let value = match said {
            Some(Value::String(text)) if row.go.ends_with("Duration") => {
                Value::String(GoDuration::parse(text)?.to_string())
            }
            Some(value) => value.clone(),
            None => match at(own, row.path) {
                Some(own) => own.clone(),
                None => serde_json::from_str(row.default).unwrap_or(Value::Null),
            },
        };
        let text = value.as_str();
        if !value.is_null() && (pointer || text != Some("")) {
            put(&mut whole, row.path, value);
        }
    }
    Ok(whole)
}

/// Defaults that hang on other fields.
fn upstream_conditions(tree: &mut Value) {
    let number = |path: &str| at(tree, path).and_then(Value::as_i64);
    let serial = number("maxParallelImagePulls").is_none_or(|most| most < 2);
    let pids = number("podPidsLimit").filter(|pids| *pids >= 0);
    let often = at(tree, "nodeStatusUpdateFrequency").cloned();
    let reported = at(tree, "nodeStatusReportFrequency").is_some_and(|value| !is_zero(value));
    let evictions = match (
        at(tree, "evictionHard"),
        at(tree, "mergeDefaultEvictionSettings"),
    ) {
        (Some(Value::Object(own)), Some(Value::Bool(true))) => {
            let mut all = default_evictions();
            all.extend(own.clone());
            Some(all)
        }
        (Some(Value::Object(_)), _) => None,
        _ => Some(default_evictions()),
    };
    if at(tree, "serializeImagePulls").is_none_or(Value::is_null) {
        put(tree, "serializeImagePulls", serial.into());
    }
    if let Some(often) = often.filter(|often| !reported && !is_zero(often)) {
        put(tree, "nodeStatusReportFrequency", often);
    }
    if let Some(evictions) = evictions {
        put(tree, "evictionHard", evictions.into());
    }
    put(tree, "podPidsLimit", pids.unwrap_or(-1).into());
}

/// Upstream's thresholds where the file says nothing.
fn default_evictions() -> Map<String, Value> {
    let all = [
        ("memory.available", "100Mi"),
        ("nodefs.available", "10%"),
        ("nodefs.inodesFree", "5%"),
        ("imagefs.available", "15%"),
        ("imagefs.inodesFree", "5%"),
    ];
    let all = all.into_iter();
    all.map(|(signal, amount)| (signal.to_owned(), amount.into()))
        .collect()
}

/// What Go takes for nothing.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}
