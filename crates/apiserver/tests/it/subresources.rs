//! What upstream's subresources refuse, and what they leave behind; each line was compared with
//! a real kube-apiserver.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{Cluster, PODS, pod};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

async fn start() -> Cluster {
    let cluster = Cluster::start().await;
    let account = json!({"metadata": {"name": "default"}});
    cluster.post(ACCOUNTS, account).await.unwrap();
    cluster
}

/// Code and beginning of the message.
fn refused(answer: Result<Value, meta::Status>, code: u16, message: &str) {
    let status = answer.unwrap_err();
    assert_eq!(status.code, code, "{}", status.message);
    assert!(status.message.starts_with(message), "{}", status.message);
}

impl Cluster {
    async fn patch(&self, path: &str, media: &str, patch: Value) -> Result<Value, meta::Status> {
        let body = patch.to_string().into_bytes();
        self.client.patch_value(path, media, body).await
    }
}

async fn deployment(cluster: &Cluster, name: &str) -> String {
    let template = json!({"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let spec = json!({"replicas": 2, "selector": {"matchLabels": {"a": "b"}},
        "template": template});
    let path = format!("{DEPLOYMENTS}?fieldManager=maker");
    let made = json!({"metadata": {"name": name}, "spec": spec});
    cluster.post(&path, made).await.unwrap();
    format!("{DEPLOYMENTS}/{name}/scale")
}

fn scale(replicas: i64) -> Value {
    json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"},
        "spec": {"replicas": replicas}})
}

#[tokio::test]
async fn scales_are_judged_like_any_object() {
    let cluster = start().await;
    let path = deployment(&cluster, "web").await;
    let put = |change: fn(&mut Value)| {
        let mut scale = scale(3);
        change(&mut scale);
        scale
    };
    for (given, code, message) in [
        (
            put(|own| own["metadata"]["name"] = "zz".into()),
            400,
            "the name of the object (zz)",
        ),
        (
            put(|own| own["metadata"] = json!({})),
            400,
            "the name of the object (web based on URL)",
        ),
        (
            put(|own| own["metadata"]["namespace"] = "zz".into()),
            400,
            "the namespace of the",
        ),
        (
            put(|own| own["kind"] = "X".into()),
            400,
            "X in version \"v1\" cannot be handled as a S",
        ),
        (
            put(|own| own["metadata"]["uid"] = "zz".into()),
            409,
            "Operation cannot be fulfilled on deployments.apps \"web\": StorageError",
        ),
        (
            put(|own| own["metadata"]["resourceVersion"] = "1".into()),
            409,
            "Operation cannot be",
        ),
        (
            put(|own| own["spec"]["replicas"] = (-1).into()),
            422,
            "Scale.autoscaling \"web\" is inv",
        ),
        (
            put(|own| own["spec"]["replicas"] = "x".into()),
            400,
            "Scale in version \"v1\" cannot",
        ),
    ] {
        refused(cluster.put(&path, &given).await, code, message);
    }
    let strict = format!("{path}?fieldValidation=Strict");
    let unknown = put(|own| own["foo"] = 1.into());
    let message = "Scale in version \"v1\" cannot be handled as a Scale: strict decoding error: \
                   unknown field \"foo\"";
    refused(cluster.put(&strict, &unknown).await, 400, message);
    let text = json!({"spec": {"replicas": "x"}});
    for (media, patch, code, message) in [
        ("text/plain", json!({}), 415, "415: Unsupported Media Type"),
        (
            MERGE,
            json!([]),
            400,
            "error decoding patch: json: cannot unmarshal array",
        ),
        (
            MERGE,
            text.clone(),
            422,
            " \"\" is invalid: patch: Invalid value: ",
        ),
        (
            STRATEGIC,
            text,
            422,
            " \"\" is invalid: patch: Invalid value: ",
        ),
        (
            MERGE,
            json!({"metadata": {"uid": "zz"}}),
            409,
            "Operation cannot be fulfilled on deployments/scale.apps \"web\": Precondition failed",
        ),
    ] {
        refused(cluster.patch(&path, media, patch).await, code, message);
    }
    // Nothing replaces a number that is not given.
    let given = cluster
        .put(&path, &put(|own| own["spec"] = json!({})))
        .await
        .unwrap();
    assert_eq!(given["spec"], json!({}));
    cluster.stop().await;
}

#[tokio::test]
async fn scales_have_owners() {
    let cluster = start().await;
    let path = deployment(&cluster, "web").await;
    let apply = format!("{path}?fieldManager=applier");
    let conflict = "Apply failed with 1 conflict: conflict with \"maker\" using autoscaling/v1: \
                    .spec.replicas";
    refused(cluster.patch(&apply, APPLY, scale(5)).await, 409, conflict);
    let forced = format!("{apply}&force=true");
    let scaled = cluster.patch(&forced, APPLY, scale(5)).await.unwrap();
    assert_eq!(scaled["spec"]["replicas"], 5);
    let object = cluster.get(&format!("{DEPLOYMENTS}/web")).await.unwrap();
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let owns = |manager: &str| {
        let mut own = entries.iter().filter(|entry| entry["manager"] == manager);
        own.any(|entry| entry.pointer("/fieldsV1/f:spec/f:replicas").is_some())
    };
    assert_eq!((owns("applier"), owns("maker")), (true, false));
    assert_eq!(entries[0]["subresource"], "scale");
    assert_eq!(entries[0]["apiVersion"], "apps/v1");
    cluster.stop().await;
}

fn budget(name: &str, status: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"minAvailable": 1,
        "selector": {"matchLabels": {"app": name}}}, "status": status})
}

