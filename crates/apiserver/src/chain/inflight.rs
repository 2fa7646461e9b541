//! Limits on how many requests are served at one time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use auth::Identity;
use meta::{Reason, Status};

use super::RequestInfo;

/// Counts the requests being served.
pub(crate) struct Inflight {
    mutating: Gate,
    reading: Gate,
}

struct Gate {
    limit: usize,
    count: Arc<AtomicUsize>,
}

/// One request being served.
pub(crate) struct Seat(Option<Arc<AtomicUsize>>);

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(count) = &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Inflight {
    pub(crate) fn new(mutating: usize, reading: usize) -> Inflight {
        let gate = |limit| Gate {
            limit,
            count: Arc::default(),
        };
        Inflight {
            mutating: gate(mutating),
            reading: gate(reading),
        }
    }

    /// Takes a seat, or answers 429. Superusers and long requests need none.
    pub(crate) fn enter(&self, info: &RequestInfo, user: &Identity) -> Result<Seat, Status> {
        if info.is_long_running() || user.is_in(auth::authorizer::SUPERUSERS) {
            return Ok(Seat(None));
        }
        let gate = match info.verb {
            "get" | "list" | "head" => &self.reading,
            _ => &self.mutating,
        };
        let before = gate.count.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(Some(Arc::clone(&gate.count)));
        if before < gate.limit {
            return Ok(seat);
        }
        let mut status = Status::new(
            Reason::TooManyRequests,
            "Too many requests, please try again later.",
        );
        status.retry_after_seconds = Some(1);
        Err(status)
    }

    /// Requests being served: mutating, and others.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let load = |gate: &Gate| gate.count.load(Ordering::Relaxed);
        (load(&self.mutating), load(&self.reading))
    }
}
