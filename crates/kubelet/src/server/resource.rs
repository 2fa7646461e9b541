//! `/metrics/resource`: what the scheduler's and autoscalers' view of a node is made of.

use http::{Response, StatusCode};
use node_api::ContainerStats;

use super::gather::{self, PodUse};
use super::page::{PROMETHEUS, Page, labels};
use super::{Body, with_type};
use crate::pod::PodExt;
use crate::shared::Shared;

/// One series of a container or pod: labels, figures, start in nanoseconds, limit of swap.
struct Row {
    labels: String,
    stats: ContainerStats,
    begun: i64,
    swap_limit: Option<u64>,
}

/// Name after the prefix, type, help, and the value with whether it has a moment.
type Family = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Row) -> Option<(f64, bool)>,
);

const CPU: Family = (
    "cpu_usage_seconds_total",
    "counter",
    "[STABLE] Cumulative cpu time consumed by the {} in core-seconds",
    |row| Some((row.stats.cpu_usage_core_nanos as f64 / 1e9, true)),
);
const MEMORY: Family = (
    "memory_working_set_bytes",
    "gauge",
    "[STABLE] Current working set of the {} in bytes",
    |row| Some((row.stats.memory_working_set_bytes as f64, true)),
);
const START: Family = (
    "start_time_seconds",
    "gauge",
    "[STABLE] Start time of the {} since unix epoch in seconds",
    |row| (row.begun > 0).then_some((row.begun as f64 / 1e9, false)),
);
const SWAP_LIMIT: Family = (
    "swap_limit_bytes",
    "gauge",
    "[ALPHA] Current amount of the {} swap limit in bytes. Reported only on non-windows systems",
    |row| Some((row.swap_limit? as f64, false)),
);
const SWAP: Family = (
    "swap_usage_bytes",
    "gauge",
    "[ALPHA] Current amount of the {} swap usage in bytes. Reported only on non-windows systems",
    |row| Some((row.stats.swap_bytes as f64, true)),
);
const NODE_SWAP: Family = (
    "swap_usage_bytes",
    "gauge",
    "[ALPHA] Current swap usage of the {} in bytes. Reported only on non-windows systems",
    |row| Some((row.stats.swap_bytes as f64, true)),
);

/// Answers with the page; what the runtime does not tell is an error on it.
pub(super) async fn answer(shared: &Shared) -> Response<Body> {
    let mut page = Page::default();
    let gathered = gather::pods(shared).await;
    let failed = f64::from(u8::from(gathered.is_err()));
    if let Ok(pods) = gathered {
        let containers: Vec<Row> = pods.iter().flat_map(of_pod).collect();
        let node = Row {
            labels: String::new(),
            stats: gather::machine(),
            begun: 0,
            swap_limit: None,
        };
        let pods: Vec<Row> = pods.iter().map(whole).collect();
        write(
            &mut page,
            "container",
            &[CPU, MEMORY, START, SWAP_LIMIT, SWAP],
            &containers,
        );
        write(&mut page, "node", &[CPU, MEMORY, NODE_SWAP], &[node]);
        write(&mut page, "pod", &[CPU, MEMORY, SWAP], &pods);
    }
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    for (name, level) in [
        ("resource_scrape_error", "STABLE"),
        ("scrape_error", "ALPHA"),
    ] {
        let level = match level {
            "ALPHA" => "[ALPHA] (Deprecated since 1.29.0)",
            _ => "[STABLE]",
        };
        page.family(name, "gauge", &format!("{level} {help}"));
        page.sample(name, "", failed, None);
    }
    with_type(StatusCode::OK, page.into_text(), PROMETHEUS)
}

fn write(page: &mut Page, about: &str, families: &[Family], rows: &[Row]) {
    for (suffix, kind, help, value) in families {
        let mut samples = rows
            .iter()
            .filter_map(|row| Some((row, value(row)?)))
            .peekable();
        if samples.peek().is_none() {
            continue;
        }
        let name = format!("{about}_{suffix}");
        page.family(&name, kind, &help.replace("{}", about));
        for (row, (value, timed)) in samples {
            let at = timed.then_some(row.stats.timestamp);
            page.sample(&name, &row.labels, value, at);
        }
    }
}

fn of_pod(pod: &PodUse) -> Vec<Row> {
    let (namespace, name) = (pod.view.pod.namespace(), pod.view.pod.name());
    let row = |stats: &ContainerStats| {
        let status = pod.status(stats);
        Row {
            labels: labels(&[
                ("container", stats.name.as_str()),
                ("namespace", namespace),
                ("pod", name),
            ]),
            stats: stats.clone(),
            begun: status.map_or(0, |status| status.started_at),
            swap_limit: pod.swap_limit(stats),
        }
    };
    pod.containers.iter().map(row).collect()
}

fn whole(pod: &PodUse) -> Row {
    Row {
        labels: labels(&[
            ("namespace", pod.view.pod.namespace()),
            ("pod", pod.view.pod.name()),
        ]),
        stats: pod.total(),
        begun: 0,
        swap_limit: None,
    }
}
