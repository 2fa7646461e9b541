//! Admission webhooks, asked of a server that behaves as upstream's test image does.

pub(crate) mod hooks;

use std::time::Duration;

use client::full;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{CONFIG_MAPS, Cluster, PODS, config_map, pod};
use hooks::Hooks;

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

/// A configuration with these webhooks.
fn configuration(name: &str, hooks: &[Value]) -> Value {
    json!({"metadata": {"name": name}, "webhooks": hooks})
}

/// A rule about one resource of the core group.
fn rule(operations: &[&str], resources: &[&str]) -> Value {
    json!([{"operations": operations, "apiGroups": [""], "apiVersions": ["v1"],
        "resources": resources}])
}

fn creations() -> Value {
    rule(&["CREATE"], &["configmaps"])
}

async fn refused(cluster: &Cluster, body: Value) -> meta::Status {
    cluster.post(CONFIG_MAPS, body).await.unwrap_err()
}

/// The account that pods of the namespace run as.
async fn account(cluster: &Cluster) {
    let path = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"metadata": {"name": "default"}});
    cluster.post(path, account).await.unwrap();
}

async fn merge(cluster: &Cluster, path: &str, patch: Value) -> Result<Value, meta::Status> {
    let kind = "application/merge-patch+json";
    let patch = patch.to_string().into_bytes();
    cluster.client.patch_value(path, kind, patch).await
}

#[tokio::test]
async fn a_webhook_denies_and_is_heard_at_once() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(&cluster).await;
    let all = rule(&["CREATE", "UPDATE", "DELETE"], &["configmaps"]);
    let hook = hooks.hook("deny.example.com", "/configmaps", all);
    cluster
        .post(VALIDATING, configuration("a", &[hook]))
        .await
        .unwrap();

    let mut bad = config_map("bad", "x");
    bad["data"]["webhook-e2e-test"] = json!("webhook-disallow");
    let status = refused(&cluster, bad.clone()).await;
    assert_eq!(
        status.message,
        "admission webhook \"deny.example.com\" denied the request: the configmap contains \
         unwanted key and value"
    );
    assert_eq!(
        (status.code, status.odd_reason.as_deref().unwrap_or("")),
        (400, "unwanted")
    );
    // Changes are refused by every verb, and nothing is stored.
    cluster
        .post(CONFIG_MAPS, config_map("good", "x"))
        .await
        .unwrap();
    let good = format!("{CONFIG_MAPS}/good");
    bad["metadata"]["name"] = json!("good");
    assert_eq!(cluster.put(&good, &bad).await.unwrap_err().code, 400);
    let patched = merge(&cluster, &good, json!({"data": bad["data"]})).await;
    assert!(patched.unwrap_err().message.contains("denied the request"));
    let kept = cluster.get(&good).await.unwrap();
    assert_eq!(kept["data"], json!({"key": "x"}));
    // A deletion shows what is to go.
    let keep = hooks.hook(
        "keep.example.com",
        "/keep",
        rule(&["DELETE"], &["configmaps"]),
    );
    cluster
        .post(VALIDATING, configuration("b", &[keep]))
        .await
        .unwrap();
    let kept = cluster.client.delete_value(&good, None).await.unwrap_err();
    assert!(
        kept.message.ends_with("denied the request: good stays"),
        "{kept}"
    );
    // What is gone is not asked.
    for name in ["a", "b"] {
        let path = format!("{VALIDATING}/{name}");
        cluster.client.delete_value(&path, None).await.unwrap();
    }
    cluster.put(&good, &bad).await.unwrap();
    cluster.client.delete_value(&good, None).await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn mutations_follow_one_another_and_defaults_follow_them() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(&cluster).await;
    // By the names of their configurations: the second stage needs the first.
    let second = hooks.hook("second.example.com", "/stage-2", creations());
    let first = hooks.hook("first.example.com", "/stage-1", creations());
    let pods = rule(&["CREATE"], &["pods"]);
    let pods = hooks.hook("pods.example.com", "/mutating-pods", pods);
    cluster
        .post(MUTATING, configuration("b", &[second]))
        .await
        .unwrap();
    cluster
        .post(MUTATING, configuration("a", &[first, pods]))
        .await
        .unwrap();
    let made = cluster
        .post(CONFIG_MAPS, config_map("a", "x"))
        .await
        .unwrap();
    assert_eq!(
        made["data"],
        json!({"key": "x", "stage-1": "yes", "stage-2": "yes"})
    );
    cluster
        .client
        .delete_value(&format!("{CONFIG_MAPS}/a"), None)
        .await
        .unwrap();
    account(&cluster).await;
    let made = cluster.post(PODS, pod("a")).await.unwrap();
    let added = &made["spec"]["initContainers"][0];
    assert_eq!(added["name"], "added-by-webhook", "{made}");
    assert_eq!(added["terminationMessagePolicy"], "File");
    assert!(made["spec"].get("unknown").is_none());
    cluster.stop().await;
}

