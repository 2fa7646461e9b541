//! The rules that every node of an OpenAPI schema must keep.

use std::collections::BTreeSet;

use meta::{FaultKind, Faults};
use serde_json::{Map, Value};

use super::{defaults, flag, list, rules as expressions, structural, text};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// What may stand at the root of a schema beside a status subresource, by upstream's names.
const AT_ROOT: [(&str, &str); 22] = [
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    (
        "x-kubernetes-preserve-unknown-fields",
        "XPreserveUnknownFields",
    ),
    ("x-kubernetes-validations", "XValidations"),
];
/// What structural schemas have no room for.
const UNSUPPORTED: [(&str, &str); 6] = [
    ("id", "id"),
    ("additionalItems", "additionalItems"),
    ("patternProperties", "patternProperties"),
    ("definitions", "definitions"),
    ("dependencies", "dependencies"),
    ("$ref", "$ref"),
];
const META_FIELDS: [&str; 3] = ["metadata", "kind", "apiVersion"];
/// Reasons that a rule may give.
const REASONS: [&str; 4] = [
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueInvalid",
    "FieldValueRequired",
];
/// Schemas nest no deeper than this.
const DEPTH_MAX: usize = 100;

/// Faults of the schema of one version. `is_known`: it has been accepted before.
pub(super) fn validate(version: &Value, path: &str, is_known: bool, faults: &mut Faults) {
    let Some(schema) = version.pointer("/schema/openAPIV3Schema") else {
        return;
    };
    let path = format!("{path}.openAPIV3Schema");
    if version.pointer("/subresources/status").is_some() {
        validate_root(schema, &path, faults);
    }
    if flag(schema, "nullable") {
        let rule = "nullable cannot be true at the root";
        faults.forbidden(format!("{path}.nullable"), rule);
    }
    let mut broken = Faults(structural::faults(schema, &path));
    if broken.is_empty() {
        defaults::validate(schema, &path, &mut broken);
    }
    let way = Way {
        no_default: None,
        in_meta: false,
        depth: 0,
    };
    node(schema, &path, true, &way, &mut broken);
    if broken.is_empty() {
        expressions::validate(schema, &path, is_known, &mut broken);
    }
    faults.0.extend(broken.0);
}

/// The status is validated by its own property: nothing at the root may speak of it.
fn validate_root(schema: &Value, path: &str, faults: &mut Faults) {
    for (field, _) in schema.as_object().into_iter().flatten() {
        let kind = text(schema, "/type");
        if field == "type" && kind != "object" {
            let rule = "only \"object\" is allowed as the type at the root of the schema if the \
                        status subresource is enabled";
            return faults.invalid(format!("{path}.type"), kind, rule);
        }
        if !AT_ROOT.iter().any(|(own, _)| own == field) {
            let names: Vec<&str> = AT_ROOT.iter().map(|(_, name)| *name).collect();
            let rule = format!(
                "only [{}] fields are allowed at the root of the schema if the status \
                 subresource is enabled",
                names.join(" ")
            );
            return faults.invalid(path, schema.clone(), rule);
        }
    }
}

/// Calls for every node of a schema.
pub(super) fn visit(schema: &Value, each: &mut dyn FnMut(&Value)) {
    each(schema);
    below(schema, &mut |_, child| visit(child, each));
}

/// Calls for every node right below, with the path to it.
fn below(schema: &Value, each: &mut dyn FnMut(String, &Value)) {
    for field in ["additionalProperties", "not", "items"] {
        if let Some(child) = schema.get(field).filter(|child| child.is_object()) {
            each(format!(".{field}"), child);
        }
    }
    for (name, child) in map(schema, "properties") {
        each(format!(".properties[{name}]"), child);
    }
    for field in ["allOf", "oneOf", "anyOf"] {
        for (at, child) in list(schema, &format!("/{field}")).iter().enumerate() {
            each(format!(".{field}[{at}]"), child);
        }
    }
}

fn map<'a>(schema: &'a Value, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    let map = schema.get(field).and_then(Value::as_object);
    map.into_iter().flatten()
}

