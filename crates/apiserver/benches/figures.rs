//! The figures that the API server is held to, over a durable store and over TLS.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on must fail"
)]
#![expect(clippy::print_stdout, reason = "a benchmark tells what it measured")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use apiserver::{ApiServer, Config};
use auth::{Identity, Pki};
use base::Crew;
use client::{Access, Client, empty};
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const CLIENTS: usize = 64;
const CREATES_PER_CLIENT: usize = 400;
const PODS: usize = 10_000;
const LISTS: usize = 20;
const WATCHERS: usize = 1000;
const WATCHERS_PER_CONNECTION: usize = 100;
const EVENTS: usize = 20;
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const POD_PATH: &str = "/api/v1/namespaces/default/pods";
const APPLY: &str = "application/apply-patch+yaml";
const APPLIES: usize = 2_000;
/// Before these, caches fill and code gets warm.
const APPLIES_WARM: usize = 200;
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/default/deployments/web?fieldManager=bench";

/// The server's own.
#[global_allocator]
static ALLOCATOR: linux::allocator::ByRole = linux::allocator::ByRole;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Without a word all is measured.
    let word = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    match word.as_deref() {
        Some("writes") => runtime.block_on(writes()),
        _ => runtime.block_on(run()),
    }
}

/// What single writes take, over a store in memory: no network, no disk.
async fn writes() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Arc::new(Pki::open(&dir.path().join("pki"), &[]).unwrap());
    apply(&pki).await;
    pod_creates(&pki).await;
}

async fn run() {
    let dir = tempfile::tempdir().unwrap();
    let crew = Crew::new();
    let settings = store::Config {
        dir: dir.path().join("store"),
        ..store::Config::default()
    };
    let store = store::open(settings, &crew).await.unwrap();
    let pki = Arc::new(Pki::open(&dir.path().join("pki"), &[]).unwrap());
    let begun = Instant::now();
    let server = apiserver::build(Config::new(Arc::clone(&pki)), store, &crew);
    let server = server.await.unwrap();
    tell("server built over an empty store", begun.elapsed(), "");
    let local = server.client(Identity::user("bench", &["system:masters"]));
    let access = listen(&server, &pki, &crew);
    let dial = || Client::remote(&access).unwrap();
    let remote = dial();
    apply(&pki).await;
    pod_creates(&pki).await;
    creates("in process", &local, "l").await;
    creates("over TLS", &remote, "r").await;
    fill(&local).await;
    lists("in process", &local, JSON).await;
    lists("over TLS", &remote, JSON).await;
    lists("in protobuf, over TLS", &remote, PROTOBUF).await;
    watches("in process", &|| local.clone(), &local).await;
    watches("over TLS", &dial, &local).await;
    crew.stop().raise();
    crew.finished().await.unwrap();
}

fn tell(what: &str, took: Duration, goal: &str) {
    println!("{what}: {:.1} ms {goal}", took.as_secs_f64() * 1e3);
}

fn listen(server: &ApiServer, pki: &Pki, crew: &Crew) -> Access {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let tls = auth::tls::server_config(pki).unwrap();
    apiserver::listen(server.clone(), vec![listener], tls, crew).unwrap();
    let admin = pki.admin();
    let key = admin.key_pem.clone().into_bytes();
    Access {
        server: url,
        ca: Some(pki.ca_pem().as_bytes().to_vec()),
        certificate: Some((admin.cert_pem.clone().into_bytes(), key)),
        ..Access::default()
    }
}

