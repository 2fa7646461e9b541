//! What the server counts, in the text form of Prometheus and under upstream's names.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http_body::Body as _;
use parking_lot::Mutex;

use crate::chain::{Call, RequestInfo};
use crate::respond::Answer;

/// Upper bounds of latency buckets, in seconds.
const BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];
/// The first bucket of what leaves out waiting.
const SLI_FIRST: usize = 2;
/// Upper bounds of sizes, in bytes.
const SIZES: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
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
    times: Amounts<{ BUCKETS.len() }>,
    /// Without what was spent waiting for seats and webhooks.
    served: Amounts<{ BUCKETS.len() }>,
    /// Of answers to reads, in bytes.
    sizes: Amounts<{ SIZES.len() }>,
}

/// How often which amounts were seen.
struct Amounts<const N: usize> {
    buckets: [u64; N],
    count: u64,
    sum: f64,
}

impl<const N: usize> Default for Amounts<N> {
    fn default() -> Amounts<N> {
        Amounts {
            buckets: [0; N],
            count: 0,
            sum: 0.0,
        }
    }
}

impl<const N: usize> Amounts<N> {
    fn add(&mut self, bounds: &[f64; N], amount: f64) {
        let first = bounds.partition_point(|bound| *bound < amount);
        self.buckets[first..]
            .iter_mut()
            .for_each(|bucket| *bucket += 1);
        self.count += 1;
        self.sum += amount;
    }

    fn merge(&mut self, other: &Amounts<N>) {
        for (own, other) in self.buckets.iter_mut().zip(other.buckets) {
            *own += other;
        }
        self.count += other.count;
        self.sum += other.sum;
    }

    /// The lines of a histogram, from this bucket on.
    fn write(
        &self,
        text: &mut String,
        (name, labels): (&str, &str),
        bounds: &[f64; N],
        from: usize,
    ) -> std::fmt::Result {
        for (bucket, bound) in self.buckets.iter().zip(bounds).skip(from) {
            writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {bucket}")?;
        }
        let (count, sum) = (self.count, self.sum);
        writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
        writeln!(text, "{name}_sum{{{labels}}} {sum}")?;
        writeln!(text, "{name}_count{{{labels}}} {count}")
    }
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
    pub(crate) fn count(&self, call: &Call, answer: &Answer, took: Duration) {
        let code = answer.status().as_u16();
        let dry_run = match call.query.get("dryRun") {
            Some("All") => "All",
            _ => "",
        };
        let verb = verb(call);
        let labels = labels(&call.info, verb, Some(dry_run));
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
        series.times.add(&BUCKETS, took.as_secs_f64());
        let served = took.saturating_sub(call.waited());
        series.served.add(&BUCKETS, served.as_secs_f64());
        if matches!(verb, "GET" | "LIST")
            && let Some(size) = answer.body().size_hint().exact()
        {
            series.sizes.add(&SIZES, size as f64);
        }
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
        for (labels, series) in requests.iter().filter(|(_, series)| series.times.count > 0) {
            series.times.write(text, (name, labels), &BUCKETS, 0)?;
        }
        // The others do not tell dry runs apart.
        let mut merged: BTreeMap<String, Series> = BTreeMap::new();
        for (labels, series) in &*requests {
            let labels = labels.replacen("dry_run=\"\",", "", 1);
            let labels = labels.replacen("dry_run=\"All\",", "", 1);
            let own = merged.entry(labels).or_default();
            own.served.merge(&series.served);
            own.sizes.merge(&series.sizes);
        }
        drop(requests);
        text.push_str(
            "# HELP apiserver_request_sli_duration_seconds [ALPHA] Response latency distribution \
             (not counting webhook duration and priority & fairness queue wait times) in seconds \
             for each verb, group, version, resource, subresource, scope and component.\n\
             # TYPE apiserver_request_sli_duration_seconds histogram\n",
        );
        let name = "apiserver_request_sli_duration_seconds";
        for (labels, series) in merged.iter().filter(|(_, series)| series.served.count > 0) {
            let served = &series.served;
            served.write(text, (name, labels), &BUCKETS, SLI_FIRST)?;
        }
        text.push_str(
            "# HELP apiserver_response_sizes [STABLE] Response size distribution in bytes for \
             each group, version, verb, resource, subresource, scope and component.\n\
             # TYPE apiserver_response_sizes histogram\n",
        );
        let name = "apiserver_response_sizes";
        for (labels, series) in merged.iter().filter(|(_, series)| series.sizes.count > 0) {
            series.sizes.write(text, (name, labels), &SIZES, 0)?;
        }
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

/// How much a request is about: one object, those of a namespace, or all.
pub(crate) fn scope(info: &RequestInfo) -> &'static str {
    match (
        info.is_resource,
        info.name.as_str(),
        info.namespace.as_str(),
    ) {
        (false, ..) => "",
        (true, "", "") => "cluster",
        (true, "", _) => "namespace",
        (true, ..) => "resource",
    }
}

/// Labels between braces; those of requests have a dry run.
fn labels(info: &RequestInfo, verb: &str, dry_run: Option<&str>) -> String {
    let scope = scope(info);
    let mut labels = String::with_capacity(160);
    let mut add = |name: &str, value: &str| {
        labels.push_str(name);
        labels.push_str("=\"");
        // Hardly any value has something to escape.
        match value.bytes().any(|byte| b"\\\"\n".contains(&byte)) {
            true => labels.push_str(&escaped(value)),
            false => labels.push_str(value),
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

/// A label's value as the text form has it.
fn escaped(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    value.replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{Accept, Query};
    use crate::respond;

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
        let answered = |code: http::StatusCode| respond::plain(code, "text/plain", "12345");
        call.note_wait(Duration::from_millis(20));
        let took = Duration::from_millis(70);
        metrics.count(&call, &answered(http::StatusCode::OK), took);
        let late = Duration::from_secs(61);
        metrics.count(&call, &answered(http::StatusCode::CONFLICT), late);
        let (query, user) = (Query::default(), auth::Identity::loopback());
        let info = RequestInfo::parse(&http::Method::GET, "/api/v1/pods", &query).unwrap();
        let headers = http::HeaderMap::new();
        let list = Call::new(info, query, Accept::default(), user, headers);
        metrics.count(&list, &answered(http::StatusCode::OK), took);
        let text = metrics.render();
        let labels = "component=\"apiserver\",dry_run=\"All\",group=\"apps\",\
                      resource=\"deployments\",scope=\"resource\",subresource=\"status\",\
                      verb=\"PUT\",version=\"v1\"";
        let bare = labels.replace("dry_run=\"All\",", "");
        let list = "component=\"apiserver\",group=\"\",resource=\"pods\",scope=\"cluster\",\
                    subresource=\"\",verb=\"LIST\",version=\"v1\"";
        for line in [
            format!("apiserver_request_total{{code=\"409\",{labels}}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"0.05\"}} 0"),
            format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"0.1\"}} 1"),
            format!("apiserver_request_duration_seconds_count{{{labels}}} 2"),
            format!("apiserver_request_sli_duration_seconds_bucket{{{bare},le=\"0.05\"}} 1"),
            format!("apiserver_response_sizes_sum{{{list}}} 5"),
        ] {
            assert!(text.lines().any(|own| own == line), "{line}\n{text}");
        }
        assert!(text.contains("apiserver_longrunning_requests{component="));
    }
}
