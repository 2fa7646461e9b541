//! Custom resources whose versions a webhook converts, as upstream's test image does.

use client::{Watch, WatchEvent};
use http::Method;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::webhooks::hooks::Hooks;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub(crate) const V1: &str = "/apis/sea.example.com/v1/namespaces/default/ports";
pub(crate) const V2: &str = "/apis/sea.example.com/v2/namespaces/default/ports";

/// The webhook: `hostPort` of v1 is `host` and `port` of v2.
pub(crate) fn convert(path: &str, review: &Value) -> Value {
    let request = &review["request"];
    let to = request["desiredAPIVersion"].as_str().unwrap();
    let objects = request["objects"].as_array().unwrap();
    let mut converted: Vec<Value> = objects.iter().map(|object| one(object, to)).collect();
    let mut result = json!({"status": "Success"});
    match path {
        "/convert-fail" => result = json!({"status": "Failed", "message": "no way"}),
        "/convert-none" => converted.clear(),
        "/convert-rename" => converted[0]["metadata"]["name"] = json!("other"),
        _ => {}
    }
    json!({"kind": "ConversionReview", "apiVersion": review["apiVersion"], "response": {
        "uid": request["uid"], "result": result, "convertedObjects": converted}})
}

fn one(object: &Value, to: &str) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = json!(to);
    let map = object.as_object_mut().unwrap();
    if to.ends_with("/v2") {
        if let Some(both) = map.remove("hostPort") {
            let (host, port) = both.as_str().unwrap().split_once(':').unwrap();
            map.insert("host".into(), host.into());
            map.insert("port".into(), port.into());
        }
    } else if let (Some(host), Some(port)) = (map.remove("host"), map.remove("port")) {
        let (host, port) = (host.as_str().unwrap(), port.as_str().unwrap());
        map.insert("hostPort".into(), format!("{host}:{port}").into());
    }
    object
}

