//! Typed access to the objects of one kind.

use std::marker::PhantomData;

use http::{Method, Request};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use meta::Status;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::request::{Client, add_query, decoded, request};
use crate::watch::{Watch, WatchEvent};
use crate::wire::Wire;
use crate::{Body, empty, full};

/// A typed kind with object metadata; implemented by those of k8s-openapi's that [`crate::wire`]
/// names.
pub trait Kind:
    Resource + Metadata<Ty = ObjectMeta> + Wire + Clone + Send + Sync + 'static
{
}
impl<K> Kind for K where
    K: Resource + Metadata<Ty = ObjectMeta> + Wire + Clone + Send + Sync + 'static
{
}

/// What to list or watch (`metav1.ListOptions`).
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    pub limit: Option<u32>,
    pub continue_token: Option<String>,
    /// `Some("0")`: whatever the server's cache has.
    pub resource_version: Option<String>,
}

/// How to write (`metav1.CreateOptions`, `UpdateOptions`, `PatchOptions`).
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub field_manager: Option<String>,
    /// Server-side apply: take over fields of other managers.
    pub force: bool,
    pub dry_run: bool,
}

/// How to delete (`metav1.DeleteOptions`).
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    /// `Foreground`, `Background` or `Orphan`.
    pub propagation_policy: Option<String>,
    /// Delete only this incarnation.
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

impl DeleteOptions {
    /// Only the object with this uid.
    pub fn uid(uid: &str) -> DeleteOptions {
        DeleteOptions {
            uid: Some(uid.to_owned()),
            ..DeleteOptions::default()
        }
    }

    fn to_value(&self) -> Value {
        let mut body = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
        if let Some(seconds) = self.grace_period_seconds {
            body["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(policy) = &self.propagation_policy {
            body["propagationPolicy"] = policy.as_str().into();
        }
        if let Some(uid) = &self.uid {
            body["preconditions"]["uid"] = uid.as_str().into();
        }
        if let Some(version) = &self.resource_version {
            body["preconditions"]["resourceVersion"] = version.as_str().into();
        }
        body
    }
}

/// A change of part of an object.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7396.
    Merge(Value),
    Strategic(Value),
    /// Server-side apply; needs a field manager.
    Apply(Value),
}

impl Patch {
    fn parts(&self) -> (&'static str, &Value) {
        match self {
            Patch::Json(body) => ("application/json-patch+json", body),
            Patch::Merge(body) => ("application/merge-patch+json", body),
            Patch::Strategic(body) => ("application/strategic-merge-patch+json", body),
            Patch::Apply(body) => ("application/apply-patch+yaml", body),
        }
    }
}

/// The objects of one list answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound = "K: serde::de::DeserializeOwned")]
pub struct List<K> {
    #[serde(default)]
    pub metadata: ListMeta,
    #[serde(default = "Vec::new")]
    pub items: Vec<K>,
}

/// `metav1.ListMeta`, as far as clients use it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListMeta {
    pub resource_version: String,
    #[serde(rename = "continue")]
    pub continue_token: String,
}

/// The objects of one kind, in one namespace or everywhere.
pub struct Api<K> {
    client: Client,
    namespace: Option<String>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Api<K> {
    fn clone(&self) -> Api<K> {
        Api {
            client: self.client.clone(),
            namespace: self.namespace.clone(),
            kind: PhantomData,
        }
    }
}

impl Client {
    /// Objects of a cluster-wide kind, or of all namespaces (list and watch only).
    pub fn all<K: Kind>(&self) -> Api<K> {
        Api {
            client: self.clone(),
            namespace: None,
            kind: PhantomData,
        }
    }

    /// Objects of one namespace.
    pub fn namespaced<K: Kind>(&self, namespace: &str) -> Api<K> {
        let namespace = Some(namespace.to_owned());
        Api {
            client: self.clone(),
            namespace,
            kind: PhantomData,
        }
    }

