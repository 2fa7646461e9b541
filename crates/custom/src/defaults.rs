//! Defaulting: absent fields, and those that are `null` and may not be.

use serde_json::{Map, Value};

use crate::structural::Structural;

/// Fills in defaults; only within what is there.
pub(crate) fn fill(schema: &Structural, value: &mut Value) {
    match value {
        Value::Object(map) => fields(schema, map),
        Value::Array(items) => {
            let Some(below) = schema.items.as_deref() else {
                return;
            };
            for item in items {
                replace_null(below, item);
                fill(below, item);
            }
        }
        _ => {}
    }
}

fn fields(schema: &Structural, map: &mut Map<String, Value>) {
    for (name, below) in &schema.properties {
        let Some(default) = &below.default else {
            continue;
        };
        let absent = map
            .get(name)
            .is_none_or(|own| own.is_null() && !below.nullable);
        if absent {
            map.insert(name.clone(), default.clone());
        }
    }
    for (name, value) in map.iter_mut() {
        match (schema.properties.get(name), schema.values()) {
            (Some(below), _) => fill(below, value),
            (None, Some(below)) => {
                replace_null(below, value);
                fill(below, value);
            }
            (None, None) => {}
        }
    }
}

fn replace_null(schema: &Structural, value: &mut Value) {
    if let (true, false, Some(default)) = (value.is_null(), schema.nullable, &schema.default) {
        *value = default.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_fill_what_is_there() {
        let schema = json!({"properties": {
            "spec": {"type": "object", "properties": {"size": {"default": 3},
                "parts": {"items": {"properties": {"on": {"default": true}}}}}},
            "none": {"type": "integer", "default": 1},
            "null": {"type": "integer", "nullable": true, "default": 1},
            "mode": {"default": {}, "properties": {"word": {"default": "x"}}}}});
        let schema = Structural::read(&schema);
        let mut object =
            json!({"spec": {"parts": [{}, {"on": false}]}, "none": null, "null": null});
        fill(&schema, &mut object);
        assert_eq!(
            object,
            json!({"spec": {"size": 3, "parts": [{"on": true}, {"on": false}]},
                "mode": {"word": "x"}, "none": 1, "null": null})
        );
        let mut bare = json!({});
        fill(&schema, &mut bare);
        assert!(bare.get("spec").is_none());
    }
}
