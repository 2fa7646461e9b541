//! The three kinds of patches that are not server-side apply.

mod order;
mod strategic;

use serde_json::Value;

pub use strategic::strategic_merge_patch;

/// Operations of one JSON patch.
pub const MAX_OPERATIONS: usize = 10_000;

/// Why a patch cannot be applied; the text is upstream's where it has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is not well formed: 400.
    #[error("{0}")]
    Malformed(String),
    /// The patch is sound but does not fit the object: 422.
    #[error("{0}")]
    Unprocessable(String),
    /// More than [`MAX_OPERATIONS`]: 413.
    #[error("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}")]
    TooLarge(usize),
}

/// RFC 6902. All operations are applied, or none.
pub fn json_patch(tree: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let patch =
        crate::parse_json(patch).map_err(|error| PatchError::Malformed(error.to_string()))?;
    let count = patch.tree.as_array().map_or(0, Vec::len);
    if count > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(count));
    }
    let patch: json_patch::Patch = serde_json::from_value(patch.tree)
        .map_err(|error| PatchError::Malformed(error.to_string()))?;
    let mut patched = tree.clone();
    json_patch::patch(&mut patched, &patch).map_err(|error| {
        let path = &error.path;
        PatchError::Unprocessable(match error.kind {
            json_patch::PatchErrorKind::TestFailed => {
                format!("testing value {path} failed: test failed")
            }
            _ => format!(
                "operation {} does not apply: doc is missing path: {path}: missing value",
                error.operation
            ),
        })
    })?;
    Ok(patched)
}

/// RFC 7396: maps merge, `null` removes, anything else replaces.
pub fn merge_patch(tree: &Value, patch: &Value) -> Value {
    let mut patched = tree.clone();
    json_patch::merge(&mut patched, patch);
    patched
}
