//! Informers against a server that says what the test wants.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use base::Crew;
use bytes::Bytes;
use client::{Body, BoxError, Client, Hub, Informer};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// A server with one list after the other, and one watch at a time.
#[derive(Clone)]
struct Server {
    lists: Arc<Mutex<VecDeque<Value>>>,
    watchers: Arc<Mutex<mpsc::Sender<mpsc::Sender<String>>>>,
}

impl Server {
    fn answer(&self, request: &Request<Body>) -> Response<Body> {
        if !request
            .uri()
            .query()
            .unwrap_or_default()
            .contains("watch=1")
        {
            let mut lists = self.lists.lock().unwrap();
            let list = if lists.len() > 1 {
                lists.pop_front()
            } else {
                lists.front().cloned()
            };
            return Response::new(client::full(list.unwrap().to_string()));
        }
        let (sender, mut lines) = mpsc::channel::<String>(16);
        self.watchers.lock().unwrap().try_send(sender).unwrap();
        let frames = futures::stream::poll_fn(move |cx| lines.poll_recv(cx));
        let frames = futures::StreamExt::map(frames, |line| {
            Ok::<_, BoxError>(Frame::data(Bytes::from(line)))
        });
        Response::new(StreamBody::new(frames).boxed_unsync())
    }
}

fn map(name: &str, version: u64) -> Value {
    json!({"metadata": {"name": name, "namespace": "d", "uid": name,
        "resourceVersion": version.to_string()}})
}

fn list(version: u64, items: &[Value]) -> Value {
    json!({"metadata": {"resourceVersion": version.to_string()}, "items": items})
}

fn typed(tree: Value) -> ConfigMap {
    serde_json::from_value(tree).unwrap()
}

fn event(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

/// An informer over these lists, and where its watches arrive.
fn informer(
    lists: Vec<Value>,
    crew: &Crew,
) -> (Informer<ConfigMap>, mpsc::Receiver<mpsc::Sender<String>>) {
    let (sender, watches) = mpsc::channel(8);
    let server = Server {
        lists: Arc::new(Mutex::new(lists.into())),
        watchers: Arc::new(Mutex::new(sender)),
    };
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = server.answer(&request);
        async move { Ok::<_, Infallible>(answer) }
    });
    (
        Hub::new(Client::local(service, ()), crew).informer(),
        watches,
    )
}

fn names(informer: &Informer<ConfigMap>) -> Vec<String> {
    informer
        .list()
        .iter()
        .filter_map(|map| map.metadata.name.clone())
        .collect()
}

#[tokio::test]
async fn changes_reach_cache_and_subscribers() {
    let crew = Crew::new();
    let (informer, mut watches) = informer(vec![list(5, &[map("a", 3)])], &crew);
    informer.synced().await;
    let mut changes = informer.subscribe();
    let first = changes.next().await.unwrap();
    assert!(first.old.is_none() && first.new.is_some());

    let watch = watches.recv().await.unwrap();
    watch.send(event("ADDED", &map("b", 6))).await.unwrap();
    assert_eq!(changes.next().await.unwrap().key.name, "b");
    watch.send(event("DELETED", &map("a", 7))).await.unwrap();
    let gone = changes.next().await.unwrap();
    assert!(gone.key.name == "a" && gone.old.is_some() && gone.new.is_none());
    assert_eq!(names(&informer), ["b"]);
    crew.stop().raise();
    assert!(changes.next().await.is_none());
}

#[tokio::test]
async fn own_writes_are_seen_at_once_and_never_bring_back_the_past() {
    let crew = Crew::new();
    let (informer, mut watches) = informer(vec![list(5, &[])], &crew);
    informer.synced().await;
    let watch = watches.recv().await.unwrap();

    informer.absorb(typed(map("mine", 8)));
    assert_eq!(names(&informer), ["mine"]);
    // An older event of the same name, still on its way, changes nothing.
    let mut changes = informer.subscribe();
    assert_eq!(changes.next().await.unwrap().key.name, "mine");
    watch.send(event("DELETED", &map("mine", 7))).await.unwrap();
    watch.send(event("ADDED", &map("mine", 8))).await.unwrap();
    watch.send(event("DELETED", &map("mine", 9))).await.unwrap();
    assert!(changes.next().await.unwrap().new.is_none());
    // What the watch has passed already is not taken in again.
    informer.absorb(typed(map("mine", 8)));
    assert!(names(&informer).is_empty());
    crew.stop().raise();
}

#[tokio::test]
async fn changes_of_one_object_are_merged() {
    let crew = Crew::new();
    let (informer, _watches) = informer(vec![list(5, &[map("a", 3)])], &crew);
    informer.synced().await;
    let mut changes = informer.subscribe();
    informer.absorb(typed(map("a", 6)));
    informer.absorb(typed(map("a", 7)));
    let change = changes.next().await.unwrap();
    let version = |map: &Option<Arc<ConfigMap>>| {
        map.as_ref()
            .and_then(|map| map.metadata.resource_version.clone())
    };
    assert_eq!(
        (version(&change.old), version(&change.new)),
        (None, Some("7".into()))
    );
    assert!(changes.try_next().is_none());
    crew.stop().raise();
}

#[tokio::test]
async fn an_expired_watch_is_mended_by_a_list() {
    let crew = Crew::new();
    let lists = vec![
        list(5, &[map("a", 3), map("b", 4)]),
        list(9, &[map("b", 4), map("c", 8)]),
    ];
    let (informer, mut watches) = informer(lists, &crew);
    informer.synced().await;
    let mut changes = informer.subscribe();
    let watch = watches.recv().await.unwrap();
    let expired = json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "old"});
    watch.send(event("ERROR", &expired)).await.unwrap();
    watches.recv().await.unwrap();
    assert_eq!(names(&informer), ["b", "c"]);
    let mut seen = Vec::new();
    while let Some(change) = changes.try_next() {
        seen.push((change.key.name, change.new.is_some()));
    }
    seen.sort();
    let expected = [
        ("a".to_owned(), false),
        ("b".to_owned(), true),
        ("c".to_owned(), true),
    ];
    assert_eq!(seen, expected);
    crew.stop().raise();
}

#[tokio::test]
async fn an_index_follows_its_objects() {
    let crew = Crew::new();
    let (informer, _watches) = informer(vec![list(5, &[map("a", 3)])], &crew);
    informer.synced().await;
    informer.add_index("sea", |map| {
        map.data
            .iter()
            .flatten()
            .map(|(_, value)| value.clone())
            .collect()
    });
    let mut blue = map("a", 6);
    blue["data"]["sea"] = "blue".into();
    informer.absorb(typed(blue));
    assert_eq!(informer.by_index("sea", "blue").len(), 1);
    informer.absorb(typed(map("a", 7)));
    assert!(informer.by_index("sea", "blue").is_empty());
    crew.stop().raise();
}
