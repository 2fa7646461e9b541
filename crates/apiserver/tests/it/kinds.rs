//! Kinds that have more than one version, or more to them than their rows.

use serde_json::{Value, json};

use crate::cluster::Cluster;

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().into_iter().flatten();
    items
        .filter_map(|item| item["metadata"]["name"].as_str())
        .collect()
}

#[tokio::test]
async fn events_are_selected_by_the_names_of_their_version() {
    let cluster = Cluster::start().await;
    for (name, controller) in [("one", "example.com/a"), ("two", "example.com/b")] {
        let event = json!({
            "metadata": {"name": name, "namespace": "default"},
            "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Do", "reason": "Done",
            "type": "Normal", "reportingController": controller, "reportingInstance": "i",
            "regarding": {"kind": "Pod", "namespace": "default", "name": name},
        });
        let path = "/apis/events.k8s.io/v1/namespaces/default/events";
        cluster.post(path, event).await.expect("an event");
    }
    for path in [
        "/apis/events.k8s.io/v1/events?fieldSelector=reportingController%3Dexample.com/a",
        "/apis/events.k8s.io/v1/events?fieldSelector=regarding.name%3Done",
        "/api/v1/events?fieldSelector=reportingComponent%3Dexample.com/a",
    ] {
        let list = cluster.get(path).await.expect("a list");
        assert_eq!(names(&list), ["one"], "{path}");
    }
    let refused = |path: &'static str| async { cluster.get(path).await.map_err(|s| s.message) };
    assert_eq!(
        refused("/apis/events.k8s.io/v1/events?fieldSelector=source%3Dx").await,
        Err("field label not supported: source".into())
    );
    assert_eq!(
        refused("/api/v1/configmaps?fieldSelector=data%3Dx").await,
        Err(
            "\"data\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                .into()
        )
    );
}

#[tokio::test]
async fn the_range_of_services_is_ready() {
    let cluster = Cluster::start().await;
    let range = cluster
        .get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes")
        .await
        .expect("the default range");
    assert_eq!(range["status"]["conditions"][0]["type"], "Ready");
    assert_eq!(range["status"]["conditions"][0]["status"], "True");
}

#[tokio::test]
async fn some_updates_must_name_what_they_replace() {
    let cluster = Cluster::start().await;
    let path = "/apis/storage.k8s.io/v1/csinodes";
    let node = json!({"metadata": {"name": "n1"}, "spec": {"drivers": []}});
    cluster.post(path, node.clone()).await.expect("a node");
    let refusal = cluster.put(&format!("{path}/n1"), &node).await;
    assert_eq!(
        refusal.map_err(|status| (status.code, status.message)),
        Err((
            422,
            "csinodes.storage.k8s.io \"n1\" is invalid: metadata.resourceVersion: Invalid value: \
             0: must be specified for an update"
                .into()
        ))
    );
}
