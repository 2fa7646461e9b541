//! Empties a namespace that is being deleted, and then lets it go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, Pod};
use meta::{Reason, Status};
use reconcile::{Outcome, Reconcile, feed};
use serde_json::{Value, json};

use crate::context::Context;

const NAME: &str = "namespace-controller";
const WORKERS: usize = 5;
/// Safety net for contents whose finalizers are somebody else's; pods wake the controller.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

struct Controller {
    client: Client,
    namespaces: Informer<Namespace>,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let queue = context.queue();
    let controller = Controller {
        client: context.client(NAME),
        namespaces: context.hub.informer(),
    };
    feed(
        NAME,
        &controller.namespaces,
        &queue,
        &context.crew,
        |change| vec![change.key.clone()],
    );
    let namespaces = controller.namespaces.clone();
    let pods: Informer<Pod> = context.hub.informer();
    feed(NAME, &pods, &queue, &context.crew, move |change| {
        let namespace = namespaces.get("", &change.key.namespace);
        let leaving = namespace.is_some_and(|one| one.metadata.deletion_timestamp.is_some());
        let gone = change.new.is_none() && leaving;
        gone.then(|| Key::new("", change.key.namespace.clone()))
            .into_iter()
            .collect()
    });
    let namespaces = controller.namespaces.clone();
    context.drive(Arc::new(controller), &queue, WORKERS, async move {
        namespaces.synced().await
    });
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(namespace) = self.namespaces.get_key(key) else {
                return Ok(Outcome::Done);
            };
            let finalizers = namespace
                .spec
                .as_ref()
                .and_then(|spec| spec.finalizers.as_ref());
            let ours = finalizers.is_some_and(|list| list.iter().any(|one| one == "kubernetes"));
            if namespace.metadata.deletion_timestamp.is_none() || !ours {
                return Ok(Outcome::Done);
            }
            let outcome = self.empty_all(&key.name).await;
            let done = outcome.failures.is_empty() && outcome.remaining.is_empty();
            if done && outcome.discovery_failure.is_none() {
                self.finalize(&namespace).await?;
                return Ok(Outcome::Done);
            }
            self.report(&namespace, &outcome).await?;
            Ok(Outcome::After(LOOK_AGAIN))
        })
    }
}

/// A namespaced collection: its path up to the namespace, its plural, whether it can be deleted
/// at one stroke.
struct Collection {
    root: String,
    plural: String,
    at_once: bool,
}

impl Controller {
    /// Deletes everything in it, pods first: what they use stays until they are gone.
    async fn empty_all(&self, namespace: &str) -> Emptied {
        let mut outcome = Emptied::default();
        let pods = Collection {
            root: "/api/v1".into(),
            plural: "pods".into(),
            at_once: true,
        };
        outcome.add(&pods, self.empty(namespace, &pods).await);
        if !outcome.remaining.is_empty() || !outcome.failures.is_empty() {
            return outcome;
        }
        let (collections, failure) = self.collections().await;
        outcome.discovery_failure = failure;
        for collection in collections {
            if (collection.root.as_str(), collection.plural.as_str()) != ("/api/v1", "pods") {
                outcome.add(&collection, self.empty(namespace, &collection).await);
            }
        }
        outcome
    }

    /// All namespaced collections that can be emptied, and what failed in looking for them: a
    /// group whose server is away must not keep the others from being emptied.
    async fn collections(&self) -> (Vec<Collection>, Option<String>) {
        let mut roots = vec!["/api/v1".to_owned()];
        let groups = match self.client.get_value("/apis").await {
            Ok(groups) => groups,
            Err(status) => return (Vec::new(), Some(status.message)),
        };
        for group in groups["groups"].as_array().into_iter().flatten() {
            if let Some(version) = group["preferredVersion"]["groupVersion"].as_str() {
                roots.push(format!("/apis/{version}"));
            }
        }
        let (mut found, mut failed) = (Vec::new(), Vec::new());
        for root in roots {
            match self.client.get_value(&root).await {
                Ok(resources) => found.extend(emptiable(&root, &resources)),
                // A group may vanish, with its last definition, while we look.
                Err(status) if status.is_not_found() => {}
                Err(status) => {
                    failed.push(format!(
                        "{}: {}",
                        root.trim_start_matches("/apis/"),
                        status.message
                    ));
                }
            }
        }
        let failure = (!failed.is_empty()).then(|| {
            format!(
                "Discovery failed for some groups, {} failing: unable to retrieve the complete \
                 list of server APIs: {}",
                failed.len(),
                failed.join(", ")
            )
        });
        (found, failure)
    }

