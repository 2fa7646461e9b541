//! Empties a namespace that is being deleted, and then lets it go.

use std::sync::Arc;
use std::time::Duration;

use client::{Client, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Namespace, Pod};
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
            let mut left = Vec::new();
            for collection in self.collections().await? {
                left.extend(self.empty(&key.name, &collection).await?);
            }
            if left.is_empty() {
                self.finalize(&namespace).await?;
                return Ok(Outcome::Done);
            }
            self.report(&namespace, &left).await?;
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
    async fn collections(&self) -> Result<Vec<Collection>, Status> {
        let mut roots = vec!["/api/v1".to_owned()];
        let groups = self.client.get_value("/apis").await?;
        for group in groups["groups"].as_array().into_iter().flatten() {
            if let Some(version) = group["preferredVersion"]["groupVersion"].as_str() {
                roots.push(format!("/apis/{version}"));
            }
        }
        let mut found = Vec::new();
        for root in roots {
            let resources = self.client.get_value(&root).await?;
            for resource in resources["resources"].as_array().into_iter().flatten() {
                let plural = resource["name"].as_str().unwrap_or_default();
                let verbs: Vec<&str> = resource["verbs"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                let deletable = verbs.contains(&"delete") && verbs.contains(&"list");
                if resource["namespaced"] == true && deletable && !plural.contains('/') {
                    let at_once = verbs.contains(&"deletecollection");
                    found.push(Collection {
                        root: root.clone(),
                        plural: plural.into(),
                        at_once,
                    });
                }
            }
        }
        Ok(found)
    }

    /// Deletes what a collection holds; returns the names of what is still there.
    async fn empty(&self, namespace: &str, what: &Collection) -> Result<Vec<String>, Status> {
        let path = format!("{}/namespaces/{namespace}/{}", what.root, what.plural);
        let items = self.items(&path).await?;
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1",
            "propagationPolicy": "Background"});
        if what.at_once {
            self.client.delete_value(&path, Some(options)).await?;
        } else {
            for item in &items {
                let path = format!("{path}/{item}");
                match self.client.delete_value(&path, Some(options.clone())).await {
                    Err(status) if !status.is_not_found() => return Err(status),
                    _ => {}
                }
            }
        }
        let left = self.items(&path).await?;
        Ok(left
            .into_iter()
            .map(|name| format!("{} {name}", what.plural))
            .collect())
    }

    async fn items(&self, path: &str) -> Result<Vec<String>, Status> {
        let list = match self.client.get_value(path).await {
            Ok(list) => list,
            // A resource may vanish, with its definition, while we look.
            Err(status) if matches!(status.reason, Reason::NotFound | Reason::MethodNotAllowed) => {
                return Ok(Vec::new());
            }
            Err(status) => return Err(status),
        };
        let items = list["items"].as_array().into_iter().flatten();
        let names = items.filter_map(|item| item.pointer("/metadata/name")?.as_str());
        Ok(names.map(str::to_owned).collect())
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
    async fn report(&self, namespace: &Namespace, left: &[String]) -> Result<(), Status> {
        const TYPE: &str = "NamespaceContentRemaining";
        let shown = left.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
        let message = format!("Some resources are remaining: {shown}");
        let conditions = namespace
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        let known = conditions.and_then(|list| list.iter().find(|one| one.type_ == TYPE));
        if known.is_some_and(|known| known.message.as_deref() == Some(&message)) {
            return Ok(());
        }
        let body = json!({"status": {"conditions": [{
            "type": TYPE, "status": "True", "reason": "SomeResourcesRemain",
            "message": message, "lastTransitionTime": meta::time::now(),
        }]}});
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let patch = client::Patch::Strategic(body);
        let api = self.client.all::<Namespace>();
        match api
            .patch_status(name, &patch, &client::WriteOptions::default())
            .await
        {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }
}
