//! The audit trail: which requests are recorded, how much of them, and where records go.
//!
//! A request that the policy wants recorded has a [`Record`]; who handles the request adds to it,
//! and at each stage a copy goes to every backend. Without a policy there is nothing of this.

mod batch;
mod event;
mod legacy;
mod log;
mod policy;
mod record;

use std::cell::OnceCell;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

pub use batch::{Batch, BatchConfig};
pub use event::{AuthenticationMetadata, Event, ObjectReference, UserInfo};
pub use log::{Log, LogConfig};
pub use policy::{Asked, Level, Policy, PolicyError, Stage};
pub use record::Record;

/// Where events go.
pub trait Backend: Send + Sync {
    /// `log` or `webhook`, as metrics name it.
    fn name(&self) -> &'static str;
    /// Takes one event as JSON; says why when it is lost.
    fn take(&self, event: Bytes) -> Result<(), String>;
}

/// A backend, and what is asked of it.
pub struct Sink {
    backend: Arc<dyn Backend>,
    strict: bool,
    bytes_max: Option<usize>,
}

impl Sink {
    /// Takes every event, whole.
    pub fn new(backend: Arc<dyn Backend>) -> Sink {
        Sink {
            backend,
            strict: false,
            bytes_max: None,
        }
    }

    /// Whether a request must not go on whose arrival cannot be recorded (mode
    /// `blocking-strict`).
    pub fn strict(mut self, strict: bool) -> Sink {
        self.strict = strict;
        self
    }

    /// Larger events lose the objects of request and answer, and go if they are still larger.
    pub fn truncating(mut self, bytes_max: Option<usize>) -> Sink {
        self.bytes_max = bytes_max;
        self
    }

    fn send(&self, event: &Event, whole: &Bytes, cut: &OnceCell<Bytes>) -> Result<(), String> {
        let Some(most) = self.bytes_max.filter(|most| whole.len() > *most) else {
            return self.backend.take(whole.clone());
        };
        let cut = cut.get_or_init(|| encoded(&event.without_objects()).unwrap_or_default());
        match cut.len() <= most && !cut.is_empty() {
            true => self.backend.take(cut.clone()),
            false => Err(format!("event of {} bytes is too large", whole.len())),
        }
    }
}

/// Policy and backends in force.
pub struct Audit {
    policy: Policy,
    sinks: Vec<Sink>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    events: AtomicU64,
    levels: [AtomicU64; 4],
    /// By backend.
    errors: Vec<AtomicU64>,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").finish_non_exhaustive()
    }
}

impl Audit {
    /// Records by this policy to these backends.
    pub fn new(policy: Policy, sinks: Vec<Sink>) -> Arc<Audit> {
        let errors = sinks.iter().map(|_| AtomicU64::new(0)).collect();
        Arc::new(Audit {
            policy,
            sinks,
            counts: Counts {
                errors,
                ..Counts::default()
            },
        })
    }

    /// The record of a request, if the policy wants one; `event` fills in what is known.
    pub fn begin(
        self: &Arc<Audit>,
        asked: &Asked<'_>,
        event: impl FnOnce() -> Event,
    ) -> Option<Arc<Record>> {
        let rule = self.policy.evaluate(asked);
        self.counts.levels[rule.level as usize].fetch_add(1, Ordering::Relaxed);
        if rule.level == Level::None {
            return None;
        }
        let mut event = event();
        event.level = rule.level;
        let record = Arc::new(Record::new(Arc::clone(self), rule, event));
        record.stage(Stage::RequestReceived);
        Some(record)
    }

    /// Whether nobody is missing it who must have it.
    fn send(&self, event: &Event) -> bool {
        let Some(whole) = encoded(event) else {
            return false;
        };
        self.counts.events.fetch_add(1, Ordering::Relaxed);
        let (mut kept, cut) = (true, OnceCell::new());
        for (sink, errors) in self.sinks.iter().zip(&self.counts.errors) {
            if let Err(why) = sink.send(event, &whole, &cut) {
                errors.fetch_add(1, Ordering::Relaxed);
                kept &= !sink.strict;
                tracing::error!(backend = sink.backend.name(), why, "audit event lost");
            }
        }
        kept
    }

    /// What it counts, in the text form of Prometheus.
    pub fn metrics(&self) -> String {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut text = String::from("# TYPE apiserver_audit_event_total counter\n");
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "apiserver_audit_event_total {}",
            load(&self.counts.events)
        );
        text.push_str("# TYPE apiserver_audit_level_total counter\n");
        for level in Level::ALL {
            let count = load(&self.counts.levels[level as usize]);
            let name = level.as_str();
            let _ = writeln!(
                text,
                "apiserver_audit_level_total{{level=\"{name}\"}} {count}"
            );
        }
        text.push_str("# TYPE apiserver_audit_error_total counter\n");
        for (sink, errors) in self.sinks.iter().zip(&self.counts.errors) {
            let (name, count) = (sink.backend.name(), load(errors));
            let _ = writeln!(
                text,
                "apiserver_audit_error_total{{plugin=\"{name}\"}} {count}"
            );
        }
        text
    }
}

fn encoded(event: &Event) -> Option<Bytes> {
    match serde_json::to_vec(event) {
        Ok(bytes) => Some(bytes.into()),
        Err(error) => {
            tracing::error!(%error, "an audit event did not encode");
            None
        }
    }
}

#[cfg(test)]
mod tests;
