//! What makes a schema structural: every value has one type, and alternatives only narrow it.

use meta::{Fault, Faults};
use serde_json::{Value, json};

use super::{flag, list, text};

/// What may not stand below `allOf`, `anyOf`, `oneOf` or `not`, and what upstream says of it.
const FORBIDDEN_BELOW: [(&str, &str); 12] = [
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    (
        "x-kubernetes-preserve-unknown-fields",
        "must be false to be structural",
    ),
    (
        "x-kubernetes-embedded-resource",
        "must be false to be structural",
    ),
    (
        "x-kubernetes-int-or-string",
        "must be false to be structural",
    ),
    (
        "x-kubernetes-list-map-keys",
        "must be empty to be structural",
    ),
    (
        "x-kubernetes-list-type",
        "must be undefined to be structural",
    ),
    (
        "x-kubernetes-map-type",
        "must be undefined to be structural",
    ),
];
/// Schemas nest no deeper than this.
const DEPTH_MAX: usize = 100;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Faults of a schema that is to be structural, sorted.
pub fn faults(schema: &Value, path: &str) -> Vec<Fault> {
    let mut faults = Faults::new();
    invariants(schema, Level::Root, path, 0, &mut faults);
    complete(schema, Some(schema), path, path, &mut faults);
    faults.0.sort_by_cached_key(ToString::to_string);
    faults.0
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let map = schema.get("properties").and_then(Value::as_object);
    map.into_iter().flatten()
}

fn property<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema.get("properties")?.get(name)
}

fn invariants(schema: &Value, level: Level, path: &str, depth: usize, faults: &mut Faults) {
    if depth > DEPTH_MAX {
        return;
    }
    let kind = text(schema, "/type");
    let items = schema.get("items").filter(|items| items.is_object());
    match items {
        Some(items) => invariants(
            items,
            Level::Item,
            &format!("{path}.items"),
            depth + 1,
            faults,
        ),
        None if kind == "array" => faults.required(format!("{path}.items"), "must be specified"),
        None => {}
    }
    for (name, below) in properties(schema) {
        let at = format!("{path}.properties[{name}]");
        invariants(below, Level::Field, &at, depth + 1, faults);
    }
    if let Some(additional) = schema.get("additionalProperties") {
        let at = format!("{path}.additionalProperties");
        if level == Level::Root {
            faults.forbidden(at.as_str(), "must not be used at the root");
        }
        if additional.is_object() {
            invariants(additional, Level::Field, &at, depth + 1, faults);
        }
    }
    extensions(schema, path, faults);
    let either = [json!({"type": "integer"}), json!({"type": "string"})];
    let skip = Skip {
        any_of: list(schema, "/anyOf") == either,
        first_of_all: list(schema, "/allOf/0/anyOf") == either,
    };
    value_validation(schema, skip, path, depth, faults);
    types(schema, kind, level, path, faults);
    identity(schema, level, path, faults);
}

fn extensions(schema: &Value, path: &str, faults: &mut Faults) {
    if !flag(schema, "x-kubernetes-int-or-string") {
        return;
    }
    for field in [
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
    ] {
        if flag(schema, field) {
            let rule = "must be false if x-kubernetes-int-or-string is true";
            faults.invalid(format!("{path}.{field}"), true, rule);
        }
    }
}

fn types(schema: &Value, kind: &str, level: Level, path: &str, faults: &mut Faults) {
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let preserves = flag(schema, "x-kubernetes-preserve-unknown-fields");
    let at = format!("{path}.type");
    if embedded && kind != "object" {
        let rule = "must be object if x-kubernetes-embedded-resource is true";
        match kind {
            "" => faults.required(at.as_str(), rule),
            kind => faults.invalid(at.as_str(), kind, rule),
        }
    } else if kind.is_empty() && !flag(schema, "x-kubernetes-int-or-string") && !preserves {
        let rule = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        faults.required(at.as_str(), rule);
    }
    if embedded && schema.get("additionalProperties").is_some() {
        let rule = "must not be used if x-kubernetes-embedded-resource is set";
        faults.forbidden(format!("{path}.additionalProperties"), rule);
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        faults.invalid(at, kind, "must be object at the root");
    }
    if embedded && !preserves && properties(schema).next().is_none() {
        let rule = "must not be empty if x-kubernetes-embedded-resource is true without \
                    x-kubernetes-preserve-unknown-fields";
        faults.required(format!("{path}.properties"), rule);
    }
}

