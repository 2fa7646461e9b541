//! Kinds that only subresources speak, such as a Scale: read, checked and shown like the kinds
//! that are kept.

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use kinds::{Cells, Column, Row, Strategy, Verbs};
use meta::Names;
use serde_json::Value;

use crate::registry::Resource;
use crate::verbs::write::text;

/// One of them.
pub(crate) type Face = LazyLock<Resource>;

pub(crate) static SCALE: Face = LazyLock::new(|| scale("", "string"));
/// The same for custom resources, whose tables say which column is the name.
pub(crate) static CUSTOM_SCALE: Face = LazyLock::new(|| scale("name", "date"));
pub(crate) static BINDING: Face = LazyLock::new(|| face("", "v1", "Binding"));
pub(crate) static EVICTION: Face = LazyLock::new(|| face("policy", "v1", "Eviction"));
pub(crate) static TOKEN_REQUEST: Face =
    LazyLock::new(|| face("authentication.k8s.io", "v1", "TokenRequest"));
/// What older clients send: the same in all but its version.
pub(crate) static OLD_EVICTION: Face = LazyLock::new(|| {
    let mut face = face("policy", "v1", "Eviction");
    face.row.names.version = "v1beta1".into();
    face
});

fn face(group: &str, version: &str, kind: &str) -> Resource {
    let plural = format!("{}s", kind.to_lowercase());
    let ty = schema::builtin(group, version, kind);
    Resource {
        row: Row {
            names: Names::namespaced(group, version, kind, &plural),
            verbs: Verbs::CreateOnly,
            has_status: false,
            scale: None,
            has_generation: false,
            create_on_update: false,
            needs_version: false,
            deprecation: None,
            columns: Arc::new([]),
            strategy: Arc::new(Plain),
        },
        ty: ty.and_then(|ty| schema::table::reference(&ty.name)),
        cache: None,
        custom: false,
        seen: None,
        conversion: None,
        stamp: 0,
        shape: None,
        published: None,
        deprecation: None,
        terminating: false,
    }
}

fn scale(name_format: &str, age: &str) -> Resource {
    let mut scale = face("autoscaling", "v1", "Scale");
    let column = |name: &str, kind: &str, format: &str| Column {
        name: name.into(),
        kind: kind.into(),
        format: format.into(),
        description: String::new(),
        priority: 0,
    };
    scale.row.columns = Arc::new([
        column("Name", "string", name_format),
        column("Desired", "integer", ""),
        column("Available", "integer", ""),
        column("Age", age, ""),
    ]);
    scale
}

/// Only a Scale is ever shown as a table.
struct Plain;

impl Strategy for Plain {
    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let number = |path: &str| object.pointer(path).and_then(Value::as_i64).unwrap_or(0);
        let age = meta::time::age(text(object, "/metadata/creationTimestamp"), now);
        vec![
            text(object, "/metadata/name").into(),
            number("/spec/replicas").into(),
            number("/status/replicas").into(),
            age.into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_schema() {
        for face in [&SCALE, &CUSTOM_SCALE, &BINDING, &EVICTION, &TOKEN_REQUEST] {
            assert!(face.ty.is_some(), "{}", face.row.names.kind);
        }
    }
}
