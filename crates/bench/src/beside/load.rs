//! The same load for either side: so many clients, each on a connection of its own.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use client::{Access, Client};
use futures::future::try_join_all;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::load::{config_map, gated_pod};
use crate::process::processor_time;
use crate::table::percentile;
use crate::wire::{self, Line, Packed};

pub(super) use crate::load::create;

pub(super) const CLIENTS: usize = 64;
/// Requests of one client that are encoded beforehand.
const ENCODED_MAX: usize = 1_000;
const JSON: &str = "application/json";
pub(super) const MERGE: &str = "application/merge-patch+json";
pub(super) const APPLY: &str = "application/apply-patch+yaml";

/// What one load came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) per_second: f64,
    pub(super) count: usize,
    /// Milliseconds, of one request.
    pub(super) p50: f64,
    pub(super) p99: f64,
    /// Processor time of the load itself, per request.
    pub(super) own_cost: Duration,
}

/// One request to come.
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) media_type: Option<&'static str>,
    pub(super) body: Bytes,
}

impl Ask {
    pub(super) fn get(path: String) -> Ask {
        Ask {
            method: Method::GET,
            path,
            media_type: None,
            body: Bytes::new(),
        }
    }

    pub(super) fn post(path: &str, object: &Value) -> Ask {
        Ask {
            method: Method::POST,
            path: path.to_owned(),
            media_type: Some(JSON),
            body: object.to_string().into(),
        }
    }

    pub(super) fn patch(path: String, media_type: &'static str, body: &Value) -> Ask {
        Ask {
            method: Method::PATCH,
            path,
            media_type: Some(media_type),
            body: body.to_string().into(),
        }
    }

    /// The same for a [`Line`].
    pub(super) fn packed(&self, access: &Access) -> Result<Packed> {
        Packed::new(
            access,
            &self.method,
            &self.path,
            self.media_type,
            &self.body,
        )
    }

    /// Sends it and reads the answer to its end, without keeping it.
    pub(super) async fn send(self, client: &Client) -> Result<usize> {
        let body = match self.body.is_empty() {
            true => client::empty(),
            false => client::full(self.body),
        };
        let request = client::request::request(self.method, &self.path, self.media_type, body)?;
        let mut answer = client.send(request).await?.into_body();
        let mut bytes = 0;
        while let Some(frame) = answer.frame().await {
            let frame = frame.map_err(|error| anyhow::anyhow!("answer broke off: {error}"))?;
            bytes += frame.data_ref().map_or(0, Bytes::len);
        }
        Ok(bytes)
    }
}

/// Has [`CLIENTS`] clients ask one after the other, each `each` times, no longer than `span`.
/// Requests are encoded before the first is sent; who asks more often begins again.
pub(super) async fn run(
    access: &Access,
    each: usize,
    span: Duration,
    ask: impl Fn(usize, usize) -> Option<Ask>,
) -> Result<Rate> {
    let mut workers = Vec::new();
    for worker in 0..CLIENTS {
        let asks = (0..each.min(ENCODED_MAX)).map_while(|at| ask(worker, at));
        let packed = asks.map(|ask| ask.packed(access)).collect::<Result<_>>()?;
        workers.push(packed);
    }
    let access = access.clone();
    wire::apart(move || send_all(access, workers, each, span)).await
}

async fn send_all(
    access: Access,
    workers: Vec<Vec<Packed>>,
    each: usize,
    span: Duration,
) -> Result<Rate> {
    let mut lines = Vec::new();
    for requests in workers {
        lines.push((Line::open(&access).await?, requests));
    }
    let before = processor_time(std::process::id())?;
    let begin = Instant::now();
    let workers = lines.into_iter().map(|(mut line, requests)| {
        tokio::spawn(async move {
            let mut times = Vec::new();
            let most = match requests.len() {
                ENCODED_MAX => each,
                all => all,
            };
            while begin.elapsed() < span && times.len() < most {
                let one = Instant::now();
                line.ask(&requests[times.len() % requests.len()]).await?;
                times.push(one.elapsed().as_secs_f64() * 1e3);
            }
            Ok::<_, anyhow::Error>(times)
        })
    });
    let mut times = Vec::new();
    for worker in try_join_all(workers).await? {
        times.extend(worker?);
    }
    let took = begin.elapsed().as_secs_f64();
    let cost = processor_time(std::process::id())?.saturating_sub(before);
    times.sort_by(f64::total_cmp);
    Ok(Rate {
        per_second: times.len() as f64 / took,
        count: times.len(),
        p50: percentile(&times, 0.5),
        p99: percentile(&times, 0.99),
        own_cost: cost.div_f64(times.len().max(1) as f64),
    })
}

/// A namespace in which pods can be made: no controller makes its service account here.
pub(super) async fn namespace(client: &Client, name: &str) -> Result<()> {
    let object = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"bench": name}}});
    create(client, "/api/v1/namespaces", &object).await?;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "default"}});
    let path = format!("/api/v1/namespaces/{name}/serviceaccounts");
    create(client, &path, &account).await
}

pub(super) fn config_maps(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

pub(super) fn pods(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

/// The request that makes one config map.
pub(super) fn make_config_map(path: &str, name: &str) -> Ask {
    Ask::post(path, &config_map(name))
}

/// The request that makes one pod that nothing will run.
pub(super) fn make_pod(path: &str, name: &str) -> Ask {
    Ask::post(path, &gated_pod(name))
}

/// A Deployment as users write them; `round` is what changes between two of them.
pub(super) fn deployment(round: usize) -> Value {
    let variables: Vec<Value> = (0..6)
        .map(|at| json!({"name": format!("VARIABLE_{at}"), "value": "some value"}))
        .collect();
    let probe = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 5});
    let resources = json!({"requests": {"cpu": "100m", "memory": "64Mi"},
        "limits": {"memory": "128Mi"}});
    let container = json!({"name": "main", "image": format!("registry.example.com/web:v{round}"),
        "ports": [{"name": "http", "containerPort": 8080}], "env": variables,
        "readinessProbe": probe, "livenessProbe": probe, "resources": resources,
        "volumeMounts": [{"name": "config", "mountPath": "/etc/web"}]});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"app": "web", "tier": "front"},
            "annotations": {"example.com/round": round.to_string()}},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web", "tier": "front"}},
                "spec": {"containers": [container],
                    "volumes": [{"name": "config", "configMap": {"name": "web"}}]},
            },
        },
    })
}
