//! What pods left on the node that nobody wants any more: after a restart, and later.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use base::Stop;
use node_api::{ContainerState, RuntimeError};
use tokio::sync::Notify;

use crate::labels;
use crate::log_links;
use crate::shared::Shared;

/// Grace of a container that does not say how long it needs, in seconds.
const GRACE_SECONDS_DEFAULT: u64 = 30;

/// Pause before what could not be removed is tried again, as long as upstream's rounds.
const RETRY: Duration = Duration::from_secs(60);

/// Removes what unknown pods left now, and whenever the runtime starts something of theirs; ends
/// when the process stops. Begins once every pod that there should be has its worker.
pub(crate) async fn keep_clean(shared: Arc<Shared>, strange: Arc<Notify>, stop: Stop) {
    loop {
        let clean = tokio::select! {
            clean = sweep(&shared) => clean,
            () = stop.raised() => return,
        };
        let again = async {
            match clean {
                true => std::future::pending().await,
                false => tokio::time::sleep(RETRY).await,
            }
        };
        tokio::select! {
            () = strange.notified() => {}
            () = again => {}
            () = stop.raised() => return,
        }
    }
}

/// Ends and removes sandboxes, volumes and logs of unknown pods. Tells whether nothing of theirs is
/// left.
async fn sweep(shared: &Shared) -> bool {
    let sandboxes = shared.runtime.list_pod_sandboxes().await;
    let containers = shared.runtime.list_containers().await;
    let (Ok(sandboxes), Ok(containers)) = (sandboxes, containers) else {
        tracing::warn!("runtime not listed, orphaned pods stay for now");
        return false;
    };
    let mut clean = true;
    let mut uids: HashSet<String> = HashSet::new();
    for sandbox in sandboxes
        .iter()
        .filter(|s| !shared.pods.contains(&s.config.uid))
    {
        tracing::info!(
            pod = sandbox.config.name,
            uid = sandbox.config.uid,
            "ending orphaned pod"
        );
        uids.insert(sandbox.config.uid.clone());
        let inside = containers.iter().filter(|c| c.sandbox_id == sandbox.id);
        let alive = inside.filter(|c| c.state == ContainerState::Running);
        let stops = alive.map(|container| {
            let wish = container.config.annotations.get(labels::GRACE_PERIOD);
            let seconds = wish
                .and_then(|s| s.parse().ok())
                .unwrap_or(GRACE_SECONDS_DEFAULT);
            shared
                .runtime
                .stop_container(&container.id, Duration::from_secs(seconds))
        });
        futures::future::join_all(stops).await;
        match shared.runtime.remove_pod_sandbox(&sandbox.id).await {
            Ok(()) | Err(RuntimeError::NotFound(_)) => {}
            Err(error) => {
                tracing::warn!(%error, id = sandbox.id, "orphaned sandbox not removed");
                clean = false;
            }
        }
    }
    uids.extend(shared.volumes.known());
    for uid in uids.iter().filter(|uid| !shared.pods.contains(uid)) {
        if let Err(error) = shared.volumes.unmount(uid).await {
            tracing::warn!(%error, uid, "volumes of an orphaned pod not removed");
            clean = false;
        }
    }
    let clean = remove_logs(shared) && clean;
    if let Some(links) = &shared.config.log_links {
        log_links::remove_dead(links, &containers);
    }
    clean
}

/// Removes the log folders (`namespace_name_uid`) of unknown pods, if it can.
fn remove_logs(shared: &Shared) -> bool {
    let entries = std::fs::read_dir(&shared.config.log_dir)
        .into_iter()
        .flatten()
        .flatten();
    let mut clean = true;
    for entry in entries {
        let name = entry.file_name();
        let uid = name.to_str().filter(|name| name.matches('_').count() == 2);
        let uid = uid.and_then(|name| name.rsplit('_').next());
        if uid.is_some_and(|uid| !shared.pods.contains(uid))
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(%error, path = %entry.path().display(), "old logs not removed");
            clean = false;
        }
    }
    clean
}