async fn creates(how: &str, client: &Client, prefix: &str) {
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (client, prefix) = (client.clone(), format!("{prefix}{number}"));
        clients.spawn(async move {
            for at in 0..CREATES_PER_CLIENT {
                let body = json!({"metadata": {"name": format!("{prefix}-{at}")},
                    "data": {"key": "value"}});
                let made = client.send_value(Method::POST, CONFIG_MAPS, &body);
                made.await.unwrap();
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    let rate = (CLIENTS * CREATES_PER_CLIENT) as f64 / begun.elapsed().as_secs_f64();
    println!("ConfigMap creates {how}, {CLIENTS} clients, durable: {rate:.0}/s (goal 5000/s)");
}

/// Server-side apply through the whole chain, over a store in memory: no network, no disk.
async fn apply(pki: &Arc<Pki>) {
    let crew = Crew::new();
    let store = store::memory(&crew).await.unwrap();
    let server = apiserver::build(Config::new(Arc::clone(pki)), store, &crew);
    let server = server.await.unwrap();
    let client = server.client(Identity::user("bench", &["system:masters"]));
    let mut times = Vec::new();
    for round in 0..APPLIES_WARM + APPLIES {
        let body = client::full(deployment(round).to_string());
        let request = client::request::request(Method::PATCH, DEPLOYMENT, Some(APPLY), body);
        let begun = Instant::now();
        client.bytes(request.unwrap()).await.unwrap();
        times.push(begun.elapsed());
    }
    tell_writes("server-side apply of a Deployment", times, "(goal 300 µs)");
    crew.stop().raise();
    crew.finished().await.unwrap();
}

/// One pod after the other, as [`apply`] does it.
async fn pod_creates(pki: &Arc<Pki>) {
    let crew = Crew::new();
    let store = store::memory(&crew).await.unwrap();
    let server = apiserver::build(Config::new(Arc::clone(pki)), store, &crew);
    let server = server.await.unwrap();
    let client = server.client(Identity::user("bench", &["system:masters"]));
    default_account(&client).await;
    let mut times = Vec::new();
    for number in 0..APPLIES_WARM + APPLIES {
        let body = client::full(pod(number).to_string());
        let request = client::request::request(Method::POST, POD_PATH, Some(JSON), body);
        let begun = Instant::now();
        client.bytes(request.unwrap()).await.unwrap();
        times.push(begun.elapsed());
    }
    tell_writes("create of a pod", times, "");
    crew.stop().raise();
    crew.finished().await.unwrap();
}

fn tell_writes(what: &str, mut times: Vec<Duration>, goal: &str) {
    let mut times = times.split_off(APPLIES_WARM);
    times.sort_unstable();
    println!(
        "{what}, in process, store in memory: p10 {} µs, p50 {} µs, p99 {} µs {goal}",
        times[APPLIES / 10].as_micros(),
        times[APPLIES / 2].as_micros(),
        times[APPLIES * 99 / 100].as_micros()
    );
}

fn deployment(round: usize) -> Value {
    let variables: Vec<Value> = (0..6)
        .map(|at| json!({"name": format!("VARIABLE_{at}"), "value": "some value"}))
        .collect();
    let probe = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 5});
    let container = json!({"name": "main", "image": format!("registry.example.com/web:v{round}"),
        "ports": [{"name": "http", "containerPort": 8080}], "env": variables,
        "readinessProbe": probe, "livenessProbe": probe,
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}});
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [container]}}}})
}

fn pod(number: usize) -> Value {
    let environment: Vec<Value> = (0..8)
        .map(|at| json!({"name": format!("VARIABLE_{at}"), "value": "some value"}))
        .collect();
    json!({"metadata": {"name": format!("pod-{number}"), "labels": {"app": "bench"}},
        "spec": {"containers": [{"name": "main", "image": "registry.example.com/app:1",
            "env": environment, "ports": [{"containerPort": 80}]}]}})
}

async fn default_account(client: &Client) {
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"metadata": {"name": "default"}});
    client
        .send_value(Method::POST, accounts, &account)
        .await
        .unwrap();
}

async fn fill(client: &Client) {
    default_account(client).await;
    let mut clients = JoinSet::new();
    for first in 0..CLIENTS {
        let client = client.clone();
        clients.spawn(async move {
            for number in (first..PODS).step_by(CLIENTS) {
                client
                    .send_value(Method::POST, POD_PATH, &pod(number))
                    .await
                    .unwrap();
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
}

async fn lists(how: &str, client: &Client, accept: &str) {
    let mut times = Vec::new();
    let mut size = 0;
    for _ in 0..LISTS {
        let request = http::Request::get(POD_PATH).header("accept", accept);
        let request = request.body(empty()).unwrap();
        let begun = Instant::now();
        let mut body = client.send(request).await.unwrap().into_body();
        size = 0;
        while let Some(frame) = body.frame().await {
            size += frame.unwrap().into_data().map_or(0, |data| data.len());
        }
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let what = format!(
        "list of {PODS} pods {how}, {} MiB, to the last byte, median",
        size >> 20
    );
    tell(&what, times[LISTS / 2], "(goal 30 ms)");
}

async fn watches(how: &str, dial: &dyn Fn() -> Client, writer: &Client) {
    let list = writer
        .get_value(&format!("{CONFIG_MAPS}?limit=1"))
        .await
        .unwrap();
    let version = list["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    let (sender, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let mut watchers = JoinSet::new();
    let mut watcher = dial();
    for number in 0..WATCHERS {
        if number % WATCHERS_PER_CONNECTION == 0 {
            watcher = dial();
        }
        let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={version}");
        let request = client::request::request(Method::GET, &path, None, empty()).unwrap();
        let mut body = watcher.send(request).await.unwrap().into_body();
        let sender = sender.clone();
        watchers.spawn(async move {
            while let Some(Ok(_)) = body.frame().await {
                if sender.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
    }
    let mut times = Vec::new();
    for number in 0..EVENTS {
        let name = format!("{}-{number}", how.replace(' ', "-").to_lowercase());
        let body = json!({"metadata": {"name": name}});
        let begun = Instant::now();
        writer
            .send_value(Method::POST, CONFIG_MAPS, &body)
            .await
            .unwrap();
        for _ in 0..WATCHERS {
            times.push(arrivals.recv().await.unwrap() - begun);
        }
    }
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    let what = format!("write to event at {WATCHERS} watchers {how}, p99");
    tell(&what, p99, "(goal 50 ms)");
    watchers.shutdown().await;
}
