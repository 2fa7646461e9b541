//! What happens in a runtime: by its stream of events where it has one, else by looking at its lists
//! once a second and telling what is different, which is all that CRI offers then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::Backoff;
use node_api::{ContainerEvent, ContainerEventKind, RuntimeError};
use tonic::{Code, Status, Streaming};

use super::link::method;
use super::{Remote, answers};
use crate::wire;

/// How often lists are looked at where there are no events.
const RELIST: Duration = Duration::from_secs(1);
/// And where there are: a safety net.
const RELIST_BESIDE_EVENTS: Duration = Duration::from_secs(60);

/// What a list said of a sandbox or container.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    sandbox_id: String,
    pod_uid: String,
    /// CRI's number.
    state: i32,
    sandbox: bool,
}

/// What was seen last, by id.
#[derive(Default)]
struct Watcher {
    seen: HashMap<String, Seen>,
}

/// Tells listeners what happens, for ever.
pub(super) async fn follow(remote: Arc<Remote>) {
    let mut watcher = Watcher::default();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut streams = true;
    loop {
        match watcher.look(&remote).await {
            Ok(()) => backoff.reset(),
            Err(error) => {
                tracing::warn!(%error, "containers not listed");
                tokio::time::sleep(backoff.next_delay()).await;
                continue;
            }
        }
        if !streams {
            tokio::time::sleep(RELIST).await;
            continue;
        }
        match watcher.listen(&remote).await {
            Err(status) if status.code() == Code::Unimplemented => {
                tracing::debug!("the runtime has no events, its lists are followed");
                streams = false;
            }
            Err(error) => {
                tracing::debug!(%error, "events of the runtime ended");
                tokio::time::sleep(backoff.next_delay()).await;
            }
            Ok(()) => {}
        }
    }
}

impl Watcher {
    /// Passes events on; `Ok` when it is time to list, too.
    async fn listen(&mut self, remote: &Remote) -> Result<(), Status> {
        let mut events: Streaming<wire::ContainerEventResponse> = remote
            .link
            .stream(method!("GetContainerEvents"), ())
            .await?;
        // Between the list before and the beginning of the stream, too, something may have happened.
        self.look(remote)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let mut net = tokio::time::interval(RELIST_BESIDE_EVENTS);
        net.reset();
        loop {
            tokio::select! {
                event = events.message() => match event? {
                    Some(event) => tell(remote, event),
                    None => return Err(Status::unavailable("the stream ended")),
                },
                _ = net.tick() => {
                    let looked = self.look(remote).await;
                    looked.map_err(|error| Status::unavailable(error.to_string()))?;
                }
            }
        }
    }

    /// Lists everything and tells what is not as it was.
    async fn look(&mut self, remote: &Remote) -> Result<(), RuntimeError> {
        let (sandboxes, containers) = tokio::try_join!(remote.sandboxes(), remote.containers())?;
        let mut now = HashMap::new();
        for item in sandboxes {
            let seen = Seen {
                sandbox_id: item.id.clone(),
                pod_uid: item.metadata.map(|about| about.uid).unwrap_or_default(),
                state: item.state,
                sandbox: true,
            };
            now.insert(item.id, seen);
        }
        for item in containers {
            let seen = Seen {
                sandbox_id: item.pod_sandbox_id,
                pod_uid: answers::pod_uid(&item.labels),
                state: item.state,
                sandbox: false,
            };
            now.insert(item.id, seen);
        }
        for event in differences(&self.seen, &now) {
            remote.listeners.tell(&event);
        }
        self.seen = now;
        Ok(())
    }
}

fn differences(before: &HashMap<String, Seen>, now: &HashMap<String, Seen>) -> Vec<ContainerEvent> {
    let event = |id: &String, seen: &Seen, kind| ContainerEvent {
        sandbox_id: seen.sandbox_id.clone(),
        container_id: id.clone(),
        pod_uid: seen.pod_uid.clone(),
        kind,
    };
    let gone = before.iter().filter(|(id, _)| !now.contains_key(*id));
    let gone = gone.map(|(id, seen)| event(id, seen, ContainerEventKind::Deleted));
    let changed = now
        .iter()
        .filter(|(id, seen)| before.get(*id) != Some(seen));
    gone.chain(changed.map(|(id, seen)| event(id, seen, kind(seen))))
        .collect()
}

fn kind(seen: &Seen) -> ContainerEventKind {
    if seen.sandbox {
        return match wire::PodSandboxState::try_from(seen.state) {
            Ok(wire::PodSandboxState::Ready) => ContainerEventKind::Started,
            _ => ContainerEventKind::Stopped,
        };
    }
    match wire::ContainerState::try_from(seen.state) {
        Ok(wire::ContainerState::Created) => ContainerEventKind::Created,
        Ok(wire::ContainerState::Running) => ContainerEventKind::Started,
        _ => ContainerEventKind::Stopped,
    }
}

fn tell(remote: &Remote, event: wire::ContainerEventResponse) {
    let kind = match event.container_event_type() {
        wire::ContainerEventType::Created => ContainerEventKind::Created,
        wire::ContainerEventType::Started => ContainerEventKind::Started,
        wire::ContainerEventType::Stopped => ContainerEventKind::Stopped,
        wire::ContainerEventType::Deleted => ContainerEventKind::Deleted,
    };
    let sandbox = event.pod_sandbox_status.unwrap_or_default();
    remote.doubt(&event.container_id);
    remote.listeners.tell(&ContainerEvent {
        sandbox_id: sandbox.id,
        container_id: event.container_id,
        pod_uid: sandbox.metadata.map(|about| about.uid).unwrap_or_default(),
        kind,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(state: i32, sandbox: bool) -> Seen {
        Seen {
            sandbox_id: "s".to_owned(),
            pod_uid: "u".to_owned(),
            state,
            sandbox,
        }
    }

    #[test]
    fn lists_tell_what_is_new_different_and_gone() {
        let before = HashMap::from([
            ("s".to_owned(), seen(0, true)),
            ("same".to_owned(), seen(1, false)),
            ("ends".to_owned(), seen(1, false)),
            ("goes".to_owned(), seen(2, false)),
        ]);
        let mut now = before.clone();
        now.insert("ends".to_owned(), seen(2, false));
        now.insert("new".to_owned(), seen(0, false));
        now.remove("goes");
        let mut told: Vec<_> = differences(&before, &now)
            .into_iter()
            .map(|event| (event.container_id, event.kind))
            .collect();
        told.sort_by(|a, b| a.0.cmp(&b.0));
        let expected = [
            ("ends", ContainerEventKind::Stopped),
            ("goes", ContainerEventKind::Deleted),
            ("new", ContainerEventKind::Created),
        ];
        assert_eq!(told, expected.map(|(id, kind)| (id.to_owned(), kind)));
        let all = differences(&HashMap::new(), &before);
        assert!(all.iter().any(|event| event.container_id == "s"
            && event.kind == ContainerEventKind::Started
            && event.pod_uid == "u"));
    }
}
