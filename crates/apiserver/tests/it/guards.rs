//! The audit trail, and priority and fairness, over the public face.

use std::sync::{Arc, Mutex};

use audit::{Audit, Backend, Policy, Sink};
use auth::Identity;
use base::Crew;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::cluster::{CONFIG_MAPS, Cluster, config_map};
use crate::webhooks::hooks::Hooks;

#[derive(Default)]
struct Kept(Mutex<Vec<Value>>);

impl Backend for Kept {
    fn name(&self) -> &'static str {
        "log"
    }

    fn take(&self, event: bytes::Bytes) -> Result<(), String> {
        let event = serde_json::from_slice(&event).unwrap();
        self.0.lock().unwrap().push(event);
        Ok(())
    }
}

impl Kept {
    /// What was recorded of one request, by the name the client gave it.
    fn of(&self, id: &str) -> Vec<Value> {
        let events = self.0.lock().unwrap();
        let own = events.iter().filter(|event| event["auditID"] == id);
        own.cloned().collect()
    }
}

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitManagedFields: true
rules:
- {level: Metadata, resources: [{resources: [secrets, pods]}]}
- {level: RequestResponse, userGroups: [watched], resources: [{resources: [configmaps]}]}
- {level: Request, verbs: [watch], omitStages: [RequestReceived]}
";

async fn audited() -> (Cluster, Arc<Kept>) {
    let kept = Arc::new(Kept::default());
    let policy = Policy::parse(POLICY).unwrap();
    let audit = Audit::new(
        policy,
        vec![Sink::new(Arc::clone(&kept) as Arc<dyn Backend>)],
    );
    let crew = Crew::new();
    let store = store::memory(&crew).await.unwrap();
    let cluster = Cluster::with(store, crew, |config| config.audit = Some(audit)).await;
    (cluster, kept)
}

fn request(id: &str, method: Method, path: &str, body: &Value) -> Request<client::Body> {
    let body = client::full(body.to_string());
    let media_type = match method {
        Method::PATCH => "application/merge-patch+json",
        _ => "application/json",
    };
    let mut request = client::request::request(method, path, Some(media_type), body).unwrap();
    request
        .headers_mut()
        .insert("audit-id", id.parse().unwrap());
    request
}

async fn send(client: &client::Client, request: Request<client::Body>) -> Response<client::Body> {
    use tower::ServiceExt;
    client.transport().oneshot(request).await.unwrap()
}

