//! `apiVersion`, `kind` and `metadata`: of the object itself, and of whole objects inside it.

use std::collections::BTreeSet;

use meta::{Faults, naming};
use serde_json::Value;

use crate::path::Path;
use crate::structural::Structural;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// A part cannot be read as what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(pub String);

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Brings an object's own metadata into shape; the paths of fields it does not have.
pub(crate) fn coerce_metadata(object: &mut Value) -> Result<Vec<String>, Unreadable> {
    let Some(metadata) = object.get_mut("metadata") else {
        return Ok(Vec::new());
    };
    let unknown = shape(metadata).map_err(Unreadable)?;
    let named = unknown.into_iter().map(|path| format!("metadata.{path}"));
    Ok(named.collect())
}

fn shape(metadata: &mut Value) -> Result<Vec<String>, String> {
    let ty = schema::named(OBJECT_META).ok_or("metadata has no schema")?;
    let unknown = schema::check(ty, metadata).map_err(|error| error.to_string())?;
    if let Some(map) = metadata.as_object_mut() {
        map.retain(|name, value| name != "creationTimestamp" || !value.is_null());
    }
    Ok(unknown)
}

/// Brings the metadata of embedded objects into shape; the paths of fields it does not have.
pub(crate) fn coerce(schema: &Structural, object: &mut Value) -> Result<Vec<String>, Unreadable> {
    let mut unknown = Vec::new();
    if schema.any(&|below| below.embedded) {
        walk(schema, object, &Path::Root, &mut unknown)?;
    }
    unknown.sort_unstable();
    Ok(unknown)
}

fn walk(
    schema: &Structural,
    value: &mut Value,
    path: &Path<'_>,
    unknown: &mut Vec<String>,
) -> Result<(), Unreadable> {
    match value {
        Value::Object(map) => {
            // The metadata of the root is looked at by itself.
            let embedded = schema.embedded && !matches!(path, Path::Root);
            for (name, value) in map.iter_mut() {
                let at = path.field(name);
                if embedded {
                    identify(name, value, &at, unknown)?;
                }
                if let Some(below) = schema.field(name) {
                    walk(below, value, &at, unknown)?;
                }
            }
        }
        Value::Array(items) => {
            let Some(below) = schema.items.as_deref() else {
                return Ok(());
            };
            for (at, item) in items.iter_mut().enumerate() {
                walk(below, item, &path.index(at), unknown)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn identify(
    name: &str,
    value: &mut Value,
    at: &Path<'_>,
    unknown: &mut Vec<String>,
) -> Result<(), Unreadable> {
    let refused =
        |value: &Value, why: &str| Err(Unreadable(format!("{at}: Invalid value: {value}: {why}")));
    match name {
        "apiVersion" | "kind" if !value.is_string() => refused(value, "must be a string"),
        "metadata" => match shape(value) {
            Ok(own) => {
                unknown.extend(own.iter().map(|path| format!("{at}.{path}")));
                Ok(())
            }
            Err(why) => refused(value, &why),
        },
        _ => Ok(()),
    }
}

/// Faults of embedded objects; the object itself is left to the path of all kinds.
pub(crate) fn validate(schema: &Structural, object: &Value, faults: &mut Faults) {
    if schema.any(&|below| below.embedded) {
        check(schema, object, &Path::Root, faults);
    }
}

fn check(schema: &Structural, value: &Value, path: &Path<'_>, faults: &mut Faults) {
    match value {
        Value::Object(map) => {
            if schema.embedded && !matches!(path, Path::Root) {
                check_identity(value, &path.to_string(), faults);
            }
            for (name, value) in map {
                if let Some(below) = schema.properties.get(name) {
                    check(below, value, &path.field(name), faults);
                } else if let Some(below) = schema.values() {
                    check(below, value, &path.key(name), faults);
                }
            }
        }
        Value::Array(items) => {
            if let Some(below) = schema.items.as_deref() {
                for (at, item) in items.iter().enumerate() {
                    check(below, item, &path.index(at), faults);
                }
            }
        }
        _ => {}
    }
}

/// Faults of one embedded object at `path`.
pub(crate) fn check_identity(object: &Value, path: &str, faults: &mut Faults) {
    let at = |name: &str| match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    for name in ["apiVersion", "kind"] {
        match object.get(name) {
            None => faults.required(at(name), ""),
            Some(Value::String(text)) if text.is_empty() => {
                faults.invalid(at(name), "", "must not be empty");
            }
            Some(Value::String(text)) => {
                if let Some(rule) = broken_rule(name, text) {
                    faults.invalid(at(name), text.as_str(), rule);
                }
            }
            Some(other) => faults.invalid(at(name), other.clone(), "must be a string"),
        }
    }
    if let Some(metadata) = object.get("metadata") {
        kinds::metadata::validate_embedded(metadata, &at("metadata"), faults);
    }
}

fn broken_rule(name: &str, text: &str) -> Option<String> {
    if name == "apiVersion" {
        return (text.matches('/').count() > 1)
            .then(|| format!("unexpected GroupVersion string: {text}"));
    }
    let rules: BTreeSet<String> = naming::dns1035_label(&text.to_lowercase())
        .into_iter()
        .collect();
    let rules: Vec<String> = rules.into_iter().collect();
    (!rules.is_empty()).then(|| {
        let rules = rules.join(",");
        format!("may have mixed case, but should otherwise match: {rules}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Structural {
        Structural::read_root(
            &json!({"type": "object", "properties": {"spec": {"type": "object",
            "properties": {"template": {"type": "object", "x-kubernetes-embedded-resource": true,
                "x-kubernetes-preserve-unknown-fields": true}}}}}),
        )
    }

    #[test]
    fn metadata_inside_is_metadata() {
        let mut object = json!({"spec": {"template": {"kind": "A", "metadata":
            {"name": "a", "new": 1, "labels": {"a": "b"}}}}});
        assert_eq!(
            coerce(&schema(), &mut object),
            Ok(vec!["spec.template.metadata.new".to_owned()])
        );
        assert_eq!(
            object["spec"]["template"]["metadata"],
            json!({"name": "a", "labels": {"a": "b"}})
        );
        let mut odd = json!({"spec": {"template": {"kind": 1}}});
        assert_eq!(
            coerce(&schema(), &mut odd).unwrap_err().0,
            "spec.template.kind: Invalid value: 1: must be a string"
        );
    }

    #[test]
    fn embedded_objects_say_what_they_are() {
        let object = json!({"spec": {"template": {"kind": "A_", "metadata": {"name": "a/b"}}}});
        let mut faults = Faults::new();
        validate(&schema(), &object, &mut faults);
        let fields: Vec<&str> = faults.0.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "spec.template.apiVersion",
                "spec.template.kind",
                "spec.template.metadata.name"
            ]
        );
    }
}
