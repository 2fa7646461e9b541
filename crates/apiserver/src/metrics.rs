//! What the server counts, in the text form of Prometheus and under upstream's names.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::chain::{Call, RequestInfo};

/// Upper bounds of latency buckets, in seconds.
const BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];
/// Greatest number of label sets; what goes beyond is counted as `other`.
const SERIES_MAX: usize = 4096;

/// Counters of requests, by their labels as they are written.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<String, Series>>,
    running: Mutex<BTreeMap<String, Arc<AtomicI64>>>,
}

/// Requests of one label set.
#[derive(Default)]
struct Series {
    /// Count per status code.
    codes: Vec<(u16, u64)>,
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

/// An open watch.
pub(crate) struct WatchSeat(Arc<AtomicI64>);

impl Drop for WatchSeat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// One request was answered.
    pub(crate) fn count(&self, call: &Call, code: u16, took: Duration) {
        let dry_run = match call.query.get("dryRun") {
            Some("All") => "All",
            _ => "",
        };
        let labels = labels(&call.info, verb(call), Some(dry_run));
        let mut requests = self.requests.lock();
        let labels = match requests.len() < SERIES_MAX || requests.contains_key(&labels) {
            true => labels,
            false => "resource=\"other\"".into(),
        };
        let series = requests.entry(labels).or_default();
        match series.codes.iter_mut().find(|(own, _)| *own == code) {
            Some((_, count)) => *count += 1,
            None => series.codes.push((code, 1)),
        }
        // How long somebody watches says nothing about us.
        if call.info.is_long_running() {
            return;
        }
        let seconds = took.as_secs_f64();
        let first = BUCKETS.partition_point(|bound| *bound < seconds);
        series.buckets[first..]
            .iter_mut()
            .for_each(|bucket| *bucket += 1);
        series.count += 1;
        series.seconds += seconds;
    }

    /// Counts a watch for as long as the seat lives.
    pub(crate) fn watch_seat(&self, info: &RequestInfo) -> WatchSeat {
        let mut running = self.running.lock();
        running.retain(|_, count| Arc::strong_count(count) > 1);
        let count = running.entry(labels(info, "WATCH", None)).or_default();
        count.fetch_add(1, Ordering::Relaxed);
        WatchSeat(Arc::clone(count))
    }

    /// The whole page, but for what others add.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let requests = self.requests.lock();
        text.push_str(
            "# HELP apiserver_request_total [STABLE] Counter of apiserver requests broken out for \
             each verb, dry run value, group, version, resource, scope, component, and HTTP \
             response code.\n# TYPE apiserver_request_total counter\n",
        );
        for (labels, series) in &*requests {
            for (code, count) in &series.codes {
                writeln!(
                    text,
                    "apiserver_request_total{{code=\"{code}\",{labels}}} {count}"
                )?;
            }
        }
        text.push_str(
            "# HELP apiserver_request_duration_seconds [STABLE] Response latency distribution in \
             seconds for each verb, dry run value, group, version, resource, subresource, scope \
             and component.\n# TYPE apiserver_request_duration_seconds histogram\n",
        );
        let name = "apiserver_request_duration_seconds";
        for (labels, series) in requests.iter().filter(|(_, series)| series.count > 0) {
            for (bucket, bound) in series.buckets.iter().zip(BUCKETS) {
                writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {bucket}")?;
            }
            writeln!(
                text,
                "{name}_bucket{{{labels},le=\"+Inf\"}} {}",
                series.count
            )?;
            writeln!(text, "{name}_sum{{{labels}}} {}", series.seconds)?;
            writeln!(text, "{name}_count{{{labels}}} {}", series.count)?;
        }
        drop(requests);
        text.push_str(
            "# HELP apiserver_longrunning_requests [STABLE] Gauge of all active long-running \
             apiserver requests broken out by verb, group, version, resource, scope and \
             component. Not all requests are tracked this way.\n\
             # TYPE apiserver_longrunning_requests gauge\n",
        );
        for (labels, count) in &*self.running.lock() {
            let count = count.load(Ordering::Relaxed);
            writeln!(text, "apiserver_longrunning_requests{{{labels}}} {count}")?;
        }
        Ok(())
    }
}

/// The verb as upstream's metrics name it.
fn verb(call: &Call) -> &'static str {
    let info = &call.info;
    if info.is_long_running() && info.verb != "watch" && info.subresource != "log" {
        return "CONNECT";
    }
    match info.verb {
        "get" => "GET",
        "head" => "HEAD",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" if call.content_type().starts_with("application/apply-patch+") => "APPLY",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => "OTHER",
    }
}

/// Labels between braces; those of requests have a dry run.
fn labels(info: &RequestInfo, verb: &str, dry_run: Option<&str>) -> String {
    let scope = match (
        info.is_resource,
        info.name.as_str(),
        info.namespace.as_str(),
    ) {
        (false, ..) => "",
        (true, "", "") => "cluster",
        (true, "", _) => "namespace",
        (true, ..) => "resource",
    };
    let mut labels = String::with_capacity(160);
    let mut add = |name: &str, value: &str| {
        labels.push_str(name);
        labels.push_str("=\"");
        for sign in value.chars() {
            match sign {
                '\\' => labels.push_str("\\\\"),
                '"' => labels.push_str("\\\""),
                '\n' => labels.push_str("\\n"),
                sign => labels.push(sign),
            }
        }
        labels.push_str("\",");
    };
    add("component", "apiserver");
    if let Some(dry_run) = dry_run {
        add("dry_run", dry_run);
    }
    add("group", &info.group);
    add("resource", &info.resource);
    add("scope", scope);
    add("subresource", &info.subresource);
    add("verb", verb);
    add("version", &info.version);
    labels.pop();
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{Accept, Query};

    #[test]
    fn requests_are_counted_under_upstreams_names() {
        let metrics = Metrics::default();
        let query = Query::parse("dryRun=All").unwrap();
        let path = "/apis/apps/v1/namespaces/a/deployments/b\"c/status";
        let info = RequestInfo::parse(&http::Method::PUT, path, &query).unwrap();
        let _seat = metrics.watch_seat(&info);
        let user = auth::Identity::loopback();
        let headers = http::HeaderMap::new();
        let call = Call::new(info, query, Accept::default(), user, headers);
        metrics.count(&call, 200, Duration::from_millis(30));
        metrics.count(&call, 409, Duration::from_secs(61));
        let text = metrics.render();
        let labels = "component=\"apiserver\",dry_run=\"All\",group=\"apps\",\
                      resource=\"deployments\",scope=\"resource\",subresource=\"status\",\
                      verb=\"PUT\",version=\"v1\"";
        for line in [
            format!("apiserver_request_total{{code=\"409\",{labels}}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"0.025\"}} 0"),
            format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"0.05\"}} 1"),
            format!("apiserver_request_duration_seconds_count{{{labels}}} 2"),
        ] {
            assert!(text.lines().any(|own| own == line), "{line}\n{text}");
        }
        assert!(text.contains("apiserver_longrunning_requests{component="));
    }
}
