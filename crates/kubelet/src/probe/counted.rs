//! Probes as metrics, for `/metrics/probes`.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use super::{Attempt, Prober};
use crate::pod::PodExt;

/// Upper bounds of the histogram's buckets, in seconds.
const BOUNDS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// All probes of this process that answered; those of a pod go with its worker.
static SEEN: Mutex<BTreeMap<Key, Answers>> = Mutex::new(BTreeMap::new());

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    uid: String,
    namespace: String,
    pod: String,
    container: String,
    kind: &'static str,
}

/// Answers of one probe.
#[derive(Clone, Debug, Default)]
struct Answers {
    successful: u64,
    failed: u64,
    /// How many took no longer than each bound; upstream times only those that were good.
    buckets: [u64; BOUNDS.len()],
    seconds: f64,
}

/// Counts one answer.
pub(super) fn note(prober: &Prober, attempt: &Attempt, took: Duration) {
    let pod = &prober.context.pod;
    let key = Key {
        uid: pod.uid().to_owned(),
        namespace: pod.namespace().to_owned(),
        pod: pod.name().to_owned(),
        container: prober.container.name.clone(),
        kind: prober.kind.word(),
    };
    let mut seen = SEEN.lock();
    let answers = seen.entry(key).or_default();
    if !attempt.is_success() {
        answers.failed += 1;
        return;
    }
    let seconds = took.as_secs_f64();
    answers.successful += 1;
    answers.seconds += seconds;
    for (bucket, bound) in answers.buckets.iter_mut().zip(BOUNDS) {
        *bucket += u64::from(seconds <= bound);
    }
}

/// Ends the series of a pod when its probes end.
#[derive(Default)]
pub(super) struct Series(Option<String>);

impl Series {
    /// Says whose they are.
    pub(super) fn of(&mut self, pod: &Pod) {
        self.0.get_or_insert_with(|| pod.uid().to_owned());
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        if let Some(uid) = &self.0 {
            SEEN.lock().retain(|key, _| key.uid != *uid);
        }
    }
}

/// All that was counted, in Prometheus' text form.
pub(crate) fn page() -> String {
    let seen = SEEN.lock().clone();
    let mut text = String::new();
    if seen.is_empty() {
        return text;
    }
    let labels = |key: &Key| {
        format!(
            "container={:?},namespace={:?},pod={:?}",
            key.container, key.namespace, key.pod
        )
    };
    let name = "prober_probe_duration_seconds";
    text.push_str(&format!(
        "# HELP {name} [ALPHA] Duration in seconds for a probe response.\n# TYPE {name} histogram\n"
    ));
    for (key, own) in seen.iter().filter(|(_, own)| own.successful > 0) {
        let labels = format!("{},probe_type={:?}", labels(key), key.kind);
        for (bound, count) in BOUNDS.iter().zip(own.buckets) {
            text.push_str(&format!(
                "{name}_bucket{{{labels},le=\"{bound}\"}} {count}\n"
            ));
        }
        let (count, seconds) = (own.successful, own.seconds);
        text.push_str(&format!(
            "{name}_bucket{{{labels},le=\"+Inf\"}} {count}\n\
             {name}_sum{{{labels}}} {seconds}\n{name}_count{{{labels}}} {count}\n"
        ));
    }
    let name = "prober_probe_total";
    text.push_str(&format!(
        "# HELP {name} [BETA] Cumulative number of a liveness, readiness or startup probe for a \
         container by result.\n# TYPE {name} counter\n"
    ));
    for (key, own) in &seen {
        for (result, count) in [("failed", own.failed), ("successful", own.successful)] {
            if count > 0 {
                let more = format!(
                    "pod_uid={:?},probe_type={:?},result={result:?}",
                    key.uid, key.kind
                );
                text.push_str(&format!("{name}{{{},{more}}} {count}\n", labels(key)));
            }
        }
    }
    text
}
