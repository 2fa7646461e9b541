//! How many requests are being served.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::RequestInfo;

/// Counts the requests being served; who may be is up to priority and fairness.
#[derive(Debug, Default)]
pub(crate) struct Inflight {
    mutating: Arc<AtomicUsize>,
    reading: Arc<AtomicUsize>,
}

/// One request being served.
pub(crate) struct Counted(Option<Arc<AtomicUsize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(count) = &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Inflight {
    /// Counts a request until its end; long ones do not count.
    pub(crate) fn enter(&self, info: &RequestInfo) -> Counted {
        if info.is_long_running() {
            return Counted(None);
        }
        let count = match info.verb {
            "get" | "list" | "head" => &self.reading,
            _ => &self.mutating,
        };
        count.fetch_add(1, Ordering::Relaxed);
        Counted(Some(Arc::clone(count)))
    }

    /// Requests being served: mutating, and others.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let load = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (load(&self.mutating), load(&self.reading))
    }
}
