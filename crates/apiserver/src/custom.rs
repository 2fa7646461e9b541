//! Custom resources: rows made at run time from CustomResourceDefinitions. They take the same
//! path as any other kind.

mod convert;
pub(crate) mod resources;
mod status;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ::custom::definition::{FINALIZER, is_true, set_condition};
use auth::Identity;
use client::Client;
use http::Method;
use meta::{Object, Status};
use serde_json::Value;

use crate::cache::{Cache, Entry, Follower};
use crate::registry::custom_prefix;
use crate::server::Core;
use crate::verbs::write::text;
pub(crate) use convert::Conversion;
pub(crate) use views::Views;

/// Definitions, as the registry knows them.
pub(crate) const RESOURCE: &str = "customresourcedefinitions.apiextensions.k8s.io";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// How long to wait before trying again what failed; everything else is told of by events.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Serves what definitions ask for, as long as the server runs.
pub(crate) struct Definitions {
    core: Arc<Core>,
    client: Client,
    known: BTreeMap<String, Known>,
    /// Something failed and is to be tried again.
    failed: bool,
}

/// What was last made of a definition.
struct Known {
    revision: i64,
    uid: String,
    group: String,
    plural: String,
    /// What the resources were made from.
    served: Value,
    /// The instances; `None` while nothing is served.
    cache: Option<Arc<Cache>>,
    /// Whether the instances are to go.
    leaving: bool,
}

impl Definitions {
    pub(crate) fn new(core: Arc<Core>, client: Client) -> Definitions {
        Definitions {
            core,
            client,
            known: BTreeMap::new(),
            failed: false,
        }
    }

    /// Follows the definitions until told to stop.
    pub(crate) async fn run(mut self, stop: base::Stop) {
        let Some(cache) = definitions_cache(&self.core) else {
            return;
        };
        let mut growth = cache.growth();
        loop {
            growth.catch_up();
            let instances = self.leaving();
            self.sync().await;
            if self.leaving().len() > instances.len() {
                // Those that began to leave just now were not watched while that was done.
                continue;
            }
            let again = self.failed;
            let instances = instances.into_iter().map(|mut growth| {
                Box::pin(async move {
                    // An instance that holds up a deletion leaves without a change of the
                    // definition.
                    growth.changed().await.is_ok()
                })
            });
            let instances: Vec<_> = instances.collect();
            let changed = async {
                match instances.is_empty() {
                    true => std::future::pending().await,
                    false => drop(futures::future::select_all(instances).await),
                }
            };
            tokio::select! {
                grown = growth.changed() => if grown.is_err() { return },
                () = stop.raised() => return,
                () = changed => {}
                () = tokio::time::sleep(RETRY_AFTER), if again => {}
            }
        }
    }

    /// Changes of the instances of all definitions that are about to go.
    fn leaving(&self) -> Vec<Follower> {
        let leaving = self.known.values().filter(|known| known.leaving);
        leaving
            .filter_map(|known| Some(known.cache.as_ref()?.growth()))
            .collect()
    }

    /// Brings the registry in line with all definitions.
    pub(crate) async fn sync(&mut self) {
        let Some(cache) = definitions_cache(&self.core) else {
            return;
        };
        self.failed = false;
        let map = cache.snapshot(0).map;
        let entries: Vec<Arc<Entry>> = map.range("").cloned().collect();
        let names: BTreeSet<&str> = entries.iter().map(|entry| entry.name()).collect();
        let gone = self
            .known
            .keys()
            .filter(|name| !names.contains(name.as_str()));
        let gone: Vec<String> = gone.cloned().collect();
        gone.iter().for_each(|name| self.forget(name));
        for entry in entries {
            let tree = entry.shared_tree();
            let is_known = self
                .known
                .get(entry.name())
                .is_some_and(|known| known.revision == entry.revision && !known.leaving);
            // Names may have become free.
            if is_known && !status::has_conflict(&tree.0) {
                continue;
            }
            if let Err(error) = self.take(&cache, &entry, &tree).await {
                tracing::warn!(name = entry.name(), %error, "definition not served");
                self.failed = true;
            }
        }
    }

