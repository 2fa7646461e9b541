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

#[tokio::test]
async fn subresources_of_pods_change_their_part_by_their_rules() {
    let cluster = Cluster::start().await;
    let account = json!({"metadata": {"name": "default"}});
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    cluster.post(accounts, account).await.expect("an account");
    let mut pod = crate::cluster::pod("web");
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
    let pods = crate::cluster::PODS;
    cluster.post(pods, pod).await.expect("a pod");
    let path = format!("{pods}/web");
    let send = async |part: &str, body: Value| {
        let path = format!("{path}/{part}");
        let body = serde_json::to_vec(&body).unwrap();
        let kind = "application/strategic-merge-patch+json";
        let answer = cluster.client.patch_value(&path, kind, body).await;
        answer.map_err(|status| status.message)
    };
    let debug = json!([{"name": "debug", "image": "busybox"}]);
    let made = send(
        "ephemeralcontainers",
        json!({"spec": {"ephemeralContainers": debug, "nodeName": "ignored"}}),
    );
    let made = made.await.expect("a debug container");
    assert_eq!(
        made["spec"]["ephemeralContainers"][0]["imagePullPolicy"],
        "Always"
    );
    assert!(made["spec"].get("nodeName").is_none());
    assert_eq!(made["metadata"]["generation"], 2);
    let gone = json!({"spec": {"ephemeralContainers": [{"name": "debug", "$patch": "delete"}]}});
    assert_eq!(
        send("ephemeralcontainers", gone).await.unwrap_err(),
        "Pod \"web\" is invalid: spec.ephemeralContainers: Forbidden: existing ephemeral \
         containers \"debug\" may not be removed\n"
    );
    let sizes = |sizes: Value| json!({"spec": {"containers": [{"name": "main", "image": "other", "resources": sizes}]}});
    let larger = send("resize", sizes(json!({"requests": {"cpu": "2"}}))).await;
    let larger = larger.expect("a larger pod");
    let container = &larger["spec"]["containers"][0];
    assert_eq!(container["resources"]["requests"]["cpu"], "2");
    assert_eq!(container["image"], "example.com/app:1");
    let status = json!({"status": {"podIP": "10.0.0.7"}});
    let said = send("status", status).await.expect("a status");
    assert_eq!(said["status"]["podIPs"], json!([{"ip": "10.0.0.7"}]));
    assert_eq!(said["status"]["qosClass"], "Burstable");
}