fn stages(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["stage"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn requests_are_recorded_as_the_policy_says() {
    let (cluster, kept) = audited().await;
    let admin = &cluster.client;
    let who = Identity::user("jane", &["system:masters", "watched"]);
    let jane = cluster.server.client(who);
    let made = send(
        &jane,
        request("made", Method::POST, CONFIG_MAPS, &config_map("a", "x")),
    )
    .await;
    assert_eq!(
        (made.status().as_u16(), &made.headers()["audit-id"]),
        (201, &"made".parse().unwrap())
    );
    let events = kept.of("made");
    assert_eq!(stages(&events), ["RequestReceived", "ResponseComplete"]);
    let event = &events[1];
    assert_eq!(event["level"], "RequestResponse");
    assert_eq!(event["verb"], "create");
    assert_eq!(event["user"]["username"], "jane");
    assert_eq!(event["objectRef"]["name"], "a", "from the body");
    assert_eq!(
        event["responseStatus"],
        json!({"metadata": {}, "code": 201})
    );
    assert_eq!(event["requestObject"]["data"]["key"], "x");
    assert!(event["responseObject"]["metadata"]["uid"].is_string());
    assert!(
        event["responseObject"]["metadata"]
            .get("managedFields")
            .is_none()
    );
    let annotations = &event["annotations"];
    assert_eq!(annotations["authorization.k8s.io/decision"], "allow");
    let path = format!("{CONFIG_MAPS}/a");
    let patch = json!({"data": {"key": "y"}});
    send(&jane, request("patched", Method::PATCH, &path, &patch)).await;
    assert_eq!(kept.of("patched")[1]["requestObject"], patch);
    send(&jane, request("gone", Method::DELETE, &path, &json!({}))).await;
    let gone = &kept.of("gone")[1];
    assert_eq!(gone["responseStatus"]["status"], "Success", "{gone}");

    // What admission notes of it.
    let pod = json!({"metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let account = json!({"metadata": {"name": "default"}});
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    send(admin, request("account", Method::POST, accounts, &account)).await;
    let pods = "/api/v1/namespaces/default/pods";
    send(&jane, request("pod", Method::POST, pods, &pod)).await;
    let annotations = &kept.of("pod")[1]["annotations"];
    assert_eq!(
        annotations["pod-security.kubernetes.io/enforce-policy"],
        "privileged:latest"
    );

    // Metadata: neither body. A refusal, and the user who was acted for.
    let secrets = "/api/v1/namespaces/default/secrets";
    let body = json!({"metadata": {"name": "s"}, "data": {"key": "dGVh"}});
    let mut asked = request("refused", Method::POST, secrets, &body);
    asked
        .headers_mut()
        .insert("impersonate-user", "joe".parse().unwrap());
    let refused = send(admin, asked).await;
    assert_eq!(refused.status(), 403);
    let refused = &kept.of("refused")[1];
    assert_eq!(refused["impersonatedUser"]["username"], "joe");
    assert_eq!(refused["user"]["username"], "admin");
    assert_eq!(refused["responseStatus"]["reason"], "Forbidden");
    assert_eq!(
        refused["annotations"]["authorization.k8s.io/decision"],
        "forbid"
    );
    send(admin, request("kept", Method::POST, secrets, &body)).await;
    let text = kept.of("kept")[1].to_string();
    assert!(!text.contains("dGVh"), "{text}");

    // A watch: its beginning and its end.
    let path = format!("{CONFIG_MAPS}?watch=true&timeoutSeconds=1");
    let watch = send(admin, request("watch", Method::GET, &path, &json!({}))).await;
    assert_eq!(stages(&kept.of("watch")), ["ResponseStarted"]);
    drop(watch);
    assert_eq!(
        stages(&kept.of("watch")),
        ["ResponseStarted", "ResponseComplete"]
    );
    assert!(kept.of("none").is_empty());
    cluster.stop().await;
}

const FLOW: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

fn flow_schema(user: &str, level: &str) -> Value {
    json!({"metadata": {"name": "own"}, "spec": {
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": 100,
        "rules": [{"subjects": [{"kind": "User", "user": {"name": user}}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}})
}

async fn until(cluster: &Cluster, path: &str, enough: impl Fn(&Value) -> bool) -> Value {
    let wait = async {
        loop {
            match cluster.get(path).await {
                Ok(object) if enough(&object) => return object,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), wait)
        .await
        .unwrap()
}

#[tokio::test]
async fn requests_are_classified_and_defaults_kept() {
    let cluster = Cluster::start().await;
    let schemas = cluster.get(&format!("{FLOW}/flowschemas")).await.unwrap();
    assert_eq!(schemas["items"].as_array().unwrap().len(), 11);
    let is_dangling = |word: &'static str| {
        move |object: &Value| {
            let condition = &object["status"]["conditions"][0];
            condition["type"] == "Dangling" && condition["status"] == word
        }
    };
    // A schema without its level, then with it.
    let own = format!("{FLOW}/flowschemas/own");
    cluster
        .post(&format!("{FLOW}/flowschemas"), flow_schema("jane", "mine"))
        .await
        .unwrap();
    until(&cluster, &own, is_dangling("True")).await;
    let level = json!({"metadata": {"name": "mine"}, "spec": {"type": "Limited", "limited": {
        "limitResponse": {"type": "Queue", "queuing": {}}}}});
    let levels = format!("{FLOW}/prioritylevelconfigurations");
    let level = cluster.post(&levels, level).await.unwrap();
    assert_eq!(level["spec"]["limited"]["nominalConcurrencyShares"], 30);
    assert_eq!(
        level["spec"]["limited"]["limitResponse"]["queuing"]["handSize"],
        8
    );
    let schema = until(&cluster, &own, is_dangling("False")).await;
    let jane = cluster.server.client(Identity::user("jane", &[]));
    let answer = send(&jane, request("x", Method::GET, "/version", &json!({}))).await;
    let uid = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(
        uid("x-kubernetes-pf-flowschema-uid"),
        schema["metadata"]["uid"]
    );
    assert_eq!(
        uid("x-kubernetes-pf-prioritylevel-uid"),
        level["metadata"]["uid"]
    );
    let joe = cluster.server.client(Identity::user("joe", &[]));
    let refused = send(&joe, request("x", Method::GET, CONFIG_MAPS, &json!({}))).await;
    assert_eq!(refused.status(), 403);
    assert!(!refused.headers()["x-kubernetes-pf-flowschema-uid"].is_empty());

    // Defaults that are changed or deleted come back; those that are the user's stay.
    let path = format!("{levels}/workload-low");
    let share = "/spec/limited/nominalConcurrencyShares";
    let mut low = cluster.get(&path).await.unwrap();
    *low.pointer_mut(share).unwrap() = 7.into();
    cluster.put(&path, &low).await.unwrap();
    let mut low = until(&cluster, &path, |own| {
        own.pointer(share) == Some(&100.into())
    })
    .await;
    low["metadata"]["annotations"]["apf.kubernetes.io/autoupdate-spec"] = "false".into();
    *low.pointer_mut(share).unwrap() = 7.into();
    cluster.put(&path, &low).await.unwrap();
    let probes = format!("{FLOW}/flowschemas/probes");
    cluster.client.delete_value(&probes, None).await.unwrap();
    until(&cluster, &probes, |own| {
        own["spec"]["matchingPrecedence"] == 2
    })
    .await;
    let low = cluster.get(&path).await.unwrap();
    assert_eq!(low.pointer(share), Some(&7.into()));
    let fixed = format!("{FLOW}/flowschemas/exempt");
    let mut exempt = cluster.get(&fixed).await.unwrap();
    exempt["spec"]["matchingPrecedence"] = 5.into();
    let refused = cluster.put(&fixed, &exempt).await.unwrap_err();
    assert!(
        refused
            .message
            .contains("spec of 'exempt' must equal the fixed value"),
        "{refused:?}"
    );
    let page = "/debug/api_priority_and_fairness/dump_priority_levels";
    let request = client::request::request(Method::GET, page, None, client::empty()).unwrap();
    let page = cluster.client.bytes(request).await.unwrap();
    assert!(String::from_utf8_lossy(&page).contains("\nmine, 0, true, false, 0, 0, 1, 0, 0, 0\n"));
    cluster.stop().await;
}

/// A body that comes when it is told to.
fn pending(text: String) -> (tokio::sync::oneshot::Sender<()>, client::Body) {
    let (send, told) = tokio::sync::oneshot::channel();
    let frame = async move {
        told.await.unwrap();
        Ok::<_, client::BoxError>(http_body::Frame::data(bytes::Bytes::from(text)))
    };
    let stream = futures::stream::once(frame);
    (send, http_body_util::StreamBody::new(stream).boxed_unsync())
}

#[tokio::test]
async fn who_has_no_seat_is_told_to_come_later() {
    let cluster = Cluster::start().await;
    let binding = json!({"metadata": {"name": "jane"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]});
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    cluster.post(path, binding).await.unwrap();
    // No seats: one at a time is served, and nobody waits.
    let level = json!({"metadata": {"name": "mine"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 0, "limitResponse": {"type": "Reject"}}}});
    let levels = format!("{FLOW}/prioritylevelconfigurations");
    cluster.post(&levels, level).await.unwrap();
    let mut schema = flow_schema("jane", "mine");
    schema["spec"]["rules"][0]["resourceRules"] = json!([{"verbs": ["*"], "apiGroups": ["*"],
        "resources": ["*"], "namespaces": ["*"]}]);
    cluster
        .post(&format!("{FLOW}/flowschemas"), schema)
        .await
        .unwrap();
    let own = format!("{FLOW}/flowschemas/own");
    until(&cluster, &own, |own| {
        own["status"]["conditions"][0]["status"] == "False"
    })
    .await;
    let jane = cluster.server.client(Identity::user("jane", &[]));
    let (told, body) = pending(config_map("a", "x").to_string());
    let slow = client::request::request(Method::POST, CONFIG_MAPS, Some("application/json"), body);
    let (own, slow) = (jane.clone(), slow.unwrap());
    let slow = tokio::spawn(async move { own.bytes(slow).await });
    let list = || request("x", Method::GET, CONFIG_MAPS, &json!({}));
    let refused = async {
        loop {
            // Until the slow one has its seat.
            let answer = send(&jane, list()).await;
            if answer.status() == 429 {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    let refused = tokio::time::timeout(std::time::Duration::from_secs(20), refused)
        .await
        .unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    assert!(!refused.headers()["x-kubernetes-pf-prioritylevel-uid"].is_empty());
    cluster.get(CONFIG_MAPS).await.unwrap();
    told.send(()).unwrap();
    slow.await.unwrap().unwrap();
    assert_eq!(send(&jane, list()).await.status(), 200);
    cluster.stop().await;
}

#[tokio::test]
async fn webhooks_leave_their_traces() {
    let (cluster, kept) = audited().await;
    let hooks = Hooks::start(&cluster).await;
    let rules = json!([{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
        "resources": ["configmaps"]}]);
    let mut broken = hooks.hook("broken.example.com", "/boom", rules.clone());
    broken["failurePolicy"] = "Ignore".into();
    let mutating = [
        hooks.hook("stage.example.com", "/stage-1", rules.clone()),
        broken.clone(),
    ];
    let validating = [hooks.hook("noted.example.com", "/noted", rules), broken];
    for (kind, name, list) in [
        ("mutatingwebhookconfigurations", "m", mutating),
        ("validatingwebhookconfigurations", "v", validating),
    ] {
        let path = format!("/apis/admissionregistration.k8s.io/v1/{kind}");
        let body = json!({"metadata": {"name": name}, "webhooks": list});
        cluster.post(&path, body).await.unwrap();
    }
    let who = Identity::user("jane", &["system:masters", "watched"]);
    let jane = cluster.server.client(who);
    let made = config_map("a", "x");
    send(&jane, request("made", Method::POST, CONFIG_MAPS, &made)).await;
    let notes = kept.of("made")[1]["annotations"].clone();
    let of = |key: &str| notes[key].as_str().unwrap_or_default();
    assert_eq!(
        of("mutation.webhook.admission.k8s.io/round_0_index_0"),
        r#"{"configuration":"m","mutated":true,"webhook":"stage.example.com"}"#
    );
    let patch = of("patch.webhook.admission.k8s.io/round_0_index_0");
    let patch: Value = serde_json::from_str(patch).unwrap();
    assert_eq!(patch["patchType"], "JSONPatch");
    assert_eq!(patch["patch"][0]["path"], "/data/stage-1");
    assert!(of("mutation.webhook.admission.k8s.io/round_0_index_1").contains("false"));
    for kind in ["mutation", "validating"] {
        let key = format!("failed-open.{kind}.webhook.admission.k8s.io/round_0_index_1");
        assert_eq!(of(&key), "broken.example.com");
    }
    assert_eq!(of("noted.example.com/why"), "because");
    cluster.stop().await;
}
