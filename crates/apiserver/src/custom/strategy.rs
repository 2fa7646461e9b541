//! What a definition's schema says, as a strategy.

use jiff::Timestamp;
use kinds::{Cells, Column, Strategy};
use meta::Faults;
use serde_json::{Map, Value};

use super::columns::Columns;
use super::validate;

/// The behaviour of one version of a custom kind.
pub(super) struct CustomStrategy {
    schema: Value,
    columns: Columns,
}

impl CustomStrategy {
    /// From the schema, and the version that holds the printer columns.
    pub(super) fn new(schema: &Value, version: &Value) -> CustomStrategy {
        CustomStrategy {
            schema: schema.clone(),
            columns: Columns::of(version),
        }
    }

    pub(super) fn columns(&self) -> Vec<Column> {
        self.columns.definitions()
    }
}

impl Strategy for CustomStrategy {
    fn default(&self, object: &mut Value) {
        fill(&self.schema, object);
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        validate::object(&self.schema, object, faults);
    }

    fn validate_status(&self, object: &Value, _: &Value, faults: &mut Faults) {
        validate::object(&self.schema, object, faults);
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        self.columns.cells(object, now)
    }
}

/// Fills in defaults; only within what is there, as upstream does.
fn fill(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            for (key, schema) in properties.into_iter().flatten() {
                fill_field(key, schema, map);
            }
            let others = schema
                .get("additionalProperties")
                .filter(|schema| schema.is_object());
            if let Some(others) = others {
                map.values_mut().for_each(|value| fill(others, value));
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.get("items") {
                list.iter_mut().for_each(|item| fill(items, item));
            }
        }
        _ => {}
    }
}

fn fill_field(key: &str, schema: &Value, map: &mut Map<String, Value>) {
    let nullable = schema
        .get("nullable")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    let absent = map
        .get(key)
        .is_none_or(|value| value.is_null() && !nullable);
    if let (true, Some(default)) = (absent, schema.get("default")) {
        map.insert(key.to_owned(), default.clone());
    }
    if let Some(value) = map.get_mut(key) {
        fill(schema, value);
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
            "mode": {"default": {}, "properties": {"word": {"default": "x"}}}}});
        let mut object = json!({"spec": {"parts": [{}, {"on": false}]}});
        fill(&schema, &mut object);
        assert_eq!(
            object,
            json!({"spec": {"size": 3, "parts": [{"on": true}, {"on": false}]},
                "mode": {"word": "x"}})
        );
        let mut bare = json!({});
        fill(&schema, &mut bare);
        assert!(bare.get("spec").is_none());
    }
}
