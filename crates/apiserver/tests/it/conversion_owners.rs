//! Who owns the fields of custom resources whose versions a webhook converts.

use meta::Status;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::conversion::{V1, V2, port, start};

async fn apply(cluster: &Cluster, path: &str, query: &str, object: Value) -> Result<Value, Status> {
    let path = format!("{path}/a?{query}");
    let body = object.to_string().into_bytes();
    let kind = "application/apply-patch+yaml";
    cluster.client.patch_value(&path, kind, body).await
}

/// Each entry as `manager operation version fields`, fields without their `f:`.
fn owners(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let mut lines: Vec<String> = entries
        .iter()
        .map(|entry| {
            let fields = entry["fieldsV1"].as_object().unwrap().keys();
            let fields: Vec<&str> = fields.map(|key| key.trim_start_matches("f:")).collect();
            let word = |field: &str| entry[field].as_str().unwrap().to_owned();
            let version = word("apiVersion").replace("sea.example.com/", "");
            let (manager, operation) = (word("manager"), word("operation"));
            format!("{manager} {operation} {version} {}", fields.join(" "))
        })
        .collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn owners_are_judged_in_the_version_they_spoke() {
    let (cluster, _hooks) = start("/convert").await;
    let ours = port("v2", "a", json!({"host": "here", "port": "1"}));
    let made = apply(&cluster, V2, "fieldManager=a", ours).await.unwrap();
    assert_eq!(owners(&made), ["a Apply v2 host port"]);

    // The other version changes the port only, and that is what the conflict names.
    let moved = port("v1", "a", json!({"hostPort": "here:2"}));
    let refused = apply(&cluster, V1, "fieldManager=b", moved.clone()).await;
    let refused = refused.unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (
            409,
            "Apply failed with 1 conflict: conflict with \"a\": .port"
        )
    );
    let forced = apply(&cluster, V1, "fieldManager=b&force=true", moved).await;
    let expected = ["a Apply v2 host", "b Apply v1 hostPort"];
    assert_eq!(owners(&forced.unwrap()), expected);

    // A change of the host takes it from both: in v1 it is part of the one field there is.
    let mut seen = cluster.get(&format!("{V2}/a")).await.unwrap();
    assert_eq!(seen["port"], "2");
    seen["host"] = json!("there");
    let path = format!("{V2}/a?fieldManager=c");
    let changed = cluster.put(&path, &seen).await.unwrap();
    assert_eq!(owners(&changed), ["c Update v2 host"]);
    let kept = cluster.get(&format!("{V1}/a")).await.unwrap();
    assert_eq!(kept["hostPort"], "there:2");
    assert_eq!(owners(&kept), ["c Update v2 host"]);
    cluster.stop().await;
}

#[tokio::test]
async fn what_a_manager_drops_goes_whichever_version_it_speaks() {
    let (cluster, _hooks) = start("/convert").await;
    let mut first = port("v2", "a", json!({"host": "here", "port": "1"}));
    first["metadata"]["annotations"] = json!({"of-a": "1", "of-both": "1"});
    apply(&cluster, V2, "fieldManager=a", first).await.unwrap();
    let mut second = port("v2", "a", json!({}));
    second["metadata"]["annotations"] = json!({"of-both": "1"});
    apply(&cluster, V2, "fieldManager=b", second).await.unwrap();

    let third = port("v1", "a", json!({"hostPort": "here:1"}));
    let left = apply(&cluster, V1, "fieldManager=a", third).await.unwrap();
    assert_eq!(left["metadata"]["annotations"], json!({"of-both": "1"}));
    assert_eq!(left["hostPort"], "here:1");
    let expected = ["a Apply v1 hostPort", "b Apply v2 metadata"];
    assert_eq!(owners(&left), expected);
    cluster.stop().await;
}

#[tokio::test]
async fn creators_own_fields_in_the_version_they_speak() {
    let (cluster, _hooks) = start("/convert").await;
    let object = port("v2", "a", json!({"host": "here", "port": "1"}));
    let path = format!("{V2}?fieldManager=a");
    let made = cluster.post(&path, object).await.unwrap();
    assert_eq!(owners(&made), ["a Update v2 host port"]);
    let body = json!({"hostPort": "here:2"}).to_string().into_bytes();
    let path = format!("{V1}/a?fieldManager=b");
    let merge = "application/merge-patch+json";
    let patched = cluster.client.patch_value(&path, merge, body).await;
    let expected = ["a Update v2 host", "b Update v1 hostPort"];
    assert_eq!(owners(&patched.unwrap()), expected);
    cluster.stop().await;
}
