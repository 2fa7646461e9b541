//! What a claim's volume is filled from: the old field and the new one are brought to agree.

use serde_json::Value;

use crate::tree::Tree;

/// Drops what is not served: other namespaces' sources, and in the old field all but claims and
/// snapshots. `old` is the specification as it was.
pub(super) fn prepare(spec: &mut Value, old: &Value) {
    // CrossNamespaceVolumeDataSource
    let elsewhere = !spec.text("dataSourceRef.namespace").is_empty();
    if elsewhere && !old.has("dataSourceRef") {
        spec.drop_field("dataSourceRef");
    }
    let in_use = old.has("dataSource") || old.has("dataSourceRef");
    if !in_use && !spec.has("dataSourceRef") && !is_known(spec.at("dataSource")) {
        spec.drop_field("dataSource");
    }
}

fn is_known(source: &Value) -> bool {
    matches!(
        (source.text("apiGroup"), source.text("kind")),
        ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
    )
}

/// Fills the one field from the other.
pub(super) fn normalize(spec: &mut Value) {
    let source = |field: &str| {
        let from = spec.at(field);
        serde_json::json!({
            "apiGroup": from.at("apiGroup"), "kind": from.at("kind"), "name": from.at("name"),
        })
    };
    match (spec.has("dataSource"), spec.has("dataSourceRef")) {
        (true, false) => {
            let reference = source("dataSource");
            spec.set("dataSourceRef", reference);
        }
        (false, true) if spec.text("dataSourceRef.namespace").is_empty() => {
            let old = source("dataSourceRef");
            spec.set("dataSource", old);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_fields_agree() {
        let claim = json!({"apiGroup": null, "kind": "PersistentVolumeClaim", "name": "x"});
        let mut spec = json!({ "dataSource": claim });
        prepare(&mut spec, &Value::Null);
        normalize(&mut spec);
        assert_eq!(spec["dataSourceRef"], claim);
    }

    #[test]
    fn the_old_field_takes_claims_and_snapshots_only() {
        for (source, kept) in [
            (json!({"kind": "PersistentVolumeClaim", "name": "x"}), true),
            (
                json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "x"}),
                true,
            ),
            (json!({"kind": "Other", "name": "x"}), false),
        ] {
            let mut spec = json!({ "dataSource": source });
            prepare(&mut spec, &Value::Null);
            assert_eq!(spec.has("dataSource"), kept, "{source}");
        }
    }
}
