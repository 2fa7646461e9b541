//! Custom resources, and kinds in more than one version.

use client::{Watch, WatchEvent};
use http::Method;
use serde_json::{Value, json};

use crate::cluster::Cluster;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const BOATS: &str = "/apis/sea.example.com/v1/namespaces/default/boats";

fn definition() -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {
        "spec": {"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "maxLength": 5},
            "crew": {"type": "integer", "default": 2, "minimum": 1},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
        "status": {"type": "object", "properties": {"afloat": {"type": "boolean"}}}}}});
    let columns = json!([{"name": "Crew", "type": "integer", "jsonPath": ".spec.crew"}]);
    json!({"metadata": {"name": "boats.sea.example.com"}, "spec": {
        "group": "sea.example.com", "scope": "Namespaced",
        "names": {"plural": "boats", "kind": "Boat", "shortNames": ["bt"]},
        "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": schema,
                "subresources": {"status": {}}, "additionalPrinterColumns": columns},
            {"name": "v1beta1", "served": true, "storage": false, "schema": schema}]}})
}

/// Watches the definition until `enough`.
async fn until(cluster: &Cluster, enough: impl Fn(&WatchEvent<Value>) -> bool) {
    let path = format!("{DEFINITIONS}?watch=1&resourceVersion=0");
    let request = client::request::request(Method::GET, &path, None, client::empty()).unwrap();
    let body = cluster.client.send(request).await.unwrap().into_body();
    let mut watch = Watch::<Value>::new(body);
    let wait = async { while !enough(&watch.next().await.unwrap().unwrap()) {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), wait)
        .await
        .unwrap();
}

fn is_established(event: &WatchEvent<Value>) -> bool {
    let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = event else {
        return false;
    };
    let conditions = object["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|one| one["type"] == "Established" && one["status"] == "True")
}

pub(crate) async fn established() -> Cluster {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.get(BOATS).await.unwrap_err().code, 404);
    cluster.post(DEFINITIONS, definition()).await.unwrap();
    until(&cluster, is_established).await;
    cluster
}

#[tokio::test]
async fn instances_take_the_generic_path() {
    let cluster = established().await;
    let boat = json!({"apiVersion": "sea.example.com/v1", "kind": "Boat",
        "metadata": {"name": "a"}, "status": {"afloat": true},
        "spec": {"name": "x", "unknown": 1, "free": {"any": [1]}}});
    let made = cluster.post(BOATS, boat).await.unwrap();
    assert_eq!(
        made["spec"],
        json!({"name": "x", "crew": 2, "free": {"any": [1]}})
    );
    assert!(
        made.get("status").is_none() && made["metadata"]["generation"] == 1,
        "{made}"
    );
    let wrong = json!({"metadata": {"name": "b"}, "spec": {"name": "x", "crew": 0}});
    let refused = cluster.post(BOATS, wrong).await.unwrap_err();
    assert_eq!(
        refused.message,
        "Boat.sea.example.com \"b\" is invalid: spec.crew: Invalid value: 0: spec.crew in body \
         should be greater than or equal to 1"
    );
    let path = format!("{BOATS}/a");
    let body = json!({"status": {"afloat": true}}).to_string().into_bytes();
    let merge = "application/merge-patch+json";
    let status = cluster
        .client
        .patch_value(&format!("{path}/status"), merge, body)
        .await
        .unwrap();
    assert_eq!(status["status"]["afloat"], true);
    let apply = json!({"apiVersion": "sea.example.com/v1", "kind": "Boat",
        "metadata": {"name": "a"}, "spec": {"name": "y"}})
    .to_string()
    .into_bytes();
    let path = format!("{path}?fieldManager=me&force=true");
    let applied = cluster
        .client
        .patch_value(&path, "application/apply-patch+yaml", apply)
        .await;
    assert_eq!(applied.unwrap()["spec"]["name"], "y");
    let beta = "/apis/sea.example.com/v1beta1/namespaces/default/boats";
    let list = cluster.get(beta).await.unwrap();
    assert_eq!(list["items"][0]["apiVersion"], "sea.example.com/v1beta1");
    let discovery = cluster.get("/apis/sea.example.com/v1").await.unwrap();
    assert_eq!(discovery["resources"][0]["shortNames"], json!(["bt"]));
    let openapi = cluster
        .get("/openapi/v3/apis/sea.example.com/v1")
        .await
        .unwrap();
    assert!(openapi["components"]["schemas"]["com.example.sea.v1.Boat"].is_object());
    cluster.stop().await;
}

#[tokio::test]
async fn a_definition_takes_its_instances_along() {
    let cluster = established().await;
    let boat = json!({"metadata": {"name": "a"}, "spec": {"name": "x"}});
    cluster.post(BOATS, boat).await.unwrap();
    let path = format!("{DEFINITIONS}/boats.sea.example.com");
    cluster.client.delete_value(&path, None).await.unwrap();
    until(&cluster, |event| matches!(event, WatchEvent::Deleted(_))).await;
    assert_eq!(cluster.get("/apis").await.unwrap()["kind"], "APIGroupList");
    cluster.post(DEFINITIONS, definition()).await.unwrap();
    until(&cluster, is_established).await;
    assert_eq!(cluster.get(BOATS).await.unwrap()["items"], json!([]));
    cluster.stop().await;
}

#[tokio::test]
async fn events_are_seen_in_both_versions_and_expire() {
    let crew = base::Crew::new();
    let store = store::memory(&crew).await.unwrap();
    let cluster = Cluster::over(store.clone(), crew, 6443).await;
    let newer = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = json!({"metadata": {"name": "e", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "example.com/c",
        "reportingInstance": "i", "action": "Doing", "reason": "Done", "type": "Normal",
        "note": "all is well",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"}});
    let made = cluster.post(newer, event).await.unwrap();
    assert_eq!(made["note"], "all is well", "{made}");
    let core = cluster
        .get("/api/v1/namespaces/default/events/e")
        .await
        .unwrap();
    assert_eq!(
        (&core["message"], &core["apiVersion"]),
        (&json!("all is well"), &json!("v1"))
    );
    let selected = "/api/v1/events?fieldSelector=involvedObject.name%3Dp";
    assert_eq!(
        cluster.get(selected).await.unwrap()["items"][0]["reason"],
        "Done"
    );
    assert_eq!(
        cluster.get(newer).await.unwrap()["items"][0]["regarding"]["name"],
        "p"
    );
    let body = json!({"note": "all is better"}).to_string().into_bytes();
    let path = format!("{newer}/e");
    let merge = "application/merge-patch+json";
    let patched = cluster
        .client
        .patch_value(&path, merge, body)
        .await
        .unwrap();
    assert_eq!(patched["note"], "all is better");
    let leases = store.leases().await.unwrap();
    let status = store.lease_status(leases[0]).await.unwrap();
    assert_eq!(status.ttl_seconds_granted, 3660);
    assert_eq!(status.keys, ["/registry/events/default/e"]);
    store.lease_revoke(leases[0]).await.unwrap();
    assert!(cluster.get(&path).await.unwrap_err().is_not_found());
    cluster.stop().await;
}
