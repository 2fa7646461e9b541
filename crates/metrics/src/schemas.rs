//! What the kinds are, for `kubectl explain` and others who ask by OpenAPI.

use serde_json::{Value, json};

/// Kinds and their schemas, as a CustomResourceDefinition has them.
pub fn schemas() -> Vec<(String, Value)> {
    let containers = json!({
        "description": "What each container of the pod used.", "type": "array",
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "description": "What a container used.", "type": "object",
            "required": ["name", "usage"],
            "properties": {
                "name": {"description": "The name of the container.", "type": "string"},
                "usage": usage(),
            },
        },
    });
    [
        ("NodeMetrics", "What a node used.", "usage", usage()),
        ("PodMetrics", "What a pod used.", "containers", containers),
    ]
    .map(|(kind, description, field, own)| {
        let mut schema = json!({
            "description": description, "type": "object",
            "required": ["timestamp", "window", field],
            "properties": {
                "timestamp": {
                    "description": "When the window ended.",
                    "type": "string", "format": "date-time",
                },
                "window": {
                    "description": "How long was measured, such as 15s.", "type": "string",
                },
            },
        });
        schema["properties"][field] = own;
        (kind.to_owned(), schema)
    })
    .into()
}

fn usage() -> Value {
    json!({
        "description": "Quantities of cpu, on average over the window, and memory, at its end.",
        "type": "object", "additionalProperties": {"type": "string"},
    })
}
