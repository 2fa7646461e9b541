//! Custom resources: rows made at run time from CustomResourceDefinitions. They take the same
//! path as any other kind.

mod columns;
mod convert;
mod shape;
mod strategy;
mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use auth::Identity;
use client::Client;
use http::Method;
use kinds::{Row, ScalePaths, Verbs};
use meta::{Names, Object, Scope, Status};
use serde_json::{Value, json};

use crate::cache::{Cache, Entry};
use crate::registry::{Resource, Seen, custom_prefix};
use crate::server::Core;
use crate::verbs::write::text;
pub(crate) use convert::Conversion;
use strategy::CustomStrategy;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Serves what definitions ask for, as long as the server runs.
pub(crate) struct Definitions {
    core: Arc<Core>,
    client: Client,
    /// Revision at which each definition was last looked at, by name.
    seen: BTreeMap<String, (i64, String, String)>,
}

impl Definitions {
    pub(crate) fn new(core: Arc<Core>, client: Client) -> Definitions {
        Definitions {
            core,
            client,
            seen: BTreeMap::new(),
        }
    }

    /// Follows the definitions until told to stop.
    pub(crate) async fn run(mut self, stop: base::Stop) {
        let Some(cache) = definitions_cache(&self.core) else {
            return;
        };
        let mut growth = cache.growth();
        loop {
            growth.borrow_and_update();
            self.sync().await;
            tokio::select! {
                grown = growth.changed() => if grown.is_err() { return },
                () = stop.raised() => return,
                // Instances that hold up a deletion leave without a change of the definition.
                () = tokio::time::sleep(RETRY_AFTER), if self.is_waiting(&cache) => {}
            }
        }
    }

    /// Whether a definition waits for its instances.
    fn is_waiting(&self, cache: &Cache) -> bool {
        let map = cache.snapshot(0).map;
        map.range("")
            .any(|entry| crate::verbs::delete::is_terminating(&entry.shared_tree().0))
    }

    /// Brings the registry in line with all definitions.
    pub(crate) async fn sync(&mut self) {
        let Some(cache) = definitions_cache(&self.core) else {
            return;
        };
        let map = cache.snapshot(0).map;
        let entries: Vec<Arc<Entry>> = map.range("").cloned().collect();
        let names: BTreeSet<&str> = entries.iter().map(|entry| entry.name()).collect();
        let gone: Vec<String> = self
            .seen
            .keys()
            .filter(|name| !names.contains(name.as_str()))
            .cloned()
            .collect();
        for name in gone {
            if let Some((_, group, plural)) = self.seen.remove(&name) {
                self.core
                    .registry
                    .replace_custom(&group, &plural, Vec::new());
                self.core.feed.remove(&custom_prefix(&group, &plural));
            }
        }
        for entry in entries {
            let known = self
                .seen
                .get(entry.name())
                .map(|(revision, _, _)| *revision);
            let tree = entry.shared_tree();
            let leaving = tree.deletion_timestamp().is_some();
            if known == Some(entry.revision) && !leaving {
                continue;
            }
            if let Err(error) = self.establish(&entry, &tree).await {
                tracing::warn!(name = entry.name(), %error, "definition not served");
            }
        }
    }

    async fn establish(&mut self, entry: &Entry, tree: &Object) -> Result<(), Status> {
        let definition = &tree.0;
        let group = text(definition, "/spec/group").to_owned();
        let plural = text(definition, "/spec/names/plural").to_owned();
        let now = self.core.registry.now();
        let builtin = now
            .by_name(&format!("{plural}.{group}"))
            .is_some_and(|own| !own.custom);
        drop(now);
        if builtin {
            return Err(Status::internal("the name belongs to a built-in kind"));
        }
        let cache = self.cache(&group, &plural, definition).await?;
        let conversion = Conversion::of(definition, &self.core.webhooks);
        let resources = resources(definition, &cache, conversion.as_ref(), entry.revision);
        self.core
            .registry
            .replace_custom(&group, &plural, resources);
        let seen = (entry.revision, group.clone(), plural.clone());
        self.seen.insert(entry.name().to_owned(), seen);
        if tree.deletion_timestamp().is_some() {
            return self.empty(entry.name(), definition, &cache).await;
        }
        self.write_status(entry.name(), definition).await
    }

