//! Pruning: what a schema does not name goes, and so does `null` where it may not stand.

use serde_json::{Map, Value};

use crate::path::Path;
use crate::structural::{Additional, Structural};

/// Fields of every object, which schemas need not name.
const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];
/// Unknown fields beyond this many are not reported.
const UNKNOWN_MAX: usize = 100;

/// Removes unknown fields of an object; their paths, sorted. `schema` is that of a root.
pub(crate) fn prune(schema: &Structural, object: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(Some(schema), object, &Path::Root, &mut unknown);
    unknown.sort_unstable();
    unknown
}

fn walk(
    schema: Option<&Structural>,
    value: &mut Value,
    path: &Path<'_>,
    unknown: &mut Vec<String>,
) {
    if let Some(schema) = schema.filter(|schema| schema.preserve_unknown) {
        return keep(schema, value, path, unknown);
    }
    match value {
        Value::Object(map) => fields(schema, map, path, unknown),
        Value::Array(items) => {
            let schema = schema.and_then(|schema| schema.items.as_deref());
            for (at, item) in items.iter_mut().enumerate() {
                walk(schema, item, &path.index(at), unknown);
            }
        }
        _ => {}
    }
}

fn fields(
    schema: Option<&Structural>,
    map: &mut Map<String, Value>,
    path: &Path<'_>,
    unknown: &mut Vec<String>,
) {
    map.retain(|name, value| {
        let at = path.field(name);
        let is_meta = META_FIELDS.contains(&name.as_str());
        if let Some(schema) = schema {
            if schema.embedded && is_meta {
                return true;
            }
            match (schema.properties.get(name), &schema.additional) {
                (Some(below), _) => {
                    walk(Some(below), value, &at, unknown);
                    return true;
                }
                (None, Some(additional)) => {
                    walk(values(additional), value, &at, unknown);
                    return true;
                }
                (None, None) => {}
            }
        }
        if unknown.len() < UNKNOWN_MAX {
            unknown.push(at.to_string());
        }
        false
    });
}

fn values(additional: &Additional) -> Option<&Structural> {
    match additional {
        Additional::Schema(schema) => Some(schema),
        Additional::Allows(_) => None,
    }
}

/// Below what is kept, named fields are still pruned.
fn keep(schema: &Structural, value: &mut Value, path: &Path<'_>, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if schema.embedded && META_FIELDS.contains(&name.as_str()) {
                    continue;
                }
                let below = match (schema.properties.get(name), &schema.additional) {
                    (Some(below), _) => Some(below),
                    (None, Some(additional)) => values(additional),
                    (None, None) => continue,
                };
                walk(below, value, &path.field(name), unknown);
            }
        }
        Value::Array(items) => {
            let Some(schema) = schema.items.as_deref() else {
                return;
            };
            for (at, item) in items.iter_mut().enumerate() {
                keep(schema, item, &path.index(at), unknown);
            }
        }
        _ => {}
    }
}

/// Removes fields that are `null`, where that is neither allowed nor replaced by a default.
pub(crate) fn drop_nulls(schema: &Structural, value: &mut Value) {
    match value {
        Value::Object(map) => map.retain(|name, value| match schema.field(name) {
            Some(below) if value.is_null() => below.nullable || below.default.is_some(),
            Some(below) => {
                drop_nulls(below, value);
                true
            }
            None => true,
        }),
        Value::Array(items) => {
            if let Some(below) = schema.items.as_deref() {
                items.iter_mut().for_each(|item| drop_nulls(below, item));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: Value, mut object: Value, expect: Value, unknown: &[&str]) {
        let found = prune(&Structural::read_root(&schema), &mut object);
        assert_eq!(object, expect);
        assert_eq!(found, unknown);
    }

    #[test]
    fn unknown_fields_go_and_are_named() {
        let schema = json!({"type": "object", "properties": {
            "list": {"type": "array", "items": {"type": "object", "properties": {"a": {}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object",
                "properties": {"a": {"type": "string"}}}},
            "any": {"type": "object", "additionalProperties": true},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"closed": {"type": "object", "properties": {"a": {}}}}}}});
        check(
            schema,
            json!({"kind": "A", "metadata": {"x": 1}, "new": 1, "list": [{"a": 1, "b": 2}],
                "map": {"k": {"a": "", "b": 1}}, "any": {"k": {"b": 1}},
                "open": {"free": {"x": 1}, "closed": {"a": 1, "b": 2}}}),
            json!({"kind": "A", "metadata": {"x": 1}, "list": [{"a": 1}], "map": {"k": {"a": ""}},
                "any": {"k": {}}, "open": {"free": {"x": 1}, "closed": {"a": 1}}}),
            &["any.k.b", "list[0].b", "map.k.b", "new", "open.closed.b"],
        );
    }

    #[test]
    fn nulls_stay_where_they_may() {
        let schema = json!({"properties": {"a": {"type": "string"}, "b": {"nullable": true},
            "c": {"default": 1}}});
        let mut object = json!({"a": null, "b": null, "c": null, "d": null});
        drop_nulls(&Structural::read(&schema), &mut object);
        assert_eq!(object, json!({"b": null, "c": null, "d": null}));
    }
}
