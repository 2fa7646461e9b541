//! Which part of an object a write to a subresource may change; the rest stays as it was.

use serde_json::{Value, json};

use super::write::metadata;

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
    pub(super) fn of_given(self, group: &str, old: &Value, given: Value) -> Value {
        match self {
            Part::All | Part::Given => given,
            Part::Status => status_only(group, old, given),
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
    new
}

fn approval_only(old: &Value, given: &Value) -> Value {
    let conditions = given.pointer("/status/conditions").cloned();
    let mut new = old.clone();
    let status = meta::object::map_at(&mut new, "status");
    status.insert("conditions".into(), conditions.unwrap_or_else(|| json!([])));
    take_metadata(
        &mut new,
        given.clone(),
        &["annotations", "labels", "managedFields"],
    );
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
fn status_only(group: &str, old: &Value, mut given: Value) -> Value {
    let mut new = old.clone();
    if let (Some(new), Some(given)) = (new.as_object_mut(), given.as_object_mut()) {
        match given.remove("status") {
            Some(status) => drop(new.insert("status".into(), status)),
            None => drop(new.remove("status")),
        }
    }
    // Upstream's strategies for the core group keep the spec only; the others keep labels too,
    // and those of custom resources (whose groups end otherwise) all metadata.
    let fields: &[&str] = match group {
        "" => &["annotations", "labels", "finalizers", "managedFields"],
        group if group.contains('.') && !group.ends_with(".k8s.io") => &["managedFields"],
        _ => &["annotations", "managedFields"],
    };
    let given = metadata(&mut given);
    for field in fields {
        let value = given.remove(*field);
        let into = metadata(&mut new);
        match value {
            Some(value) => drop(into.insert((*field).into(), value)),
            None => drop(into.remove(*field)),
        }
    }
    new
}

/// A write to `/finalize` of a namespace.
fn finalizers_only(old: &Value, given: &Value) -> Value {
    let mut new = old.clone();
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

    fn check(subresource: &str, given: Value, expect: Value) {
        let old = json!({"metadata": {"name": "a"}, "status": {"phase": "x"}, "spec": {
            "image": "1", "finalizers": ["f"], "containers": [{"name": "c", "image": "1"}],
            "ephemeralContainers": [{"name": "d", "image": "1"}]}});
        let new = Part::of(subresource).of_given("", &old, given);
        let mut wanted = old;
        wanted["spec"]
            .as_object_mut()
            .unwrap()
            .extend(expect.as_object().unwrap().clone());
        assert_eq!(new, wanted, "{subresource}");
    }

    #[test]
    fn only_the_own_part_changes() {
        check(
            "finalize",
            json!({"spec": {"finalizers": [], "image": "2"}}),
            json!({"finalizers": []}),
        );
    }
}
