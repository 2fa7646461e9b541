//! What a structural schema asks of values, with upstream's messages. Types were checked and
//! unknown fields pruned before.

use meta::{FaultKind, Faults};
use regex::Regex;
use serde_json::Value;

/// Greatest depth looked at; deeper trees are refused when they are read.
const DEPTH_MAX: usize = 128;
/// Greatest size of a compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Faults of a whole object; its metadata is the generic path's.
pub(super) fn object(schema: &Value, object: &Value, faults: &mut Faults) {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (key, schema) in properties.into_iter().flatten() {
        if matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        if let Some(own) = object.get(key) {
            value(schema, own, key, faults, 0);
        }
    }
    required(schema, object, "", faults);
}

fn number(schema: &Value, field: &str) -> Option<f64> {
    schema.get(field).and_then(Value::as_f64)
}

fn count(schema: &Value, field: &str) -> Option<usize> {
    let count = schema.get(field).and_then(Value::as_u64)?;
    usize::try_from(count).ok()
}

fn value(schema: &Value, value: &Value, path: &str, faults: &mut Faults, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    enumeration(schema, value, path, faults);
    match value {
        Value::String(text) => string(schema, text, path, faults),
        Value::Number(own) => range(schema, own, path, faults),
        Value::Array(list) => {
            items(schema, list, path, faults);
            if let Some(schema) = schema.get("items") {
                for (at, item) in list.iter().enumerate() {
                    self::value(schema, item, &format!("{path}[{at}]"), faults, depth + 1);
                }
            }
        }
        Value::Object(map) => {
            required(schema, value, path, faults);
            let properties = schema.get("properties").and_then(Value::as_object);
            let others = schema
                .get("additionalProperties")
                .filter(|schema| schema.is_object());
            for (key, own) in map {
                let known = properties.and_then(|properties| properties.get(key));
                if let Some(schema) = known.or(others) {
                    self::value(schema, own, &format!("{path}.{key}"), faults, depth + 1);
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn required(schema: &Value, value: &Value, path: &str, faults: &mut Faults) {
    let list = schema.get("required").and_then(Value::as_array);
    for key in list.into_iter().flatten().filter_map(Value::as_str) {
        if value.get(key).is_none() {
            let dot = if path.is_empty() { "" } else { "." };
            faults.required(format!("{path}{dot}{key}"), "");
        }
    }
}

fn enumeration(schema: &Value, value: &Value, path: &str, faults: &mut Faults) {
    let Some(allowed) = schema.get("enum").and_then(Value::as_array) else {
        return;
    };
    if !allowed.contains(value) {
        let words: Vec<String> = allowed.iter().map(Value::to_string).collect();
        let detail = format!("supported values: {}", words.join(", "));
        faults.add(path, FaultKind::NotSupported, value.clone(), detail);
    }
}

fn string(schema: &Value, text: &str, path: &str, faults: &mut Faults) {
    let length = text.chars().count();
    let mut refuse = |rule: String| faults.invalid(path, text, format!("{path} in body {rule}"));
    if let Some(least) = count(schema, "minLength").filter(|least| length < *least) {
        refuse(format!("should be at least {least} chars long"));
    }
    if let Some(most) = count(schema, "maxLength").filter(|most| length > *most) {
        refuse(format!("should be at most {most} chars long"));
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
        let regex = regex::RegexBuilder::new(pattern)
            .size_limit(PATTERN_BYTES_MAX)
            .build();
        // A pattern in Go's dialect that ours does not know refuses nothing.
        if regex.is_ok_and(|regex: Regex| !regex.is_match(text)) {
            refuse(format!("should match '{pattern}'"));
        }
    }
}

fn range(schema: &Value, own: &serde_json::Number, path: &str, faults: &mut Faults) {
    let given = own.as_f64().unwrap_or(0.0);
    let flag = |field: &str| schema.get(field).and_then(Value::as_bool).unwrap_or(false);
    let bound = |field: &str| schema.get(field).map(Value::to_string).unwrap_or_default();
    let mut refuse = |rule: String| {
        faults.invalid(
            path,
            Value::Number(own.clone()),
            format!("{path} in body {rule}"),
        );
    };
    if let Some(least) = number(schema, "minimum") {
        match flag("exclusiveMinimum") {
            true if given <= least => {
                refuse(format!("should be greater than {}", bound("minimum")));
            }
            false if given < least => {
                refuse(format!(
                    "should be greater than or equal to {}",
                    bound("minimum")
                ));
            }
            _ => {}
        }
    }
    if let Some(most) = number(schema, "maximum") {
        match flag("exclusiveMaximum") {
            true if given >= most => refuse(format!("should be less than {}", bound("maximum"))),
            false if given > most => {
                refuse(format!(
                    "should be less than or equal to {}",
                    bound("maximum")
                ));
            }
            _ => {}
        }
    }
    if let Some(unit) = number(schema, "multipleOf").filter(|unit| *unit > 0.0)
        && (given / unit).fract().abs() > f64::EPSILON
    {
        refuse(format!("should be a multiple of {}", bound("multipleOf")));
    }
}

fn items(schema: &Value, list: &[Value], path: &str, faults: &mut Faults) {
    let length = list.len();
    if let Some(least) = count(schema, "minItems").filter(|least| length < *least) {
        let rule = format!("{path} in body should have at least {least} items");
        faults.invalid(path, length, rule);
    }
    if let Some(most) = count(schema, "maxItems").filter(|most| length > *most) {
        let detail = format!("must have at most {most} items");
        faults.add(path, FaultKind::TooMany, Value::Null, detail);
    }
    let is_set = schema
        .get("x-kubernetes-list-type")
        .is_some_and(|kind| kind == "set");
    for (at, item) in list.iter().enumerate().filter(|_| is_set) {
        if list[..at].contains(item) {
            faults.duplicate(format!("{path}[{at}]"), item.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn faults_read_like_upstream() {
        let schema = json!({"properties": {"spec": {"required": ["name"], "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 10},
            "mode": {"enum": ["a", "b"]},
            "name": {"pattern": "^x+$", "maxLength": 2}}}}});
        let check = |spec: Value, expect: &str| {
            let mut faults = Faults::new();
            object(&schema, &json!({"spec": spec}), &mut faults);
            assert_eq!(faults.summary(), expect);
        };
        check(json!({"name": "x", "size": 10}), "[]");
        check(json!({}), "spec.name: Required value");
        check(
            json!({"name": "x", "size": 0}),
            "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
        );
        check(
            json!({"name": "x", "mode": "c"}),
            "spec.mode: Unsupported value: \"c\": supported values: \"a\", \"b\"",
        );
        check(
            json!({"name": "y"}),
            "spec.name: Invalid value: \"y\": spec.name in body should match '^x+$'",
        );
    }
}