/// `apiVersion`, `kind` and `metadata` of objects are what they are.
fn identity(schema: &Value, level: Level, path: &str, faults: &mut Faults) {
    let is_object = level == Level::Root || flag(schema, "x-kubernetes-embedded-resource");
    if is_object {
        for (name, wanted) in [
            ("kind", "string"),
            ("apiVersion", "string"),
            ("metadata", "object"),
        ] {
            let Some(own) = property(schema, name) else {
                continue;
            };
            let kind = text(own, "/type");
            if kind != wanted {
                let at = format!("{path}.properties[{name}].type");
                faults.invalid(at, kind, format!("must be {wanted}"));
            }
        }
    }
    let Some(metadata) = property(schema, "metadata").filter(|_| level == Level::Root) else {
        return;
    };
    let mut rest = metadata.clone();
    if let Some(rest) = rest.as_object_mut() {
        let named = properties(metadata).all(|(name, _)| name == "name" || name == "generateName");
        if named {
            rest.remove("properties");
        }
        rest.remove("type");
        rest.remove("default");
    }
    if rest != json!({}) {
        let rule = "must not specify anything other than name and generateName, but metadata is \
                    implicitly specified";
        faults.forbidden(format!("{path}.properties[metadata]"), rule);
    }
}

/// The two forms in which integers and texts may be told apart.
#[derive(Clone, Copy)]
struct Skip {
    any_of: bool,
    first_of_all: bool,
}

const NO_SKIP: Skip = Skip {
    any_of: false,
    first_of_all: false,
};

fn value_validation(schema: &Value, skip: Skip, path: &str, depth: usize, faults: &mut Faults) {
    if depth > DEPTH_MAX {
        return;
    }
    for field in ["anyOf", "allOf", "oneOf"] {
        if field == "anyOf" && skip.any_of {
            continue;
        }
        for (at, below) in list(schema, &format!("/{field}")).iter().enumerate() {
            let skip = Skip {
                any_of: field == "allOf" && at == 0 && skip.first_of_all,
                first_of_all: false,
            };
            nested(
                below,
                skip,
                &format!("{path}.{field}[{at}]"),
                depth + 1,
                faults,
            );
        }
    }
    if let Some(below) = schema.get("not").filter(|below| below.is_object()) {
        nested(below, NO_SKIP, &format!("{path}.not"), depth + 1, faults);
    }
    let pattern = text(schema, "/pattern");
    if let Err(error) = crate::structural::compile(pattern) {
        let why = crate::go_regex::fault(pattern).unwrap_or_else(|| error.to_string());
        let rule = format!("must be a valid regular expression, but isn't: {why}");
        faults.invalid(format!("{path}.pattern"), pattern, rule);
    }
}

fn nested(schema: &Value, skip: Skip, path: &str, depth: usize, faults: &mut Faults) {
    value_validation(schema, skip, path, depth, faults);
    if let Some(items) = schema.get("items").filter(|items| items.is_object()) {
        nested(items, NO_SKIP, &format!("{path}.items"), depth + 1, faults);
    }
    for (name, below) in properties(schema) {
        let at = format!("{path}.properties[{name}]");
        nested(below, NO_SKIP, &at, depth + 1, faults);
    }
    for (field, rule) in FORBIDDEN_BELOW {
        let own = schema.get(field);
        let is_zero = |own: &Value| own == &json!(false) && field != "additionalProperties";
        if own.is_some_and(|own| own != "" && !is_zero(own)) {
            faults.forbidden(format!("{path}.{field}"), rule);
        }
    }
    if !list(schema, "/x-kubernetes-validations").is_empty() {
        let rule = "must be empty to be structural";
        faults.forbidden(format!("{path}.x-kubernetes-validations"), rule);
    }
    if property(schema, "metadata").is_some() {
        let at = format!("{path}.properties[metadata]");
        faults.forbidden(at, "must not be specified in a nested context");
    }
}

/// Every field that an alternative names stands in the schema proper too.
fn complete(own: &Value, proper: Option<&Value>, at: &str, from: &str, faults: &mut Faults) {
    if let Some(below) = own.get("not").filter(|below| below.is_object()) {
        complete_below(below, proper, at, &format!("{from}.not"), faults);
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        for (index, below) in list(own, &format!("/{field}")).iter().enumerate() {
            complete_below(
                below,
                proper,
                at,
                &format!("{from}.{field}[{index}]"),
                faults,
            );
        }
    }
}

fn complete_below(own: &Value, proper: Option<&Value>, at: &str, from: &str, faults: &mut Faults) {
    let Some(proper) = proper else {
        return faults.required(at, format!("because it is defined in {from}"));
    };
    complete(own, Some(proper), at, from, faults);
    if let Some(items) = own.get("items").filter(|items| items.is_object()) {
        let (at, from) = (format!("{at}.items"), format!("{from}.items"));
        complete_below(items, proper.get("items"), &at, &from, faults);
    }
    for (name, below) in properties(own) {
        let at = format!("{at}.properties[{name}]");
        let from = format!("{from}.properties[{name}]");
        complete_below(below, property(proper, name), &at, &from, faults);
    }
}
