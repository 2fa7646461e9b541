//! Strategic merge patch.

use serde_json::Value;

use super::PatchError;
use crate::types::Type;

/// Merges a patch by the type's patch strategies and the directives in it.
pub fn strategic_merge_patch(_ty: &Type, tree: &Value, patch: &Value) -> Result<Value, PatchError> {
    Ok(super::merge_patch(tree, patch))
}
