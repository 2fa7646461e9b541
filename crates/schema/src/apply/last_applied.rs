//! The annotation of client-side apply: kubectl's server-side apply takes over from it.

use serde_json::Value;

use super::compare::{self, Encoded};
use super::request::Conflict;
use super::typed::{self, Atom};
use crate::types::Type;

/// Where client-side apply keeps the configuration that it applied last.
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Fields that client-side apply set and that still have its values.
pub(super) fn allowed(ty: &Type, live: &Value, api_version: &str) -> Option<Vec<String>> {
    let text = live
        .get("metadata")?
        .get("annotations")?
        .get(ANNOTATION)?
        .as_str()?;
    let last: Value = serde_json::from_str(text).ok()?;
    if last.get("apiVersion")?.as_str()? != api_version {
        return None;
    }
    let (_, set) = typed::field_set(Atom::Struct(ty), &last);
    let change = compare::compare(
        ty,
        &last,
        live,
        Encoded {
            old: false,
            new: true,
        },
    );
    let set = set
        .difference(&change.modified)
        .difference(&change.added)
        .difference(&change.removed);
    Some(set.paths())
}

pub(super) fn rest_of(mut conflicts: Vec<Conflict>, allowed: &[String]) -> Vec<Conflict> {
    let all = conflicts
        .iter()
        .all(|conflict| allowed.contains(&conflict.field));
    match all {
        true => Vec::new(),
        false => {
            conflicts.retain(|conflict| !allowed.contains(&conflict.field));
            conflicts
        }
    }
}

/// Keeps client-side apply's annotation, where there is one, in step with what was applied.
pub(super) fn renew(merged: &mut Value, applied: &Value) {
    let annotations = merged
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut);
    let Some(annotation) = annotations.and_then(|annotations| annotations.get_mut(ANNOTATION))
    else {
        return;
    };
    if annotation.as_str().is_none_or(str::is_empty) {
        return;
    }
    let mut applied = applied.clone();
    if let Some(Value::Object(annotations)) = applied.pointer_mut("/metadata/annotations") {
        annotations.remove(ANNOTATION);
    }
    *annotation = format!("{applied}\n").into();
}
