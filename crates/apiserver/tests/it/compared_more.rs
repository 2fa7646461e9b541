//! More answers that were found to differ from a real kube-apiserver's: how bodies, patches and
//! forms of answers are taken.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{CONFIG_MAPS, Cluster, PODS, config_map, pod};
use crate::wire;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

fn deployment(labels: Value) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

async fn patch(
    cluster: &Cluster,
    (path, media): (&str, &str),
    body: Value,
) -> Result<Value, meta::Status> {
    let body = client::full(body.to_string());
    let request = client::request::request(Method::PATCH, path, Some(media), body)?;
    cluster.client.json(request).await
}

#[tokio::test]
async fn what_is_sent_empty_is_shown_empty() {
    let cluster = Cluster::start().await;
    let rule = "`selector` does not match template `labels`";
    let message = |shown: &str| {
        format!(
            "Deployment.apps \"web\" is invalid: spec.template.metadata.labels: Invalid value: \
             {shown}: {rule}"
        )
    };
    let refused = cluster.post(DEPLOYMENTS, deployment(json!({}))).await;
    assert_eq!(refused.unwrap_err().message, message("{}"));
    let refused = cluster.post(DEPLOYMENTS, deployment(Value::Null)).await;
    assert_eq!(refused.unwrap_err().message, message("null"));
    let sound = deployment(json!({"a": "b"}));
    cluster.post(DEPLOYMENTS, sound).await.unwrap();
    let path = format!("{DEPLOYMENTS}/web");
    let refused = cluster.put(&path, &deployment(json!({}))).await;
    assert_eq!(refused.unwrap_err().message, message("{}"));
    let change = json!({"spec": {"template": {"metadata": {"labels": {"a": null}}}}});
    let refused = patch(&cluster, (&path, MERGE), change).await;
    assert_eq!(refused.unwrap_err().message, message("{}"));
    cluster.stop().await;
}

#[tokio::test]
async fn routes_know_what_they_produce() {
    let cluster = Cluster::start().await;
    let listed = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
    let streams = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
    for (path, accept, produced) in [
        (CONFIG_MAPS, "application/*", format!("{listed}, {streams}")),
        ("/api/v1/namespaces/default", "text/html", listed.to_owned()),
        ("/api/v1", "bogus/x", listed.to_owned()),
        ("/api", "text/html", listed.to_owned()),
        ("/version", "text/html", "application/json".to_owned()),
    ] {
        let (code, body) = wire::text(&cluster, path, &[("accept", accept)]).await;
        let status: Value = serde_json::from_str(&body).unwrap_or_default();
        let wanted = format!("406: Not Acceptable\n\nAvailable representations: {produced}");
        let found = status["message"].as_str().unwrap_or(&body).to_owned();
        assert_eq!((code, found.as_str()), (406, wanted.as_str()), "{path}");
    }
    // Groups are not listed by a route of this kind.
    let (_, body) = wire::text(&cluster, "/apis", &[("accept", "text/html")]).await;
    assert!(
        body.contains("only the following media types are accepted"),
        "{body}"
    );
    let headers = [("impersonate-group", "g")];
    let (code, headers, _) = wire::ask(&cluster, CONFIG_MAPS, &headers).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert_eq!(headers["x-content-type-options"], "nosniff");
    cluster.stop().await;
}

#[tokio::test]
async fn media_types_of_bodies_have_no_case() {
    let cluster = Cluster::start().await;
    let body = client::full(config_map("one", "1").to_string());
    let request =
        client::request::request(Method::POST, CONFIG_MAPS, Some("Application/JSON"), body);
    let made: Value = cluster.client.json(request.unwrap()).await.unwrap();
    assert_eq!(made["metadata"]["name"], "one");
    cluster.stop().await;
}