    /// Serves a definition's resources no longer.
    fn forget(&mut self, name: &str) {
        if let Some(known) = self.known.remove(name)
            && let Some(cache) = known.cache
        {
            let registry = &self.core.registry;
            registry.replace_custom(&known.group, &known.plural, Vec::new());
            self.core.feed.remove(&cache.prefix);
            cache.close();
        }
    }

    async fn take(
        &mut self,
        cache: &Cache,
        entry: &Entry,
        tree: &Arc<Object>,
    ) -> Result<(), Status> {
        let group = text(&tree.0, "/spec/group").to_owned();
        let plural = text(&tree.0, "/spec/names/plural").to_owned();
        if self
            .known
            .get(entry.name())
            .is_some_and(|known| known.uid != *entry.uid)
        {
            self.forget(entry.name());
        }
        let is_builtin = {
            let now = self.core.registry.now();
            let own = now.by_name(&format!("{plural}.{group}"));
            own.is_some_and(|own| !own.custom)
        };
        let next = {
            let siblings = siblings(cache, &group, entry.name());
            status::next(&tree.0, &siblings)
        };
        let is_served = status::is_served(&next) && !is_builtin;
        self.serve(entry, &next, &group, &plural, is_served).await?;
        if tree.deletion_timestamp().is_some() {
            return self.finish(entry.name(), &tree.0, is_builtin).await;
        }
        if next == tree.0 {
            return Ok(());
        }
        let path = format!("{DEFINITIONS}/{}/status", entry.name());
        let written = self.client.send_value(Method::PUT, &path, &next).await;
        // The next definition is judged by the names that this one now has.
        self.core.feed.fresh().await;
        forgive(written)
    }

    /// Puts the resources of a definition in the place of those that were served.
    async fn serve(
        &mut self,
        entry: &Entry,
        definition: &Value,
        group: &str,
        plural: &str,
        is_served: bool,
    ) -> Result<(), Status> {
        let known = self.known.remove(entry.name());
        let (served, old) = match known {
            Some(known) => (known.served, known.cache),
            None => (Value::Null, None),
        };
        let wanted = match is_served {
            true => resources::basis(definition),
            false => Value::Null,
        };
        let mut now = Known {
            revision: entry.revision,
            uid: entry.uid.to_string(),
            group: group.to_owned(),
            plural: plural.to_owned(),
            leaving: false,
            cache: old,
            served: wanted,
        };
        if now.served != served {
            let replaced = self.replace(&mut now, definition, &served, entry.revision);
            if let Err(status) = replaced.await {
                // Nothing is known of it, so that it is tried again.
                now.served = served;
                now.revision = 0;
                self.known.insert(entry.name().to_owned(), now);
                return Err(status);
            }
        }
        self.known.insert(entry.name().to_owned(), now);
        Ok(())
    }

    async fn replace(
        &self,
        now: &mut Known,
        definition: &Value,
        before: &Value,
        revision: i64,
    ) -> Result<(), Status> {
        let core = &self.core;
        if now.served.is_null() {
            core.registry
                .replace_custom(&now.group, &now.plural, Vec::new());
            if let Some(cache) = now.cache.take() {
                core.feed.remove(&cache.prefix);
                cache.close();
            }
            return Ok(());
        }
        let prefix = custom_prefix(&now.group, &now.plural);
        let cache = match &now.cache {
            // Objects look as they did: watches go on.
            Some(cache) if resources::same_shape(&now.served, before) => Arc::clone(cache),
            old => {
                let strategy = resources::stored_strategy(definition);
                let names = resources::any_names(definition);
                let cache = Cache::new(prefix, strategy, None)
                    .sealed(core.config.encryption.as_ref(), &names);
                let cache = Arc::new(cache);
                let added = core.feed.replace(old.as_deref(), Arc::clone(&cache)).await;
                added.map_err(|error| crate::keep::failed(&error))?;
                cache
            }
        };
        let conversion = Conversion::of(definition, &core.webhooks);
        let all = resources::all(definition, &cache, conversion.as_ref(), revision);
        core.registry.replace_custom(&now.group, &now.plural, all);
        now.cache = Some(cache);
        Ok(())
    }

