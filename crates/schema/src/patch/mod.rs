//! The three kinds of patches that are not server-side apply.

mod json;
mod order;
mod strategic;

use serde_json::Value;

pub use json::json_patch;
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

/// RFC 7396: maps merge, `null` removes, anything else replaces.
pub fn merge_patch(tree: &Value, patch: &Value) -> Value {
    let mut patched = tree.clone();
    json_patch::merge(&mut patched, patch);
    patched
}