#[tokio::test]
async fn what_a_patch_leads_to_is_shown_in_order() {
    let cluster = Cluster::start().await;
    let object = json!({"metadata": {"name": "one", "labels": {"b": "<1>", "a": "2"}}});
    let refused = cluster.post(CONFIG_MAPS, object).await;
    assert!(refused.is_err());
    let object = json!({"metadata": {"name": "one", "labels": {"b": "1", "a": "2"}}});
    let made = cluster.post(CONFIG_MAPS, object).await.unwrap();
    let text = |field: &str| made["metadata"][field].to_string();
    let path = format!("{CONFIG_MAPS}/one");
    let by_type = format!(
        "{{\"apiVersion\":\"v1\",\"data\":\"x\",\"kind\":\"ConfigMap\",\"metadata\":{{\
         \"name\":\"one\",\"namespace\":\"default\",\"uid\":{},\"resourceVersion\":{},\
         \"creationTimestamp\":{},\"labels\":{{\"a\":\"2\",\"b\":\"1\"}},\"managedFields\":[{{\
         \"manager\":",
        text("uid"),
        text("resourceVersion"),
        text("creationTimestamp")
    );
    let beginning = format!("Invalid value: {by_type:?}");
    let beginning = beginning.trim_end_matches('"');
    let operation = json!([{"op": "add", "path": "/data", "value": "x"}]);
    for (media, body) in [(MERGE, json!({"data": "x"})), (JSON, operation)] {
        let refused = patch(&cluster, (&path, media), body).await.unwrap_err();
        let found = &refused.causes[0].message;
        assert!(found.starts_with(beginning), "{media}: {found}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn tokens_and_selectors_stay_within_their_collection() {
    let cluster = Cluster::start().await;
    for name in ["a", "b"] {
        cluster
            .post(CONFIG_MAPS, config_map(name, "1"))
            .await
            .unwrap();
    }
    let page = cluster
        .get(&format!("{CONFIG_MAPS}?limit=1"))
        .await
        .unwrap();
    let token = page["metadata"]["continue"].as_str().unwrap();
    let next = format!("{CONFIG_MAPS}?limit=1&continue={token}");
    let next = cluster.get(&next).await.unwrap();
    assert_eq!(next["items"][0]["metadata"]["name"], "b");
    let refused = cluster
        .get("/api/v1/nodes?fieldSelector=metadata.namespace%3Da")
        .await;
    assert_eq!(
        refused.unwrap_err().message,
        "field label not supported: metadata.namespace"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn who_applies_a_part_of_a_pod_owns_it() {
    let cluster = Cluster::start().await;
    let account = json!({"metadata": {"name": "default"}});
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    cluster.post(accounts, account).await.unwrap();
    cluster.post(PODS, pod("one")).await.unwrap();
    let applied = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"},
        "spec": {"ephemeralContainers": [{"name": "e", "image": "i"}]}});
    let path = format!("{PODS}/one/ephemeralcontainers?fieldManager=me");
    let pod = patch(&cluster, (&path, APPLY), applied).await.unwrap();
    let owners = pod["metadata"]["managedFields"].as_array().unwrap();
    let own = owners.iter().find(|own| own["manager"] == "me").unwrap();
    assert_eq!(own["operation"], "Apply");
    assert_eq!(own["subresource"], "ephemeralcontainers");
    assert!(own["fieldsV1"]["f:spec"]["f:ephemeralContainers"].is_object());
    cluster.stop().await;
}

#[tokio::test]
async fn ports_outside_of_their_range_are_refused() {
    let cluster = Cluster::start().await;
    let service = |port: i64| {
        json!({"metadata": {"name": "one"},
            "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}})
    };
    for port in [-1, 65536, 80] {
        let refused = cluster.post(SERVICES, service(port)).await.unwrap_err();
        assert_eq!(
            refused.message,
            format!(
                "Service \"one\" is invalid: spec.ports[0].nodePort: Invalid value: {port}: \
                 provided port is not in the valid range. The range of valid ports is 30000-32767"
            )
        );
    }
    let name = "/api/v1/namespaces/default/finalize";
    let mut namespace = cluster.get("/api/v1/namespaces/default").await.unwrap();
    namespace["spec"]["finalizers"] = json!(["x"]);
    let refused = cluster.put(name, &namespace).await.unwrap_err();
    assert_eq!(
        refused.message,
        "Namespace \"default\" is invalid: spec.finalizers[0]: Invalid value: \"x\": name is \
         neither a standard finalizer name nor is it fully qualified"
    );
    cluster.stop().await;
}

/// Jane may write the status of claims; what binds them takes more.
#[tokio::test]
async fn claims_are_bound_by_those_who_may() {
    let cluster = Cluster::start().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let rule = |resource: &str| {
        json!({"apiGroups": ["resource.k8s.io"], "resources": [resource],
            "verbs": ["get", "update"]})
    };
    let grant = |name: &str, resource: &str| {
        let role = json!({"metadata": {"name": name}, "rules": [rule(resource)]});
        let binding = json!({"metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": name},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io",
                "name": "jane"}]});
        (role, binding)
    };
    let (role, binding) = grant("status", "resourceclaims/status");
    cluster
        .post(&format!("{rbac}/clusterroles"), role)
        .await
        .unwrap();
    cluster
        .post(&format!("{rbac}/clusterrolebindings"), binding)
        .await
        .unwrap();
    let claim = json!({"metadata": {"name": "one"}, "spec": {"devices": {"requests": [
        {"name": "r", "exactly": {"deviceClassName": "c"}}]}}});
    let mut claim = cluster.post(CLAIMS, claim).await.unwrap();
    claim["status"] = json!({"allocation": {"devices": {"results": [
        {"request": "r", "driver": "d.example.com", "pool": "p", "device": "x"}]}}});
    let jane = auth::Identity::user("jane", &["system:authenticated"]);
    let jane = cluster.server.client(jane);
    let path = format!("{CLAIMS}/one/status");
    let put = || jane.send_value(Method::PUT, &path, &claim);
    let refused = put().await.unwrap_err();
    assert_eq!(
        refused.message,
        "ResourceClaim.resource.k8s.io \"one\" is invalid: status.allocation: Forbidden: changing \
         status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", \
         verb=\"update\" permission: resourceclaims.resource.k8s.io is forbidden: User \"jane\" \
         cannot update resource \"resourceclaims/binding\" in API group \"resource.k8s.io\" at the \
         cluster scope"
    );
    let (role, binding) = grant("binding", "resourceclaims/binding");
    cluster
        .post(&format!("{rbac}/clusterroles"), role)
        .await
        .unwrap();
    cluster
        .post(&format!("{rbac}/clusterrolebindings"), binding)
        .await
        .unwrap();
    put().await.unwrap();
    cluster.stop().await;
}