    /// Deletes what a collection holds; tells what is still there.
    async fn empty(&self, namespace: &str, what: &Collection) -> Result<Vec<Left>, Status> {
        let path = format!("{}/namespaces/{namespace}/{}", what.root, what.plural);
        let items = self.items(&path).await?;
        if items.is_empty() {
            return Ok(items);
        }
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1",
            "propagationPolicy": "Background"});
        if what.at_once {
            self.client.delete_value(&path, Some(options)).await?;
        } else {
            for item in &items {
                let path = format!("{path}/{}", item.name);
                match self.client.delete_value(&path, Some(options.clone())).await {
                    Err(status) if !status.is_not_found() => return Err(status),
                    _ => {}
                }
            }
        }
        self.items(&path).await
    }

    async fn items(&self, path: &str) -> Result<Vec<Left>, Status> {
        let list = match self.client.get_value(path).await {
            Ok(list) => list,
            // A resource may vanish, with its definition, while we look.
            Err(status) if matches!(status.reason, Reason::NotFound | Reason::MethodNotAllowed) => {
                return Ok(Vec::new());
            }
            Err(status) => return Err(status),
        };
        let items = list["items"].as_array().into_iter().flatten();
        Ok(items.filter_map(Left::of).collect())
    }

    async fn finalize(&self, namespace: &Namespace) -> Result<(), Status> {
        let mut next = namespace.clone();
        if let Some(finalizers) = next.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|one| one != "kubernetes");
        }
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let path = format!("/api/v1/namespaces/{name}/finalize");
        match self
            .client
            .send_value(http::Method::PUT, &path, &next)
            .await
        {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }

    /// Tells the user what a terminating namespace waits for.
    async fn report(&self, namespace: &Namespace, outcome: &Emptied) -> Result<(), Status> {
        let known = namespace
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_deref())
            .unwrap_or_default();
        let all = outcome.conditions();
        let news = changed(known, &all);
        if news.is_empty() {
            return Ok(());
        }
        let now = meta::time::now();
        let mut next = namespace.clone();
        let conditions = &mut next.status.get_or_insert_default().conditions;
        let conditions = conditions.get_or_insert_default();
        for one in news {
            let condition = one.to_condition(conditions, &now)?;
            conditions.retain(|old| old.type_ != one.kind);
            conditions.push(condition);
        }
        // An update, for that is what the role of this controller allows.
        match self.client.all::<Namespace>().replace_status(&next).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }
}

/// The collections of one group version's resource list that a namespace's end must empty.
fn emptiable(root: &str, resources: &Value) -> Vec<Collection> {
    let mut found = Vec::new();
    for resource in resources["resources"].as_array().into_iter().flatten() {
        let plural = resource["name"].as_str().unwrap_or_default();
        let has = |verb: &str| {
            let verbs = resource["verbs"].as_array();
            verbs.is_some_and(|verbs| verbs.iter().any(|one| one == verb))
        };
        let deletable = has("delete") && has("list");
        if resource["namespaced"] == true && deletable && !plural.contains('/') {
            found.push(Collection {
                root: root.to_owned(),
                plural: plural.into(),
                at_once: has("deletecollection"),
            });
        }
    }
    found
}

/// An object that is still there.
struct Left {
    name: String,
    finalizers: Vec<String>,
}

