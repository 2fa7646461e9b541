//! Small patches that several controllers send.

use client::Patch;
use serde::Serialize;
use serde_json::json;

/// A merge patch of the whole status, guarded by nothing: statuses are computed afresh anyway.
pub(crate) fn status(status: &impl Serialize) -> Patch {
    Patch::Merge(json!({ "status": status }))
}
