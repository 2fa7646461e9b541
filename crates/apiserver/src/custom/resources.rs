//! The resources of a definition: one per served version.

use std::sync::Arc;

use ::custom::CustomStrategy;
use ::custom::publish::Published;
use kinds::{Row, ScalePaths, Strategy, Verbs};
use meta::{Names, Scope};
use schema::{Kind, Type, TypeRef};
use serde_json::{Value, json};

use super::Conversion;
use crate::cache::Cache;
use crate::registry::{Convert, Resource, Seen};
use crate::verbs::write::text;

fn versions(definition: &Value) -> impl Iterator<Item = &Value> {
    let list = definition
        .pointer("/spec/versions")
        .and_then(Value::as_array);
    list.into_iter().flatten()
}

fn stored(definition: &Value) -> Option<&Value> {
    versions(definition).find(|version| version["storage"] == true)
}

/// What resources are made from; they change with it.
pub(super) fn basis(definition: &Value) -> Value {
    json!({
        "spec": definition["spec"],
        "names": definition["status"]["acceptedNames"],
        "terminating": is_terminating(definition),
    })
}

fn is_terminating(definition: &Value) -> bool {
    ::custom::definition::is_true(definition, "Terminating")
}

/// Whether stored objects look the same to both.
pub(super) fn same_shape(basis: &Value, before: &Value) -> bool {
    let conversion = |basis: &Value| basis.pointer("/spec/conversion/strategy").cloned();
    !before.is_null() && stored(basis) == stored(before) && conversion(basis) == conversion(before)
}

/// The rules that stored objects are read by.
pub(super) fn stored_strategy(definition: &Value) -> Arc<dyn Strategy> {
    let version = stored(definition).unwrap_or(&Value::Null);
    let api_version = names(definition, version).api_version();
    let by_webhook = text(definition, "/spec/conversion/strategy") == "Webhook";
    Arc::new(CustomStrategy::new(version).keeping(api_version, by_webhook))
}

/// The names in a version that is served, or in the stored one.
pub(super) fn any_names(definition: &Value) -> Names {
    let mut served = versions(definition).filter(|version| version["served"] == true);
    let version = served.next().or_else(|| stored(definition));
    names(definition, version.unwrap_or(&Value::Null))
}

/// The resources of all served versions; the stored one keeps the objects of the others.
pub(super) fn all(
    definition: &Value,
    cache: &Arc<Cache>,
    conversion: Option<&Arc<Conversion>>,
    revision: i64,
) -> Vec<Arc<Resource>> {
    let resource = |version: &Value| Resource {
        conversion: conversion.cloned(),
        ..resource(definition, version, cache, revision)
    };
    let Some(stored) = stored(definition) else {
        return Vec::new();
    };
    let keeper = Arc::new(resource(stored));
    let mut all = Vec::new();
    for version in versions(definition).filter(|version| version["served"] == true) {
        if version["name"] == stored["name"] {
            all.push(Arc::clone(&keeper));
            continue;
        }
        let mut own = resource(version);
        own.seen = Some(Seen {
            to_stored: rename(&keeper),
            from_stored: convert(&own),
            fields: &[],
            stored: Arc::clone(&keeper),
        });
        all.push(Arc::new(own));
    }
    all.sort_by_key(|resource| version_order(&resource.row.names.version));
    all
}

/// What is sent was read by its own schema already; what is applied must stay as it was written.
fn rename(into: &Resource) -> Convert {
    let version = into.row.names.api_version();
    Arc::new(move |tree: &mut Value| tree["apiVersion"] = version.clone().into())
}

/// Without a webhook, versions differ in their name, and in what their schemas name.
fn convert(into: &Resource) -> Convert {
    let version = into.row.names.api_version();
    let strategy = Arc::clone(&into.row.strategy);
    Arc::new(move |tree: &mut Value| {
        tree["apiVersion"] = version.clone().into();
        strategy.reshape(tree);
    })
}

