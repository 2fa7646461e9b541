//! News for subscribers, each with a bounded queue of its own.

use node_api::{ContainerEvent, ContainerEventKind};
use tokio::sync::mpsc;

use super::Engine;

/// Events one subscriber may be behind.
const QUEUE: usize = 1024;

/// One receiver of events.
#[derive(Debug)]
pub(super) struct Subscriber {
    queue: mpsc::Sender<ContainerEvent>,
    /// Events were lost, and the receiver does not know yet.
    owes_resync: bool,
}

impl Engine {
    pub(super) fn subscribe(&self) -> mpsc::Receiver<ContainerEvent> {
        let (queue, receiver) = mpsc::channel(QUEUE);
        self.subscribers.lock().push(Subscriber {
            queue,
            owes_resync: false,
        });
        receiver
    }

    /// Tells everybody; who is gone is forgotten.
    pub(super) fn announce(&self, sandbox_id: &str, container_id: &str, kind: ContainerEventKind) {
        let pod = self.pods.read().get(sandbox_id).cloned();
        let pod_uid = pod
            .map(|pod| pod.record.config.uid.clone())
            .unwrap_or_default();
        let event = ContainerEvent {
            sandbox_id: sandbox_id.to_owned(),
            container_id: container_id.to_owned(),
            pod_uid,
            kind,
        };
        self.subscribers
            .lock()
            .retain_mut(|subscriber| subscriber.tell(&event));
    }
}

impl Subscriber {
    fn tell(&mut self, event: &ContainerEvent) -> bool {
        if self.owes_resync {
            let resync = ContainerEvent {
                kind: ContainerEventKind::Resync,
                ..event.clone()
            };
            self.owes_resync = self.queue.try_send(resync).is_err();
        }
        if !self.owes_resync && self.queue.try_send(event.clone()).is_err() {
            self.owes_resync = true;
        }
        !self.queue.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_receiver_is_told_to_list_again() {
        let (queue, mut receiver) = mpsc::channel(2);
        let mut subscriber = Subscriber {
            queue,
            owes_resync: false,
        };
        let event = ContainerEvent {
            sandbox_id: "s".to_owned(),
            container_id: "c".to_owned(),
            pod_uid: "u".to_owned(),
            kind: ContainerEventKind::Started,
        };
        for _ in 0..3 {
            assert!(subscriber.tell(&event));
        }
        assert_eq!(
            receiver.recv().await.unwrap().kind,
            ContainerEventKind::Started
        );
        assert!(subscriber.tell(&event));
        receiver.recv().await.unwrap();
        assert_eq!(
            receiver.recv().await.unwrap().kind,
            ContainerEventKind::Resync
        );
        drop(receiver);
        assert!(!subscriber.tell(&event));
    }
}