async fn guarded(cluster: &Cluster, name: &str, status: Value) -> String {
    cluster.post(PODS, pod(name)).await.unwrap();
    let path = format!("{PODS}/{name}/status");
    let ready = json!({"status": {"phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}]}});
    cluster.patch(&path, MERGE, ready).await.unwrap();
    let budget = budget(name, json!({}));
    cluster.post(BUDGETS, budget).await.unwrap();
    let path = format!("{BUDGETS}/{name}/status");
    let patch = json!({ "status": status });
    cluster.patch(&path, MERGE, patch).await.unwrap();
    format!("{PODS}/{name}/eviction")
}

#[tokio::test]
async fn budgets_say_why_they_refuse() {
    let cluster = start().await;
    let failed = json!([{"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed",
        "message": "lost", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let seen = |current: i64, conditions: Value| {
        json!({"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": current,
            "desiredHealthy": 2, "conditions": conditions})
    };
    let not = "does not allow evicting pods currently";
    for (name, status, cause) in [
        (
            "few",
            seen(1, json!([])),
            "The disruption budget few needs 2 healthy pods and has 1 cur",
        ),
        (
            "lost",
            seen(3, failed),
            &*format!("The disruption budget lost {not} because it failed"),
        ),
        (
            "many",
            seen(3, json!([])),
            &*format!("The disruption budget many {not}"),
        ),
        (
            "new",
            json!({}),
            "The disruption budget new is still being processed by the server.",
        ),
    ] {
        let path = guarded(&cluster, name, status).await;
        let eviction = json!({"metadata": {"name": name}});
        let status = cluster.post(&path, eviction).await.unwrap_err();
        assert_eq!(status.code, 429, "{}", status.message);
        assert!(
            status.causes[0].message.starts_with(cause),
            "{}",
            status.causes[0].message
        );
    }
    // The last one that is allowed says so.
    let last = json!({"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2,
        "desiredHealthy": 1});
    let path = guarded(&cluster, "last", last).await;
    let other = json!({"metadata": {"name": "zz"}});
    let message = "name in URL does not match name in Eviction object";
    refused(cluster.post(&path, other).await, 400, message);
    let bound = json!({"metadata": {"name": "last"},
        "deleteOptions": {"preconditions": {"uid": "zz"}}});
    let message = "Operation cannot be fulfilled on Pod \"last\": the UID in the precondition";
    refused(cluster.post(&path, bound).await, 409, message);
    cluster.stop().await;
}

#[tokio::test]
async fn bindings_name_their_pod() {
    let cluster = start().await;
    cluster.post(PODS, pod("one")).await.unwrap();
    let path = format!("{PODS}/one/binding");
    let binding = |metadata: Value| json!({"metadata": metadata, "target": {"name": "node"}});
    let stale = "Operation cannot be fulfilled on pods \"one\": StorageError: invalid object";
    for (metadata, code, message) in [
        (
            json!({"name": "zz"}),
            400,
            "name in URL does not match name in Binding object",
        ),
        (
            json!({}),
            400,
            "name in URL does not match name in Binding object",
        ),
        (
            json!({"name": "one", "namespace": "zz"}),
            400,
            "the namespace of the provided object",
        ),
        (json!({"name": "one", "uid": "zz"}), 409, stale),
        (json!({"name": "one", "resourceVersion": "1"}), 409, stale),
    ] {
        refused(cluster.post(&path, binding(metadata)).await, code, message);
    }
    cluster
        .post(&path, binding(json!({"name": "one"})))
        .await
        .unwrap();
    let pod = cluster.get(&format!("{PODS}/one")).await.unwrap();
    assert_eq!(pod["spec"]["nodeName"], "node");
    // Nobody owns what a binding sets.
    let entries = pod["metadata"]["managedFields"].as_array().unwrap();
    assert!(
        entries
            .iter()
            .all(|entry| entry.get("subresource").is_none())
    );
    let again = cluster.post(&path, binding(json!({"name": "one"}))).await;
    let message = "Operation cannot be fulfilled on pods/binding \"one\": pod one is already";
    refused(again, 409, message);
    cluster.stop().await;
}

#[tokio::test]
async fn token_requests_name_their_account() {
    let cluster = start().await;
    cluster.post(PODS, pod("one")).await.unwrap();
    let path = format!("{ACCOUNTS}/default/token");
    let bound = |reference: Value| json!({"spec": {"boundObjectRef": reference}});
    let uid = json!({"kind": "Pod", "apiVersion": "v1", "name": "one", "uid": "zz"});
    for (given, code, message) in [
        (
            json!({"metadata": {"name": "zz"}}),
            422,
            "TokenRequest.authentication.k8s.io \"default",
        ),
        (
            json!({"metadata": {"namespace": "zz"}}),
            400,
            "the namespace of the provided object",
        ),
        (
            json!({"metadata": {"uid": "zz"}}),
            409,
            "Operation cannot be fulfilled on TokenRequest.",
        ),
        (
            bound(uid),
            409,
            "Operation cannot be fulfilled on Pod \"one\": the UID in the bound obj",
        ),
        (
            bound(json!({"kind": "Deployment", "apiVersion": "apps/v1", "name": "x"})),
            400,
            "cannot bind token to object of type apps/v1, Kind=Deployment",
        ),
        (
            bound(json!({"kind": "Pod", "apiVersion": "v1"})),
            400,
            "Name parameter required.",
        ),
    ] {
        refused(cluster.post(&path, given).await, code, message);
    }
    let made = cluster.post(&path, json!({"spec": {}})).await.unwrap();
    let account = cluster.get(&format!("{ACCOUNTS}/default")).await.unwrap();
    assert_eq!(made["metadata"]["uid"], account["metadata"]["uid"]);
    let get = cluster
        .client
        .send_value(Method::GET, &path, &json!({}))
        .await;
    refused(get, 405, "the server does not allow this method");
    cluster.stop().await;
}