#[tokio::test]
async fn a_webhook_is_asked_again_when_a_later_one_changed_the_object() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(&cluster).await;
    let mut early = hooks.hook("early.example.com", "/stage-2", creations());
    early["reinvocationPolicy"] = json!("IfNeeded");
    let late = hooks.hook("late.example.com", "/stage-1", creations());
    let both = configuration("a", &[early, late]);
    cluster.post(MUTATING, both).await.unwrap();
    let made = cluster
        .post(CONFIG_MAPS, config_map("a", "x"))
        .await
        .unwrap();
    assert_eq!(made["data"]["stage-2"], "yes", "{made}");
    assert_eq!(hooks.calls("/stage-2"), 2);
    assert_eq!(hooks.calls("/stage-1"), 1);
    cluster.stop().await;
}

#[tokio::test]
async fn failures_are_the_policys_business() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(&cluster).await;
    let port = hooks.port;
    let called = |path: &str| format!("https://localhost:{port}{path}?timeout=1s");
    let cases = [
        (
            "/hang",
            format!(
                "failed to call webhook: Post {:?}: context deadline exceeded",
                called("/hang")
            ),
        ),
        (
            "/garbage",
            "failed to call webhook: couldn't get version/kind; json parse error".into(),
        ),
        (
            "/huge",
            "failed to call webhook: response body is larger than".into(),
        ),
        (
            "/boom",
            "failed to call webhook: an error on the server (\"boom\") has prevented the request \
             from succeeding"
                .into(),
        ),
        (
            "/stranger",
            "received invalid webhook response: expected response.uid=".into(),
        ),
        (
            "/patch-only",
            "received invalid webhook response: webhook returned response.patch but \
             not response.patchType"
                .into(),
        ),
    ];
    for (path, why) in cases {
        let mut hook = hooks.hook("fails.example.com", path, creations());
        // Who is to answer has time enough for a busy machine.
        hook["timeoutSeconds"] = json!(if path == "/hang" { 1 } else { 30 });
        let made = cluster
            .post(MUTATING, configuration("a", &[hook.clone()]))
            .await
            .unwrap();
        let status = refused(&cluster, config_map("a", "x")).await;
        let expect =
            format!("Internal error occurred: failed calling webhook \"fails.example.com\": {why}");
        assert!(status.message.starts_with(&expect), "{path}: {status}");
        assert_eq!(status.code, 500);
        // The same, but failures do not matter.
        let mut lenient = made;
        lenient["webhooks"][0]["failurePolicy"] = json!("Ignore");
        let own = format!("{MUTATING}/a");
        if path != "/hang" {
            cluster.put(&own, &lenient).await.unwrap();
            cluster
                .post(CONFIG_MAPS, config_map("a", "x"))
                .await
                .unwrap();
            let made = format!("{CONFIG_MAPS}/a");
            cluster.client.delete_value(&made, None).await.unwrap();
        }
        cluster.client.delete_value(&own, None).await.unwrap();
    }
    // Whom nobody vouches for is not asked.
    let mut hook = hooks.hook("trust.example.com", "/allow", creations());
    hook["clientConfig"]
        .as_object_mut()
        .unwrap()
        .remove("caBundle");
    cluster
        .post(VALIDATING, configuration("a", &[hook]))
        .await
        .unwrap();
    let status = refused(&cluster, config_map("a", "x")).await;
    let expect = "Internal error occurred: failed calling webhook \"trust.example.com\": ";
    assert!(status.message.starts_with(expect), "{status}");
    assert!(status.message.contains("certificate"), "{status}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_question_says_all_there_is_to_say() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(&cluster).await;
    let everything = json!([{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"],
        "resources": ["*/*"]}]);
    // Found by the cluster's own service.
    let service = json!({"metadata": {"name": "hook"}, "spec": {"type": "ExternalName",
        "externalName": "localhost"}});
    cluster
        .post("/api/v1/namespaces/default/services", service)
        .await
        .unwrap();
    let mut hook = hooks.hook("all.example.com", "/record", everything);
    hook["clientConfig"]["service"] = json!({"namespace": "default", "name": "hook",
        "path": "/record", "port": hooks.port});
    hook["clientConfig"].as_object_mut().unwrap().remove("url");
    cluster
        .post(VALIDATING, configuration("a", &[hook]))
        .await
        .unwrap();

    let path = format!("{CONFIG_MAPS}?dryRun=All&fieldManager=me");
    cluster.post(&path, config_map("a", "x")).await.unwrap();
    let asked = hooks.last();
    assert_eq!(asked["apiVersion"], "admission.k8s.io/v1");
    let request = &asked["request"];
    let kind = json!({"group": "", "version": "v1", "kind": "ConfigMap"});
    let resource = json!({"group": "", "version": "v1", "resource": "configmaps"});
    assert_eq!((&request["kind"], &request["requestKind"]), (&kind, &kind));
    assert_eq!(request["resource"], resource);
    assert_eq!(request["requestResource"], resource);
    assert_eq!(request["name"], "a");
    assert_eq!(request["namespace"], "default");
    assert_eq!(request["operation"], "CREATE");
    assert_eq!(request["dryRun"], true);
    assert_eq!(request["userInfo"]["username"], "admin");
    assert_eq!(
        request["object"]["metadata"]["managedFields"][0]["manager"],
        "me"
    );
    assert_eq!(request["object"]["kind"], "ConfigMap");
    assert_eq!(request["oldObject"], Value::Null);
    assert_eq!(
        request["options"],
        json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"],
            "fieldManager": "me"})
    );
    // A namespace is in itself.
    cluster
        .post("/api/v1/namespaces", json!({"metadata": {"name": "n"}}))
        .await
        .unwrap();
    assert_eq!(hooks.last()["request"]["namespace"], "n");
    // A scale is a Scale, a binding a Binding.
    let deployment = json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    cluster.post(deployments, deployment).await.unwrap();
    let path = format!("{deployments}/d/scale");
    merge(&cluster, &path, json!({"spec": {"replicas": 3}}))
        .await
        .unwrap();
    let request = hooks.last()["request"].clone();
    assert_eq!(request["kind"]["kind"], "Scale");
    assert_eq!(request["subResource"], "scale");
    assert_eq!(request["object"]["spec"]["replicas"], 3);
    assert_eq!(request["oldObject"]["spec"]["replicas"], 1);
    account(&cluster).await;
    cluster.post(PODS, pod("p")).await.unwrap();
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    cluster
        .post(&format!("{PODS}/p/binding"), binding)
        .await
        .unwrap();
    let request = hooks.last()["request"].clone();
    assert_eq!(
        (&request["operation"], &request["kind"]["kind"]),
        (&json!("CREATE"), &json!("Binding"))
    );
    cluster.stop().await;
}

