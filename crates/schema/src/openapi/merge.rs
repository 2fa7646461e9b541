//! OpenAPI v2 documents of other servers: what of them is kept, and under which names.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

const DEFINITIONS: &str = "#/definitions/";
const PARAMETERS: &str = "#/parameters/";
const KINDS: &str = "x-kubernetes-group-version-kind";

/// The paths below a prefix, and the definitions that they need. Definitions that no path of the
/// whole document needs stay. Shared parameters are written out where they are used.
pub fn below(mut document: Value, prefix: &str) -> Value {
    let mut parameters = BTreeMap::new();
    if let Value::Object(shared) = document["parameters"].take() {
        parameters.extend(shared);
    }
    let (Value::Object(all), Value::Object(definitions)) =
        (document["paths"].take(), document["definitions"].take())
    else {
        return Value::Object(Map::new());
    };
    let needed = |paths: &Map<String, Value>| {
        let mut needed = BTreeSet::new();
        for item in paths.values() {
            need(item, &definitions, &mut needed);
        }
        for parameter in parameters.values() {
            need(parameter, &definitions, &mut needed);
        }
        needed
    };
    let before = needed(&all);
    let mut paths = all;
    paths.retain(|path, _| path.starts_with(prefix));
    let after = needed(&paths);
    for item in paths.values_mut() {
        write_out(item, &parameters);
    }
    let definitions: Map<String, Value> = definitions
        .iter()
        .filter(|(name, _)| after.contains(*name) || !before.contains(*name))
        .map(|(name, tree)| (name.clone(), tree.clone()))
        .collect();
    let mut kept = Map::new();
    kept.insert("paths".into(), paths.into());
    kept.insert("definitions".into(), definitions.into());
    Value::Object(kept)
}

/// Names of definitions that a tree leads to.
fn need(tree: &Value, definitions: &Map<String, Value>, needed: &mut BTreeSet<String>) {
    match tree {
        Value::Object(map) => {
            let target = map.get("$ref").and_then(Value::as_str);
            if let Some(name) = target.and_then(|target| target.strip_prefix(DEFINITIONS))
                && needed.insert(name.to_owned())
                && let Some(definition) = definitions.get(name)
            {
                need(definition, definitions, needed);
            }
            map.values()
                .for_each(|value| need(value, definitions, needed));
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| need(item, definitions, needed)),
        _ => {}
    }
}

/// Parameters of a path and of its operations in place of references to them.
fn write_out(item: &mut Value, parameters: &BTreeMap<String, Value>) {
    let Some(map) = item.as_object_mut() else {
        return;
    };
    for (key, value) in map {
        match value {
            Value::Array(list) if key == "parameters" => {
                for one in list {
                    let target = one["$ref"].as_str();
                    let name = target.and_then(|target| target.strip_prefix(PARAMETERS));
                    if let Some(parameter) = name.and_then(|name| parameters.get(name)) {
                        *one = parameter.clone();
                    }
                }
            }
            Value::Object(_) => write_out(value, parameters),
            _ => {}
        }
    }
}

/// Whether two definitions say the same, whatever kinds they are of.
pub(super) fn is_same(one: &Value, other: &Value) -> bool {
    let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else {
        return one == other;
    };
    let own = |map: &Map<String, Value>| map.len() - usize::from(map.contains_key(KINDS));
    let same = |(key, value): (&String, &Value)| key == KINDS || other.get(key) == Some(value);
    own(one) == own(other) && one.iter().all(same)
}

/// Adds the kinds of another definition of the same content; says whether there were new ones.
pub(super) fn add_kinds(own: &mut Value, other: &Value) -> bool {
    let Some(new) = other[KINDS].as_array() else {
        return false;
    };
    let mut kinds = own[KINDS].as_array().cloned().unwrap_or_default();
    let before = kinds.len();
    let unknown: Vec<Value> = new
        .iter()
        .filter(|kind| !kinds.contains(kind))
        .cloned()
        .collect();
    kinds.extend(unknown);
    let grown = kinds.len() > before;
    if grown {
        own[KINDS] = kinds.into();
    }
    grown
}

/// References to definitions under their new names.
pub(super) fn rename(tree: &mut Value, renames: &BTreeMap<String, String>) {
    match tree {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get_mut("$ref")
                && let Some(new) = target
                    .strip_prefix(DEFINITIONS)
                    .and_then(|name| renames.get(name))
            {
                *target = format!("{DEFINITIONS}{new}");
            }
            map.values_mut().for_each(|value| rename(value, renames));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, renames)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_a_path_needs_is_kept() {
        let to = |name: &str| json!({"$ref": format!("#/definitions/{name}")});
        let document = json!({
            "paths": {
                "/apis/": {"get": {"responses": {"200": {"schema": to("Groups")}}}},
                "/apis/g/v1/ships": {
                    "get": {"responses": {"200": {"schema": to("ShipList")}}},
                    "parameters": [{"$ref": "#/parameters/watch-x"}],
                },
            },
            "definitions": {
                "Groups": {"type": "object"}, "Lonely": {"type": "object"},
                "ShipList": {"properties": {"items": {"items": to("Ship")}}},
                "Ship": {"properties": {"next": to("Ship")}},
            },
            "parameters": {"watch-x": {"name": "watch", "in": "query"}},
        });
        let kept = below(document, "/apis/g/v1/");
        let names: Vec<&String> = kept["definitions"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["Lonely", "Ship", "ShipList"]);
        let paths = kept["paths"].as_object().unwrap();
        assert_eq!(paths.len(), 1);
        let parameters = &paths["/apis/g/v1/ships"]["parameters"];
        assert_eq!(*parameters, json!([{"name": "watch", "in": "query"}]));
        assert_eq!(below(json!({}), "/"), json!({}));
    }
}