    /// The cache of the instances, filled; the one that exists if there is one.
    async fn cache(
        &self,
        group: &str,
        plural: &str,
        definition: &Value,
    ) -> Result<Arc<Cache>, Status> {
        let known = self
            .core
            .registry
            .now()
            .by_name(&format!("{plural}.{group}"))
            .cloned();
        if let Some(cache) = known.and_then(|known| known.cache.clone()) {
            return Ok(cache);
        }
        let strategy = Arc::new(CustomStrategy::new(&json!({}), definition));
        let names = meta::Names::namespaced(group, "", "", plural);
        let cache = Cache::new(custom_prefix(group, plural), strategy, None)
            .sealed(self.core.config.encryption.as_ref(), &names);
        let cache = Arc::new(cache);
        let added = self.core.feed.add(Arc::clone(&cache)).await;
        added.map_err(|error| crate::keep::failed(&error))?;
        Ok(cache)
    }

    async fn write_status(&self, name: &str, definition: &Value) -> Result<(), Status> {
        let mut wanted = definition.clone();
        let finalizers = meta::object::map_at(&mut wanted, "metadata")
            .entry("finalizers")
            .or_insert_with(|| json!([]));
        if let Some(list) = finalizers
            .as_array_mut()
            .filter(|list| !has(list, FINALIZER))
        {
            list.push(FINALIZER.into());
            let path = format!("{DEFINITIONS}/{name}");
            // The change brings us here again.
            return self
                .client
                .send_value(Method::PUT, &path, &wanted)
                .await
                .map(drop);
        }
        let status = meta::object::map_at(&mut wanted, "status");
        status.insert("acceptedNames".into(), definition["spec"]["names"].clone());
        let stored = status.entry("storedVersions").or_insert_with(|| json!([]));
        if let (Some(stored), Some(version)) = (stored.as_array_mut(), storage_version(definition))
            && !has(stored, &version)
        {
            stored.push(version.into());
        }
        set_condition(status, "NamesAccepted", "NoConflicts", "no conflicts found");
        let message = "the initial names have been accepted";
        set_condition(status, "Established", "InitialNamesAccepted", message);
        if wanted == *definition {
            return Ok(());
        }
        let path = format!("{DEFINITIONS}/{name}/status");
        self.client
            .send_value(Method::PUT, &path, &wanted)
            .await
            .map(drop)
    }

    /// Deletes all instances; the last one gone, the definition may go.
    async fn empty(&self, name: &str, definition: &Value, cache: &Cache) -> Result<(), Status> {
        self.core.feed.fresh().await;
        let map = cache.snapshot(0).map;
        let group = text(definition, "/spec/group");
        let plural = text(definition, "/spec/names/plural");
        let resource = self
            .core
            .registry
            .now()
            .by_name(&format!("{plural}.{group}"))
            .cloned();
        for instance in map.range("") {
            let Some(resource) = &resource else {
                break;
            };
            let names = &resource.row.names;
            let namespace = Some(instance.namespace()).filter(|namespace| !namespace.is_empty());
            let path = names.path(namespace, Some(instance.name()));
            match self.client.delete_value(&path, None).await {
                Err(status) if !status.is_not_found() => return Err(status),
                _ => {}
            }
        }
        self.core.feed.fresh().await;
        if cache.len() > 0 {
            return Ok(());
        }
        let mut done = definition.clone();
        if let Some(list) = done
            .pointer_mut("/metadata/finalizers")
            .and_then(Value::as_array_mut)
        {
            list.retain(|one| one != FINALIZER);
        }
        let path = format!("{DEFINITIONS}/{name}");
        self.client
            .send_value(Method::PUT, &path, &done)
            .await
            .map(drop)
    }
}

/// How long to wait before looking again at instances that will not go.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(5);

/// A follower of definitions, as the loopback user.
pub(crate) fn definitions(core: &Arc<Core>, server: &crate::ApiServer) -> Definitions {
    Definitions::new(Arc::clone(core), server.client(Identity::loopback()))
}

fn definitions_cache(core: &Core) -> Option<Arc<Cache>> {
    let resources = core.registry.now();
    let resource = resources.by_name("customresourcedefinitions.apiextensions.k8s.io")?;
    resource.cache.clone()
}

fn has(list: &[Value], word: &str) -> bool {
    list.iter().any(|one| one == word)
}

fn versions(definition: &Value) -> impl Iterator<Item = &Value> {
    let list = definition
        .pointer("/spec/versions")
        .and_then(Value::as_array);
    list.into_iter().flatten()
}