/// What holds for a node because of where it stands.
#[derive(Clone)]
struct Way {
    /// Why there may be no default.
    no_default: Option<String>,
    /// Inside `metadata`, `kind` or `apiVersion`.
    in_meta: bool,
    depth: usize,
}

fn node(schema: &Value, path: &str, is_root: bool, way: &Way, faults: &mut Faults) {
    if way.depth > DEPTH_MAX {
        return faults.forbidden(path, format!("must not nest deeper than {DEPTH_MAX}"));
    }
    features(schema, path, way, faults);
    if schema.get("additionalProperties").is_some()
        && map(schema, "properties").next().is_some()
        && schema["additionalProperties"] != true
    {
        let rule = "additionalProperties and properties are mutual exclusive";
        faults.forbidden(format!("{path}.additionalProperties"), rule);
    }
    let is_object = is_root || flag(schema, "x-kubernetes-embedded-resource");
    below(schema, &mut |step, child| {
        let mut way = Way {
            depth: way.depth + 1,
            ..way.clone()
        };
        if step == ".additionalProperties" && way.in_meta {
            let why = " inside additionalProperties applying to object metadata";
            way.no_default = Some(why.into());
        }
        let name = step
            .strip_prefix(".properties[")
            .and_then(|step| step.strip_suffix(']'));
        if let Some(name) = name.filter(|name| is_object && META_FIELDS.contains(name)) {
            way.in_meta = true;
            if is_root {
                way.no_default = Some(format!(" in top-level {name}"));
            }
        }
        node(child, &format!("{path}{step}"), false, &way, faults);
    });
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        let at = format!("{path}.x-kubernetes-preserve-unknown-fields");
        faults.invalid(at, false, "must be true or undefined");
    }
    map_type(schema, path, faults);
    list_type(schema, path, faults);
    list_keys(schema, path, faults);
    rules(schema, path, faults);
}

/// What structural schemas know of at all.
fn features(schema: &Value, path: &str, way: &Way, faults: &mut Faults) {
    let kind = text(schema, "/type");
    if !kind.is_empty() && !TYPES.contains(&kind) {
        faults.not_supported(format!("{path}.type"), kind, &TYPES);
    }
    if let (Some(why), true) = (&way.no_default, schema.get("default").is_some()) {
        faults.forbidden(format!("{path}.default"), format!("must not be set{why}"));
    }
    for (field, name) in UNSUPPORTED {
        let own = schema.get(field);
        let is_empty = |own: &Value| own == "" || own.as_object().is_some_and(Map::is_empty);
        if own.is_some_and(|own| !is_empty(own)) {
            faults.forbidden(format!("{path}.{name}"), format!("{name} is not supported"));
        }
    }
    if kind == "null" {
        let rule = "type cannot be set to null, use nullable as an alternative";
        faults.forbidden(format!("{path}.type"), rule);
    }
    let items = schema.get("items").and_then(Value::as_array);
    if items.is_some_and(|items| !items.is_empty()) {
        let rule = "items must be a schema object and not an array";
        faults.forbidden(format!("{path}.items"), rule);
    }
    if way.in_meta && flag(schema, "x-kubernetes-embedded-resource") {
        let at = format!("{path}.x-kubernetes-embedded-resource");
        faults.forbidden(at, "must not be used inside of resource meta");
    }
    if flag(schema, "uniqueItems") {
        let rule = "uniqueItems cannot be set to true since the runtime complexity becomes \
                    quadratic";
        faults.forbidden(format!("{path}.uniqueItems"), rule);
    }
}

fn needs_type(schema: &Value, wanted: &str, field: &str, path: &str, faults: &mut Faults) {
    let rule = format!("must be {wanted} if {field} is specified");
    match text(schema, "/type") {
        "" => faults.required(format!("{path}.type"), rule),
        kind if kind == wanted => {}
        kind => faults.invalid(format!("{path}.type"), kind, rule),
    }
}

