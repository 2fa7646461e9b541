//! Custom resources in several versions, each with a schema of its own.

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::custom::{is_established, until};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const STORED: &str = "/apis/sea.example.com/v1/namespaces/default/buoys";
const SPOKEN: &str = "/apis/sea.example.com/v1beta1/namespaces/default/buoys";

fn definition() -> Value {
    let version = |name: &str, stored: bool, most: i64| {
        let size = json!({"type": "integer", "maximum": most});
        let rule = json!([{"rule": "self.size != 3", "message": format!("not in {name}")}]);
        let mut spec = json!({"type": "object", "properties": {"size": size}});
        if !stored {
            spec["x-kubernetes-validations"] = rule;
        }
        json!({"name": name, "served": true, "storage": stored, "schema": {"openAPIV3Schema":
            {"type": "object", "properties": {"spec": spec}}}})
    };
    json!({"metadata": {"name": "buoys.sea.example.com"}, "spec": {
        "group": "sea.example.com", "scope": "Namespaced",
        "names": {"plural": "buoys", "singular": "buoy", "kind": "Buoy", "listKind": "BuoyList"},
        "versions": [version("v1", true, 2000), version("v1beta1", false, 5)]}})
}

fn buoy(name: &str, size: i64) -> Value {
    json!({"kind": "Buoy", "metadata": {"name": name}, "spec": {"size": size}})
}

#[tokio::test]
async fn what_is_written_is_judged_by_the_schema_of_its_version() {
    let cluster = Cluster::start().await;
    cluster.post(DEFINITIONS, definition()).await.unwrap();
    until(&cluster, is_established).await;
    let post = async |path: &str, name: &str, size: i64| {
        let version = path.split('/').nth(3).unwrap();
        let mut body = buoy(name, size);
        body["apiVersion"] = format!("sea.example.com/{version}").into();
        cluster.post(path, body).await
    };
    let said = |status: meta::Status| status.causes[0].message.clone();
    let refused = said(post(SPOKEN, "a", 9).await.unwrap_err());
    assert!(refused.contains("less than or equal to 5"), "{refused}");
    let refused = said(post(SPOKEN, "a", 3).await.unwrap_err());
    assert!(refused.contains("not in v1beta1"), "{refused}");
    let made = post(SPOKEN, "a", 4).await.unwrap();
    let owner = &made["metadata"]["managedFields"][0];
    assert_eq!(owner["apiVersion"], "sea.example.com/v1beta1");
    post(STORED, "b", 9).await.unwrap();
    post(STORED, "c", 3).await.unwrap();
    // A change of what is too large for the other version is judged by it, unless it stays so.
    let mut large = cluster.get(&format!("{SPOKEN}/b")).await.unwrap();
    assert_eq!(large["apiVersion"], "sea.example.com/v1beta1");
    large["metadata"]["labels"] = json!({"a": "b"});
    let mut large = cluster.put(&format!("{SPOKEN}/b"), &large).await.unwrap();
    large["spec"]["size"] = json!(10);
    let refused = cluster.put(&format!("{SPOKEN}/b"), &large).await;
    assert_eq!(refused.unwrap_err().code, 422);
    cluster.stop().await;
}
