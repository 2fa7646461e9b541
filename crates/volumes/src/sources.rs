//! Exactly the ConfigMaps and Secrets that pods of this node use, each watched
//! by name while at least one pod needs it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base::Crew;
use client::{Client, Hub, Informer, Selection};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use parking_lot::Mutex;

use crate::references::Reference;

/// How long to wait for the first answer about an object.
const SYNC_TIMEOUT: Duration = Duration::from_secs(10);

/// The API could not be asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SourceError {
    #[error("failed to sync {what} cache: timed out waiting for the condition")]
    NotSynced { what: &'static str },
    #[error("failed to fetch {what}: {message}")]
    Fetch { what: String, message: String },
}

/// Called with the uid of each pod whose sources changed.
pub type Changed = Arc<dyn Fn(&str) + Send + Sync>;

type Slot = (String, Reference);

/// The watched objects. Cheap to clone.
#[derive(Clone)]
pub struct Sources {
    client: Client,
    state: Arc<Mutex<State>>,
    changed: Changed,
}

#[derive(Default)]
struct State {
    entries: HashMap<Slot, Entry>,
    by_owner: HashMap<String, BTreeSet<Slot>>,
}

struct Entry {
    view: View,
    owners: Arc<Mutex<HashSet<String>>>,
    /// Owns the watch; ended with the entry.
    crew: Crew,
}

#[derive(Clone)]
enum View {
    ConfigMap(Informer<ConfigMap>),
    Secret(Informer<Secret>),
}

impl Sources {
    /// Nothing is watched yet.
    pub fn new(client: Client, changed: Changed) -> Sources {
        Sources {
            client,
            state: Arc::default(),
            changed,
        }
    }

    /// Sets what a pod needs; watches what is new, and ends watches nobody needs.
    pub fn acquire(&self, owner: &str, namespace: &str, wanted: BTreeSet<Reference>) {
        let wanted: BTreeSet<Slot> = wanted
            .into_iter()
            .map(|reference| (namespace.to_owned(), reference))
            .collect();
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let known = state.by_owner.remove(owner).unwrap_or_default();
        for slot in known.difference(&wanted) {
            leave(&mut state.entries, slot, owner);
        }
        for slot in &wanted {
            let entry = state
                .entries
                .entry(slot.clone())
                .or_insert_with(|| self.watch(slot));
            entry.owners.lock().insert(owner.to_owned());
        }
        if !wanted.is_empty() {
            state.by_owner.insert(owner.to_owned(), wanted);
        }
    }

    /// A pod is gone.
    pub fn release(&self, owner: &str) {
        self.acquire(owner, "", BTreeSet::new());
    }

    /// A ConfigMap as the API has it now.
    pub async fn config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<ConfigMap>>, SourceError> {
        let slot = (namespace.to_owned(), Reference::ConfigMap(name.to_owned()));
        let view = self.view(&slot);
        if let Some(View::ConfigMap(informer)) = view {
            synced(&informer, "configmap").await?;
            return Ok(informer.get(namespace, name));
        }
        let api = self.client.namespaced::<ConfigMap>(namespace);
        let object = api.get_opt(name).await;
        object.map(|o| o.map(Arc::new)).map_err(fetch("configmap"))
    }

    /// A Secret as the API has it now.
    pub async fn secret(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Secret>>, SourceError> {
        let slot = (namespace.to_owned(), Reference::Secret(name.to_owned()));
        let view = self.view(&slot);
        if let Some(View::Secret(informer)) = view {
            synced(&informer, "secret").await?;
            return Ok(informer.get(namespace, name));
        }
        let api = self.client.namespaced::<Secret>(namespace);
        let object = api.get_opt(name).await;
        object.map(|o| o.map(Arc::new)).map_err(fetch("secret"))
    }

    fn view(&self, slot: &Slot) -> Option<View> {
        self.state
            .lock()
            .entries
            .get(slot)
            .map(|entry| entry.view.clone())
    }

    fn watch(&self, slot: &Slot) -> Entry {
        let (namespace, reference) = slot;
        let (Reference::ConfigMap(name) | Reference::Secret(name)) = reference;
        let selection = Selection {
            namespace: Some(namespace.clone()),
            field_selector: Some(format!("metadata.name={name}")),
            ..Selection::default()
        };
        let crew = Crew::new();
        let hub = Hub::new(self.client.clone(), &crew);
        let owners: Arc<Mutex<HashSet<String>>> = Arc::default();
        let view = match reference {
            Reference::ConfigMap(_) => {
                let informer = hub.informer_of::<ConfigMap>(selection);
                self.follow(&crew, &informer, &owners);
                View::ConfigMap(informer)
            }
            Reference::Secret(_) => {
                let informer = hub.informer_of::<Secret>(selection);
                self.follow(&crew, &informer, &owners);
                View::Secret(informer)
            }
        };
        Entry { view, owners, crew }
    }

    fn follow<K: client::Kind>(
        &self,
        crew: &Crew,
        informer: &Informer<K>,
        owners: &Arc<Mutex<HashSet<String>>>,
    ) {
        let mut changes = informer.subscribe();
        let (owners, changed) = (owners.clone(), self.changed.clone());
        crew.spawn("source changes", async move {
            while changes.next().await.is_some() {
                let owners: Vec<String> = owners.lock().iter().cloned().collect();
                for owner in owners {
                    changed(&owner);
                }
            }
        });
    }
}

fn leave(entries: &mut HashMap<Slot, Entry>, slot: &Slot, owner: &str) {
    let Some(entry) = entries.get(slot) else {
        return;
    };
    entry.owners.lock().remove(owner);
    if entry.owners.lock().is_empty() {
        entry.crew.stop().raise();
        entries.remove(slot);
    }
}

async fn synced<K: client::Kind>(
    informer: &Informer<K>,
    what: &'static str,
) -> Result<(), SourceError> {
    if informer.is_synced() {
        return Ok(());
    }
    tokio::time::timeout(SYNC_TIMEOUT, informer.synced())
        .await
        .map_err(|_| SourceError::NotSynced { what })
}

fn fetch(what: &str) -> impl FnOnce(meta::Status) -> SourceError {
    let what = what.to_owned();
    move |status| SourceError::Fetch {
        what,
        message: status.message,
    }
}
