//! The audit trail: which requests are recorded, how much of them, and where records go.
//!
//! A request that the policy wants recorded has a [`Record`]; who handles the request adds to it,
//! and at each stage a copy goes to every backend. Without a policy there is nothing of this.

mod batch;
mod event;
mod log;
mod policy;
mod record;

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

pub use batch::{Batch, BatchConfig};
pub use event::{Event, ObjectReference, UserInfo};
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

/// Policy and backends in force.
pub struct Audit {
    policy: Policy,
    backends: Vec<Arc<dyn Backend>>,
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
    pub fn new(policy: Policy, backends: Vec<Arc<dyn Backend>>) -> Arc<Audit> {
        let errors = backends.iter().map(|_| AtomicU64::new(0)).collect();
        Arc::new(Audit {
            policy,
            backends,
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

    fn send(&self, event: &Event) {
        let encoded = match serde_json::to_vec(event) {
            Ok(encoded) => Bytes::from(encoded),
            Err(error) => return tracing::error!(%error, "an audit event did not encode"),
        };
        self.counts.events.fetch_add(1, Ordering::Relaxed);
        for (backend, errors) in self.backends.iter().zip(&self.counts.errors) {
            if let Err(why) = backend.take(encoded.clone()) {
                errors.fetch_add(1, Ordering::Relaxed);
                tracing::error!(backend = backend.name(), why, "audit event lost");
            }
        }
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
        for (backend, errors) in self.backends.iter().zip(&self.counts.errors) {
            let (name, count) = (backend.name(), load(errors));
            let _ = writeln!(
                text,
                "apiserver_audit_error_total{{plugin=\"{name}\"}} {count}"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests;