impl Left {
    fn of(item: &Value) -> Option<Left> {
        let finalizers = item.pointer("/metadata/finalizers");
        let finalizers = finalizers.and_then(Value::as_array).into_iter().flatten();
        Some(Left {
            name: item.pointer("/metadata/name")?.as_str()?.to_owned(),
            finalizers: finalizers
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
        })
    }
}

/// How far the emptying of a namespace has come.
#[derive(Default)]
struct Emptied {
    discovery_failure: Option<String>,
    failures: Vec<String>,
    /// `pods.` or `deployments.apps`, and how many.
    remaining: BTreeMap<String, usize>,
    /// How many objects wait for each finalizer.
    finalizers: BTreeMap<String, usize>,
}

/// One of the five conditions a namespace tells of its end.
#[derive(Debug, PartialEq)]
struct Condition {
    kind: &'static str,
    /// `True` is trouble, or waiting.
    raised: bool,
    reason: &'static str,
    message: String,
}

impl Emptied {
    fn add(&mut self, what: &Collection, result: Result<Vec<Left>, Status>) {
        let left = match result {
            Ok(left) => left,
            Err(status) => return self.failures.push(status.message),
        };
        if left.is_empty() {
            return;
        }
        let version = what.root.strip_prefix("/apis/").unwrap_or_default();
        let group = version.split('/').next().unwrap_or_default();
        let name = format!("{}.{group}", what.plural);
        self.remaining.insert(name, left.len());
        for finalizer in left.into_iter().flat_map(|one| one.finalizers) {
            *self.finalizers.entry(finalizer).or_default() += 1;
        }
    }

    /// All five, in upstream's order and words.
    fn conditions(&self) -> [Condition; 5] {
        let count = |counts: &BTreeMap<String, usize>, word: &str| {
            let one = |(name, number): (&String, &usize)| {
                format!("{name} {word} {number} resource instances")
            };
            let list: Vec<String> = counts.iter().map(one).collect();
            (!list.is_empty()).then(|| list.join(", "))
        };
        let mut failures = self.failures.clone();
        failures.sort_unstable();
        let failures = (!failures.is_empty()).then(|| {
            let (number, list) = (failures.len(), failures.join(", "));
            format!("Failed to delete all resource types, {number} remaining: {list}")
        });
        let remaining = count(&self.remaining, "has");
        let waiting = count(&self.finalizers, "in");
        let condition =
            |kind, trouble: Option<String>, reason, fine_reason, fine: &str| Condition {
                kind,
                raised: trouble.is_some(),
                reason: if trouble.is_some() {
                    reason
                } else {
                    fine_reason
                },
                message: trouble.unwrap_or_else(|| fine.to_owned()),
            };
        [
            condition(
                "NamespaceDeletionDiscoveryFailure",
                self.discovery_failure.clone(),
                "DiscoveryFailed",
                "ResourcesDiscovered",
                "All resources successfully discovered",
            ),
            condition(
                "NamespaceDeletionGroupVersionParsingFailure",
                None,
                "GroupVersionParsingFailed",
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed",
            ),
            condition(
                "NamespaceDeletionContentFailure",
                failures,
                "ContentDeletionFailed",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
            condition(
                "NamespaceContentRemaining",
                remaining.map(|list| format!("Some resources are remaining: {list}")),
                "SomeResourcesRemain",
                "ContentRemoved",
                "All content successfully removed",
            ),
            condition(
                "NamespaceFinalizersRemaining",
                waiting.map(|list| {
                    format!("Some content in the namespace has finalizers remaining: {list}")
                }),
                "SomeFinalizersRemain",
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            ),
        ]
    }
}

impl Condition {
    fn status(&self) -> &'static str {
        if self.raised { "True" } else { "False" }
    }

    /// As it is written beside `known`: the time is that of the last change of status.
    fn to_condition(
        &self,
        known: &[NamespaceCondition],
        now: &str,
    ) -> Result<NamespaceCondition, Status> {
        let old = known.iter().find(|old| old.type_ == self.kind);
        let mut condition: NamespaceCondition = serde_json::from_value(json!({
            "type": self.kind, "status": self.status(), "reason": self.reason,
            "message": self.message, "lastTransitionTime": now}))
        .map_err(Status::internal)?;
        if let Some(old) = old.filter(|old| old.status == condition.status) {
            condition.last_transition_time = old.last_transition_time.clone();
        }
        Ok(condition)
    }
}

