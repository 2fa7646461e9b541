//! Containers without processors of their own stay on those that are left for all.

use std::sync::Arc;

use node_api::{ContainerState, ContainerStatus, LinuxResources, RuntimeError};

use crate::pod::PodExt;
use crate::shared::Shared;

/// Moves running containers when others get processors of their own or give them back.
pub(crate) async fn keep_shared(shared: Arc<Shared>) {
    let mut changes = shared.placement.pool_changes();
    while changes.changed().await.is_ok() {
        for view in shared.pods.all() {
            for status in view.containers.values() {
                pin(&shared, view.pod.uid(), status).await;
            }
        }
    }
}

/// Puts a running container where it belongs.
pub(crate) async fn pin(shared: &Shared, uid: &str, status: &ContainerStatus) {
    let name = &status.config.name;
    if status.state != ContainerState::Running {
        return;
    }
    let Some(cpus) = shared.placement.cpus_of(uid, name) else {
        return;
    };
    let resources = LinuxResources {
        cpuset_cpus: cpus.to_string(),
        ..LinuxResources::default()
    };
    let moved = shared
        .runtime
        .update_container_resources(&status.id, resources);
    match moved.await {
        Ok(()) | Err(RuntimeError::NotFound(_)) => {}
        Err(error) => tracing::warn!(%error, uid, name, "container stays on the processors it had"),
    }
}
