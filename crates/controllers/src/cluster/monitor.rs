//! Follows one resource of any kind by list and watch, and hands on the metadata of its objects.
//! Keeps no objects: what is kept of them is the sink's choice.

use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, Stop};
use client::request::request;
use client::{Client, Decode, Watch, WatchEvent};
use http::header::{ACCEPT, HeaderValue};
use http::{Method, Request};
use meta::Status;
use serde::Deserialize;
use serde_json::Value;

use super::discovery::Resource;

/// Objects per page of a list.
const PAGE: usize = 500;
/// Metadata only, from servers that can; whole objects decode to the same.
const WATCH_TYPE: &str =
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const LIST_TYPE: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// An object, as far as it is the same for all kinds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Item {
    pub metadata: ItemMeta,
}

/// `metav1.ObjectMeta`, as far as controllers of all kinds look at it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ItemMeta {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub resource_version: String,
    pub deletion_timestamp: Option<String>,
    pub finalizers: Vec<String>,
    pub owner_references: Vec<Owner>,
}

/// `metav1.OwnerReference`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Owner {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    pub block_owner_deletion: bool,
}

impl Decode for Item {
    fn decode(json: &[u8]) -> serde_json::Result<Item> {
        serde_json::from_slice(json)
    }
}

impl Owner {
    /// The API group of the owner.
    pub(crate) fn group(&self) -> &str {
        self.api_version
            .split_once('/')
            .map_or("", |(group, _)| group)
    }
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: client::api::ListMeta,
    #[serde(default)]
    items: Vec<Item>,
}

/// What hears of a resource's objects.
pub(crate) trait Sink: Send + Sync + 'static {
    /// All objects there are, after each list.
    fn replace(&self, resource: &Arc<Resource>, items: Vec<ItemMeta>);
    /// One was created or changed.
    fn put(&self, resource: &Arc<Resource>, item: ItemMeta);
    /// One is gone.
    fn remove(&self, resource: &Arc<Resource>, item: ItemMeta);
}

/// Pause before a resource is watched anew whose watch ended without news.
const PAUSE: Duration = Duration::from_millis(500);

/// Follows a resource until `stop` is raised.
pub(crate) async fn follow(
    client: Client,
    resource: Arc<Resource>,
    sink: Arc<dyn Sink>,
    stop: Stop,
) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
    while !stop.is_raised() {
        let mut version = String::new();
        let round = round(&client, &resource, sink.as_ref(), &mut version);
        let ended = tokio::select! {
            ended = round => ended,
            () = stop.raised() => return,
        };
        if !version.is_empty() {
            backoff.reset();
        }
        let Err(status) = ended else { continue };
        if status.is_expired() {
            continue;
        }
        let delay = backoff.next_delay();
        let plural = &resource.plural;
        tracing::debug!(%plural, error = %status, ?delay, "resource is listed again");
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = stop.raised() => return,
        }
    }
}

/// One list, and watches from there until one fails.
async fn round(
    client: &Client,
    resource: &Arc<Resource>,
    sink: &dyn Sink,
    version: &mut String,
) -> Result<(), Status> {
    let (items, at) = list(client, &resource.path("")).await?;
    *version = at;
    sink.replace(resource, items);
    loop {
        // Spread over five to ten minutes, so that watches do not all end together.
        let seconds = 300 + rand::random_range(0..300);
        let path = format!(
            "{}?watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={version}",
            resource.path("")
        );
        let before = version.clone();
        let response = client.send(metadata_only(&path, WATCH_TYPE)?).await?;
        let mut watch: Watch<Item> = Watch::new(response.into_body());
        while let Some(event) = watch.next().await {
            match event? {
                WatchEvent::Added(item) | WatchEvent::Modified(item) => {
                    item.metadata.resource_version.clone_into(version);
                    sink.put(resource, item.metadata);
                }
                WatchEvent::Deleted(item) => {
                    item.metadata.resource_version.clone_into(version);
                    sink.remove(resource, item.metadata);
                }
                WatchEvent::Bookmark(newer) => *version = newer,
            }
        }
        // A watch that ends without news was ended by a server that is stopping.
        if *version == before {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The metadata of all objects of a collection, and the version of the list.
pub(crate) async fn list(
    client: &Client,
    collection: &str,
) -> Result<(Vec<ItemMeta>, String), Status> {
    let mut items = Vec::new();
    let mut path = format!("{collection}?limit={PAGE}");
    loop {
        let page: Page = client.json(metadata_only(&path, LIST_TYPE)?).await?;
        items.extend(page.items.into_iter().map(|item| item.metadata));
        let more = page.metadata.continue_token;
        if more.is_empty() {
            return Ok((items, page.metadata.resource_version));
        }
        let more = client::request::percent_encode(&more);
        path = format!("{collection}?limit={PAGE}&continue={more}");
    }
}

/// All objects of a collection as trees.
pub(crate) async fn list_whole(client: &Client, collection: &str) -> Result<Vec<Value>, Status> {
    let mut items = Vec::new();
    let mut path = format!("{collection}?limit={PAGE}");
    loop {
        let mut page = client.get_value(&path).await?;
        if let Some(Value::Array(found)) = page.get_mut("items").map(Value::take) {
            items.extend(found);
        }
        match page.pointer("/metadata/continue").and_then(Value::as_str) {
            None | Some("") => return Ok(items),
            Some(more) => {
                let more = client::request::percent_encode(more);
                path = format!("{collection}?limit={PAGE}&continue={more}");
            }
        }
    }
}

fn metadata_only(path: &str, accept: &'static str) -> Result<Request<client::Body>, Status> {
    let mut request = request(Method::GET, path, None, client::empty())?;
    let accept = HeaderValue::from_static(accept);
    request.headers_mut().insert(ACCEPT, accept);
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whole_objects_and_their_metadata_read_alike() {
        let tree = json!({"kind": "Pod", "metadata": {"name": "a", "uid": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["f"],
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web",
                "uid": "2", "controller": true}]}, "spec": {"containers": []}});
        let item: Item = serde_json::from_value(tree).unwrap();
        assert_eq!(item.metadata.owner_references[0].group(), "apps");
        assert!(!item.metadata.owner_references[0].block_owner_deletion);
        assert_eq!(item.metadata.finalizers, ["f"]);
    }
}
