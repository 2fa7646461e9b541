//! Metrics as rows, for `kubectl get`.

use serde_json::{Value, json};

/// Whether a table is what the client wants most of what it names.
pub(crate) fn is_wanted(accept: &str) -> bool {
    let first = accept.split(',').next().unwrap_or_default();
    let parts: Vec<&str> = first.split(';').map(str::trim).collect();
    parts.contains(&"application/json") && parts.contains(&"as=Table")
}

/// An object or a list as metrics-server shows it.
pub(crate) fn table(tree: Value) -> Value {
    let objects = match tree.get("items") {
        Some(items) => items.as_array().cloned().unwrap_or_default(),
        None => vec![tree],
    };
    let column = |name: &str, format: &str| {
        json!({"name": name, "type": "string", "format": format, "priority": 0,
            "description": ""})
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "columnDefinitions": [
            column("Name", "name"), column("cpu", ""), column("memory", ""), column("Window", ""),
        ],
        "rows": objects.into_iter().map(row).collect::<Vec<Value>>(),
    })
}

fn row(mut object: Value) -> Value {
    let cells = json!([
        object["metadata"]["name"],
        total(&object, "cpu"),
        total(&object, "memory"),
        object["window"],
    ]);
    json!({"cells": cells, "object": {
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"].take(),
    }})
}

/// Of a node, or of all containers of a pod.
fn total(object: &Value, resource: &str) -> String {
    let of = |part: &Value| {
        let text = part["usage"][resource].as_str();
        text.and_then(|text| meta::Quantity::parse(text).ok())
    };
    let containers = object["containers"].as_array().into_iter().flatten();
    let parts = containers.filter_map(of).chain(of(object));
    let sum = parts.reduce(|sum, part| sum + part);
    sum.unwrap_or(meta::Quantity::ZERO).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_the_sum_of_its_containers() {
        let usage = |cpu: &str, memory: &str| json!({"usage": {"cpu": cpu, "memory": memory}});
        let pod = json!({"metadata": {"name": "p"}, "window": "15s",
            "containers": [usage("1500u", "1Mi"), usage("500u", "512Ki")]});
        let table = table(json!({"items": [pod]}));
        assert_eq!(
            table["rows"][0]["cells"],
            json!(["p", "2m", "1536Ki", "15s"])
        );
        assert!(is_wanted(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
        ));
        assert!(!is_wanted("application/json"));
    }
}