    /// The place of an object: its namespace, or the cluster.
    pub fn beside<K: Kind>(&self, object: &K) -> Api<K> {
        let namespace = object.metadata().namespace.clone();
        Api {
            client: self.clone(),
            namespace,
            kind: PhantomData,
        }
    }
}

impl<K: Kind> Api<K> {
    /// The path of the collection, an object, or a subresource.
    pub fn path(&self, name: Option<&str>, subresource: Option<&str>) -> String {
        let mut path = match K::GROUP {
            "" => format!("/api/{}", K::VERSION),
            group => format!("/apis/{group}/{}", K::VERSION),
        };
        if let Some(namespace) = &self.namespace {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        path.push('/');
        path.push_str(K::URL_PATH_SEGMENT);
        for part in [name, subresource].into_iter().flatten() {
            path.push('/');
            path.push_str(part);
        }
        path
    }

    /// One object.
    pub async fn get(&self, name: &str) -> Result<K, Status> {
        let path = self.path(Some(name), None);
        self.answer(request(Method::GET, &path, None, empty())?)
            .await
    }

    /// One object, or `None` when there is none.
    pub async fn get_opt(&self, name: &str) -> Result<Option<K>, Status> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(status) if status.is_not_found() => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// A list; one page when `limit` is set.
    pub async fn list(&self, options: &ListOptions) -> Result<List<K>, Status> {
        let mut path = self.path(None, None);
        add_list_options(&mut path, options);
        let answer = self
            .client
            .bytes(request(Method::GET, &path, None, empty())?);
        decoded(K::decode_list(&answer.await?))
    }

    /// A watch from `options.resource_version` on, with bookmarks.
    pub async fn watch(&self, options: &ListOptions) -> Result<Watch<K>, Status> {
        let mut path = self.path(None, None);
        add_query(&mut path, "watch", "1");
        add_query(&mut path, "allowWatchBookmarks", "true");
        // Spread over five to ten minutes, so that watches of a cluster do not all end together.
        let seconds = 300 + rand::random_range(0..300);
        add_query(&mut path, "timeoutSeconds", &seconds.to_string());
        add_list_options(&mut path, options);
        let response = self
            .client
            .send(request(Method::GET, &path, None, empty())?)
            .await?;
        Ok(Watch::new(response.into_body()))
    }

    /// Watches one object until `enough` says so, however long that takes.
    pub async fn until(&self, name: &str, enough: impl Fn(&K) -> bool) -> Result<K, Status> {
        loop {
            let mut options = ListOptions {
                field_selector: Some(format!("metadata.name={name}")),
                ..ListOptions::default()
            };
            let list = self.list(&options).await?;
            if let Some(found) = list.items.into_iter().find(&enough) {
                return Ok(found);
            }
            options.resource_version = Some(list.metadata.resource_version);
            let mut watch = self.watch(&options).await?;
            while let Some(Ok(event)) = watch.next().await {
                match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) if enough(&object) => {
                        return Ok(object);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Creates an object.
    pub async fn create(&self, object: &K) -> Result<K, Status> {
        self.create_with(object, &WriteOptions::default()).await
    }

    /// Creates an object, with options.
    pub async fn create_with(&self, object: &K, options: &WriteOptions) -> Result<K, Status> {
        let mut path = self.path(None, None);
        add_write_options(&mut path, options);
        self.send(Method::POST, &path, encoded(object)?).await
    }

    /// Creates a subresource such as `pods/web/binding`, `eviction` or `token`; returns the answer.
    pub async fn create_subresource(
        &self,
        name: &str,
        subresource: &str,
        body: &impl Serialize,
    ) -> Result<Value, Status> {
        let path = self.path(Some(name), Some(subresource));
        self.client.send_value(Method::POST, &path, body).await
    }

    /// Replaces an object; its resourceVersion, when set, must be the newest.
    pub async fn replace(&self, object: &K) -> Result<K, Status> {
        let path = self.path(object.metadata().name.as_deref(), None);
        self.send(Method::PUT, &path, encoded(object)?).await
    }

    /// Replaces an object's status.
    pub async fn replace_status(&self, object: &K) -> Result<K, Status> {
        let path = self.path(object.metadata().name.as_deref(), Some("status"));
        self.send(Method::PUT, &path, encoded(object)?).await
    }

    /// Changes part of an object.
    pub async fn patch(
        &self,
        name: &str,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<K, Status> {
        self.patch_at(self.path(Some(name), None), patch, options)
            .await
    }

    /// Changes part of an object's status.
    pub async fn patch_status(
        &self,
        name: &str,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<K, Status> {
        self.patch_at(self.path(Some(name), Some("status")), patch, options)
            .await
    }

    /// Deletes an object; one that does not exist is an error.
    pub async fn delete(&self, name: &str, options: &DeleteOptions) -> Result<(), Status> {
        let path = self.path(Some(name), None);
        self.client
            .delete_value(&path, Some(options.to_value()))
            .await
            .map(drop)
    }

    /// Deletes an object and returns what is left of it: the object with its deletion timestamp
    /// while finalizers or a grace period hold it, `None` when it is gone.
    pub async fn delete_gracefully(
        &self,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Option<K>, Status> {
        let path = self.path(Some(name), None);
        let answer = self.client.delete_bytes(&path, Some(options.to_value()));
        let answer = answer.await?;
        // What is gone is answered with a Status, or as it was.
        let left: Left = decoded(serde_json::from_slice(&answer))?;
        match left.metadata.deletion_timestamp {
            Some(_) => decoded(K::decode(&answer)).map(Some),
            None => Ok(None),
        }
    }

    async fn patch_at(
        &self,
        mut path: String,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<K, Status> {
        add_write_options(&mut path, options);
        if options.force {
            add_query(&mut path, "force", "true");
        }
        let (media_type, body) = patch.parts();
        let body = full(serde_json::to_vec(body).map_err(Status::internal)?);
        self.answer(request(Method::PATCH, &path, Some(media_type), body)?)
            .await
    }

    async fn send(&self, method: Method, path: &str, body: Body) -> Result<K, Status> {
        self.answer(request(method, path, Some("application/json"), body)?)
            .await
    }

    async fn answer(&self, request: Request<Body>) -> Result<K, Status> {
        decoded(K::decode(&self.client.bytes(request).await?))
    }
}

/// As much of a deleted object as tells whether it is still there.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Left {
    metadata: LeftMeta,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LeftMeta {
    deletion_timestamp: Option<String>,
}

fn encoded(object: &impl Wire) -> Result<Body, Status> {
    object.encode().map(full).map_err(Status::internal)
}

fn add_list_options(path: &mut String, options: &ListOptions) {
    let limit = options.limit.map(|limit| limit.to_string());
    let parts = [
        ("labelSelector", &options.label_selector),
        ("fieldSelector", &options.field_selector),
        ("limit", &limit),
        ("continue", &options.continue_token),
        ("resourceVersion", &options.resource_version),
    ];
    for (key, value) in parts {
        if let Some(value) = value {
            add_query(path, key, value);
        }
    }
}

fn add_write_options(path: &mut String, options: &WriteOptions) {
    if let Some(manager) = &options.field_manager {
        add_query(path, "fieldManager", manager);
    }
    if options.dry_run {
        add_query(path, "dryRun", "All");
    }
}
