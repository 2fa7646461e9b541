//! Which part of an object a write to a subresource may change; the rest stays as it was.

use serde_json::{Value, json};

use super::write::metadata;
use crate::registry::Resource;

/// All of the metadata that may change.
const ALL: &[&str] = &[
    "annotations",
    "labels",
    "finalizers",
    "ownerReferences",
    "managedFields",
];

/// The part that a subresource writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All but the status.
    All,
    Status,
    /// `spec.finalizers` of a namespace.
    Finalizers,
    /// `spec.ephemeralContainers` of a pod.
    Ephemeral,
    /// Resources of a pod's containers.
    Resources,
    /// Conditions of a certificate signing request.
    Approval,
    /// What the subresource itself has put in place, and judged.
    Given,
}

impl Part {
    /// By the subresource's name.
    pub(super) fn of(subresource: &str) -> Part {
        match subresource {
            "" | "scale" => Part::All,
            "status" => Part::Status,
            "finalize" => Part::Finalizers,
            "ephemeralcontainers" => Part::Ephemeral,
            "resize" => Part::Resources,
            "approval" => Part::Approval,
            _ => Part::Given,
        }
    }

    /// The object as it was, with this part taken from what was sent.
    pub(super) fn of_given(self, resource: &Resource, old: &Value, given: Value) -> Value {
        match self {
            Part::All | Part::Given => given,
            Part::Status => {
                let sent = json!({"metadata": given.get("metadata")});
                let mut new = status_only(kept_fields(resource), old, given);
                let group = resource.row.names.group.as_str();
                match (group, resource.row.names.plural.as_str()) {
                    _ if resource.custom => {}
                    ("flowcontrol.apiserver.k8s.io", _) => {}
                    ("", "pods") => take_fixed(&mut new, &sent, OF_PODS),
                    _ => take_fixed(&mut new, &sent, FIXED),
                }
                new
            }
            Part::Finalizers => finalizers_only(old, &given),
            Part::Ephemeral | Part::Resources => spec_given(old, &given),
            Part::Approval => approval_only(old, &given),
        }
    }
}

/// The specification as it was sent: the kind keeps what the subresource may change, and refuses
/// what should not have been touched.
fn spec_given(old: &Value, given: &Value) -> Value {
    let mut new = old.clone();
    if let (Some(new), Some(spec)) = (new.as_object_mut(), given.get("spec")) {
        new.insert("spec".into(), spec.clone());
    }
    take_fixed(&mut new, given, OF_PODS);
    // Who owns what of the specification has changed with it.
    take_metadata(&mut new, given.clone(), &["managedFields"]);
    new
}

/// What never changes of the metadata.
const FIXED: &[&str] = &["uid", "deletionTimestamp"];
/// Their subresources leave a time of deletion that was sent aside.
const OF_PODS: &[&str] = &["uid"];

/// What never changes is judged, not left as it was.
fn take_fixed(new: &mut Value, given: &Value, fields: &[&str]) {
    for field in fields {
        if let Some(value) = given.get("metadata").and_then(|own| own.get(field)) {
            metadata(new).insert((*field).into(), value.clone());
        }
    }
}

fn approval_only(old: &Value, given: &Value) -> Value {
    let conditions = given.pointer("/status/conditions").cloned();
    let mut new = old.clone();
    let status = meta::object::map_at(&mut new, "status");
    match conditions {
        Some(conditions) => drop(status.insert("conditions".into(), conditions)),
        None => drop(status.remove("conditions")),
    }
    take_fixed(&mut new, given, FIXED);
    take_metadata(&mut new, given.clone(), ALL);
    new
}

/// Takes these parts of the metadata over, or away where they are not given.
fn take_metadata(new: &mut Value, mut given: Value, fields: &[&str]) {
    let given = metadata(&mut given);
    for field in fields {
        let value = given.remove(*field);
        let into = metadata(new);
        match value {
            Some(value) => drop(into.insert((*field).into(), value)),
            None => drop(into.remove(*field)),
        }
    }
}

/// A write to `/status` changes the status, and some of the metadata.
fn status_only(fields: &[&str], old: &Value, mut given: Value) -> Value {
    let mut new = old.clone();
    if let (Some(new), Some(given)) = (new.as_object_mut(), given.as_object_mut()) {
        match given.remove("status") {
            Some(status) => drop(new.insert("status".into(), status)),
            None => drop(new.remove("status")),
        }
    }
    take_metadata(&mut new, given, fields);
    new
}

/// The metadata that a write to `/status` changes: most kinds take all, as upstream's strategies
/// keep the specification only.
fn kept_fields(resource: &Resource) -> &'static [&'static str] {
    const ALL_BUT_LABELS: &[&str] = &[
        "annotations",
        "finalizers",
        "ownerReferences",
        "managedFields",
    ];
    const ALL_BUT_OWNERS: &[&str] = &["annotations", "labels", "finalizers", "managedFields"];
    if resource.custom {
        return &["managedFields"];
    }
    match resource.row.names.group_resource().as_str() {
        "apiservices.apiregistration.k8s.io"
        | "flowschemas.flowcontrol.apiserver.k8s.io"
        | "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io"
        | "resourceclaims.resource.k8s.io"
        | "servicecidrs.networking.k8s.io"
        | "validatingadmissionpolicies.admissionregistration.k8s.io"
        | "volumeattachments.storage.k8s.io" => &["managedFields"],
        "deployments.apps" => ALL_BUT_LABELS,
        "pods" => ALL_BUT_OWNERS,
        _ => ALL,
    }
}

/// A write to `/finalize` of a namespace.
fn finalizers_only(old: &Value, given: &Value) -> Value {
    let mut new = old.clone();
    take_fixed(&mut new, given, FIXED);
    take_metadata(&mut new, given.clone(), ALL);
    let left = given.pointer("/spec/finalizers").cloned();
    let spec = meta::object::map_at(&mut new, "spec");
    match left {
        Some(left) => drop(spec.insert("finalizers".into(), left)),
        None => drop(spec.remove("finalizers")),
    }
    new
}

/// All but `/status` leaves the status alone.
pub(super) fn keep_status(has_status: bool, old: &Value, new: &mut Value) {
    let Some(map) = new.as_object_mut().filter(|_| has_status) else {
        return;
    };
    match old.get("status") {
        Some(status) => drop(map.insert("status".into(), status.clone())),
        None => drop(map.remove("status")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_part_changes() {
        let old = json!({"metadata": {"name": "a", "labels": {"x": "1"}}, "status": {"phase": "x"},
            "spec": {"image": "1", "finalizers": ["f"]}});
        let given = json!({"metadata": {"labels": {"x": "1"}},
            "spec": {"finalizers": [], "image": "2"}});
        let mut wanted = old.clone();
        wanted["spec"]["finalizers"] = json!([]);
        assert_eq!(finalizers_only(&old, &given), wanted);
        let given = json!({"metadata": {"labels": {"x": "2"}, "annotations": {"y": "3"}},
            "status": {"phase": "z"}, "spec": {"image": "2"}});
        let mut wanted = old.clone();
        wanted["status"]["phase"] = "z".into();
        wanted["metadata"]["annotations"] = json!({"y": "3"});
        assert_eq!(status_only(&["annotations"], &old, given), wanted);
    }
}
