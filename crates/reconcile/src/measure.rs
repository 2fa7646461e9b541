//! What a queue counts once it has a name, under upstream's names.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use base::metrics::{Counters, Gauges, Histogram, Histograms, exponential};

const TIMES: [f64; 10] = exponential(1e-8, 10.0);

static ADDS: Counters = Counters::new(
    "workqueue_adds_total",
    "[BETA] Total number of adds handled by workqueue",
    &["name"],
);
static DEPTH: Gauges = Gauges::new(
    "workqueue_depth",
    "[BETA] Current depth of workqueue",
    &["name"],
);
static RETRIES: Counters = Counters::new(
    "workqueue_retries_total",
    "[BETA] Total number of retries handled by workqueue",
    &["name"],
);
static QUEUED: Histograms = Histograms::new(
    "workqueue_queue_duration_seconds",
    "[BETA] How long in seconds an item stays in workqueue before being requested.",
    &["name"],
    &TIMES,
);
static WORKED: Histograms = Histograms::new(
    "workqueue_work_duration_seconds",
    "[BETA] How long in seconds processing an item from workqueue takes.",
    &["name"],
    &TIMES,
);

/// The series of one queue.
#[derive(Clone)]
pub(crate) struct Measured {
    adds: Arc<AtomicU64>,
    depth: Arc<AtomicI64>,
    retries: Arc<AtomicU64>,
    queued: Arc<Histogram>,
}

impl std::fmt::Debug for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Measured").finish_non_exhaustive()
    }
}

impl Measured {
    pub(crate) fn of(name: &str) -> Measured {
        Measured {
            adds: ADDS.of(&[name]),
            depth: DEPTH.of(&[name]),
            retries: RETRIES.of(&[name]),
            queued: QUEUED.of(&[name]),
        }
    }

    /// A key is due.
    pub(crate) fn add(&self) {
        self.adds.fetch_add(1, Ordering::Relaxed);
    }

    /// A key failed.
    pub(crate) fn retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// As many keys are ready now.
    pub(crate) fn ready(&self, depth: usize) {
        let depth = i64::try_from(depth).unwrap_or(i64::MAX);
        self.depth.store(depth, Ordering::Relaxed);
    }

    /// A key was taken that had waited for so long.
    pub(crate) fn took(&self, waited: Duration) {
        self.queued.observe(waited.as_secs_f64());
    }
}

/// A key was worked on for so long.
pub(crate) fn worked(name: &str, time: Duration) {
    WORKED.observe_time(&[name], time);
}