#[tokio::test]
async fn only_what_is_selected_is_asked_about() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(&cluster).await;
    let mut by_object = hooks.hook("object.example.com", "/always-deny", creations());
    by_object["objectSelector"] = json!({"matchLabels": {"hook": "yes"}});
    let mut by_namespace = hooks.hook("space.example.com", "/always-deny", creations());
    by_namespace["namespaceSelector"] = json!({"matchLabels": {"hook": "yes"}});
    let both = configuration("a", &[by_object, by_namespace]);
    cluster.post(VALIDATING, both).await.unwrap();
    cluster
        .post(CONFIG_MAPS, config_map("a", "x"))
        .await
        .unwrap();
    let mut labelled = config_map("b", "x");
    labelled["metadata"]["labels"] = json!({"hook": "yes"});
    let status = refused(&cluster, labelled).await;
    assert!(
        status.message.contains("\"object.example.com\""),
        "{status}"
    );
    let space = json!({"metadata": {"name": "n", "labels": {"hook": "yes"}}});
    cluster.post("/api/v1/namespaces", space).await.unwrap();
    let path = "/api/v1/namespaces/n/configmaps";
    let status = cluster.post(path, config_map("a", "x")).await.unwrap_err();
    assert!(status.message.contains("\"space.example.com\""), "{status}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_rule_for_one_version_is_about_all_unless_it_says_exactly() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(&cluster).await;
    let rules = |version: &str| {
        json!([{"operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": [version],
            "resources": ["horizontalpodautoscalers"]}])
    };
    let equivalent = hooks.hook("equivalent.example.com", "/record", rules("v2"));
    let mut exact = hooks.hook("exact.example.com", "/always-deny", rules("v2"));
    exact["matchPolicy"] = json!("Exact");
    let both = configuration("a", &[equivalent, exact]);
    cluster.post(VALIDATING, both).await.unwrap();
    let scaler = json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3,
        "targetCPUUtilizationPercentage": 70,
        "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}});
    let path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    cluster.post(path, scaler).await.unwrap();
    let request = hooks.last()["request"].clone();
    assert_eq!(request["kind"]["version"], "v2");
    assert_eq!(request["requestKind"]["version"], "v1");
    assert_eq!(request["object"]["apiVersion"], "autoscaling/v2");
    assert_eq!(request["object"]["spec"]["metrics"][0]["type"], "Resource");
    cluster.stop().await;
}

