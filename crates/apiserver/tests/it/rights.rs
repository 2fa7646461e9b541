//! A webhook that decides who may do what, and that everybody hears who asks about rights.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use apiserver::Reloaded;
use auth::access_webhook::{AccessOptions, AccessWebhook};
use auth::{Identity, Mode};
use base::Crew;
use bytes::Bytes;
use client::Client;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use webhook::Webhook;

use crate::cluster::{CONFIG_MAPS, Cluster, config_map};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// The verbs that the webhook allows everybody, and all that it was asked.
#[derive(Clone, Default)]
struct Judge {
    allowed: Arc<Mutex<BTreeSet<&'static str>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Judge {
    fn allow(&self, verb: &'static str) {
        self.allowed.lock().unwrap().insert(verb);
    }

    /// How often a verb was asked about.
    fn count(&self, verb: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|own| *own == verb).count()
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut review: Value = serde_json::from_slice(&body).unwrap();
        let verb = review["spec"]["resourceAttributes"]["verb"].as_str();
        let verb = verb.unwrap_or_default().to_owned();
        let allowed = self.allowed.lock().unwrap().contains(verb.as_str());
        self.asked.lock().unwrap().push(verb);
        review["status"] = json!({"allowed": allowed});
        Ok(Response::new(Full::from(review.to_string())))
    }

    async fn serve(self, crew: &Crew) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let stop = crew.stop();
        crew.spawn("judge", async move {
            let mut open = tokio::task::JoinSet::new();
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    () = stop.raised() => return,
                };
                let own = self.clone();
                let service = hyper::service::service_fn(move |one| own.clone().answer(one));
                let http = hyper::server::conn::http1::Builder::new();
                open.spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        });
        url
    }
}

/// A cluster where the webhook is asked before roles; nothing is remembered.
async fn judged() -> (Cluster, Judge, Client) {
    let (crew, judge) = (Crew::new(), Judge::default());
    let url = judge.clone().serve(&crew).await;
    let access = client::Access {
        server: url,
        ..client::Access::default()
    };
    let options = AccessOptions {
        version: "v1".into(),
        allowed_for: None,
        refused_for: None,
        ..AccessOptions::default()
    };
    let webhook = AccessWebhook::new(Webhook::from_access(&access).unwrap(), options).unwrap();
    let store = store::memory(&crew).await.unwrap();
    let cluster = Cluster::with(store, crew, |config| {
        config.authorization = vec![Mode::Webhook(Arc::new(webhook)), Mode::Rbac];
    })
    .await;
    for verb in ["get", "create", "update"] {
        judge.allow(verb);
    }
    let jane = cluster.server.client(Identity::user("jane", &[]));
    (cluster, judge, jane)
}

async fn post(client: &Client, path: &str, body: &Value) -> Result<Value, meta::Status> {
    client.send_value(Method::POST, path, body).await
}

