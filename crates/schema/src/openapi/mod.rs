//! OpenAPI documents: v3, one per group and version, and v2 for all of them.

mod connect;
mod extensions;
mod gnostic;
mod gnostic_v2;
mod gnostic_v3;
mod merge;
mod paths;
mod roots;
mod schemas;
pub mod v2;
mod watches;

use std::sync::Arc;

use meta::{GroupVersion, Names};
use serde_json::{Map, Value, json};

use crate::types::{Type, TypeRef};
pub use gnostic_v3::document as document_protobuf;
pub use merge::below;
pub use roots::{ROOTS, root};
use schemas::Schemas;

/// What documents say of their own version.
pub const VERSION: &str = "1.36";

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

/// The document behind `/openapi/v3/apis/<group>/<version>`: the operations on each built-in kind
/// and all types that they lead to. Kinds without a built-in type are left out.
pub fn document(group_version: &GroupVersion, kinds: &[KindDoc<'_>]) -> Value {
    document_with(group_version, kinds, &|names| {
        let ty = crate::builtin(&names.group, &names.version, &names.kind)?;
        crate::table::reference(&ty.name)
    })
}

/// The same with types that the caller knows: those of custom resources.
pub fn document_with(
    group_version: &GroupVersion,
    kinds: &[KindDoc<'_>],
    type_of: &dyn Fn(&Names) -> Option<TypeRef>,
) -> Value {
    let mut schemas = Schemas::default();
    let mut paths = Map::new();
    for kind in kinds {
        let names = kind.names;
        let Some(ty) = type_of(names) else {
            continue;
        };
        schemas.add(&ty);
        let list = match &ty {
            TypeRef::Owned(ty) => {
                let list = Type::list_of(ty, &names.list_kind);
                Some(TypeRef::Owned(Arc::new(list)))
            }
            TypeRef::Builtin(_) => {
                let list = crate::builtin(&names.group, &names.version, &names.list_kind);
                list.and_then(|list| crate::table::reference(&list.name))
            }
        };
        if kind.verbs.contains(&"list") {
            list.iter().for_each(|list| schemas.add(list));
        }
        paths::add(&mut paths, kind, ty.name(), &mut schemas);
        if let TypeRef::Builtin(_) = ty {
            watches::add(&mut paths, kind, &mut schemas);
        }
    }
    if group_version.group.is_empty() {
        paths::add_bindings(&mut paths, &mut schemas);
    }
    paths::add_resources(&mut paths, group_version, &mut schemas);
    for name in ["DeleteOptions", "WatchEvent"] {
        let core = GroupVersion {
            group: String::new(),
            version: "v1".into(),
        };
        let kinds = [&core, group_version];
        schemas.kinds(&format!("{}.{name}", paths::META), name, kinds);
    }
    whole(paths, schemas)
}

/// A document around paths and the types that they name.
fn whole(paths: Map<String, Value>, schemas: Schemas) -> Value {
    let schemas = schemas.finish();
    let mut components = json!({
        "securitySchemes": {
            "BearerToken": {
                "description": "Bearer Token authentication",
                "type": "apiKey",
                "name": "authorization",
                "in": "header",
            },
        },
    });
    if !schemas.is_empty() {
        components["schemas"] = schemas.into();
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths,
        "components": components,
    })
}

#[cfg(test)]
#[path = "test.rs"]
mod tests;
