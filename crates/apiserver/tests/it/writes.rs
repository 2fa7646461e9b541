//! create, update, patch, delete and what they refuse.

use serde_json::{Value, json};

use crate::cluster::{CONFIG_MAPS, Cluster, PODS, config_map, pod};

const MERGE: &str = "application/merge-patch+json";

#[tokio::test]
async fn a_config_map_lives_and_dies() {
    let cluster = Cluster::start().await;
    let made = cluster
        .post(CONFIG_MAPS, config_map("a", "1"))
        .await
        .unwrap();
    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(cluster.get(&path).await.unwrap(), made);
    assert!(!made["metadata"]["uid"].as_str().unwrap().is_empty());
    let twice = cluster
        .post(CONFIG_MAPS, config_map("a", "1"))
        .await
        .unwrap_err();
    assert_eq!(
        (twice.code, twice.message.as_str()),
        (409, "configmaps \"a\" already exists")
    );

    let mut changed = made.clone();
    changed["data"]["key"] = "2".into();
    let second = cluster.put(&path, &changed).await.unwrap();
    assert_ne!(
        second["metadata"]["resourceVersion"],
        made["metadata"]["resourceVersion"]
    );
    let stale = cluster.put(&path, &changed).await.unwrap_err();
    assert_eq!(
        stale.message,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please \
         apply your changes to the latest version and try again"
    );
    // Writing what is there already writes nothing.
    let same = cluster.put(&path, &second).await.unwrap();
    assert_eq!(same, second);

    let wrong = json!({"preconditions": {"uid": "other"}});
    assert_eq!(
        cluster
            .client
            .delete_value(&path, Some(wrong))
            .await
            .unwrap_err()
            .code,
        409
    );
    let gone = cluster.client.delete_value(&path, None).await.unwrap();
    assert_eq!(
        (&gone["kind"], &gone["status"]),
        (&json!("Status"), &json!("Success"))
    );
    let missing = cluster.get(&path).await.unwrap_err();
    assert_eq!(
        (missing.code, missing.message.as_str()),
        (404, "configmaps \"a\" not found")
    );
    cluster.stop().await;
}

#[tokio::test]
async fn patches_of_all_kinds() {
    let cluster = Cluster::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    cluster
        .post(CONFIG_MAPS, config_map("a", "1"))
        .await
        .unwrap();
    let patch = |kind: &'static str, body: Value| {
        let (client, path) = (cluster.client.clone(), path.clone());
        async move {
            client
                .patch_value(&path, kind, body.to_string().into_bytes())
                .await
        }
    };
    let merged = patch(MERGE, json!({"data": {"b": "2", "key": null}}))
        .await
        .unwrap();
    assert_eq!(merged["data"], json!({"b": "2"}));
    let ops = json!([{"op": "test", "path": "/data/b", "value": "2"},
        {"op": "add", "path": "/data/c", "value": "3"}]);
    let patched = patch("application/json-patch+json", ops.clone())
        .await
        .unwrap();
    assert_eq!(patched["data"], json!({"b": "2", "c": "3"}));
    let strategic = patch(
        "application/strategic-merge-patch+json",
        json!({"metadata": {"labels": {"x": "y"}}}),
    );
    assert_eq!(
        strategic.await.unwrap()["metadata"]["labels"],
        json!({"x": "y"})
    );
    let failing = json!([{"op": "test", "path": "/data/b", "value": "3"}]);
    let failed = patch("application/json-patch+json", failing)
        .await
        .unwrap_err();
    assert_eq!(failed.code, 422, "{failed:?}");
    let rename = patch(MERGE, json!({"metadata": {"name": "b"}}))
        .await
        .unwrap_err();
    assert_eq!(rename.code, 400, "{rename:?}");
    let unknown = patch("text/plain", json!({})).await.unwrap_err();
    assert_eq!(unknown.code, 415, "{unknown:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn applied_fields_have_owners() {
    let cluster = Cluster::start().await;
    let path = format!("{CONFIG_MAPS}/a?fieldManager=one");
    let apply = "application/apply-patch+yaml";
    let body = config_map("a", "1").to_string().into_bytes();
    let made = cluster
        .client
        .patch_value(&path, apply, body.clone())
        .await
        .unwrap();
    assert_eq!(
        made["metadata"]["managedFields"][0]["manager"], "one",
        "{made}"
    );
    assert_eq!(made["metadata"]["managedFields"][0]["operation"], "Apply");
    let again = cluster
        .client
        .patch_value(&path, apply, body)
        .await
        .unwrap();
    assert_eq!(again, made);
    let other = format!("{CONFIG_MAPS}/a?fieldManager=two");
    let body = config_map("a", "2").to_string().into_bytes();
    let conflict = cluster
        .client
        .patch_value(&other, apply, body.clone())
        .await
        .unwrap_err();
    assert_eq!(
        (conflict.code, conflict.causes[0].field.as_str()),
        (409, ".data.key")
    );
    let forced = format!("{other}&force=true");
    let taken = cluster
        .client
        .patch_value(&forced, apply, body)
        .await
        .unwrap();
    assert_eq!(taken["data"]["key"], "2");
    cluster.stop().await;
}