/// Those that differ from what the namespace says already.
fn changed<'a>(known: &[NamespaceCondition], all: &'a [Condition]) -> Vec<&'a Condition> {
    let same = |one: &Condition, old: &NamespaceCondition| {
        old.type_ == one.kind
            && old.status == one.status()
            && old.reason.as_deref() == Some(one.reason)
            && old.message.as_deref() == Some(&one.message)
    };
    let news = |one: &&Condition| !known.iter().any(|old| same(one, old));
    all.iter().filter(news).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collection(root: &str, plural: &str) -> Collection {
        Collection {
            root: root.into(),
            plural: plural.into(),
            at_once: true,
        }
    }

    fn left(name: &str, finalizers: &[&str]) -> Left {
        let finalizers: Vec<&str> = finalizers.to_vec();
        Left::of(&json!({"metadata": {"name": name, "finalizers": finalizers}})).unwrap()
    }

    #[test]
    fn what_remains_is_counted_by_resource_and_finalizer() {
        let mut emptied = Emptied::default();
        emptied.add(
            &collection("/api/v1", "pods"),
            Ok(vec![left("a", &["x/y"]), left("b", &["x/y", "z"])]),
        );
        emptied.add(
            &collection("/apis/apps/v1", "deployments"),
            Ok(vec![left("a", &[])]),
        );
        emptied.add(&collection("/api/v1", "secrets"), Ok(Vec::new()));
        let conditions = emptied.conditions();
        assert_eq!(
            conditions[3].message,
            "Some resources are remaining: deployments.apps has 1 resource instances, \
             pods. has 2 resource instances"
        );
        assert_eq!(
            conditions[4].message,
            "Some content in the namespace has finalizers remaining: x/y in 2 resource instances, \
             z in 1 resource instances"
        );
        let raised: Vec<bool> = conditions.iter().map(|one| one.raised).collect();
        assert_eq!(raised, [false, false, false, true, true]);
        assert_eq!(conditions[2].reason, "ContentDeleted");
    }

    #[test]
    fn failures_are_told_in_one_condition() {
        let mut emptied = Emptied::default();
        for why in ["no", "because"] {
            let refused = Status::new(Reason::Forbidden, why);
            emptied.add(&collection("/api/v1", "pods"), Err(refused));
        }
        let content = &emptied.conditions()[2];
        assert!(content.raised);
        assert_eq!(
            content.message,
            "Failed to delete all resource types, 2 remaining: because, no"
        );
    }

    #[test]
    fn only_news_are_written() {
        let emptied = Emptied::default();
        let all = emptied.conditions();
        let known: Vec<NamespaceCondition> = all
            .iter()
            .map(|one| one.to_condition(&[], "2026-01-01T00:00:00Z").unwrap())
            .collect();
        assert_eq!(changed(&known, &all), Vec::<&Condition>::new());
        assert_eq!(changed(&known[1..], &all), [&all[0]]);
    }

    #[test]
    fn only_what_can_be_listed_and_deleted_is_emptied() {
        let resource = |name: &str, namespaced: bool, verbs: &[&str]| {
            let verbs: Vec<&str> = verbs.to_vec();
            json!({"name": name, "namespaced": namespaced, "verbs": verbs})
        };
        let all = ["delete", "list", "deletecollection"];
        let list = json!({"resources": [
            resource("pods", true, &all), resource("pods/status", true, &all),
            resource("nodes", false, &all), resource("bindings", true, &["create"]),
            resource("services", true, &all[..2])]});
        let found = emptiable("/api/v1", &list);
        let names: Vec<_> = found
            .iter()
            .map(|one| (&*one.plural, one.at_once))
            .collect();
        assert_eq!(names, [("pods", true), ("services", false)]);
    }
}
