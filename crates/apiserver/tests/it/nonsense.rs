//! Whatever is sent, nothing panics: a panic would be answered with 500.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::Cluster;

fn bodies() -> Vec<Value> {
    let deep = (0..100).fold(json!({}), |inner, _| json!({"a": inner}));
    vec![
        json!(null),
        json!([]),
        json!("text"),
        json!({}),
        json!({"metadata": null}),
        json!({"metadata": []}),
        json!({"metadata": {"name": 7}}),
        json!({"metadata": {"name": ""}}),
        json!({"metadata": {"name": "x", "labels": {"": "", "a": "b"}, "annotations": {"/": ""}}}),
        json!({"metadata": {"name": "x", "ownerReferences": [{}], "finalizers": ["", "a/b/c"]}}),
        json!({"metadata": {"generateName": "x".repeat(300)}}),
        json!({"metadata": {"name": "x"}, "spec": {}}),
        json!({"metadata": {"name": "x"}, "spec": null, "status": null}),
        json!({"metadata": {"name": "x"}, "spec": {"selector": {}, "template": {"spec": {}},
            "replicas": -1, "ports": [{}], "containers": [{}], "rules": [{}], "tls": [{}]}}),
        json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "c", "image": "i",
            "resources": {"limits": {"cpu": "x"}}, "ports": [{"containerPort": -1}]}]}}),
        json!({"metadata": {"name": "x"}, "spec": {"versions": [{}], "names": {}, "group": ""}}),
        json!({"metadata": {"name": "x"}, "spec": deep}),
        json!({"metadata": {"name": "x", "namespace": "other"}}),
        json!({"metadata": {"name": "x"}, "rules": [{}], "subjects": [{}], "roleRef": {}}),
        json!({"metadata": {"name": "\u{0}\u{1F6A2}"}, "data": {"": null}, "type": 1}),
    ]
}

async fn send(
    cluster: &Cluster,
    method: &Method,
    path: &str,
    media_type: &str,
    body: &Value,
) -> u16 {
    let body = client::full(body.to_string());
    let request = client::request::request(method.clone(), path, Some(media_type), body).unwrap();
    match cluster.client.bytes(request).await {
        Ok(_) => 200,
        Err(status) => {
            assert!(
                !status.message.contains("panic"),
                "{method} {path}: {status:?}"
            );
            status.code
        }
    }
}

#[tokio::test]
async fn no_body_breaks_any_kind() {
    let cluster = Cluster::start().await;
    let account = json!({"metadata": {"name": "default"}});
    cluster
        .post("/api/v1/namespaces/default/serviceaccounts", account)
        .await
        .unwrap();
    let bodies = bodies();
    for row in kinds::rows() {
        let namespace = row.names.is_namespaced().then_some("default");
        let collection = row.names.path(namespace, None);
        let object = row.names.path(namespace, Some("x"));
        for body in &bodies {
            send(
                &cluster,
                &Method::POST,
                &collection,
                "application/json",
                body,
            )
            .await;
            send(&cluster, &Method::PUT, &object, "application/json", body).await;
            let status = format!("{object}/status");
            send(&cluster, &Method::PUT, &status, "application/json", body).await;
            for kind in [
                "merge-patch+json",
                "strategic-merge-patch+json",
                "json-patch+json",
            ] {
                let kind = format!("application/{kind}");
                send(&cluster, &Method::PATCH, &object, &kind, body).await;
            }
            let apply = format!("{object}?fieldManager=x&force=true");
            send(
                &cluster,
                &Method::PATCH,
                &apply,
                "application/apply-patch+yaml",
                body,
            )
            .await;
        }
        send(
            &cluster,
            &Method::DELETE,
            &object,
            "application/json",
            &json!({}),
        )
        .await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn no_path_breaks_the_server() {
    let cluster = Cluster::start().await;
    let paths = [
        "/",
        "//",
        "/api",
        "/api/",
        "/api/v1/",
        "/api/v1/namespaces//pods",
        "/api/v1/namespaces/default/pods/%zz",
        "/api/v1/namespaces/default/pods/a/b/c/d",
        "/api/v1/pods?limit=x",
        "/api/v1/pods?limit=-5",
        "/api/v1/pods?continue=%00",
        "/api/v1/pods?labelSelector=((",
        "/api/v1/pods?fieldSelector=a",
        "/api/v1/pods?resourceVersion=abc",
        "/api/v1/pods?resourceVersion=1&resourceVersionMatch=Sometimes",
        "/api/v1/pods?watch=1&resourceVersion=-1",
        "/api/v1/pods?watch=1&timeoutSeconds=99999999999999999999",
        "/api/v1/pods?sendInitialEvents=true&watch=1",
        "/apis/apps/v2/deployments",
        "/apis/nothing/v1/things/x",
        "/openapi/v3/apis/none/v1",
        "/healthz/none",
        "/\u{7f}",
    ];
    for path in paths {
        for method in [
            "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE",
        ] {
            let method: Method = method.parse().unwrap();
            let request = http::Request::builder().method(&method).uri(path);
            let Ok(request) = request.body(client::full("{")) else {
                continue;
            };
            match cluster.client.send(request).await {
                Err(status) => assert!(!status.message.contains("panic"), "{method} {path}"),
                Ok(answer) => drop(answer),
            }
        }
    }
    cluster.stop().await;
}

#[tokio::test]
async fn odd_methods_and_paths_are_answered_as_upstream_does() {
    let cluster = Cluster::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    for (method, path, expected) in [
        (Method::POST, "/foo", 404),
        (Method::POST, "/apis/none/v1/x", 404),
        (Method::POST, "/healthz", 200),
        (Method::PUT, "/apis", 200),
        (Method::POST, "/version", 405),
        (Method::HEAD, "/version", 405),
        (Method::HEAD, maps, 405),
        (Method::PUT, maps, 405),
        (Method::PUT, "/api/v1/pods", 405),
        (Method::POST, &format!("{maps}/x"), 405),
        (Method::PATCH, "/api/v1/nodes", 405),
    ] {
        let media_type = "application/json";
        let code = send(&cluster, &method, path, media_type, &json!({})).await;
        assert_eq!(code, expected, "{method} {path}");
    }
    for (path, plain) in [
        ("/foo", true),
        ("/livez/none", true),
        ("/apis/none", true),
        ("/apis/none/v1", true),
        ("/apis/none/v1/x", true),
        ("/apis/apps/v9", false),
        ("/apis/apps/v1/x", false),
    ] {
        let (code, body) = crate::wire::text(&cluster, path, &[]).await;
        assert_eq!(code, 404, "{path}");
        assert_eq!(body == "404 page not found\n", plain, "{path}: {body}");
    }
    cluster.stop().await;
}
