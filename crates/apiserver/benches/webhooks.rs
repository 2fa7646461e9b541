//! What a validating webhook on this machine adds to a write.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on must fail"
)]
#![expect(clippy::print_stdout, reason = "a benchmark tells what it measured")]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apiserver::Config;
use auth::{Identity, Pki};
use base::Crew;
use base64::Engine;
use client::{Body, Client, full};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

const WRITES: usize = 1000;
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let dir = tempfile::tempdir().unwrap();
    let crew = Crew::new();
    let store = store::memory(&crew).await.unwrap();
    let pki = Arc::new(Pki::open(&dir.path().join("pki"), &[]).unwrap());
    let server = apiserver::build(Config::new(Arc::clone(&pki)), store, &crew);
    let server = server.await.unwrap();
    let client = server.client(Identity::user("bench", &["system:masters"]));
    let port = serve(&pki).await;
    let without = median(&client, "a").await;
    let bundle = base64::engine::general_purpose::STANDARD.encode(pki.ca_pem());
    let hook = json!({"metadata": {"name": "bench"}, "webhooks": [{
        "name": "allow.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": format!("https://localhost:{port}/"), "caBundle": bundle},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
            "resources": ["configmaps"]}]}]});
    client
        .send_value(Method::POST, VALIDATING, &hook)
        .await
        .unwrap();
    let with = median(&client, "b").await;
    let added = with.saturating_sub(without).as_secs_f64() * 1e3;
    println!(
        "create: {:.0} µs, with a webhook {:.0} µs: {added:.2} ms added (goal 1 ms)",
        without.as_secs_f64() * 1e6,
        with.as_secs_f64() * 1e6
    );
    crew.stop().raise();
    crew.finished().await.unwrap();
}

async fn median(client: &Client, prefix: &str) -> Duration {
    let mut times = Vec::with_capacity(WRITES);
    for at in 0..WRITES {
        let body = json!({"metadata": {"name": format!("{prefix}-{at}")}, "data": {"a": "b"}});
        let begun = Instant::now();
        let made = client.send_value(Method::POST, CONFIG_MAPS, &body).await;
        made.unwrap();
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    times[WRITES / 2]
}

/// A webhook that allows everything.
async fn serve(pki: &Pki) -> u16 {
    let pair = pki
        .issue_serving("hook", &[], &["localhost".into()])
        .unwrap();
    let tls = auth::tls::server_config_of(&pair, pki.ca_pem()).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(tls);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let service = hyper::service::service_fn(allow);
                drop(server.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    port
}

async fn allow(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    let answer = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "response": {"uid": review["request"]["uid"], "allowed": true}});
    Ok(Response::new(full(answer.to_string())))
}
