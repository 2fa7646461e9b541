//! Lists that are sets or maps hold nothing twice.

use std::collections::BTreeMap;

use meta::Faults;
use serde_json::{Map, Value};

use crate::path::Path;
use crate::structural::Structural;

/// Faults of all lists of an object.
pub(crate) fn validate(schema: &Structural, object: &Value, faults: &mut Faults) {
    walk(schema, object, &Path::Root, faults);
}

fn walk(schema: &Structural, value: &Value, path: &Path<'_>, faults: &mut Faults) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if let Some(below) = schema.values() {
                    walk(below, value, &path.key(name), faults);
                }
                if let Some(below) = schema.properties.get(name) {
                    walk(below, value, &path.field(name), faults);
                }
            }
        }
        Value::Array(items) => {
            match schema.list_type.as_str() {
                "set" => set(items, path, faults),
                "map" => map(schema, items, path, faults),
                _ => {}
            }
            if let Some(below) = schema.items.as_deref() {
                for (at, item) in items.iter().enumerate() {
                    walk(below, item, &path.index(at), faults);
                }
            }
        }
        _ => {}
    }
}

fn set(items: &[Value], path: &Path<'_>, faults: &mut Faults) {
    for at in repeated(items) {
        faults.duplicate(path.index(at).to_string(), items[at].clone());
    }
}

/// The second place of each value that stands more than once.
fn repeated(items: &[Value]) -> Vec<usize> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut repeated = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let times = seen.entry(item.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            repeated.push(at);
        }
    }
    repeated
}

fn map(schema: &Structural, items: &[Value], path: &Path<'_>, faults: &mut Faults) {
    let odd = |item: &&Value| !item.is_null() && !item.is_object();
    if let Some(at) = items.iter().position(|item| odd(&item)) {
        let detail = "must be an object for an array of list-type map";
        return faults.invalid(path.index(at).to_string(), items[at].clone(), detail);
    }
    let key = |item: &Value| -> Value {
        let keys = schema.list_keys.iter();
        let own = keys.filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
        own.collect::<Map<String, Value>>().into()
    };
    let keys: Vec<Value> = items.iter().map(key).collect();
    for at in repeated(&keys) {
        faults.duplicate(path.index(at).to_string(), keys[at].clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_stands_twice_is_named_once() {
        let schema = json!({"properties": {
            "set": {"type": "array", "x-kubernetes-list-type": "set"},
            "map": {"type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["a"]}}});
        let object = json!({"set": [1, 2, 1, 1], "map": [{"a": 1}, {"a": 1, "b": 2}, {}]});
        let mut faults = Faults::new();
        validate(&Structural::read(&schema), &object, &mut faults);
        assert_eq!(
            faults.summary(),
            "[map[1]: Duplicate value: {\"a\":1}, set[2]: Duplicate value: 1]"
        );
    }
}
