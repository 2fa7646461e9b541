//! Fields that the API knows but that are behind feature gates which are off by default: they
//! are dropped, unless the object had them before.

use serde_json::Value;

use super::defaults::CONTAINER_LISTS;
use crate::tree::Tree;

/// Below a pod's specification; `*` is each item of a list.
const POD: &[&[&str]] = &[
    // ClusterTrustBundleProjection
    &[
        "volumes",
        "*",
        "projected",
        "sources",
        "*",
        "clusterTrustBundle",
    ],
    // PodCertificateRequest
    &[
        "volumes",
        "*",
        "projected",
        "sources",
        "*",
        "podCertificate",
    ],
    // GenericWorkload
    &["schedulingGroup"],
];
/// ContainerStopSignals: takes an empty `lifecycle` along.
const STOP_SIGNALS: [&[&str]; 3] = [
    &["containers", "*", "lifecycle", "stopSignal"],
    &["initContainers", "*", "lifecycle", "stopSignal"],
    &["ephemeralContainers", "*", "lifecycle", "stopSignal"],
];
/// MaxUnavailableStatefulSet, below a stateful set.
const STATEFUL_SET: &[&[&str]] = &[&["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"]];

/// Drops what is gated from the pod specification at `path`; `old` is the object as it was.
pub(crate) fn drop_gated(object: &mut Value, old: &Value, path: &str) {
    let before = old.at(path);
    let Some(spec) = object.at_mut(path) else {
        return;
    };
    drop_unless_used(spec, before, POD);
    if !STOP_SIGNALS.iter().any(|path| is_used(before, path)) {
        for list in CONTAINER_LISTS {
            for container in spec.list_mut(list) {
                if !container.has("lifecycle.stopSignal") {
                    continue;
                }
                container.drop_field("lifecycle.stopSignal");
                if container.count("lifecycle") == 0 {
                    container.drop_field("lifecycle");
                }
            }
        }
    }
}

/// Drops what is gated in a stateful set's own fields.
pub(crate) fn drop_gated_stateful(object: &mut Value, old: &Value) {
    drop_unless_used(object, old, STATEFUL_SET);
}

fn drop_unless_used(tree: &mut Value, before: &Value, paths: &[&[&str]]) {
    for path in paths {
        if !is_used(before, path) {
            drop_field(tree, path);
        }
    }
}

fn is_used(tree: &Value, path: &[&str]) -> bool {
    match path {
        [] => !tree.is_null(),
        ["*", rest @ ..] => tree.list("").iter().any(|item| is_used(item, rest)),
        [field, rest @ ..] => tree.get(*field).is_some_and(|next| is_used(next, rest)),
    }
}

fn drop_field(tree: &mut Value, path: &[&str]) {
    match path {
        [] => {}
        ["*", rest @ ..] => {
            for item in tree.as_array_mut().into_iter().flatten() {
                drop_field(item, rest);
            }
        }
        [field] => {
            if let Some(map) = tree.as_object_mut() {
                map.remove(*field);
            }
        }
        [field, rest @ ..] => {
            if let Some(next) = tree.get_mut(*field) {
                drop_field(next, rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn gated_fields_go_unless_they_were_there() {
        let pod = json!({"spec": {
            "schedulingGroup": {"podGroupName": "g"},
            "containers": [
                {"name": "a", "lifecycle": {"stopSignal": "SIGTERM"}},
                {"name": "b", "lifecycle": {"stopSignal": "SIGTERM", "preStop": {}}},
                {"name": "c"}, {"name": "d", "lifecycle": {}},
            ],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "p", "projected": {"sources": [
                {"clusterTrustBundle": {"path": "p"}}, {"secret": {"name": "s"}}]}}],
        }});
        let mut kept = pod.clone();
        drop_gated(&mut kept, &pod, "spec");
        assert_eq!(kept, pod);
        let mut new = pod.clone();
        drop_gated(&mut new, &Value::Null, "spec");
        let expected = json!({"spec": {
            "containers": [{"name": "a"}, {"name": "b", "lifecycle": {"preStop": {}}}, {"name": "c"},
                {"name": "d", "lifecycle": {}}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "p", "projected": {"sources": [
                {}, {"secret": {"name": "s"}}]}}],
        }});
        assert_eq!(new, expected);
    }
}