fn definition(hooks: &Hooks, path: &str) -> Value {
    let version = |name: &str, stored: bool, fields: Value| {
        json!({"name": name, "served": true, "storage": stored,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": fields}}})
    };
    let text = json!({"type": "string"});
    json!({"metadata": {"name": "ports.sea.example.com"}, "spec": {
        "group": "sea.example.com", "scope": "Namespaced",
        "names": {"plural": "ports", "singular": "port", "kind": "Port", "listKind": "PortList"},
        "conversion": {"strategy": "Webhook", "webhook": {
            "clientConfig": hooks.config(path), "conversionReviewVersions": ["v1", "v1beta1"]}},
        "versions": [
            version("v1", true, json!({"hostPort": text})),
            version("v2", false, json!({"host": text, "port": text}))]}})
}

/// Waits until a version is served, and stored.
async fn until_stored(cluster: &Cluster, version: &str) {
    let path = format!("{DEFINITIONS}?watch=1&resourceVersion=0");
    let request = client::request::request(Method::GET, &path, None, client::empty()).unwrap();
    let body = cluster.client.send(request).await.unwrap().into_body();
    let mut watch = Watch::<Value>::new(body);
    let has = |event: WatchEvent<Value>| {
        let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = event else {
            return false;
        };
        let list = |field: &str| {
            object["status"][field]
                .as_array()
                .cloned()
                .unwrap_or_default()
        };
        let is_established = |one: &Value| one["type"] == "Established" && one["status"] == "True";
        list("conditions").iter().any(is_established)
            && list("storedVersions").iter().any(|one| one == version)
    };
    let wait = async { while !has(watch.next().await.unwrap().unwrap()) {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), wait)
        .await
        .unwrap();
}

pub(crate) async fn start(path: &str) -> (Cluster, Hooks) {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(&cluster).await;
    let definition = definition(&hooks, path);
    cluster.post(DEFINITIONS, definition).await.unwrap();
    until_stored(&cluster, "v1").await;
    (cluster, hooks)
}

/// Makes v2 the version in which objects are kept.
async fn store_as_v2(cluster: &Cluster) {
    let path = format!("{DEFINITIONS}/ports.sea.example.com");
    let mut definition = cluster.get(&path).await.unwrap();
    definition["spec"]["versions"][0]["storage"] = json!(false);
    definition["spec"]["versions"][1]["storage"] = json!(true);
    cluster.put(&path, &definition).await.unwrap();
    until_stored(cluster, "v2").await;
}

pub(crate) fn port(version: &str, name: &str, fields: Value) -> Value {
    let mut object = json!({"apiVersion": format!("sea.example.com/{version}"), "kind": "Port",
        "metadata": {"name": name}});
    let map = object.as_object_mut().unwrap();
    map.extend(fields.as_object().unwrap().clone());
    object
}

#[tokio::test]
async fn every_verb_speaks_every_version() {
    let (cluster, hooks) = start("/convert").await;
    let first = port("v1", "a", json!({"hostPort": "here:1"}));
    cluster.post(V1, first).await.unwrap();
    let seen = cluster.get(&format!("{V2}/a")).await.unwrap();
    assert_eq!(seen["apiVersion"], "sea.example.com/v2");
    assert_eq!(
        (&seen["host"], &seen["port"]),
        (&json!("here"), &json!("1"))
    );
    assert!(seen.get("hostPort").is_none());
    // Created, changed and patched in the version that is not stored.
    let second = port("v2", "b", json!({"host": "there", "port": "2"}));
    let made = cluster.post(V2, second).await.unwrap();
    assert_eq!(
        (&made["host"], &made["apiVersion"]),
        (&json!("there"), &json!("sea.example.com/v2"))
    );
    let kept = cluster.get(&format!("{V1}/b")).await.unwrap();
    assert_eq!(kept["hostPort"], "there:2");
    let mut changed = made;
    changed["port"] = json!("3");
    let changed = cluster.put(&format!("{V2}/b"), &changed).await.unwrap();
    assert_eq!(changed["port"], "3");
    for (kind, more, body) in [
        ("application/merge-patch+json", "", json!({"port": "4"})),
        (
            "application/apply-patch+yaml",
            "&force=true",
            port("v2", "b", json!({"host": "there", "port": "5"})),
        ),
    ] {
        let path = format!("{V2}/b?fieldManager=me{more}");
        let body = body.to_string().into_bytes();
        let patched = cluster.client.patch_value(&path, kind, body).await;
        let port = patched.unwrap()["port"].clone();
        let kept = cluster.get(&format!("{V1}/b")).await.unwrap();
        let port = port.as_str().unwrap();
        assert_eq!(kept["hostPort"], format!("there:{port}"), "{kind}");
    }
    // A list is converted in one call.
    let calls = hooks.calls("/convert");
    let list = cluster.get(V2).await.unwrap();
    let hosts: Vec<&Value> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["host"])
        .collect();
    assert_eq!(hosts, ["here", "there"]);
    assert_eq!(
        list["items"][0]["metadata"]["resourceVersion"],
        seen["metadata"]["resourceVersion"]
    );
    assert_eq!(hooks.calls("/convert"), calls + 1);
    // And what is watched is shown in the watch's version.
    let path = format!("{V2}?watch=1&resourceVersion=0&timeoutSeconds=1");
    let request = client::request::request(Method::GET, &path, None, client::empty()).unwrap();
    let body = cluster.client.send(request).await.unwrap().into_body();
    let mut watch = Watch::<Value>::new(body);
    let Some(Ok(WatchEvent::Added(event))) = watch.next().await else {
        panic!("no event");
    };
    assert_eq!(event["host"], "here");
    cluster
        .client
        .delete_value(&format!("{V2}/a"), None)
        .await
        .unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn chosen_fields_select_in_every_version() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(&cluster).await;
    let mut definition = definition(&hooks, "/convert");
    let versions = &mut definition["spec"]["versions"];
    versions[0]["selectableFields"] = json!([{"jsonPath": ".hostPort"}]);
    versions[1]["selectableFields"] = json!([{"jsonPath": ".host"}, {"jsonPath": ".port"}]);
    cluster.post(DEFINITIONS, definition).await.unwrap();
    until_stored(&cluster, "v1").await;
    let here = format!("{V2}?fieldSelector=host%3Dhere");
    let path = format!("{here}&watch=1&resourceVersion=0&timeoutSeconds=10");
    let request = client::request::request(Method::GET, &path, None, client::empty()).unwrap();
    let body = cluster.client.send(request).await.unwrap().into_body();
    let mut watch = Watch::<Value>::new(body);
    for (name, host, number) in [("a", "here", "1"), ("b", "here", "2"), ("c", "there", "1")] {
        let made = port("v2", name, json!({"host": host, "port": number}));
        cluster.post(V2, made).await.unwrap();
    }
    let names = |list: Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|one| one["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(cluster.get(&here).await.unwrap()), ["a", "b"]);
    let both = format!("{here},port%3D2");
    assert_eq!(names(cluster.get(&both).await.unwrap()), ["b"]);
    let first = format!("{V1}?fieldSelector=hostPort%3Dhere:1");
    assert_eq!(names(cluster.get(&first).await.unwrap()), ["a"]);
    cluster.client.delete_value(&both, None).await.unwrap();
    let mut moved = cluster.get(&format!("{V2}/a")).await.unwrap();
    moved["host"] = json!("there");
    cluster.put(&format!("{V2}/a"), &moved).await.unwrap();
    assert_eq!(names(cluster.get(&here).await.unwrap()), [""; 0]);
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.push(match watch.next().await.unwrap().unwrap() {
            WatchEvent::Added(object) => format!("+{}", object["metadata"]["name"]),
            WatchEvent::Deleted(object) => format!("-{}", object["metadata"]["name"]),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(seen, ["+\"a\"", "+\"b\"", "-\"b\"", "-\"a\""]);
    cluster.stop().await;
}

#[tokio::test]
async fn what_was_stored_in_another_version_is_converted_too() {
    let (cluster, _hooks) = start("/convert").await;
    let first = port("v1", "a", json!({"hostPort": "here:1"}));
    cluster.post(V1, first).await.unwrap();
    store_as_v2(&cluster).await;
    let second = port("v2", "b", json!({"host": "there", "port": "2"}));
    cluster.post(V2, second).await.unwrap();
    let list = cluster.get(V1).await.unwrap();
    let items = list["items"].as_array().unwrap();
    let ports: Vec<&Value> = items.iter().map(|one| &one["hostPort"]).collect();
    assert_eq!(ports, ["here:1", "there:2"]);
    let list = cluster.get(V2).await.unwrap();
    let items = list["items"].as_array().unwrap();
    let ports: Vec<&Value> = items.iter().map(|one| &one["port"]).collect();
    assert_eq!(ports, ["1", "2"]);
    // A change brings the old one to the new version.
    let patch = json!({"metadata": {"labels": {"new": "yes"}}});
    let patch = patch.to_string().into_bytes();
    let kind = "application/merge-patch+json";
    let patched = cluster
        .client
        .patch_value(&format!("{V1}/a"), kind, patch)
        .await;
    assert_eq!(patched.unwrap()["hostPort"], "here:1");
    cluster.stop().await;
}

#[tokio::test]
async fn a_webhook_that_misbehaves_is_told_of() {
    for (path, why) in [
        ("/convert-fail", "failed: no way"),
        ("/convert-none", "returned 0 objects, expected 1"),
        (
            "/convert-rename",
            "returned invalid converted object at index 0: must have the same name: a != other",
        ),
    ] {
        let (cluster, _hooks) = start(path).await;
        let first = port("v1", "a", json!({"hostPort": "here:1"}));
        cluster.post(V1, first).await.unwrap();
        let status = cluster.get(&format!("{V2}/a")).await.unwrap_err();
        assert_eq!(
            (status.code, status.message),
            (
                500,
                format!("conversion webhook for sea.example.com/v1, Kind=Port {why}")
            )
        );
        cluster.stop().await;
    }
}

#[tokio::test]
async fn without_a_webhook_versions_differ_in_name_only() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(&cluster).await;
    let mut plain = definition(&hooks, "/convert");
    plain["spec"].as_object_mut().unwrap().remove("conversion");
    plain["spec"]["versions"][1]["schema"] = plain["spec"]["versions"][0]["schema"].clone();
    cluster.post(DEFINITIONS, plain).await.unwrap();
    until_stored(&cluster, "v1").await;
    let first = port("v1", "a", json!({"hostPort": "here:1"}));
    cluster.post(V1, first).await.unwrap();
    store_as_v2(&cluster).await;
    let patch = json!({"hostPort": "here:2"}).to_string().into_bytes();
    let kind = "application/merge-patch+json";
    let patched = cluster
        .client
        .patch_value(&format!("{V2}/a"), kind, patch)
        .await;
    assert_eq!(patched.unwrap()["apiVersion"], "sea.example.com/v2");
    let seen = cluster.get(&format!("{V1}/a")).await.unwrap();
    assert_eq!(
        (&seen["apiVersion"], &seen["hostPort"]),
        (&json!("sea.example.com/v1"), &json!("here:2"))
    );
    cluster.stop().await;
}
