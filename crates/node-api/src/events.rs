//! News of containers for those who asked, each with a bounded queue of its own.

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::{ContainerEvent, ContainerEventKind};

/// Events one listener may be behind.
const QUEUE: usize = 1024;

/// All who listen to a runtime.
#[derive(Debug, Default)]
pub struct Listeners(Mutex<Vec<Listener>>);

#[derive(Debug)]
struct Listener {
    queue: mpsc::Sender<ContainerEvent>,
    /// Events were lost, and the receiver does not know yet.
    owes_resync: bool,
}

impl Listeners {
    /// One more; hears what happens from now on, or that it must list again.
    pub fn add(&self) -> mpsc::Receiver<ContainerEvent> {
        let (queue, receiver) = mpsc::channel(QUEUE);
        self.0.lock().push(Listener {
            queue,
            owes_resync: false,
        });
        receiver
    }

    /// Tells everybody; who is gone is forgotten.
    pub fn tell(&self, event: &ContainerEvent) {
        self.0.lock().retain_mut(|listener| listener.tell(event));
    }
}

impl Listener {
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
        let mut listener = Listener {
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
            assert!(listener.tell(&event));
        }
        assert_eq!(
            receiver.recv().await.unwrap().kind,
            ContainerEventKind::Started
        );
        assert!(listener.tell(&event));
        receiver.recv().await.unwrap();
        assert_eq!(
            receiver.recv().await.unwrap().kind,
            ContainerEventKind::Resync
        );
        drop(receiver);
        assert!(!listener.tell(&event));
    }
}