#[tokio::test]
async fn conditions_narrow_down_what_a_webhook_is_about() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(&cluster).await;
    let mut hook = hooks.hook("deny.example.com", "/always-deny", creations());
    let may = "authorizer.group('').resource('pods').check('get').allowed()";
    hook["matchConditions"] = json!([
        {"name": "not-me", "expression": "object.metadata.name != 'skip-me'"},
        {"name": "by-right", "expression": may},
        {"name": "by-request", "expression": "request.operation == 'CREATE'"}]);
    let made = configuration("a", &[hook]);
    let made = cluster.post(VALIDATING, made).await.unwrap();
    assert_eq!(refused(&cluster, config_map("a", "x")).await.code, 400);
    cluster
        .post(CONFIG_MAPS, config_map("skip-me", "x"))
        .await
        .unwrap();
    // What cannot be said is the failure policy's business.
    let own = format!("{VALIDATING}/a");
    let mut unsure = made;
    unsure["webhooks"][0]["matchConditions"] =
        json!([{"name": "unsure", "expression": "object.data.none == 'x'"}]);
    let mut unsure = cluster.put(&own, &unsure).await.unwrap();
    let status = refused(&cluster, config_map("a", "x")).await;
    assert_eq!(status.code, 403);
    assert!(status.message.contains("no such key: none"), "{status}");
    unsure["webhooks"][0]["failurePolicy"] = json!("Ignore");
    cluster.put(&own, &unsure).await.unwrap();
    cluster
        .post(CONFIG_MAPS, config_map("a", "x"))
        .await
        .unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn connections_may_be_denied() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(&cluster).await;
    let connections = rule(&["CONNECT"], &["pods/attach"]);
    let hook = hooks.hook("attach.example.com", "/record-deny", connections);
    cluster
        .post(VALIDATING, configuration("a", &[hook]))
        .await
        .unwrap();
    account(&cluster).await;
    cluster.post(PODS, pod("a")).await.unwrap();
    let path = format!("{PODS}/a/attach?stdin=true&container=main");
    let status = cluster.post(&path, json!({})).await.unwrap_err();
    assert!(
        status.message.contains("\"attach.example.com\" denied"),
        "{status}"
    );
    let request = hooks.last()["request"].clone();
    assert_eq!(request["operation"], "CONNECT");
    assert_eq!(
        request["object"],
        json!({"kind": "PodAttachOptions", "apiVersion": "v1", "stdin": true, "container": "main"})
    );
    cluster.stop().await;
}

#[tokio::test]
async fn webhooks_are_not_asked_about_webhooks() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(&cluster).await;
    let everything = json!([{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"],
        "resources": ["*/*"]}]);
    let hook = hooks.hook("all.example.com", "/always-deny", everything);
    let own = configuration("a", &[hook]);
    let made = cluster.post(VALIDATING, own.clone()).await.unwrap();
    assert_eq!(refused(&cluster, config_map("a", "x")).await.code, 400);
    cluster
        .put(&format!("{VALIDATING}/a"), &made)
        .await
        .unwrap();
    cluster
        .post(MUTATING, configuration("b", &[]))
        .await
        .unwrap();
    cluster
        .client
        .delete_value(&format!("{VALIDATING}/a"), None)
        .await
        .unwrap();
    cluster
        .post(CONFIG_MAPS, config_map("a", "x"))
        .await
        .unwrap();
    // Upstream's words for what no configuration may say.
    let mut broken = own;
    broken["webhooks"][0]["timeoutSeconds"] = json!(0);
    let status = cluster.post(VALIDATING, broken).await.unwrap_err();
    assert_eq!(
        status.message,
        "ValidatingWebhookConfiguration.admissionregistration.k8s.io \"a\" is invalid: \
         webhooks[0].timeoutSeconds: Invalid value: 0: the timeout value must be between 1 and \
         30 seconds"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn warnings_reach_the_client_and_calls_run_side_by_side() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(&cluster).await;
    // Each waits until all have been called: one after the other would never end.
    let all: Vec<Value> = (0..4)
        .map(|at| {
            let name = format!("warn{at}.example.com");
            hooks.hook(&name, "/together", creations())
        })
        .collect();
    cluster
        .post(VALIDATING, configuration("a", &all))
        .await
        .unwrap();
    let body = serde_json::to_vec(&config_map("a", "x")).unwrap();
    let json = Some("application/json");
    let request = client::request::request(Method::POST, CONFIG_MAPS, json, full(body));
    let sent = cluster.client.send(request.unwrap());
    let answer = tokio::time::timeout(Duration::from_secs(20), sent).await;
    let answer = answer.unwrap().unwrap();
    assert_eq!(answer.status().as_u16(), 201);
    assert_eq!(answer.headers()["warning"], "299 - \"mind the gap\"");
    cluster.stop().await;
}
