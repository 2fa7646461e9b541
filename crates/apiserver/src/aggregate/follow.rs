//! Keeps routes in line with APIServices, and APIServices in line with what this server serves.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use client::Client;
use http::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::keeper::{self, PATH};
use super::{Route, condition, priorities};
use crate::cache::Cache;
use crate::server::Core;
use crate::verbs::write::text;

/// On APIServices that we made: `onstart` for built-in groups, `true` for custom ones.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// When what could not be written is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// A route and the task that looks after it.
struct Kept {
    route: Arc<Route>,
    spec: Value,
    task: AbortHandle,
}

/// Follows until told to stop.
pub(crate) async fn run(core: Arc<Core>, client: Client, stop: base::Stop) {
    let cache = |name: &str| {
        let now = core.registry.now();
        now.by_name(name)
            .and_then(|resource| resource.cache.clone())
    };
    let (Some(own), Some(definitions), Some(services), Some(slices)) = (
        cache("apiservices.apiregistration.k8s.io"),
        cache("customresourcedefinitions.apiextensions.k8s.io"),
        cache("services"),
        cache("endpointslices.discovery.k8s.io"),
    ) else {
        return;
    };
    let (wake, _) = watch::channel(0u64);
    let mut follower = Follower {
        core: Arc::clone(&core),
        client,
        cache: Arc::clone(&own),
        kept: HashMap::new(),
        tasks: JoinSet::new(),
        wake,
    };
    let (mut own, mut definitions) = (own.growth(), definitions.growth());
    let (mut services, mut slices) = (services.growth(), slices.growth());
    loop {
        for growth in [&mut own, &mut definitions, &mut services, &mut slices] {
            growth.catch_up();
        }
        follower.wake.send_modify(|count| *count += 1);
        follower.sync_routes();
        let done = follower.sync_own().await;
        // Most clusters have no routes; then services and endpoints do not matter.
        let matters = !follower.kept.is_empty();
        tokio::select! {
            grown = own.changed() => if grown.is_err() { return },
            grown = definitions.changed() => if grown.is_err() { return },
            grown = services.changed(), if matters => if grown.is_err() { return },
            grown = slices.changed(), if matters => if grown.is_err() { return },
            () = tokio::time::sleep(RETRY_AFTER), if !done => {}
            () = stop.raised() => return,
        }
    }
}

struct Follower {
    core: Arc<Core>,
    client: Client,
    cache: Arc<Cache>,
    kept: HashMap<String, Kept>,
    tasks: JoinSet<()>,
    wake: watch::Sender<u64>,
}

impl Follower {
    fn objects(&self) -> BTreeMap<String, Value> {
        let map = self.cache.snapshot(0).map;
        map.range("")
            .map(|entry| (entry.name().to_owned(), entry.shared_tree().0.clone()))
            .collect()
    }

    /// One route for each APIService that names a service.
    fn sync_routes(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        let objects = self.objects();
        let before = self.kept.len();
        self.kept.retain(|name, kept| {
            let same = objects
                .get(name)
                .is_some_and(|tree| tree["spec"] == kept.spec);
            if !same {
                kept.task.abort();
            }
            same
        });
        let mut changed = before != self.kept.len();
        for (name, tree) in objects {
            if self.kept.contains_key(&name) {
                continue;
            }
            let proxy = self.core.config.pki.shown_to_servers();
            let Some(route) = Route::new(&tree, proxy, &self.core.aggregate.resolver) else {
                continue;
            };
            changed = true;
            let route = Arc::new(route);
            let task = self.tasks.spawn(keeper::keep(
                Arc::clone(&self.core),
                self.client.clone(),
                Arc::clone(&route),
                self.wake.subscribe(),
            ));
            let spec = tree["spec"].clone();
            self.kept.insert(name, Kept { route, spec, task });
        }
        if changed {
            let mut routes: Vec<_> = self
                .kept
                .values()
                .map(|kept| Arc::clone(&kept.route))
                .collect();
            routes.sort_by(|a, b| a.name.cmp(&b.name));
            self.core.aggregate.routes.store(Arc::new(routes));
        }
    }

