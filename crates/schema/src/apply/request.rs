//! What an apply or another write asks for, and why it may be refused.

use super::versions::Unconverted;

/// How an apply request is to be understood.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions<'a> {
    /// `fieldManager` of the request.
    pub manager: &'a str,
    /// Whether to take fields from other managers.
    pub force: bool,
    /// Version of the endpoint, such as `apps/v1`; the configuration must have the same.
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
    /// The configuration is not of its type or version: an unknown field, a wrong type, one key
    /// twice in a list, managed fields.
    #[error("{0}")]
    Invalid(String),
    /// Another version of an object is needed; only where versions have other fields.
    #[error(transparent)]
    Unconverted(#[from] Unconverted),
}

/// Upstream's summary: `Apply failed with 1 conflict: conflict with "a" using v1: .spec.replicas`.
fn describe(conflicts: &[Conflict]) -> String {
    if let [conflict] = conflicts {
        return format!(
            "Apply failed with 1 conflict: {}: {}",
            conflict.message(),
            conflict.field
        );
    }
    let mut lines = Vec::new();
    let mut last = "";
    for conflict in conflicts {
        if conflict.manager != last {
            lines.push(format!("conflicts with {}:", conflict.manager));
        }
        last = &conflict.manager;
        lines.push(format!("- {}", conflict.field));
    }
    format!(
        "Apply failed with {} conflicts: {}",
        conflicts.len(),
        lines.join("\n")
    )
}