#[tokio::test]
async fn bad_input_is_refused_in_upstreams_words() {
    let cluster = Cluster::start().await;
    let mut odd = config_map("a", "1");
    odd["spec"] = json!({"foo": 1});
    let strict = format!("{CONFIG_MAPS}?fieldValidation=Strict");
    let refused = cluster.post(&strict, odd.clone()).await.unwrap_err();
    assert_eq!(
        refused.message,
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: \
         unknown field \"spec\""
    );
    let made = cluster.post(CONFIG_MAPS, odd).await.unwrap();
    assert!(made.get("spec").is_none());
    // Several faults are told in the order of the body.
    for (body, faults) in [
        (
            r#"{"odd":1,"data":{"a":"1","a":"2"},"metadata":{"name":"b"}}"#,
            r#"unknown field "odd", duplicate field "data.a""#,
        ),
        (
            r#"{"data":{"a":"1","a":"2"},"odd":1,"metadata":{"name":"b"}}"#,
            r#"duplicate field "data.a", unknown field "odd""#,
        ),
    ] {
        let body = client::full(body.to_owned());
        let json = Some("application/json");
        let request = client::request::request(http::Method::POST, &strict, json, body).unwrap();
        let refused = cluster.client.send(request).await.unwrap_err();
        let end = format!("strict decoding error: {faults}");
        assert!(refused.message.ends_with(&end), "{}", refused.message);
    }
    let wrong = json!({"metadata": {"name": "b"}, "data": {"key": 1}});
    assert_eq!(
        cluster.post(CONFIG_MAPS, wrong).await.unwrap_err().code,
        400
    );
    let bad_name = cluster
        .post(CONFIG_MAPS, config_map("A_b", "1"))
        .await
        .unwrap_err();
    assert_eq!(
        (bad_name.code, bad_name.causes[0].field.as_str()),
        (422, "metadata.name")
    );
    let large = config_map("large", &"x".repeat(4 << 20));
    assert_eq!(
        cluster.post(CONFIG_MAPS, large).await.unwrap_err().code,
        413
    );
    let elsewhere = "/api/v1/namespaces/nowhere/configmaps";
    let refused = cluster
        .post(elsewhere, config_map("a", "1"))
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (404, "namespaces \"nowhere\" not found")
    );
    let version = json!({"apiVersion": "v2", "kind": "ConfigMap", "metadata": {"name": "x"}});
    assert_eq!(
        cluster
            .post(CONFIG_MAPS, version)
            .await
            .unwrap_err()
            .message,
        "ConfigMap in version \"v2\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is \
         registered for version \"v2\" in scheme \"pkg/api/legacyscheme/scheme.go:30\""
    );
    assert_eq!(cluster.get("/api/v1/nothings").await.unwrap_err().code, 404);
    cluster.stop().await;
}

#[tokio::test]
async fn names_are_generated_and_dry_runs_leave_nothing() {
    let cluster = Cluster::start().await;
    let body = json!({"metadata": {"generateName": "some-"}});
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    cluster.post(&dry, body.clone()).await.unwrap();
    let list = cluster.get(CONFIG_MAPS).await.unwrap();
    assert_eq!(list["items"], json!([]));
    let made = cluster.post(CONFIG_MAPS, body).await.unwrap();
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("some-") && name.len() == 10, "{name}");
    cluster.stop().await;
}

#[tokio::test]
async fn finalizers_hold_a_deleted_object() {
    let cluster = Cluster::start().await;
    let mut held = config_map("a", "1");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    cluster.post(CONFIG_MAPS, held).await.unwrap();
    let path = format!("{CONFIG_MAPS}/a");
    let options = json!({"propagationPolicy": "Foreground"});
    let waits = cluster
        .client
        .delete_value(&path, Some(options))
        .await
        .unwrap();
    assert!(waits["metadata"]["deletionTimestamp"].is_string());
    let finalizers = json!(["example.com/hold", "foregroundDeletion"]);
    assert_eq!(waits["metadata"]["finalizers"], finalizers);
    let release = json!({"metadata": {"finalizers": null}})
        .to_string()
        .into_bytes();
    cluster
        .client
        .patch_value(&path, MERGE, release)
        .await
        .unwrap();
    assert!(cluster.get(&path).await.unwrap_err().is_not_found());
    cluster.stop().await;
}