fn map_type(schema: &Value, path: &str, faults: &mut Faults) {
    const FIELD: &str = "x-kubernetes-map-type";
    let Some(own) = schema.get(FIELD).and_then(Value::as_str) else {
        return;
    };
    needs_type(schema, "object", FIELD, path, faults);
    if !matches!(own, "atomic" | "granular") {
        faults.not_supported(format!("{path}.{FIELD}"), own, &["atomic", "granular"]);
    }
}

fn list_type(schema: &Value, path: &str, faults: &mut Faults) {
    const FIELD: &str = "x-kubernetes-list-type";
    let Some(own) = schema.get(FIELD).and_then(Value::as_str) else {
        return;
    };
    needs_type(schema, "array", FIELD, path, faults);
    if let (true, "set", Some(items)) = (text(schema, "/type") == "array", own, schema.get("items"))
    {
        let rule = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let (field, wanted) = match text(items, "/type") {
            "array" => ("x-kubernetes-list-type", items.get(FIELD).is_none()),
            "object" => ("x-kubernetes-map-type", false),
            _ => ("", true),
        };
        let kind = items.get(field).cloned().unwrap_or_default();
        if !wanted && kind != "atomic" {
            faults.invalid(format!("{path}.items.{field}"), kind, rule);
        }
    }
    if !matches!(own, "atomic" | "set" | "map") {
        let detail = "supported values: \"atomic\", \"set\", \"map\"";
        faults.add(
            format!("{path}.{FIELD}"),
            FaultKind::NotSupported,
            own.into(),
            detail,
        );
    }
}

fn list_keys(schema: &Value, path: &str, faults: &mut Faults) {
    let keys: Vec<&str> = list(schema, "/x-kubernetes-list-map-keys")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let kind = text(schema, "/x-kubernetes-list-type");
    if !keys.is_empty() && kind != "map" {
        let rule = "must be map if x-kubernetes-list-map-keys is non-empty";
        let at = format!("{path}.x-kubernetes-list-type");
        match schema.get("x-kubernetes-list-type") {
            None => faults.required(at, rule),
            Some(_) => faults.invalid(at, kind, rule),
        }
    }
    let items = schema.get("items");
    if let (Some(items), "set" | "map") = (items, kind)
        && flag(items, "nullable")
    {
        let rule = format!("cannot be nullable when x-kubernetes-list-type is {kind}");
        faults.forbidden(format!("{path}.items.nullable"), rule);
    }
    if kind != "map" {
        return;
    }
    let at = format!("{path}.x-kubernetes-list-map-keys");
    if keys.is_empty() {
        let rule = "must not be empty if x-kubernetes-list-type is map";
        faults.required(at.as_str(), rule);
    }
    let Some(items) = items else {
        let rule = "must have a schema if x-kubernetes-list-type is map";
        return faults.required(format!("{path}.items"), rule);
    };
    if let Some([]) = items.as_array().map(Vec::as_slice) {
        let rule = "must only have a single schema if x-kubernetes-list-type is map";
        let shown = r#"{"Schema":null,"JSONSchemas":[]}"#;
        let at = format!("{path}.items");
        return faults.add_shown(at, FaultKind::Invalid, shown, rule);
    }
    if text(items, "/type") != "object" {
        let rule = "must be object if parent array's x-kubernetes-list-type is map";
        faults.invalid(format!("{path}.items.type"), text(items, "/type"), rule);
        return;
    }
    let mut seen = BTreeSet::new();
    for key in &keys {
        list_key(items, key, &keys, path, faults);
        if !seen.insert(key) {
            faults.invalid(
                at.as_str(),
                keys.clone(),
                "must not contain duplicate entries",
            );
        }
    }
}

fn list_key(items: &Value, key: &str, keys: &[&str], path: &str, faults: &mut Faults) {
    let at = format!("{path}.items.properties[{key}]");
    let Some(own) = items.get("properties").and_then(|all| all.get(key)) else {
        let at = format!("{path}.x-kubernetes-list-map-keys");
        let rule = "entries must all be names of item properties";
        return faults.invalid(at, keys.to_vec(), rule);
    };
    if matches!(text(own, "/type"), "array" | "object") {
        let rule = "must be a scalar type if parent array's x-kubernetes-list-type is map";
        faults.invalid(format!("{at}.type"), text(items, "/type"), rule);
    }
    let required = list(items, "/required").iter().any(|one| one == key);
    if !required && own.get("default").is_none() {
        let rule = "this property is in x-kubernetes-list-map-keys, so it must have a default or \
                    be a required property";
        faults.required(format!("{at}.default"), rule);
    }
    if flag(own, "nullable") {
        let rule = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
        faults.forbidden(format!("{at}.nullable"), rule);
    }
}