#[tokio::test]
async fn the_right_to_hand_out_rights_may_be_a_webhooks() {
    let (cluster, judge, jane) = judged().await;
    let role = |name: &str| {
        json!({"metadata": {"name": name}, "rules": [
            {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]})
    };
    let roles = format!("{RBAC}/namespaces/default/roles");
    let refused = post(&jane, &roles, &role("a")).await.unwrap_err();
    assert!(refused.message.contains("not currently held"), "{refused}");
    judge.allow("escalate");
    post(&jane, &roles, &role("a")).await.unwrap();
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let binding = json!({"metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "a"},
        "subjects": [{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}]});
    assert_eq!(
        post(&jane, &bindings, &binding).await.unwrap_err().code,
        403
    );
    judge.allow("bind");
    post(&jane, &bindings, &binding).await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn signers_may_be_a_webhooks() {
    let (cluster, judge, jane) = judged().await;
    let subject = auth::certificate::Subject {
        common_name: "jane",
        organizations: &[],
        hosts: BTreeSet::new(),
        usage: auth::certificate::Usage::Client,
    };
    let (pem, _) = auth::certificate::request(&subject).unwrap();
    use base64::Engine;
    let pem = base64::engine::general_purpose::STANDARD.encode(pem);
    let request = json!({"metadata": {"name": "jane"}, "spec": {"request": pem,
        "signerName": "example.com/own", "usages": ["digital signature", "client auth"]}});
    let mut made = post(&jane, REQUESTS, &request).await.unwrap();
    made["status"] = json!({"conditions": [{"type": "Approved", "status": "True",
        "reason": "Test", "message": "x"}]});
    let path = format!("{REQUESTS}/jane/approval");
    let approve = async || jane.send_value(Method::PUT, &path, &made).await;
    let refused = approve().await.unwrap_err();
    assert!(
        refused
            .message
            .contains("user not permitted to approve requests"),
        "{refused}"
    );
    judge.allow("approve");
    approve().await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn expressions_hear_what_a_webhook_says() {
    let (cluster, judge, jane) = judged().await;
    let rules = json!({"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
        "operations": ["CREATE"], "resources": ["configmaps"]}]});
    let magic = "authorizer.group('').resource('configmaps').namespace('default')\
                 .check('magic').allowed()";
    let policy = json!({"metadata": {"name": "magic"}, "spec": {
        "matchConstraints": rules,
        "validations": [{"expression": magic, "message": "no magic"}]}});
    let binding = json!({"metadata": {"name": "magic"},
        "spec": {"policyName": "magic", "validationActions": ["Deny", "Audit"]}});
    let path = |kind: &str| format!("{POLICIES}/{kind}");
    cluster
        .post(&path("validatingadmissionpolicies"), policy)
        .await
        .unwrap();
    let bindings = path("validatingadmissionpolicybindings");
    cluster.post(&bindings, binding).await.unwrap();
    let marks = json!({"metadata": {"name": "mark"}, "spec": {
        "matchConstraints": rules, "reinvocationPolicy": "Never",
        "matchConditions": [{"name": "may", "expression":
            "authorizer.requestResource.check('mark').allowed()"}],
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{metadata: Object.metadata{labels: {'marked': 'yes'}}}"}}]}});
    let binding = json!({"metadata": {"name": "mark"}, "spec": {"policyName": "mark"}});
    cluster
        .post(&path("mutatingadmissionpolicies"), marks)
        .await
        .unwrap();
    let bindings = path("mutatingadmissionpolicybindings");
    cluster.post(&bindings, binding).await.unwrap();

    let refused = post(&jane, CONFIG_MAPS, &config_map("a", "x")).await;
    let refused = refused.unwrap_err();
    assert!(refused.message.ends_with("no magic"), "{refused}");
    let before = (judge.count("magic"), judge.count("mark"));
    judge.allow("magic");
    judge.allow("mark");
    let made = post(&jane, CONFIG_MAPS, &config_map("a", "x"))
        .await
        .unwrap();
    assert_eq!(made["metadata"]["labels"]["marked"], "yes");
    // Each question is asked once for a request, however often the work is done again.
    let after = (judge.count("magic"), judge.count("mark"));
    assert_eq!((before.0 + 1, before.1 + 1), after);
    cluster.stop().await;
}

#[tokio::test]
async fn who_decides_may_change() {
    let (cluster, _, jane) = judged().await;
    assert!(jane.get_value(CONFIG_MAPS).await.is_err());
    cluster.server.note_loaded(Reloaded::Authorization, "old");
    cluster.server.set_authorization(vec![Mode::AlwaysAllow]);
    cluster
        .server
        .note_reload(Reloaded::Authorization, "new", true);
    cluster
        .server
        .note_reload(Reloaded::Authorization, "bad", false);
    assert!(jane.get_value(CONFIG_MAPS).await.is_ok());
    let request = client::request::request(Method::GET, "/metrics", None, client::empty());
    let text = cluster.client.bytes(request.unwrap()).await.unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap();
    let name = "apiserver_authorization_config_controller_automatic_reloads_total";
    for status in ["success", "failure"] {
        let line = text
            .lines()
            .find(|line| line.starts_with(name) && line.contains(&format!("status=\"{status}\"")));
        assert!(line.is_some_and(|line| line.ends_with(" 1")), "{line:?}");
    }
    assert!(!text.contains("apiserver_authentication_config_controller"));
    cluster.stop().await;
}
