//! Two scrapes of each node, by which counters become rates.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::Stop;
use client::{Client, empty, request::request};
use futures::StreamExt;
use http::Method;
use meta::Status;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::scrape::{Point, Scrape};

/// How often nodes are looked at while somebody asks, as metrics-server does.
const RESOLUTION: Duration = Duration::from_secs(15);
/// Scrapes that lie closer together do not replace the earlier one: rates would jump.
const WINDOW_MIN: Duration = Duration::from_secs(10);
/// Between the first two looks at a node, and between looks for a pod that is missing.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// After this time without a request nothing is looked at any more.
const IDLE: Duration = Duration::from_secs(180);
/// How long a kubelet may take.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);
/// Kubelets that are asked at one time.
const SCRAPES_MAX: usize = 16;
/// A container without an earlier look is measured from its start if that is no longer ago.
const FRESH_MS: i64 = 60_000;

/// What something used over a window, and when that ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    /// Milliseconds since the epoch.
    pub(crate) at: i64,
    pub(crate) window_ms: i64,
    pub(crate) nano_cores: u64,
    pub(crate) memory_bytes: u64,
}

/// Containers of a pod, by name.
pub(crate) type OfPod = Vec<(String, Usage)>;

#[derive(Default)]
struct Samples {
    before: Option<(Instant, Scrape)>,
    last: Option<(Instant, Arc<Scrape>)>,
}

/// The nodes that are looked at, each locked while it is.
type Nodes = HashMap<String, Arc<tokio::sync::Mutex<Samples>>>;

/// Looks at nodes as long as somebody asks.
pub(crate) struct Sampler {
    client: Client,
    nodes: parking_lot::Mutex<Nodes>,
    asked: parking_lot::Mutex<Option<Instant>>,
    wake: Notify,
}