/// The form of `x-kubernetes-validations`, before any is compiled.
fn rules(schema: &Value, path: &str, faults: &mut Faults) {
    let has_breaks = |text: &str| text.contains(['\n', '\r']);
    for (at, rule) in list(schema, "/x-kubernetes-validations").iter().enumerate() {
        let at = |field: &str| format!("{path}.x-kubernetes-validations[{at}].{field}");
        let own = |field: &str| rule.get(field).and_then(Value::as_str).unwrap_or("");
        let (expression, message) = (own("rule").trim(), own("message"));
        if expression.is_empty() {
            faults.required(at("rule"), "rule is not specified");
        } else if !message.is_empty() && message.trim().is_empty() {
            faults.invalid(at("message"), message, "must be non-empty if specified");
        } else if has_breaks(message.trim()) {
            faults.invalid(at("message"), message, "must not contain line breaks");
        } else if has_breaks(expression) && message.trim().is_empty() {
            let text = "message must be specified if rule contains line breaks";
            faults.required(at("message"), text);
        }
        let expression = own("messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            let text = "messageExpression must be non-empty if specified";
            faults.required(at("messageExpression"), text);
        }
        let reason = own("reason");
        if rule.get("reason").is_some() && !REASONS.contains(&reason) {
            faults.not_supported(at("reason"), reason, &REASONS);
        }
        let field_path = own("fieldPath");
        if field_path.is_empty() {
            continue;
        }
        let mut refuse = |text: &str| faults.invalid(at("fieldPath"), field_path, text);
        if field_path.trim().is_empty() {
            refuse("must be non-empty if specified");
        }
        if has_breaks(field_path) {
            refuse("must not contain line breaks");
        }
        if field(schema, field_path).is_err() {
            refuse("must be a valid path");
        }
    }
}

/// The schema that a path such as `.spec.list['a.b']` leads to.
pub(crate) fn field<'a>(schema: &'a Value, path: &str) -> Result<&'a Value, String> {
    find(schema, path.trim(), true)
}

/// The same of paths that name fields by dots alone.
pub(super) fn plain_field<'a>(schema: &'a Value, path: &str) -> Result<&'a Value, String> {
    find(schema, path, false)
}

fn find<'a>(schema: &'a Value, path: &str, brackets: bool) -> Result<&'a Value, String> {
    let mut here = schema;
    let mut rest = path;
    if rest.is_empty() {
        return Err("must not be empty".into());
    }
    while !rest.is_empty() {
        if rest.starts_with('[') && !brackets {
            return Err("array notation is not allowed".into());
        }
        let name;
        (name, rest) = step(rest)?;
        let named = here.get("properties").and_then(|all| all.get(&name));
        let values = here
            .get("additionalProperties")
            .filter(|own| own.is_object());
        here = named.or(values).ok_or("does not refer to a valid field")?;
    }
    Ok(here)
}

/// The first step of a path, and what follows.
fn step(path: &str) -> Result<(String, &str), String> {
    if let Some(rest) = path.strip_prefix("['") {
        let end = rest.find("']").ok_or("unterminated [")?;
        return Ok((rest[..end].replace("\\'", "'"), &rest[end + 2..]));
    }
    let end = |rest: &str| rest.find(['.', '[', ']']).unwrap_or(rest.len()).max(1);
    let Some(rest) = path.strip_prefix('.') else {
        return Err(format!("expected [ or . but got: {}", &path[..end(path)]));
    };
    match rest {
        "" => Err("unexpected end of JSON path".into()),
        rest => Ok((rest[..end(rest)].to_owned(), &rest[end(rest)..])),
    }
}