fn storage_version(definition: &Value) -> Option<String> {
    let mut stored = versions(definition).filter(|version| version["storage"] == true);
    stored
        .next()
        .map(|version| text(version, "/name").to_owned())
}

fn set_condition(
    status: &mut serde_json::Map<String, Value>,
    kind: &str,
    reason: &str,
    message: &str,
) {
    let list = status.entry("conditions").or_insert_with(|| json!([]));
    let Some(list) = list.as_array_mut() else {
        return;
    };
    if list
        .iter()
        .any(|own| own["type"] == kind && own["status"] == "True")
    {
        return;
    }
    list.retain(|own| own["type"] != kind);
    list.push(
        json!({"type": kind, "status": "True", "reason": reason, "message": message,
        "lastTransitionTime": meta::time::now()}),
    );
}

/// The resources of all served versions; the stored one keeps the objects of the others.
fn resources(
    definition: &Value,
    cache: &Arc<Cache>,
    conversion: Option<&Arc<Conversion>>,
    revision: i64,
) -> Vec<Arc<Resource>> {
    let resource = |version: &Value| Resource {
        conversion: conversion.cloned(),
        ..resource(definition, version, cache, revision)
    };
    let stored = versions(definition).find(|version| version["storage"] == true);
    let Some(stored) = stored else {
        return Vec::new();
    };
    let stored_version = text(stored, "/name").to_owned();
    let keeper = Arc::new(resource(stored));
    let mut all = Vec::new();
    for version in versions(definition).filter(|version| version["served"] == true) {
        if text(version, "/name") == stored_version {
            all.push(Arc::clone(&keeper));
            continue;
        }
        let mut own = resource(version);
        let (shown, kept) = (own.row.names.api_version(), keeper.row.names.api_version());
        // Without a webhook, versions differ in their name only.
        let rename = |version: String| -> crate::registry::Convert {
            Arc::new(move |tree: &mut Value| tree["apiVersion"] = version.clone().into())
        };
        own.seen = Some(Seen {
            stored: Arc::clone(&keeper),
            to_stored: rename(kept),
            from_stored: rename(shown),
            fields: &[],
        });
        all.push(Arc::new(own));
    }
    all.sort_by_key(|resource| version_order(&resource.row.names.version));
    all
}

fn resource(definition: &Value, version: &Value, cache: &Arc<Cache>, revision: i64) -> Resource {
    let names = names(definition, version);
    let schema = version
        .pointer("/schema/openAPIV3Schema")
        .cloned()
        .unwrap_or_else(|| json!({}));
    let strategy = CustomStrategy::new(&schema, version);
    let sub = |name: &str| version.pointer(&format!("/subresources/{name}"));
    let word = |value: &Value, field: &str| pointer(text(value, &format!("/{field}")));
    let scale = sub("scale").map(|scale| ScalePaths {
        spec_replicas: word(scale, "specReplicasPath"),
        status_replicas: word(scale, "statusReplicasPath"),
        selector: Some(word(scale, "labelSelectorPath")).filter(|path| path != "/"),
    });
    Resource {
        ty: Some(shape::root(&names, &schema)),
        cache: Some(Arc::clone(cache)),
        row: Row {
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
    }
}

/// `.spec.replicas` as a JSON pointer.
fn pointer(path: &str) -> String {
    let path = path.trim_start_matches('.');
    format!("/{}", path.replace('.', "/"))
}

fn names(definition: &Value, version: &Value) -> Names {
    let own = |field: &str| text(definition, &format!("/spec/names/{field}")).to_owned();
    let list = |field: &str| -> Vec<String> {
        let list = definition
            .pointer(&format!("/spec/names/{field}"))
            .and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .filter_map(|one| one.as_str().map(str::to_owned))
            .collect()
    };
    let kind = own("kind");
    let or = |given: String, otherwise: String| if given.is_empty() { otherwise } else { given };
    Names {
        group: text(definition, "/spec/group").to_owned(),
        version: text(version, "/name").to_owned(),
        list_kind: or(own("listKind"), format!("{kind}List")),
        plural: own("plural"),
        singular: or(own("singular"), kind.to_lowercase()),
        short: list("shortNames"),
        categories: list("categories"),
        scope: match text(definition, "/spec/scope") {
            "Cluster" => Scope::Cluster,
            _ => Scope::Namespaced,
        },
        kind,
    }
}

/// Stable versions first, then betas, then alphas; newer ones first.
fn version_order(version: &str) -> (u8, i64, i64, String) {
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
