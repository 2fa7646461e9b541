//! A webhook server of the test's own.

use std::convert::Infallible;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use client::{Body, full};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio_rustls::TlsAcceptor;

use crate::cluster::Cluster;

/// As many calls of `/together` are answered at once.
const TOGETHER: usize = 4;

/// The server, and what it was asked.
pub(crate) struct Hooks {
    pub(crate) port: u16,
    ca: String,
    seen: Arc<Seen>,
}

struct Seen {
    asked: Mutex<Vec<(String, Value)>>,
    together: Barrier,
}

impl Hooks {
    pub(crate) async fn start(cluster: &Cluster) -> Hooks {
        let names = ["localhost".into(), "hook.default.svc".into()];
        let pair = cluster.pki.issue_serving("hook", &[], &names).unwrap();
        let tls = auth::tls::server_config_of(&pair, cluster.pki.ca_pem()).unwrap();
        let acceptor = TlsAcceptor::from(tls);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Seen {
            asked: Mutex::default(),
            together: Barrier::new(TOGETHER),
        });
        let (stop, own) = (cluster.crew.stop(), Arc::clone(&seen));
        cluster.crew.spawn("webhooks", async move {
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    () = stop.raised() => return,
                };
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&own));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let answer = |request| answer(Arc::clone(&seen), request);
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let service = hyper::service::service_fn(answer);
                    drop(server.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Hooks {
            port,
            ca: STANDARD.encode(cluster.pki.ca_pem()),
            seen,
        }
    }

    /// The `clientConfig` of a path.
    pub(crate) fn config(&self, path: &str) -> Value {
        json!({"url": format!("https://localhost:{}{path}", self.port), "caBundle": self.ca})
    }

    /// A webhook at `path`.
    pub(crate) fn hook(&self, name: &str, path: &str, rules: Value) -> Value {
        json!({"name": name, "sideEffects": "None", "admissionReviewVersions": ["v1", "v1beta1"],
            "clientConfig": self.config(path), "rules": rules})
    }

    /// How often a path was asked.
    pub(crate) fn calls(&self, path: &str) -> usize {
        let asked = self.seen.asked.lock();
        asked.iter().filter(|(own, _)| own == path).count()
    }

    /// The last question.
    pub(crate) fn last(&self) -> Value {
        let asked = self.seen.asked.lock();
        asked.last().map(|(_, review)| review.clone()).unwrap()
    }
}

async fn answer(seen: Arc<Seen>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    seen.asked.lock().push((path.clone(), review.clone()));
    let say = |code: u16, body: Bytes| {
        let mut response = Response::new(full(body));
        *response.status_mut() = StatusCode::from_u16(code).unwrap();
        Ok(response)
    };
    match path.as_str() {
        "/hang" => return std::future::pending().await,
        "/garbage" => return say(200, "<html>".into()),
        "/boom" => return say(500, "boom".into()),
        "/huge" => return say(200, vec![b' '; webhook::RESPONSE_BYTES_MAX + 1].into()),
        path if path.starts_with("/convert") => {
            let converted = crate::conversion::convert(path, &review);
            return say(200, converted.to_string().into());
        }
        "/together" => {
            seen.together.wait().await;
        }
        _ => {}
    }
    let mut response = verdict(&path, &review["request"]);
    if path != "/stranger" {
        response["uid"] = review["request"]["uid"].clone();
    }
    let review = json!({"kind": "AdmissionReview", "apiVersion": review["apiVersion"],
        "response": response});
    say(200, review.to_string().into())
}

/// What upstream's test image answers.
fn verdict(path: &str, request: &Value) -> Value {
    let object = &request["object"];
    let denied = |why: &str| json!({"allowed": false, "status": {"message": why}});
    let allowed = || json!({"allowed": true});
    let patched = |patch: Value| {
        json!({"allowed": true, "patchType": "JSONPatch",
            "patch": STANDARD.encode(patch.to_string())})
    };
    match path {
        "/always-deny" | "/record-deny" => denied("this webhook denies all requests"),
        "/configmaps" if object["data"]["webhook-e2e-test"] == "webhook-disallow" => json!({
            "allowed": false, "status": {"reason": "unwanted",
            "message": "the configmap contains unwanted key and value"}}),
        "/keep" => {
            let name = request["oldObject"]["metadata"]["name"].as_str().unwrap();
            denied(&format!("{name} stays"))
        }
        "/stage-1" => patched(json!([{"op": "add", "path": "/data/stage-1", "value": "yes"}])),
        "/stage-2" if object["data"]["stage-1"] == "yes" => {
            patched(json!([{"op": "add", "path": "/data/stage-2", "value": "yes"}]))
        }
        "/mutating-pods" => patched(json!([
            {"op": "add", "path": "/spec/unknown", "value": 1},
            {"op": "add", "path": "/spec/initContainers", "value": [
                {"image": "webhook-added-image", "name": "added-by-webhook", "resources": {}}]}])),
        "/patch-only" => json!({"allowed": true, "patch": "W10="}),
        "/noted" => json!({"allowed": true, "auditAnnotations": {"why": "because"}}),
        "/together" => json!({"allowed": true, "warnings": ["mind the gap"]}),
        _ => allowed(),
    }
}