#[tokio::test]
async fn pods_are_bound_and_leave_gracefully() {
    let cluster = Cluster::start().await;
    let account = json!({"metadata": {"name": "default"}});
    cluster
        .post("/api/v1/namespaces/default/serviceaccounts", account)
        .await
        .unwrap();
    let made = cluster.post(PODS, pod("a")).await.unwrap();
    assert_eq!(made["status"]["phase"], "Pending", "{made}");
    assert_eq!(made["spec"]["restartPolicy"], "Always");
    let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}});
    let path = format!("{PODS}/a");
    cluster
        .post(&format!("{path}/binding"), binding.clone())
        .await
        .unwrap();
    let bound = cluster.get(&path).await.unwrap();
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["metadata"]["generation"], 1);
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let again = cluster
        .post(&format!("{path}/binding"), binding)
        .await
        .unwrap_err();
    assert_eq!(
        again.message,
        "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \
         \"n1\""
    );
    let mut status = bound.clone();
    status["status"]["phase"] = "Running".into();
    status["spec"]["nodeName"] = "n2".into();
    let written = cluster
        .put(&format!("{path}/status"), &status)
        .await
        .unwrap();
    assert_eq!(
        (&written["status"]["phase"], &written["spec"]["nodeName"]),
        (&json!("Running"), &json!("n1"))
    );
    let leaving = cluster.client.delete_value(&path, None).await.unwrap();
    assert_eq!(leaving["metadata"]["deletionGracePeriodSeconds"], 30);
    let now = json!({"gracePeriodSeconds": 0});
    cluster.client.delete_value(&path, Some(now)).await.unwrap();
    assert!(cluster.get(&path).await.unwrap_err().is_not_found());
    cluster.post(PODS, pod("b")).await.unwrap();
    cluster
        .client
        .delete_value(&format!("{PODS}/b"), None)
        .await
        .unwrap();
    assert!(
        cluster
            .get(&format!("{PODS}/b"))
            .await
            .unwrap_err()
            .is_not_found()
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_deployment_scales_and_counts_generations() {
    let cluster = Cluster::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let made = cluster.post(path, deployment).await.unwrap();
    assert_eq!(
        (&made["spec"]["replicas"], &made["metadata"]["generation"]),
        (&json!(1), &json!(1))
    );
    let own = format!("{path}/web");
    let body = json!({"spec": {"replicas": 3}}).to_string().into_bytes();
    let scaled = cluster
        .client
        .patch_value(&format!("{own}/scale"), MERGE, body)
        .await
        .unwrap();
    assert_eq!(
        (&scaled["kind"], &scaled["spec"]["replicas"]),
        (&json!("Scale"), &json!(3))
    );
    assert_eq!(scaled["status"]["selector"], "app=web");
    let now = cluster.get(&own).await.unwrap();
    assert_eq!(
        (&now["spec"]["replicas"], &now["metadata"]["generation"]),
        (&json!(3), &json!(2))
    );
    let body = json!({"status": {"replicas": 2}, "spec": {"replicas": 9}})
        .to_string()
        .into_bytes();
    let status = cluster
        .client
        .patch_value(&format!("{own}/status"), MERGE, body)
        .await
        .unwrap();
    assert_eq!(
        (&status["spec"]["replicas"], &status["status"]["replicas"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(status["metadata"]["generation"], 2);
    cluster.stop().await;
}

#[tokio::test]
async fn services_get_addresses_and_ports() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/default/services";
    let service = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let kubernetes = cluster.get(&format!("{path}/kubernetes")).await.unwrap();
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.96.0.1");
    let ports = json!([{"port": 80}]);
    let spec = json!({"ports": ports, "type": "NodePort"});
    let made = cluster.post(path, service("a", spec)).await.unwrap();
    let ip = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let node_port = made["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!(
        ip.starts_with("10.") && (30000..=32767).contains(&node_port),
        "{made}"
    );
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv4"]));
    let taken = json!({"ports": ports, "clusterIP": ip});
    let refused = cluster.post(path, service("b", taken)).await.unwrap_err();
    assert_eq!(
        refused.message,
        format!(
            "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"{ip}\"]: failed to \
             allocate IP {ip}: provided IP is already allocated"
        )
    );
    let port = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": node_port}]});
    let refused = cluster
        .post(path, service("b", port.clone()))
        .await
        .unwrap_err();
    assert_eq!(refused.causes[0].field, "spec.ports[0].nodePort");
    let headless = json!({"ports": ports, "clusterIP": "None"});
    let made = cluster.post(path, service("b", headless)).await.unwrap();
    assert_eq!(made["spec"]["clusterIPs"], json!(["None"]));
    cluster
        .client
        .delete_value(&format!("{path}/a"), None)
        .await
        .unwrap();
    cluster.post(path, service("c", port)).await.unwrap();
    cluster.stop().await;
}
