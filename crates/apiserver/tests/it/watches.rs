//! What watches deliver.

use client::{Watch, WatchEvent};
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::cluster::{CONFIG_MAPS, Cluster, config_map};

async fn watch(cluster: &Cluster, query: &str) -> Watch<Value> {
    let path = format!("{CONFIG_MAPS}?watch=1&{query}");
    let request = client::request::request(Method::GET, &path, None, client::empty()).unwrap();
    Watch::new(cluster.client.send(request).await.unwrap().into_body())
}

async fn next(watch: &mut Watch<Value>) -> String {
    let wait = tokio::time::timeout(std::time::Duration::from_secs(5), watch.next());
    let show = |word: &str, object: &Value| {
        let data = object["data"]["key"].as_str().unwrap_or("-");
        format!(
            "{word} {} {data}",
            object["metadata"]["name"].as_str().unwrap_or("-")
        )
    };
    match wait.await.expect("an event in time") {
        None => "end".into(),
        Some(Ok(WatchEvent::Added(object))) => show("added", &object),
        Some(Ok(WatchEvent::Modified(object))) => show("modified", &object),
        Some(Ok(WatchEvent::Deleted(object))) => show("deleted", &object),
        Some(Ok(WatchEvent::Bookmark(_))) => "bookmark".into(),
        Some(Err(status)) => format!("{} {}", status.code, status.message),
    }
}

#[tokio::test]
async fn changes_arrive_in_order() {
    let cluster = Cluster::start().await;
    cluster
        .post(CONFIG_MAPS, config_map("a", "1"))
        .await
        .unwrap();
    let list = cluster.get(CONFIG_MAPS).await.unwrap();
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut from_list = watch(&cluster, &format!("resourceVersion={version}")).await;
    let mut from_now = watch(&cluster, "").await;
    let mut labelled = watch(&cluster, "labelSelector=on%3Dyes").await;
    assert_eq!(next(&mut from_now).await, "added a 1");
    let path = format!("{CONFIG_MAPS}/a");
    let mut changed = config_map("a", "2");
    changed["metadata"]["labels"] = json!({"on": "yes"});
    cluster.put(&path, &changed).await.unwrap();
    assert_eq!(next(&mut from_list).await, "modified a 2");
    assert_eq!(next(&mut from_now).await, "modified a 2");
    assert_eq!(next(&mut labelled).await, "added a 2");
    cluster.put(&path, &config_map("a", "3")).await.unwrap();
    assert_eq!(next(&mut labelled).await, "deleted a 2");
    cluster.client.delete_value(&path, None).await.unwrap();
    assert_eq!(next(&mut from_list).await, "modified a 3");
    assert_eq!(next(&mut from_list).await, "deleted a 3");
    // What the ring holds is replayed.
    let mut late = watch(&cluster, &format!("resourceVersion={version}")).await;
    assert_eq!(next(&mut late).await, "modified a 2");
    cluster.stop().await;
}

#[tokio::test]
async fn a_streamed_list_ends_with_a_bookmark() {
    let cluster = Cluster::start().await;
    cluster
        .post(CONFIG_MAPS, config_map("a", "1"))
        .await
        .unwrap();
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut stream = watch(&cluster, query).await;
    assert_eq!(next(&mut stream).await, "added a 1");
    assert_eq!(next(&mut stream).await, "bookmark");
    cluster
        .post(CONFIG_MAPS, config_map("b", "1"))
        .await
        .unwrap();
    assert_eq!(next(&mut stream).await, "added b 1");
    cluster.stop().await;
}

#[tokio::test]
async fn events_that_wait_leave_in_one_piece() {
    let cluster = Cluster::start().await;
    let list = cluster.get(CONFIG_MAPS).await.unwrap();
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let small = ["a", "b", "c"];
    for name in small {
        let map = config_map(name, "1");
        cluster.post(CONFIG_MAPS, map).await.unwrap();
    }
    let large = config_map("d", &"x".repeat(32 << 10));
    cluster.post(CONFIG_MAPS, large).await.unwrap();
    let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={version}");
    let request = client::request::request(Method::GET, &path, None, client::empty()).unwrap();
    let mut body = cluster.client.send(request).await.unwrap().into_body();
    let mut pieces = Vec::new();
    for _ in 0..2 {
        let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let events = piece.split_inclusive(|byte| *byte == b'\n');
        let names = events.map(|event| {
            let event: Value = serde_json::from_slice(event).unwrap();
            event["object"]["metadata"]["name"]
                .as_str()
                .map(String::from)
        });
        pieces.push(names.collect::<Option<Vec<_>>>().unwrap());
    }
    // What is larger than a piece goes alone.
    assert_eq!(pieces, [small.map(String::from).to_vec(), vec!["d".into()]]);
    cluster.stop().await;
}

#[tokio::test]
async fn a_watch_ends_in_time() {
    let cluster = Cluster::start().await;
    let mut short = watch(&cluster, "timeoutSeconds=1&allowWatchBookmarks=true").await;
    // Where the initial events end, and where the watch does.
    assert_eq!(next(&mut short).await, "bookmark");
    assert_eq!(next(&mut short).await, "bookmark");
    assert_eq!(next(&mut short).await, "end");
    cluster.stop().await;
}

#[tokio::test]
async fn a_new_server_does_not_know_the_past() {
    let crew = base::Crew::new();
    let store = store::memory(&crew).await.unwrap();
    let first = Cluster::over(store.clone(), base::Crew::new(), 6443).await;
    first.post(CONFIG_MAPS, config_map("a", "1")).await.unwrap();
    let second = Cluster::over(store, crew, 6443).await;
    let mut past = watch(&second, "resourceVersion=1").await;
    let told = next(&mut past).await;
    assert!(
        told.starts_with("410 too old resource version: 1 ("),
        "{told}"
    );
    assert_eq!(next(&mut past).await, "end");
    let mut fresh = watch(&second, "").await;
    assert_eq!(next(&mut fresh).await, "added a 1");
    first.post(CONFIG_MAPS, config_map("b", "1")).await.unwrap();
    assert_eq!(next(&mut fresh).await, "added b 1");
    first.stop().await;
    second.stop().await;
}
