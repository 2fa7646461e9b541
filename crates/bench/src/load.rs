//! Many writes, and a long list.

use std::time::{Duration, Instant};

use anyhow::Result;
use client::{Access, Client};
use futures::future::try_join_all;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::cluster::{Cluster, get};
use crate::process::memory;
use crate::table::{Figure, Goal, Table, percentile};

const CLIENTS: usize = 64;
/// How long config maps are created.
const SPAN: Duration = Duration::from_secs(5);
/// Config maps created at most in that time.
const CREATES_MAX: usize = 200_000;
const PODS: usize = 10_000;
const LISTS: usize = 11;
const NAMESPACE: &str = "bench";

/// Creates config maps with many clients at once, each on a connection of its own.
pub(crate) async fn creates(cluster: &Cluster, table: &mut Table) -> Result<()> {
    namespace(&cluster.client()?, NAMESPACE).await?;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let clients = connect(&cluster.access()?, CLIENTS).await?;
    let begin = Instant::now();
    let workers = clients.into_iter().enumerate().map(|(worker, client)| {
        let path = path.clone();
        let mut times = Vec::new();
        tokio::spawn(async move {
            while begin.elapsed() < SPAN && times.len() < CREATES_MAX / CLIENTS {
                let one = Instant::now();
                let name = format!("c{worker}-{}", times.len());
                create(&client, &path, &config_map(&name)).await?;
                times.push(one.elapsed().as_secs_f64());
            }
            Ok::<_, anyhow::Error>(times)
        })
    });
    let mut times = Vec::new();
    for worker in try_join_all(workers).await? {
        times.extend(worker?);
    }
    let rate = times.len() as f64 / begin.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    let (p50, p99) = (
        percentile(&times, 0.5) * 1e3,
        percentile(&times, 0.99) * 1e3,
    );
    let figure = Figure::new("config map creates, durable", rate, "/s");
    let note =
        format!("{CLIENTS} clients, TLS, HTTP/2 kept alive; p50 {p50:.1} ms, p99 {p99:.1} ms");
    table.add(figure.goal(Goal::AtLeast(5_000.0)).note(note));
    Ok(())
}

/// Lists pods that wait for a gate to open, so that nothing of them runs.
pub(crate) async fn list(cluster: &Cluster, table: &mut Table) -> Result<()> {
    const NAMESPACE: &str = "bench-list";
    let client = cluster.client()?;
    namespace(&client, NAMESPACE).await?;
    let collection = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let begin = Instant::now();
    fill(cluster, &collection, CLIENTS, PODS, gated_pod).await?;
    let rate = PODS as f64 / begin.elapsed().as_secs_f64();
    let (mut times, mut firsts, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..LISTS {
        let begin = Instant::now();
        let request = client::request::request(Method::GET, &collection, None, client::empty())?;
        let mut body = client.send(request).await?.into_body();
        firsts.push(begin.elapsed().as_secs_f64());
        bytes = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| anyhow::anyhow!("list broke off: {error}"))?;
            bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
        }
        times.push(begin.elapsed().as_secs_f64());
    }
    let answer: Value = serde_json::from_slice(&get(&client, &collection).await?)?;
    let items = answer["items"].as_array().map_or(0, Vec::len);
    anyhow::ensure!(items == PODS, "list has {items} pods, not {PODS}");
    times.sort_by(f64::total_cmp);
    firsts.sort_by(f64::total_cmp);
    let figure = Figure::new("list of 10,000 pods", percentile(&times, 0.5) * 1e3, "ms");
    let note = format!(
        "to the last byte of {:.1} MB JSON, TLS, HTTP/2, median of {LISTS}; best {:.0} ms, head after {:.0} ms",
        bytes as f64 / 1e6,
        times[0] * 1e3,
        percentile(&firsts, 0.5) * 1e3,
    );
    table.add(figure.goal(Goal::AtMost(60.0)).note(note));
    let figure = Figure::new("pod creates, durable", rate, "/s");
    table.add(figure.note(format!("{CLIENTS} clients, gated pods")));
    let server = memory(cluster.pid()?)?;
    let figure = Figure::new(
        "server memory after the load (RSS)",
        server.resident as f64 / 1e6,
        "MB",
    );
    table.add(figure.note(format!("{PODS} pods and the config maps above in it")));
    Ok(())
}

/// Creates `count` config maps in a namespace of their own.
pub(crate) async fn config_maps(
    cluster: &Cluster,
    name: &str,
    clients: usize,
    count: usize,
) -> Result<()> {
    namespace(&cluster.client()?, name).await?;
    let path = format!("/api/v1/namespaces/{name}/configmaps");
    fill(cluster, &path, clients, count, config_map).await
}

async fn fill(
    cluster: &Cluster,
    path: &str,
    clients: usize,
    count: usize,
    object: fn(&str) -> Value,
) -> Result<()> {
    let clients = connect(&cluster.access()?, clients).await?;
    let step = clients.len();
    let workers = clients.into_iter().enumerate().map(|(worker, client)| {
        let path = path.to_owned();
        tokio::spawn(async move {
            for at in (worker..count).step_by(step) {
                create(&client, &path, &object(&format!("item-{at:05}"))).await?;
            }
            Ok::<_, anyhow::Error>(())
        })
    });
    for worker in try_join_all(workers).await? {
        worker?;
    }
    Ok(())
}

/// Clients whose connections stand already.
pub(crate) async fn connect(access: &Access, count: usize) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let client = Client::remote(access)?;
        get(&client, "/version").await?;
        clients.push(client);
    }
    Ok(clients)
}

/// A new namespace that can be written to.
pub(crate) async fn namespace(client: &Client, name: &str) -> Result<()> {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    create(client, "/api/v1/namespaces", &object).await
}

pub(crate) async fn create(client: &Client, path: &str, object: &Value) -> Result<()> {
    let body = client::full(serde_json::to_vec(object)?);
    let media_type = Some("application/json");
    client
        .bytes(client::request::request(
            Method::POST,
            path,
            media_type,
            body,
        )?)
        .await?;
    Ok(())
}

pub(crate) fn config_map(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"key": "value", "text": "x".repeat(256)},
    })
}

pub(crate) fn gated_pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "gated"}},
        "spec": {
            "schedulingGates": [{"name": "bench.sampan.dev/never"}],
            "containers": [{"name": "main", "image": "sampan.local/none:v1"}],
        },
    })
}
