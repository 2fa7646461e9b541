//! News for those who listen.

use node_api::{ContainerEvent, ContainerEventKind};

use super::Engine;

impl Engine {
    /// Tells everybody.
    pub(super) fn announce(&self, sandbox_id: &str, container_id: &str, kind: ContainerEventKind) {
        let pod = self.pods.read().get(sandbox_id).cloned();
        let pod_uid = pod
            .map(|pod| pod.record.config.uid.clone())
            .unwrap_or_default();
        self.listeners.tell(&ContainerEvent {
            sandbox_id: sandbox_id.to_owned(),
            container_id: container_id.to_owned(),
            pod_uid,
            kind,
        });
    }
}
