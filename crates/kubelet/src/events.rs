//! Events for people: told through a bounded queue, repeated ones counted up
//! instead of written anew.

use std::collections::HashMap;
use std::collections::VecDeque;

use base::Stop;
use client::{Client, Patch, WriteOptions};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::pod::{PodExt, Role};

/// Events waiting to be written; more are dropped.
const QUEUE_MAX: usize = 1_000;
/// Events remembered for counting.
const KNOWN_MAX: usize = 4_096;
/// An object may cause so many writes at once …
const BURST: f64 = 25.0;
/// … and one more in so many seconds.
const REFILL_SECONDS: f64 = 300.0;

/// Says what happens. Cheap to clone; never waits.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Told>,
    clock: Clock,
    component: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Normal,
    Warning,
}

#[derive(Clone, Debug)]
struct Told {
    about: ObjectReference,
    kind: Kind,
    reason: String,
    message: String,
    at: Timestamp,
}

/// A reference to a pod, or to one of its containers.
pub(crate) fn reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let field_path = container.map(|name| {
        let list = match pod.container(name).map(|(role, _)| role) {
            Some(Role::Init | Role::Sidecar) => "initContainers",
            Some(Role::Ephemeral) => "ephemeralContainers",
            _ => "containers",
        };
        format!("spec.{list}{{{name}}}")
    });
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod.namespace().to_owned()),
        name: Some(pod.name().to_owned()),
        uid: Some(pod.uid().to_owned()),
        resource_version: pod.metadata.resource_version.clone(),
        field_path,
    }
}

/// A reference to a node; its uid is its name, as upstream's kubelet has it.
pub(crate) fn node_reference(name: &str) -> ObjectReference {
    ObjectReference {
        kind: Some("Node".into()),
        name: Some(name.to_owned()),
        uid: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

impl Recorder {
    /// A recorder and the task that writes what it is told.
    pub(crate) fn new(
        client: Client,
        host: String,
        clock: Clock,
        stop: Stop,
    ) -> (Recorder, impl Future<Output = ()> + Send + 'static) {
        let (queue, told) = mpsc::channel(QUEUE_MAX);
        let component = "kubelet";
        let writer = Writer {
            client,
            host,
            component,
            known: HashMap::new(),
            order: VecDeque::new(),
            tokens: HashMap::new(),
        };
        let recorder = Recorder {
            queue,
            clock,
            component,
        };
        (recorder, writer.run(told, stop))
    }

    /// Tells of a pod or one of its containers.
    pub(crate) fn pod(
        &self,
        pod: &Pod,
        container: Option<&str>,
        kind: Kind,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.tell(reference(pod, container), kind, reason, message.into());
    }

    /// Tells of any object.
    pub(crate) fn tell(&self, about: ObjectReference, kind: Kind, reason: &str, message: String) {
        let told = Told {
            about,
            kind,
            reason: reason.to_owned(),
            message,
            at: self.clock.now(),
        };
        if self.queue.try_send(told).is_err() {
            tracing::debug!(
                component = self.component,
                reason,
                "event dropped, queue is full"
            );
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Same {
    uid: String,
    field_path: String,
    kind: Kind,
    reason: String,
    message: String,
}

struct Writer {
    client: Client,
    host: String,
    component: &'static str,
    /// Name and count of events written before.
    known: HashMap<Same, (String, i32)>,
    order: VecDeque<Same>,
    /// What each object may still write, and since when it has it.
    tokens: HashMap<String, (f64, Instant)>,
}

impl Writer {
    async fn run(mut self, mut told: mpsc::Receiver<Told>, stop: Stop) {
        loop {
            let next = tokio::select! {
                next = told.recv() => next,
                () = stop.raised() => return,
            };
            let Some(next) = next else { return };
            if self.may_write(&next) {
                self.write(next).await;
            }
        }
    }

    fn may_write(&mut self, told: &Told) -> bool {
        if self.tokens.len() > KNOWN_MAX {
            self.tokens.clear();
        }
        let uid = told.about.uid.clone().unwrap_or_default();
        let now = Instant::now();
        let (left, since) = self.tokens.entry(uid).or_insert((BURST, now));
        let passed = now.duration_since(*since).as_secs_f64();
        *left = (*left + passed / REFILL_SECONDS).min(BURST);
        *since = now;
        let may = *left >= 1.0;
        if may {
            *left -= 1.0;
        }
        may
    }

    async fn write(&mut self, told: Told) {
        let same = Same {
            uid: told.about.uid.clone().unwrap_or_default(),
            field_path: told.about.field_path.clone().unwrap_or_default(),
            kind: told.kind,
            reason: told.reason.clone(),
            message: told.message.clone(),
        };
        let namespace = told
            .about
            .namespace
            .clone()
            .unwrap_or_else(|| "default".into());
        let api = self.client.namespaced::<Event>(&namespace);
        if let Some((name, count)) = self.known.get_mut(&same) {
            *count += 1;
            let last = meta::time::rfc3339(told.at);
            let patch = Patch::Merge(json!({"count": *count, "lastTimestamp": last}));
            match api.patch(name, &patch, &WriteOptions::default()).await {
                Ok(_) => return,
                // Events expire; then it is told anew.
                Err(status) if status.is_not_found() => {}
                Err(status) => return tracing::debug!(error = %status, "event not counted"),
            }
        }
        let event = self.event(&told, &namespace);
        let name = event.metadata.name.clone().unwrap_or_default();
        match api.create(&event).await {
            Ok(_) => self.remember(same, name),
            Err(status) => tracing::debug!(error = %status, name, "event not written"),
        }
    }

    fn event(&self, told: &Told, namespace: &str) -> Event {
        let about = told.about.name.clone().unwrap_or_default();
        let nanos = told.at.as_nanosecond();
        let kind = match told.kind {
            Kind::Normal => "Normal",
            Kind::Warning => "Warning",
        };
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{about}.{nanos:x}")),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: told.about.clone(),
            type_: Some(kind.to_owned()),
            reason: Some(told.reason.clone()),
            message: Some(told.message.clone()),
            count: Some(1),
            first_timestamp: Some(Time(told.at)),
            last_timestamp: Some(Time(told.at)),
            source: Some(EventSource {
                component: Some(self.component.to_owned()),
                host: Some(self.host.clone()),
            }),
            reporting_component: Some(self.component.to_owned()),
            reporting_instance: Some(self.host.clone()),
            ..Event::default()
        }
    }

    fn remember(&mut self, same: Same, name: String) {
        if self.known.insert(same.clone(), (name, 1)).is_none() {
            self.order.push_back(same);
        }
        while self.order.len() > KNOWN_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}
