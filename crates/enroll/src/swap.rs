//! A client whose way to the server is replaced while it is used: requests under way end on the
//! old connections, later ones go the new way. So a new certificate interrupts nobody.

use std::sync::Arc;

use arc_swap::ArcSwap;
use client::{Client, Transport};
use tower::ServiceExt;

/// Replaces what a client stands on.
#[derive(Clone)]
pub struct Swap(Arc<ArcSwap<Transport>>);

impl Swap {
    /// A client that begins with the ways of `first`.
    pub fn new(first: &Client) -> (Client, Swap) {
        let current = Arc::new(ArcSwap::from_pointee(first.transport()));
        let used = Arc::clone(&current);
        let service = tower::service_fn(move |request| {
            let transport = used.load().as_ref().clone();
            transport.oneshot(request)
        });
        (Client::new(Transport::new(service)), Swap(current))
    }

    /// From now on, requests go as those of `next`.
    pub fn set(&self, next: &Client) {
        self.0.store(Arc::new(next.transport()));
    }
}
