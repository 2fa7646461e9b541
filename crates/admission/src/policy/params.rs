//! The parameters that a binding chooses for its policy.

use std::sync::Arc;

use meta::Object;

use super::compile::{Binding, Policy};
use super::matching::selects;
use super::subject::Subject;

/// One evaluation's parameter; `None` where a policy has none.
pub(super) type Param = Option<Arc<Object>>;

/// All parameters, each for an evaluation of its own. The error is upstream's.
pub(super) fn collect(
    policy: &Policy,
    binding: &Binding,
    subject: &Subject<'_>,
) -> Result<Vec<Param>, String> {
    let (Some(kind), Some(reference)) = (&policy.param_kind, &binding.param) else {
        return Ok(vec![None]);
    };
    let (group, version) = kind
        .api_version
        .split_once('/')
        .unwrap_or(("", &kind.api_version));
    let unknown = || {
        format!(
            "paramKind kind `&ParamKind{{APIVersion:{},Kind:{},}}` not known",
            kind.api_version, kind.kind
        )
    };
    let names = subject
        .lookup
        .kind(group, version, &kind.kind)
        .ok_or_else(unknown)?;
    let namespace = match (names.is_namespaced(), reference.namespace.as_str()) {
        (false, "") => "",
        (false, _) => {
            return Err(
                "paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into(),
            );
        }
        (true, "") if subject.namespace.is_empty() => {
            return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into());
        }
        (true, "") => subject.namespace,
        (true, own) => own,
    };
    let resource = names.group_resource();
    let found: Vec<Param> = match (reference.name.as_str(), &reference.selector) {
        ("", None) => return Err("one of name or selector must be provided".into()),
        ("", Some(selector)) => {
            let selector = selector.as_ref().map_err(String::clone)?;
            let all = subject.lookup.list(&resource, namespace).into_iter();
            all.filter(|object| selects(selector, object))
                .map(Some)
                .collect()
        }
        (_, Some(_)) => {
            return Err("paramRef.name and paramRef.selector are mutually exclusive".into());
        }
        (name, None) => subject
            .lookup
            .get(&resource, namespace, name)
            .into_iter()
            .map(Some)
            .collect(),
    };
    if found.is_empty() && reference.deny_missing {
        return Err(
            "no params found for policy binding with `Deny` parameterNotFoundAction".into(),
        );
    }
    Ok(found)
}