impl Sampler {
    pub(crate) fn new(client: Client) -> Sampler {
        Sampler {
            client,
            nodes: parking_lot::Mutex::default(),
            asked: parking_lot::Mutex::default(),
            wake: Notify::new(),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Looks again and again while somebody asks; ends when told to stop.
    pub(crate) async fn run(self: Arc<Self>, stop: Stop) {
        loop {
            tokio::select! {
                () = self.wake.notified() => {}
                () = stop.raised() => return,
            }
            loop {
                tokio::select! {
                    () = tokio::time::sleep(RESOLUTION) => {}
                    () = stop.raised() => return,
                }
                let asked = *self.asked.lock();
                if asked.is_none_or(|at| at.elapsed() > IDLE) {
                    self.nodes.lock().clear();
                    break;
                }
                let names = self.node_names().await;
                self.nodes.lock().retain(|name, _| names.contains(name));
                self.each(&names, |own, name| async move {
                    own.look(&name, RESOLUTION / 2).await
                })
                .await;
            }
        }
    }

    async fn node_names(&self) -> Vec<String> {
        let list = self.client.get_value("/api/v1/nodes").await;
        let list = list.unwrap_or_else(|status| {
            tracing::debug!(%status, "nodes not listed");
            Value::Null
        });
        let items = list["items"].as_array().into_iter().flatten();
        let name = |node: &Value| node["metadata"]["name"].as_str().map(str::to_owned);
        items.filter_map(name).collect()
    }

    async fn each<'a, F: Future<Output = ()>>(
        &'a self,
        names: &[String],
        work: impl Fn(&'a Sampler, String) -> F,
    ) {
        let works = names.iter().cloned().map(|name| work(self, name));
        futures::stream::iter(works)
            .buffer_unordered(SCRAPES_MAX)
            .collect::<()>()
            .await;
    }

    /// Sees to it that nodes were looked at lately, and twice.
    pub(crate) async fn ensure(&self, names: &[String]) {
        *self.asked.lock() = Some(Instant::now());
        self.wake.notify_one();
        self.each(names, |own, name| async move {
            own.look(&name, RESOLUTION * 2).await;
            let samples = own.of(&name);
            let only = {
                let samples = samples.lock().await;
                samples
                    .last
                    .as_ref()
                    .filter(|_| samples.before.is_none())
                    .map(|(at, _)| *at)
            };
            if let Some(at) = only {
                tokio::time::sleep_until(at + PAUSE_MIN).await;
                own.look(&name, PAUSE_MIN).await;
            }
        })
        .await;
    }

    /// Looks again at nodes on which something is missing.
    pub(crate) async fn again(&self, names: &[String]) {
        self.each(names, |own, name| async move {
            own.look(&name, PAUSE_MIN).await
        })
        .await;
    }

    fn of(&self, name: &str) -> Arc<tokio::sync::Mutex<Samples>> {
        let mut nodes = self.nodes.lock();
        Arc::clone(nodes.entry(name.to_owned()).or_default())
    }

    /// Looks at a node unless that was done within the time.
    async fn look(&self, name: &str, within: Duration) {
        let samples = self.of(name);
        let mut samples = samples.lock().await;
        if samples
            .last
            .as_ref()
            .is_some_and(|(at, _)| at.elapsed() < within)
        {
            return;
        }
        match tokio::time::timeout(SCRAPE_TIMEOUT, self.scrape(name)).await {
            Ok(Ok(scrape)) => samples.add(Instant::now(), scrape),
            Ok(Err(status)) => tracing::debug!(%status, node = name, "metrics not read"),
            Err(_) => tracing::debug!(node = name, "metrics not read in time"),
        }
    }

    async fn scrape(&self, name: &str) -> Result<Scrape, Status> {
        let name = client::request::percent_encode(name);
        let path = format!("/api/v1/nodes/{name}/proxy/metrics/resource");
        let mut request = request(Method::GET, &path, None, empty())?;
        let text = http::HeaderValue::from_static("text/plain");
        request.headers_mut().insert(http::header::ACCEPT, text);
        let page = self.client.bytes(request).await?;
        Ok(Scrape::parse(&String::from_utf8_lossy(&page)))
    }

    /// What a node uses, if it is known.
    pub(crate) async fn node(&self, name: &str) -> Option<Usage> {
        let samples = self.nodes.lock().get(name).cloned()?;
        let samples = samples.lock().await;
        let (_, last) = samples.fresh()?;
        let (_, before) = samples.before.as_ref()?;
        rate(&before.node, &last.node)
    }

    /// What the pods of nodes use, by namespace and name. A pod of which something is not known
    /// yet is left out.
    pub(crate) async fn pods(&self, names: &[String]) -> HashMap<(String, String), OfPod> {
        let mut found = HashMap::new();
        for name in names {
            let Some(samples) = self.nodes.lock().get(name).cloned() else {
                continue;
            };
            let samples = samples.lock().await;
            let mut missing = Vec::new();
            let all = samples.fresh().map(|(_, last)| Arc::clone(last));
            for (name, point) in all.iter().flat_map(|all| &all.containers) {
                let before = samples.before.as_ref();
                let before = before.and_then(|(_, before)| before.containers.get(name));
                let (namespace, pod, container) = name;
                let key = (namespace.clone(), pod.clone());
                match of_container(before, point) {
                    Some(usage) => {
                        let own: &mut OfPod = found.entry(key).or_default();
                        own.push((container.clone(), usage));
                    }
                    None => missing.push(key),
                }
            }
            for key in missing {
                found.remove(&key);
            }
        }
        found
    }
}

impl Samples {
    fn add(&mut self, at: Instant, scrape: Scrape) {
        let last = self.last.replace((at, Arc::new(scrape)));
        let Some((last_at, last)) = last else {
            return;
        };
        let close = self
            .before
            .as_ref()
            .is_some_and(|(before, _)| last_at.duration_since(*before) < WINDOW_MIN);
        if !close {
            self.before = Some((last_at, last.as_ref().clone()));
        }
    }

    /// The last look unless it is too old to say how things are.
    fn fresh(&self) -> Option<&(Instant, Arc<Scrape>)> {
        let last = self.last.as_ref();
        last.filter(|(at, _)| at.elapsed() < RESOLUTION * 3)
    }
}

fn of_container(before: Option<&Point>, last: &Point) -> Option<Usage> {
    let same = before
        .filter(|before| before.begun == last.begun && before.cpu_seconds <= last.cpu_seconds);
    if let Some(usage) = same.and_then(|before| rate(before, last)) {
        return Some(usage);
    }
    // It began between the two looks, or before the first not long ago.
    let begun = (last.begun? * 1_000.0) as i64;
    let start = Point {
        at: begun,
        cpu_seconds: Some(0.0),
        ..Point::default()
    };
    rate(&start, last).filter(|usage| before.is_some() || usage.window_ms <= FRESH_MS)
}

fn rate(before: &Point, last: &Point) -> Option<Usage> {
    let window_ms = last.at - before.at;
    let used = last.cpu_seconds? - before.cpu_seconds?;
    if window_ms <= 0 || used < 0.0 {
        return None;
    }
    Some(Usage {
        at: last.at,
        window_ms,
        nano_cores: (used * 1e12 / window_ms as f64) as u64,
        memory_bytes: last.memory_bytes? as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at: i64, cpu: f64, begun: f64) -> Point {
        Point {
            at,
            cpu_seconds: Some(cpu),
            memory_bytes: Some(4096.0),
            begun: Some(begun),
        }
    }

    #[test]
    fn counters_become_rates() {
        let usage = of_container(Some(&point(1_000, 1.0, 0.5)), &point(16_000, 4.0, 0.5)).unwrap();
        assert_eq!((usage.window_ms, usage.nano_cores), (15_000, 200_000_000));
        // Started anew since: measured from the start.
        let usage = of_container(Some(&point(1_000, 9.0, 0.5)), &point(16_000, 4.0, 14.0)).unwrap();
        assert_eq!((usage.window_ms, usage.nano_cores), (2_000, 2_000_000_000));
        assert!(of_container(None, &point(20_000, 4.0, 18.0)).is_some());
        assert_eq!(of_container(None, &point(90_000, 4.0, 18.0)), None);
    }

    #[test]
    fn windows_stay_long_enough() {
        let mut samples = Samples::default();
        let start = Instant::now();
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        let before = |samples: &Samples| samples.before.as_ref().map(|(at, _)| *at);
        samples.add(start, Scrape::default());
        assert_eq!(before(&samples), None);
        samples.add(after(1), Scrape::default());
        assert_eq!(before(&samples), Some(start));
        samples.add(after(15), Scrape::default());
        assert_eq!(before(&samples), Some(start));
        samples.add(after(30), Scrape::default());
        assert_eq!(before(&samples), Some(after(15)));
    }
}
