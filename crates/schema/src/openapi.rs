//! OpenAPI v3 documents, one per group and version.

use meta::{GroupVersion, Names};
use serde_json::{Value, json};

/// One kind that the document describes.
#[derive(Clone, Copy, Debug)]
pub struct KindDoc<'a> {
    /// What it is called.
    pub names: &'a Names,
    /// Such as `status` and `scale`.
    pub subresources: &'a [&'a str],
    /// As in discovery: `create`, `delete`, `deletecollection`, `get`, `list`, `patch`, `update`, `watch`.
    pub verbs: &'a [&'a str],
}

/// The document behind `/openapi/v3/apis/<group>/<version>`.
pub fn document(group_version: &GroupVersion, _kinds: &[KindDoc<'_>]) -> Value {
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": {},
        "components": {"schemas": {}},
        "x-group-version": group_version.to_string(),
    })
}