    /// One APIService for each group and version of our own; says whether all could be written.
    async fn sync_own(&self) -> bool {
        let (objects, wanted) = (self.objects(), self.wanted());
        let mut writes = Vec::new();
        for (name, (tree, managed)) in &wanted {
            match objects.get(name) {
                None => writes.push((Method::POST, PATH.to_owned(), tree.clone())),
                Some(own) if is_kept(own, managed) && !has_spec(own, tree) => {
                    let mut own = own.clone();
                    own["spec"] = tree["spec"].clone();
                    writes.push((Method::PUT, format!("{PATH}/{name}"), own));
                }
                Some(_) => {}
            }
        }
        for (name, tree) in &objects {
            let path = format!("{PATH}/{name}");
            let local = tree.pointer("/spec/service").is_none_or(Value::is_null);
            if !label(tree).is_empty() && local && !wanted.contains_key(name) {
                writes.push((Method::DELETE, path, json!({})));
            } else if local && condition(tree).is_none_or(|own| own["reason"] != "Local") {
                writes.push((Method::PUT, format!("{path}/status"), local_status(tree)));
            }
        }
        let writes = writes.into_iter().map(|(method, path, tree)| async move {
            let written = match method {
                Method::DELETE => self.client.delete_value(&path, None).await,
                method => self.client.send_value(method, &path, &tree).await,
            };
            match written {
                Err(error) if !error.is_already_exists() && !error.is_not_found() => {
                    tracing::debug!(%error, path, "APIService not written");
                    false
                }
                _ => true,
            }
        });
        let written = futures::future::join_all(writes).await;
        written.into_iter().all(|good| good)
    }

    fn wanted(&self) -> BTreeMap<String, (Value, &'static str)> {
        let now = self.core.registry.now();
        let mut wanted = BTreeMap::new();
        for of in now.group_versions() {
            let resources = now.of(&of.group, &of.version).unwrap_or_default();
            let custom = resources.iter().all(|resource| resource.custom);
            let (priority, managed) = match custom {
                true => (Some(priorities::CUSTOM), "true"),
                false => (priorities::builtin(&of.group, &of.version), "onstart"),
            };
            let Some((group, version)) = priority else {
                continue;
            };
            let name = format!("{}.{}", of.version, of.group);
            let tree = json!({
                "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                "metadata": {"name": name, "labels": {MANAGED: managed}},
                "spec": {
                    "group": of.group, "version": of.version,
                    "groupPriorityMinimum": group, "versionPriority": version,
                },
            });
            wanted.insert(name, (tree, managed));
        }
        for own in &self.core.aggregate.delegates {
            let (name, tree) = own.api_service();
            wanted.insert(name, (tree, ""));
        }
        wanted
    }
}

/// Whether it stays as we made it; those of delegates are the users'.
fn is_kept(own: &Value, managed: &str) -> bool {
    !managed.is_empty() && label(own) == managed
}

fn label(tree: &Value) -> &str {
    let labels = &tree["metadata"]["labels"];
    labels[MANAGED].as_str().unwrap_or("")
}

fn has_spec(own: &Value, wanted: &Value) -> bool {
    let fields = ["groupPriorityMinimum", "versionPriority", "service"];
    let same = |field: &&str| own["spec"].get(*field) == wanted["spec"].get(*field);
    fields.iter().all(same) && text(own, "/spec/group") == text(wanted, "/spec/group")
}

fn local_status(tree: &Value) -> Value {
    let mut tree = tree.clone();
    tree["status"] = json!({"conditions": [{
        "type": "Available", "status": "True", "reason": "Local",
        "message": "Local APIServices are always available",
        "lastTransitionTime": meta::time::now(),
    }]});
    tree
}
