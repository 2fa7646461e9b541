//! Telling users what happened: `core/v1 Event`s, aggregated and bounded.

use std::collections::{HashMap, VecDeque};

use base::Crew;
use client::{Client, Kind, Patch, WriteOptions};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;

/// Events waiting to be written; more are dropped, as upstream does.
const WAITING_MAX: usize = 1000;
/// Distinct events remembered for counting repetitions.
const REMEMBERED_MAX: usize = 4096;

/// Records events in the background. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder {
    component: &'static str,
    host: String,
    sender: mpsc::Sender<Event>,
}

impl Recorder {
    /// A recorder that writes as `component` (and node `host`, which may be empty).
    pub fn start(client: Client, component: &'static str, host: &str, crew: &Crew) -> Recorder {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let stop = crew.stop();
        crew.spawn(format!("{component} events"), async move {
            tokio::select! {
                () = write_all(client, receiver) => {}
                () = stop.raised() => {}
            }
        });
        Recorder {
            component,
            host: host.to_owned(),
            sender,
        }
    }

    /// `type: Normal`.
    pub fn normal<K: Kind>(&self, about: &K, reason: &str, message: impl Into<String>) {
        self.record(reference(about), "Normal", reason, message.into());
    }

    /// `type: Warning`.
    pub fn warning<K: Kind>(&self, about: &K, reason: &str, message: impl Into<String>) {
        self.record(reference(about), "Warning", reason, message.into());
    }

    /// An event about anything that can be referred to.
    pub fn record(&self, about: ObjectReference, kind: &str, reason: &str, message: String) {
        let now = Time(Timestamp::now());
        let namespace = match about.namespace.as_deref() {
            None | Some("") => "default".to_owned(),
            Some(namespace) => namespace.to_owned(),
        };
        let subject = about.name.clone().unwrap_or_default();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{subject}.{:x}", now.0.as_nanosecond())),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            involved_object: about,
            type_: Some(kind.into()),
            reason: Some(reason.into()),
            message: Some(message),
            count: Some(1),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            source: Some(EventSource {
                component: Some(self.component.into()),
                host: Some(self.host.clone()).filter(|host| !host.is_empty()),
            }),
            reporting_component: Some(self.component.into()),
            reporting_instance: Some(self.host.clone()),
            ..Event::default()
        };
        if self.sender.try_send(event).is_err() {
            tracing::debug!(
                component = self.component,
                reason,
                "event dropped: too many waiting"
            );
        }
    }
}

/// The reference by which events name an object.
pub fn reference<K: Kind>(about: &K) -> ObjectReference {
    let metadata = about.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.into()),
        kind: Some(K::KIND.into()),
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        field_path: None,
    }
}

/// Everything that makes two events the same but for their time.
fn identity(event: &Event) -> String {
    let object = &event.involved_object;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    [
        text(&object.kind),
        text(&object.namespace),
        text(&object.name),
        text(&object.uid),
        text(&object.field_path),
        text(&event.type_),
        text(&event.reason),
        text(&event.message),
    ]
    .join("\u{1f}")
}

async fn write_all(client: Client, mut receiver: mpsc::Receiver<Event>) {
    // Identity of an event -> its name and count; the oldest are forgotten first.
    let mut known: HashMap<String, (String, i32)> = HashMap::new();
    let mut order: VecDeque<String> = VecDeque::new();
    while let Some(event) = receiver.recv().await {
        let identity = identity(&event);
        let api = client.namespaced::<Event>(event.metadata.namespace.as_deref().unwrap_or(""));
        if let Some((name, count)) = known.get_mut(&identity) {
            *count += 1;
            let body = serde_json::json!({"count": *count, "lastTimestamp": event.last_timestamp});
            let patched = api
                .patch(name, &Patch::Merge(body), &WriteOptions::default())
                .await;
            match patched {
                Ok(_) => continue,
                // It expired; begin anew below.
                Err(status) if status.is_not_found() => drop(known.remove(&identity)),
                Err(status) => {
                    tracing::debug!(error = %status, "event not updated");
                    continue;
                }
            }
        }
        if let Err(status) = api.create(&event).await {
            tracing::debug!(error = %status, "event not written");
            continue;
        }
        let name = event.metadata.name.unwrap_or_default();
        if known.insert(identity.clone(), (name, 1)).is_none() {
            order.push_back(identity);
        }
        while order.len() > REMEMBERED_MAX {
            if let Some(oldest) = order.pop_front() {
                known.remove(&oldest);
            }
        }
    }
}
