//! One event on its way to many watchers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use client::{Access, Body, Client};
use http::Method;
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use crate::cluster::{Cluster, PATIENCE};
use crate::load::{config_map, connect, namespace};
use crate::table::{Figure, Goal, Table, percentile};

const WATCHERS: usize = 1_000;
/// Connections the watchers share; each holds ten watches, as one kubelet's would.
const CONNECTIONS: usize = 100;
const EVENTS: usize = 100;
/// Between two events, so that each is alone.
const PAUSE: Duration = Duration::from_millis(20);
const NAMESPACE: &str = "bench-watch";

/// Seconds from an event's cause to its arrival, sorted.
pub(crate) struct Deliveries {
    /// At each watcher.
    pub(crate) each: Vec<f64>,
    /// At the last watcher.
    all: Vec<f64>,
}

impl Deliveries {
    pub(crate) fn note(&self) -> String {
        format!(
            "of {} deliveries, from the create on, over {CONNECTIONS} connections; until all have it p50 {:.0} ms, p99 {:.0} ms",
            self.each.len(),
            percentile(&self.all, 0.5) * 1e3,
            percentile(&self.all, 0.99) * 1e3,
        )
    }
}

pub(crate) async fn measure(cluster: &Cluster, table: &mut Table) -> Result<()> {
    namespace(&cluster.client()?, NAMESPACE).await?;
    let deliveries = deliver(&cluster.access()?, NAMESPACE).await?;
    let figure = Figure::new(
        "one event to 1,000 watchers, p99",
        percentile(&deliveries.each, 0.99) * 1e3,
        "ms",
    );
    table.add(figure.goal(Goal::AtMost(50.0)).note(deliveries.note()));
    Ok(())
}

/// Creates objects one by one and waits each time until all watchers have the event.
pub(crate) async fn deliver(access: &Access, namespace: &str) -> Result<Deliveries> {
    let client = Client::remote(access)?;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let watch = format!("{path}?watch=1&resourceVersion=0&timeoutSeconds=600");
    let clients = connect(access, CONNECTIONS).await?;
    let (sender, mut seen) = mpsc::unbounded_channel();
    let mut watchers = tokio::task::JoinSet::new();
    for at in 0..WATCHERS {
        let request = client::request::request(Method::GET, &watch, None, client::empty())?;
        let body = clients[at % CONNECTIONS].send(request).await?.into_body();
        watchers.spawn(listen(body, sender.clone()));
    }
    // The namespace may have a config map of its own (kube-root-ca.crt); what comes first is not
    // counted.
    let warm = at_all(&client, &path, "event-first", &mut seen);
    tokio::time::timeout(PATIENCE, warm)
        .await
        .context("watchers saw nothing")??;

    let (mut all, mut each) = (Vec::new(), Vec::new());
    for at in 0..EVENTS {
        tokio::time::sleep(PAUSE).await;
        let name = format!("event-{at:05}");
        let one = at_all(&client, &path, &name, &mut seen);
        let times = tokio::time::timeout(PATIENCE, one)
            .await
            .context("an event got lost")??;
        all.push(times.iter().copied().fold(0.0, f64::max));
        each.extend(times);
    }
    all.sort_by(f64::total_cmp);
    each.sort_by(f64::total_cmp);
    Ok(Deliveries { each, all })
}

/// Seconds from the request to each watcher's sight of the object.
async fn at_all(
    client: &Client,
    path: &str,
    name: &str,
    seen: &mut mpsc::UnboundedReceiver<(Arc<str>, Instant)>,
) -> Result<Vec<f64>> {
    let body = client::full(serde_json::to_vec(&config_map(name))?);
    let request = client::request::request(Method::POST, path, Some("application/json"), body)?;
    let begin = Instant::now();
    let create = async { client.bytes(request).await.map_err(anyhow::Error::from) };
    let see = async {
        let mut times = Vec::with_capacity(WATCHERS);
        while times.len() < WATCHERS {
            let (which, when) = seen.recv().await.context("watchers are gone")?;
            if &*which == name {
                times.push(when.duration_since(begin).as_secs_f64());
            }
        }
        Ok(times)
    };
    let (_, times) = tokio::try_join!(create, see)?;
    Ok(times)
}

/// Reports each event's name with the time at which its last byte was there.
async fn listen(mut body: Body, seen: mpsc::UnboundedSender<(Arc<str>, Instant)>) {
    let mut rest = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Some(data) = frame.data_ref() else {
            continue;
        };
        let now = Instant::now();
        rest.extend_from_slice(data);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            if let Some(name) = event_name(&rest[..end])
                && seen.send((name.into(), now)).is_err()
            {
                return;
            }
            rest.drain(..=end);
        }
    }
}

/// The name of the object, found without decoding the whole: a thousand decoders would be what is
/// measured.
fn event_name(line: &[u8]) -> Option<&str> {
    const FIELD: &[u8] = b"\"name\":\"event-";
    const PREFIX: usize = b"\"name\":\"".len();
    let at = line
        .windows(FIELD.len())
        .position(|window| window == FIELD)?;
    let name = &line[at + PREFIX..];
    let end = name.iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(&name[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_events() {
        let line = br#"{"type":"ADDED","object":{"metadata":{"name":"event-7","uid":"x"}}}"#;
        assert_eq!(event_name(line), Some("event-7"));
        assert_eq!(
            event_name(br#"{"metadata":{"name":"kube-root-ca.crt"}}"#),
            None
        );
    }
}