    /// Deletes all instances; the last one gone, the definition may go.
    async fn finish(
        &mut self,
        name: &str,
        definition: &Value,
        is_builtin: bool,
    ) -> Result<(), Status> {
        let finalizers = definition.pointer("/metadata/finalizers");
        let finalizers = finalizers.and_then(Value::as_array);
        if !finalizers.is_some_and(|list| list.iter().any(|one| one == FINALIZER)) {
            return Ok(());
        }
        let mut next = definition.clone();
        let text = "CustomResource deletion is in progress";
        set_condition(
            &mut next,
            "Terminating",
            "True",
            "InstanceDeletionInProgress",
            text,
        );
        if next != *definition {
            let path = format!("{DEFINITIONS}/{name}/status");
            // The change brings us here again.
            return forgive(self.client.send_value(Method::PUT, &path, &next).await);
        }
        let (reason, message) = if is_builtin {
            (
                "OverlappingBuiltInResource",
                "instances overlap with built-in resources in storage",
            )
        } else if !is_true(definition, "Established") {
            ("NeverEstablished", "resource was never established")
        } else if self.empty(name, definition).await? {
            ("InstanceDeletionCompleted", "removed all instances")
        } else {
            return Ok(());
        };
        set_condition(&mut next, "Terminating", "False", reason, message);
        let list = next.pointer_mut("/metadata/finalizers");
        if let Some(list) = list.and_then(Value::as_array_mut) {
            list.retain(|one| one != FINALIZER);
        }
        let path = format!("{DEFINITIONS}/{name}");
        forgive(self.client.send_value(Method::PUT, &path, &next).await)
    }

    /// Deletes what there is; whether nothing is left.
    async fn empty(&mut self, name: &str, definition: &Value) -> Result<bool, Status> {
        let Some(known) = self.known.get_mut(name) else {
            return Ok(true);
        };
        known.leaving = true;
        let Some(cache) = known.cache.clone() else {
            return Ok(true);
        };
        let names = resources::any_names(definition);
        self.core.feed.fresh().await;
        for instance in cache.snapshot(0).map.range("") {
            if crate::verbs::delete::is_terminating(&instance.decode().0) {
                continue;
            }
            let namespace = Some(instance.namespace()).filter(|namespace| !namespace.is_empty());
            let path = names.path(namespace, Some(instance.name()));
            match self.client.delete_value(&path, None).await {
                Err(status) if !status.is_not_found() => return Err(status),
                _ => {}
            }
        }
        self.core.feed.fresh().await;
        Ok(cache.len() == 0)
    }
}

/// Somebody else was faster: the change is met again.
fn forgive(written: Result<Value, Status>) -> Result<(), Status> {
    match written {
        Err(status) if !status.is_conflict() && !status.is_not_found() => Err(status),
        _ => Ok(()),
    }
}

/// The other definitions of a group.
fn siblings(cache: &Cache, group: &str, name: &str) -> Vec<Arc<Object>> {
    let map = cache.snapshot(0).map;
    let others = map.range("").filter(|other| {
        let own = other.name().split_once('.');
        other.name() != name && own.is_some_and(|(_, own)| own == group)
    });
    others.map(|other| other.shared_tree()).collect()
}

/// A follower of definitions, as the loopback user.
pub(crate) fn definitions(core: &Arc<Core>, server: &crate::ApiServer) -> Definitions {
    Definitions::new(Arc::clone(core), server.client(Identity::loopback()))
}

fn definitions_cache(core: &Core) -> Option<Arc<Cache>> {
    let resources = core.registry.now();
    let resource = resources.by_name(RESOURCE)?;
    resource.cache.clone()
}
