//! From the command to a Ready node, to the application's first answer, and back after a crash.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use client::Client;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cluster::{Cluster, PATIENCE, until};
use crate::load;
use crate::table::{Figure, Goal, Table, percentile};

/// The very application of `sampan demo`.
#[path = "../../sampan/src/demo/manifests.rs"]
mod demo;
pub(crate) use demo::IMAGE;

pub(crate) const NAMESPACE: &str = "demo";
/// How often an application that does not answer yet is asked.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// Objects that a restarted server finds.
const OBJECTS: usize = 1_000;
const RESTARTS: usize = 3;
const CLIENTS: usize = 16;

/// Starts a server in an empty folder and brings the demonstration's application up.
pub(crate) async fn first(cluster: &mut Cluster, table: &mut Table) -> Result<()> {
    let started = cluster.start().await?;
    let figure = Figure::new("command to Node Ready", started.node.as_secs_f64(), "s");
    let note = format!(
        "empty folder; API ready after {:.2} s",
        started.api.as_secs_f64()
    );
    table.add(figure.goal(Goal::AtMost(2.0)).note(note));

    let folder = cluster.folder().display().to_string();
    let making = Instant::now();
    cluster
        .sampan(&["image", "from-binary", IMAGE, "--data-dir", &folder])
        .await?;
    let making = making.elapsed();
    let path = cluster.folder().join("demo.yaml");
    std::fs::write(&path, demo::APPLICATION)?;
    cluster
        .sampan(&["apply", "-f", &path.display().to_string()])
        .await?;
    let client = cluster.client()?;
    answer(&client).await?;
    let figure = Figure::new(
        "demo application's first answer",
        started.began.elapsed().as_secs_f64(),
        "s",
    );
    let note = format!(
        "empty folder, by cluster IP; image made in {:.2} s",
        making.as_secs_f64()
    );
    table.add(figure.goal(Goal::AtMost(5.0)).note(note));
    until::<Deployment>(&client, Some(NAMESPACE), "web", |one| {
        one.status
            .as_ref()
            .and_then(|status| status.available_replicas)
            == Some(3)
    })
    .await?;
    Ok(())
}

/// Waits for the application's answer by its cluster IP.
async fn answer(client: &Client) -> Result<()> {
    let service: Service = client.namespaced(NAMESPACE).get("web").await?;
    let ip = service
        .spec
        .and_then(|spec| spec.cluster_ip)
        .context("service has no address")?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let asked = tokio::time::timeout(Duration::from_secs(1), ask(&ip)).await;
        match asked {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if Instant::now() > deadline => return Err(error),
            _ => tokio::time::sleep(ASK_EVERY).await,
        }
    }
}

async fn ask(ip: &str) -> Result<()> {
    let mut stream = TcpStream::connect((ip, 80)).await?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    anyhow::ensure!(
        answer.starts_with(b"HTTP/1.1 200"),
        "the application answered with a fault"
    );
    Ok(())
}

/// Kills the server and starts it on what it left behind.
pub(crate) async fn again(cluster: &mut Cluster, table: &mut Table) -> Result<()> {
    load::config_maps(cluster, "restart", CLIENTS, OBJECTS).await?;
    let (mut nodes, mut apis) = (Vec::new(), Vec::new());
    for _ in 0..RESTARTS {
        cluster.kill().await?;
        let started = cluster.start().await?;
        nodes.push(started.node.as_secs_f64());
        apis.push(started.api.as_secs_f64());
    }
    nodes.sort_by(f64::total_cmp);
    apis.sort_by(f64::total_cmp);
    let figure = Figure::new("restart with 1,000 objects", percentile(&nodes, 0.5), "s");
    let note = format!(
        "kill -9, median of {RESTARTS}, the demonstration running; API ready after {:.2} s",
        percentile(&apis, 0.5)
    );
    table.add(figure.goal(Goal::AtMost(1.0)).note(note));
    answer(&cluster.client()?).await
}
