//! Forgets, from time to time, what was made for clients that do not come any more.

use std::sync::Arc;
use std::time::Duration;

use base::Stop;

use crate::server::Core;

/// What nobody asked for during one to two of these is forgotten.
const WINDOW: Duration = Duration::from_secs(300);

/// Forgets until told to stop.
pub(crate) async fn run(core: Arc<Core>, stop: Stop) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(WINDOW) => {}
            () = stop.raised() => return,
        }
        for cache in core.registry.caches() {
            cache.forget_protobuf();
        }
        core.documents.forget();
    }
}
