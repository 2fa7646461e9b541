//! A node that is filled: pods at a steady rate, then as many as it takes, and what those cost.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use client::{Client, DeleteOptions, ListOptions, WatchEvent};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::cluster::Cluster;
use crate::idle::{mb, share};
use crate::pods::{self, NAMESPACE};
use crate::process::{Memory, memory, supervisors};
use crate::start;
use crate::table::{Figure, Goal, Table, percentile};

/// Pods created at the steady rate.
const STEADY: usize = 100;
/// From one of them to the next: 20 a second.
const PACE: Duration = Duration::from_millis(50);
/// Until what a burst left behind has been done.
const SETTLE: Duration = Duration::from_secs(5);

/// Measures both.
pub(crate) async fn measure(cluster: &Cluster, seconds: u64, table: &mut Table) -> Result<()> {
    let client = cluster.client()?;
    let room = room(&client).await?;
    let steady = STEADY.min(room);
    let times = created(&client, "steady", steady, PACE).await?;
    pods::remove(&client).await?;
    let name = "pod create → Running at 20 pods/s";
    let figure = |title: &str, part: f64| {
        let value = percentile(&times, part) * 1e3;
        Figure::new(format!("{name}, {title}"), value, "ms")
    };
    let note = format!("{steady} pods, image present, seen by watch");
    table.add(figure("p50", 0.5).goal(Goal::AtMost(100.0)).note(note));
    table.add(figure("p99", 0.99).goal(Goal::AtMost(300.0)));
    full(cluster, &client, room, seconds, table).await?;
    pods::remove(&client).await
}

/// Fills the node.
async fn full(
    cluster: &Cluster,
    client: &Client,
    room: usize,
    seconds: u64,
    table: &mut Table,
) -> Result<()> {
    let pid = cluster.pid()?;
    // The demonstration's client would be most of what there is to see.
    let idle = client.namespaced::<Pod>(start::NAMESPACE);
    match idle.delete("client", &DeleteOptions::default()).await {
        Err(status) if !status.is_not_found() => return Err(status.into()),
        _ => {}
    }
    tokio::time::sleep(SETTLE).await;
    let before = memory(pid)?;
    let begin = Instant::now();
    let times = created(client, "full", room, Duration::ZERO).await?;
    let figure = Figure::new(
        "a full node, all Running",
        begin.elapsed().as_secs_f64(),
        "s",
    );
    let p50 = percentile(&times, 0.5) * 1e3;
    let note = format!("{room} pods created at once beside those there were; p50 {p50:.0} ms");
    table.add(figure.goal(Goal::AtMost(15.0)).note(note));

    tokio::time::sleep(SETTLE).await;
    let share = share(pid, seconds).await?;
    let figure = Figure::new(
        "processor share of a full node at rest",
        share,
        "% of a core",
    );
    let note =
        format!("{seconds} s window; the whole server, the demonstration without its client");
    table.add(figure.goal(Goal::AtMost(1.0)).note(note));
    let after = memory(pid)?;
    let grown = |of: fn(&Memory) -> u64| (mb(of(&after)) - mb(of(&before))) * 10.0 / room as f64;
    let figure = Figure::new(
        "memory of the server per 10 pods (RSS)",
        grown(|m| m.resident),
        "MB",
    );
    let heap = grown(|m| m.anonymous);
    let note = format!("growth from before the {room} pods to rest; heap and stacks {heap:.2} MB");
    table.add(figure.goal(Goal::AtMost(1.0)).note(note));

    let each = supervisors()?.into_iter().map(memory);
    let each = each.collect::<Result<Vec<Memory>>>()?;
    let sum: f64 = each.iter().map(|one| mb(one.proportional)).sum();
    let mean = sum / each.len().max(1) as f64;
    let figure = Figure::new("supervisor of a full node, each (PSS)", mean, "MB");
    table.add(
        figure
            .goal(Goal::AtMost(3.0))
            .note(format!("mean of {}", each.len())),
    );
    Ok(())
}

/// How many more pods the node takes.
async fn room(client: &Client) -> Result<usize> {
    let nodes = client.all::<Node>().list(&ListOptions::default()).await?;
    let status = nodes.items.first().and_then(|node| node.status.as_ref());
    let allocatable = status.and_then(|status| status.allocatable.as_ref());
    let most = allocatable.and_then(|all| all.get("pods")?.0.parse::<usize>().ok());
    let most = most.context("the node does not say how many pods it takes")?;
    let there = client.all::<Pod>().list(&ListOptions::default()).await?;
    Ok(most.saturating_sub(there.items.len()))
}

/// Creates pods, one after each pause; seconds from each create to Running, sorted.
pub(crate) async fn created(
    client: &Client,
    name: &str,
    count: usize,
    pace: Duration,
) -> Result<Vec<f64>> {
    let api = client.namespaced::<Pod>(NAMESPACE);
    let mut watch = pods::open(&api).await?;
    let wanted = (0..count)
        .map(|at| pods::pod(&format!("{name}-{at}")))
        .collect::<Result<Vec<_>>>()?;
    let start = tokio::time::Instant::now();
    let create = async {
        let created = wanted.iter().enumerate().map(async |(at, pod)| {
            tokio::time::sleep_until(start + pace * u32::try_from(at)?).await;
            let begin = Instant::now();
            api.create(pod).await?;
            Ok::<_, anyhow::Error>((pods::name(pod).to_owned(), begin))
        });
        try_join_all(created).await
    };
    let mut running: HashMap<String, Instant> = HashMap::new();
    let see = pods::wait(&mut watch, count, |event| match event {
        WatchEvent::Modified(pod)
            if pods::is_running(pod) && !running.contains_key(pods::name(pod)) =>
        {
            running.insert(pods::name(pod).to_owned(), Instant::now());
            Some(())
        }
        _ => None,
    });
    let (begins, ()) = tokio::try_join!(create, see)?;
    let mut times = Vec::new();
    for (name, begin) in begins {
        let end = running
            .get(&name)
            .with_context(|| format!("{name} was not seen"))?;
        times.push(end.duration_since(begin).as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}
