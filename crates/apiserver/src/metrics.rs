//! What the server counts, in the text form of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Upper bounds of latency buckets, in seconds.
const BUCKETS: [f64; 10] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 15.0, 60.0];
/// Greatest number of label sets; what goes beyond is counted as `other`.
const SERIES_MAX: usize = 4096;

type Labels = (&'static str, String, String, u16);

/// Counters of requests.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<Labels, u64>>,
    latencies: Mutex<BTreeMap<&'static str, Histogram>>,
    watches: Arc<AtomicI64>,
}

/// Counts per bucket, count of all, and sum of seconds.
type Histogram = ([u64; BUCKETS.len()], u64, f64);

/// An open watch.
pub(crate) struct WatchSeat(Arc<AtomicI64>);

impl Drop for WatchSeat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// One request was answered.
    pub(crate) fn count(
        &self,
        verb: &'static str,
        group: &str,
        resource: &str,
        code: u16,
        took: Duration,
    ) {
        let key = (verb, group.to_owned(), resource.to_owned(), code);
        let mut requests = self.requests.lock();
        let key = match requests.len() < SERIES_MAX || requests.contains_key(&key) {
            true => key,
            false => (verb, String::new(), "other".into(), code),
        };
        *requests.entry(key).or_default() += 1;
        drop(requests);
        let seconds = took.as_secs_f64();
        let mut latencies = self.latencies.lock();
        let (buckets, count, sum) = latencies.entry(verb).or_default();
        for (bucket, bound) in buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= bound);
        }
        *count += 1;
        *sum += seconds;
    }

    /// Counts a watch for as long as the seat lives.
    pub(crate) fn watch_seat(&self) -> WatchSeat {
        self.watches.fetch_add(1, Ordering::Relaxed);
        WatchSeat(Arc::clone(&self.watches))
    }

    /// The whole page, but for what others add.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "# TYPE apiserver_request_total counter")?;
        for ((verb, group, resource, code), count) in &*self.requests.lock() {
            let verb = verb.to_uppercase();
            writeln!(
                text,
                "apiserver_request_total{{code=\"{code}\",group=\"{}\",resource=\"{}\",\
                 verb=\"{verb}\"}} {count}",
                escape(group),
                escape(resource)
            )?;
        }
        writeln!(text, "# TYPE apiserver_request_duration_seconds histogram")?;
        for (verb, (buckets, count, sum)) in &*self.latencies.lock() {
            let verb = verb.to_uppercase();
            let name = "apiserver_request_duration_seconds";
            for (bucket, bound) in buckets.iter().zip(BUCKETS) {
                writeln!(
                    text,
                    "{name}_bucket{{verb=\"{verb}\",le=\"{bound}\"}} {bucket}"
                )?;
            }
            writeln!(text, "{name}_bucket{{verb=\"{verb}\",le=\"+Inf\"}} {count}")?;
            writeln!(text, "{name}_sum{{verb=\"{verb}\"}} {sum}")?;
            writeln!(text, "{name}_count{{verb=\"{verb}\"}} {count}")?;
        }
        writeln!(text, "# TYPE apiserver_longrunning_requests gauge")?;
        let watches = self.watches.load(Ordering::Relaxed);
        writeln!(
            text,
            "apiserver_longrunning_requests{{verb=\"WATCH\"}} {watches}"
        )
    }
}

fn escape(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
