//! The stream of containers' events, each with the state of its pod.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use grpc::Answer;
use node_api::{ContainerEvent, ContainerEventKind};
use prost::Message;

use crate::{Service, convert, stats, wire};

/// Events from now on, until the caller leaves.
pub(crate) fn follow(service: Arc<Service>) -> Answer {
    let events = service.runtime.events();
    let stream = futures::stream::unfold((service, events), |(service, mut events)| async move {
        loop {
            let event = events.recv().await?;
            if let Some(message) = service.told_event(event).await {
                let bytes = Bytes::from(message.encode_to_vec());
                return Some((Ok(bytes), (service, events)));
            }
        }
    });
    stream.boxed()
}

impl Service {
    /// `None` for what CRI has no word for: clients list again from time to time anyway.
    async fn told_event(&self, event: ContainerEvent) -> Option<wire::ContainerEventResponse> {
        let kind = match event.kind {
            ContainerEventKind::Created => wire::ContainerEventType::Created,
            ContainerEventKind::Started => wire::ContainerEventType::Started,
            ContainerEventKind::Stopped => wire::ContainerEventType::Stopped,
            ContainerEventKind::Deleted => wire::ContainerEventType::Deleted,
            ContainerEventKind::Resync => return None,
        };
        let sandbox = self.runtime.pod_sandbox_status(&event.sandbox_id).await;
        let containers = self.runtime.list_containers().await.unwrap_or_default();
        let mut containers_statuses = Vec::new();
        for container in containers {
            if container.sandbox_id == event.sandbox_id {
                containers_statuses.push(self.told(container).await);
            }
        }
        Some(wire::ContainerEventResponse {
            container_id: event.container_id,
            container_event_type: kind.into(),
            created_at: stats::now(),
            pod_sandbox_status: sandbox.ok().map(convert::sandbox_status),
            containers_statuses,
        })
    }
}
