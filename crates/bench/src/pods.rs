//! From a pod's creation to Running, as a watch tells it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use client::{Api, Client, DeleteOptions, Kind, ListOptions, Watch, WatchEvent};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::cluster::{Cluster, PATIENCE};
use crate::start::IMAGE;
use crate::table::{Figure, Goal, Table, percentile};

pub(crate) const NAMESPACE: &str = "default";
const PODS: usize = 50;
const LABEL: &str = "bench";

/// Times pods that are created one after the other, and pods created all at once.
pub(crate) async fn measure(cluster: &Cluster, table: &mut Table) -> Result<()> {
    let client = cluster.client()?;
    let single = one_by_one(&client).await?;
    remove(&client).await?;
    let name = "pod create → Running";
    let figure = Figure::new(format!("{name}, p50"), percentile(&single, 0.5) * 1e3, "ms");
    let note = format!("{PODS} pods one by one, image present, seen by watch");
    table.add(figure.goal(Goal::AtMost(200.0)).note(note));
    let figure = Figure::new(
        format!("{name}, p99"),
        percentile(&single, 0.99) * 1e3,
        "ms",
    );
    let note = format!("the same; best {:.0} ms", single[0] * 1e3);
    table.add(figure.goal(Goal::AtMost(600.0)).note(note));

    let begin = Instant::now();
    let burst = crate::node::created(&client, "burst", PODS, Duration::ZERO).await?;
    let last = begin.elapsed();
    remove(&client).await?;
    let name = format!("{PODS} pods created at once → Running");
    let figure = Figure::new(name, percentile(&burst, 0.5) * 1e3, "ms");
    let (p99, last) = (percentile(&burst, 0.99) * 1e3, last.as_secs_f64());
    table.add(figure.note(format!("p50; p99 {p99:.0} ms, all after {last:.2} s")));
    Ok(())
}

/// Seconds from create to Running, sorted.
async fn one_by_one(client: &Client) -> Result<Vec<f64>> {
    let api = client.namespaced::<Pod>(NAMESPACE);
    let mut watch = open(&api).await?;
    let mut times = Vec::new();
    for at in 0..PODS {
        let name = format!("single-{at}");
        let begin = Instant::now();
        api.create(&pod(&name)?).await?;
        wait(&mut watch, 1, |event| match event {
            WatchEvent::Modified(pod) if is(pod, &name) && is_running(pod) => Some(()),
            _ => None,
        })
        .await
        .with_context(|| format!("pod {name}"))?;
        times.push(begin.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// Deletes the pods and waits until they are gone.
pub(crate) async fn remove(client: &Client) -> Result<()> {
    let api = client.namespaced::<Pod>(NAMESPACE);
    let mut watch = open(&api).await?;
    let pods = api.list(&ours()).await?.items;
    let delete = async {
        let options = DeleteOptions::default();
        try_join_all(pods.iter().map(|pod| api.delete(name(pod), &options))).await?;
        Ok(())
    };
    let gone = wait(&mut watch, pods.len(), |event| match event {
        WatchEvent::Deleted(_) => Some(()),
        _ => None,
    });
    tokio::try_join!(delete, gone)?;
    Ok(())
}

fn ours() -> ListOptions {
    ListOptions {
        label_selector: Some(format!("app={LABEL}")),
        ..ListOptions::default()
    }
}

/// A watch of the pods to come.
pub(crate) async fn open(api: &Api<Pod>) -> Result<Watch<Pod>> {
    let list = api.list(&ours()).await?;
    let resource_version = Some(list.metadata.resource_version);
    Ok(api
        .watch(&ListOptions {
            resource_version,
            ..ours()
        })
        .await?)
}

/// Reads events until `count` of them were the ones looked for.
pub(crate) async fn wait<K: Kind>(
    watch: &mut Watch<K>,
    count: usize,
    mut look: impl FnMut(&WatchEvent<K>) -> Option<()>,
) -> Result<()> {
    let mut left = count;
    let reading = async {
        while left > 0 {
            let event = watch.next().await.context("watch ended")??;
            if look(&event).is_some() {
                left -= 1;
            }
        }
        Ok(())
    };
    let read = tokio::time::timeout(PATIENCE, reading).await;
    read.with_context(|| format!("not all of {count} were seen within {PATIENCE:?}"))?
}

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

fn is(pod: &Pod, wanted: &str) -> bool {
    name(pod) == wanted
}

pub(crate) fn is_running(pod: &Pod) -> bool {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        == Some("Running")
}

pub(crate) fn pod(name: &str) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": LABEL}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main",
                "image": IMAGE,
                "imagePullPolicy": "IfNotPresent",
                "args": ["demo-app", "serve"],
            }],
        },
    }))?)
}