fn resource(definition: &Value, version: &Value, cache: &Arc<Cache>, revision: i64) -> Resource {
    let names = names(definition, version);
    let null = Value::Null;
    let schema = version.pointer("/schema/openAPIV3Schema").unwrap_or(&null);
    let strategy = CustomStrategy::new(version);
    let sub = |name: &str| version.pointer(&format!("/subresources/{name}"));
    let word = |value: &Value, field: &str| pointer(text(value, &format!("/{field}")));
    let scale = sub("scale").map(|scale| ScalePaths {
        spec_replicas: word(scale, "specReplicasPath"),
        status_replicas: word(scale, "statusReplicasPath"),
        selector: Some(word(scale, "labelSelectorPath")).filter(|path| path != "/"),
    });
    let kind = Kind {
        group: names.group.clone().into(),
        version: names.version.clone().into(),
        kind: names.kind.clone().into(),
    };
    Resource {
        ty: Some(TypeRef::Owned(Arc::new(Type::from_openapi(kind, schema)))),
        cache: Some(Arc::clone(cache)),
        shape: Some(Arc::clone(strategy.schema())),
        row: Row {
            deprecation: None,
            verbs: Verbs::All,
            has_status: sub("status").is_some(),
            scale,
            has_generation: true,
            create_on_update: false,
            needs_version: true,
            columns: strategy.columns().into(),
            strategy: Arc::new(strategy),
            names,
        },
        custom: true,
        conversion: None,
        seen: None,
        stamp: revision,
        published: Some(Published::new(version)),
        deprecation: deprecation(definition, version),
        terminating: is_terminating(definition),
    }
}

/// The definition's own words, or upstream's: which newer version to use.
fn deprecation(definition: &Value, version: &Value) -> Option<String> {
    if version["deprecated"] != true {
        return None;
    }
    if let Some(own) = version["deprecationWarning"].as_str() {
        return Some(own.to_owned());
    }
    let (group, kind) = (
        text(definition, "/spec/group"),
        text(definition, "/spec/names/kind"),
    );
    let name = text(version, "/name");
    let better = versions(definition)
        .filter(|other| other["served"] == true && other["deprecated"] != true)
        .map(|other| version_order(text(other, "/name")))
        .filter(|other| *other < version_order(name))
        .min();
    let instead = better.map(|(.., better)| format!("; use {group}/{better} {kind}"));
    let instead = instead.unwrap_or_default();
    Some(format!("{group}/{name} {kind} is deprecated{instead}"))
}

/// `.spec.replicas` as a JSON pointer.
fn pointer(path: &str) -> String {
    let path = path.trim_start_matches('.');
    format!("/{}", path.replace('.', "/"))
}

/// Those that the definition has, whatever it asks for.
fn names(definition: &Value, version: &Value) -> Names {
    let accepted = &definition["status"]["acceptedNames"];
    let own = |field: &str| text(accepted, &format!("/{field}")).to_owned();
    let list = |field: &str| -> Vec<String> {
        let list = accepted.get(field).and_then(Value::as_array);
        let list = list.into_iter().flatten().filter_map(Value::as_str);
        list.map(str::to_owned).collect()
    };
    Names {
        group: text(definition, "/spec/group").to_owned(),
        version: text(version, "/name").to_owned(),
        list_kind: own("listKind"),
        plural: text(definition, "/spec/names/plural").to_owned(),
        singular: own("singular"),
        short: list("shortNames"),
        categories: list("categories"),
        scope: match text(definition, "/spec/scope") {
            "Cluster" => Scope::Cluster,
            _ => Scope::Namespaced,
        },
        kind: own("kind"),
    }
}

/// Stable versions first, then betas, then alphas; newer ones first.
pub(crate) fn version_order(version: &str) -> (u8, i64, i64, String) {
    let rest = version.strip_prefix('v').unwrap_or("");
    let number = |text: &str| text.parse::<i64>().ok();
    let split = |word: &str| {
        let (major, minor) = rest.split_once(word)?;
        Some((number(major)?, number(minor)?))
    };
    let (class, major, minor) = match (number(rest), split("beta"), split("alpha")) {
        (Some(major), _, _) => (0, major, 0),
        (_, Some((major, minor)), _) => (1, major, minor),
        (_, _, Some((major, minor))) => (2, major, minor),
        _ => (3, 0, 0),
    };
    (class, -major, -minor, version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deprecated_versions_name_a_better_one() {
        let version = |name: &str, deprecated: bool| json!({"name": name, "served": true, "deprecated": deprecated});
        let definition = json!({"spec": {"group": "a.b", "names": {"kind": "C"}, "versions": [
            version("v1", true), version("v2beta1", false), version("v2", false)]}});
        let own = |at: usize| deprecation(&definition, &definition["spec"]["versions"][at]);
        let text = "a.b/v1 C is deprecated; use a.b/v2 C";
        assert_eq!(own(0).as_deref(), Some(text));
        assert_eq!(own(1), None);
    }

    #[test]
    fn stable_versions_come_first() {
        let mut versions = vec![
            "v1alpha1", "foo", "v1", "v2beta1", "v2", "v1beta2", "v1beta1",
        ];
        versions.sort_by_key(|version| version_order(version));
        assert_eq!(
            versions,
            [
                "v2", "v1", "v2beta1", "v1beta2", "v1beta1", "v1alpha1", "foo"
            ]
        );
    }
}
