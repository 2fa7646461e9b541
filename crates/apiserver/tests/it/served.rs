//! What is served at all: ComponentStatus, which nobody keeps, and what `--runtime-config` leaves.

use apiserver::RuntimeConfig;
use base::Crew;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::Cluster;

const COMPONENTS: &str = "/api/v1/componentstatuses";

#[tokio::test]
async fn components_tell_how_they_are() {
    let crew = Crew::new();
    let store = store::memory(&crew).await.unwrap();
    let cluster = Cluster::with(store, crew, |config| {
        config.parts = &["controller-manager", "scheduler"];
    })
    .await;
    let list = cluster.get(COMPONENTS).await.unwrap();
    assert_eq!(list["kind"], "ComponentStatusList");
    let items = list["items"].as_array().unwrap();
    let names: Vec<_> = items
        .iter()
        .map(|own| own["metadata"]["name"].clone())
        .collect();
    assert_eq!(names, ["controller-manager", "scheduler", "etcd-0"]);
    for item in items {
        let condition = json!({"type": "Healthy", "status": "True", "message": "ok"});
        assert_eq!(item["conditions"], json!([condition]));
    }
    let one = cluster.get(&format!("{COMPONENTS}/etcd-0")).await.unwrap();
    assert_eq!(
        (&one["kind"], &one["apiVersion"]),
        (&json!("ComponentStatus"), &json!("v1"))
    );
    let chosen = format!("{COMPONENTS}?fieldSelector=metadata.name%3Dscheduler");
    let chosen = cluster.get(&chosen).await.unwrap();
    assert_eq!(chosen["items"].as_array().map(Vec::len), Some(1));
    let nobody = cluster.get(&format!("{COMPONENTS}/x")).await.unwrap_err();
    assert_eq!(
        (nobody.code, &*nobody.message),
        (404, "Component not found: x")
    );
    for (method, path) in [(Method::POST, COMPONENTS), (Method::GET, "/api/v1/watch/x")] {
        let code = cluster
            .client
            .send_value(method, path, &json!({}))
            .await
            .unwrap_err()
            .code;
        assert!(matches!(code, 404 | 405));
    }
    cluster.stop().await;
}

#[tokio::test]
async fn what_is_switched_off_is_not_there() {
    let crew = Crew::new();
    let store = store::memory(&crew).await.unwrap();
    let off = [
        "batch/v1=false",
        "autoscaling/v1=false",
        "apps/v1/daemonsets=false",
    ];
    let off: Vec<String> = off.iter().map(|own| (*own).to_owned()).collect();
    let cluster = Cluster::with(store, crew, |config| {
        config.runtime = RuntimeConfig::parse(&off).unwrap();
    })
    .await;
    for (path, served) in [
        ("/apis/batch", false),
        ("/apis/batch/v1", false),
        ("/apis/batch/v1/jobs", false),
        ("/apis/autoscaling/v1/horizontalpodautoscalers", false),
        ("/apis/autoscaling/v2/horizontalpodautoscalers", true),
        ("/apis/apps/v1/daemonsets", false),
        ("/apis/apps/v1/deployments", true),
        ("/openapi/v3/apis/batch/v1", false),
        ("/openapi/v3/apis/apps/v1", true),
    ] {
        assert_eq!(cluster.get(path).await.is_ok(), served, "{path}");
    }
    let groups = cluster.get("/apis").await.unwrap();
    let groups = groups["groups"].as_array().unwrap();
    let find = |name: &str| groups.iter().find(|own| own["name"] == name);
    assert!(find("batch").is_none());
    let versions = find("autoscaling").map(|own| own["versions"].as_array().map(Vec::len));
    assert_eq!(versions, Some(Some(1)));
    let paths = cluster.get("/openapi/v3").await.unwrap();
    let paths: &serde_json::Map<String, Value> = paths["paths"].as_object().unwrap();
    assert!(!paths.contains_key("apis/batch/v1") && paths.contains_key("apis/apps/v1"));
    cluster.stop().await;
}
