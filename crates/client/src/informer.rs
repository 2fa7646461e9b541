//! Shared caches of whole collections, kept by list and watch. Each object is
//! decoded once per process and shared by all who look.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, Crew, Stop};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use crate::api::{Api, Kind, ListOptions};
use crate::request::Client;
use crate::watch::WatchEvent;

/// Where an object lives; the namespace is empty for cluster-wide kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    /// A key from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Key {
        Key {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of an object.
    pub fn of<K: Kind>(object: &K) -> Key {
        let metadata = object.metadata();
        Key {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Key {
    /// `namespace/name`, or just the name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// Which part of a collection an informer keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    /// `None`: all namespaces.
    pub namespace: Option<String>,
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
}

/// What became of one object since the subscriber last looked. Changes of the
/// same object are merged, so a subscriber's backlog never exceeds the number
/// of objects; old and new may then be two incarnations with different uids.
#[derive(Debug)]
pub struct Change<K> {
    pub key: Key,
    /// As the subscriber last saw it.
    pub old: Option<Arc<K>>,
    /// As it is now; `None` when it is gone.
    pub new: Option<Arc<K>>,
}

/// What tells informers apart.
type Slot = (TypeId, Selection);

/// The informers of one process; at most one per kind and selection.
#[derive(Clone)]
pub struct Hub {
    client: Client,
    crew: Crew,
    informers: Arc<Mutex<HashMap<Slot, Box<dyn Any + Send + Sync>>>>,
}

impl Hub {
    /// A hub whose informers run in `crew`.
    pub fn new(client: Client, crew: &Crew) -> Hub {
        Hub {
            client,
            crew: crew.clone(),
            informers: Arc::default(),
        }
    }

    /// The client the informers use.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The informer of a whole kind; started on first use.
    pub fn informer<K: Kind>(&self) -> Informer<K> {
        self.informer_of(Selection::default())
    }

    /// The informer of part of a kind; started on first use.
    pub fn informer_of<K: Kind>(&self, selection: Selection) -> Informer<K> {
        let mut informers = self.informers.lock();
        let slot = (TypeId::of::<K>(), selection.clone());
        if let Some(known) = informers.get(&slot).and_then(|any| any.downcast_ref()) {
            return Informer::clone(known);
        }
        let informer = Informer::<K>::start(&self.client, selection, &self.crew);
        informers.insert(slot, Box::new(informer.clone()));
        informer
    }
}

type IndexFn<K> = fn(&K) -> Vec<String>;

/// How to index an object, and which objects each text stands for.
type Index<K> = (IndexFn<K>, BTreeMap<String, BTreeSet<Key>>);

struct State<K> {
    /// Resource version up to which the watch has been seen.
    version: u64,
    objects: BTreeMap<Key, Arc<K>>,
    indexes: HashMap<&'static str, Index<K>>,
    subscribers: Vec<std::sync::Weak<Backlog<K>>>,
}

struct Backlog<K> {
    changes: Mutex<Pending<K>>,
    arrived: Notify,
    stop: Stop,
}

struct Pending<K> {
    order: VecDeque<Key>,
    changes: HashMap<Key, Change<K>>,
}

struct Shared<K> {
    state: RwLock<State<K>>,
    synced: watch::Sender<bool>,
    stop: Stop,
}

/// A cache of one collection. Cheap to clone.
pub struct Informer<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Informer<K> {
        Informer {
            shared: self.shared.clone(),
        }
    }
}

impl<K: Kind> Informer<K> {
    fn start(client: &Client, selection: Selection, crew: &Crew) -> Informer<K> {
        let state = State {
            version: 0,
            objects: BTreeMap::new(),
            indexes: HashMap::new(),
            subscribers: Vec::new(),
        };
        let shared = Arc::new(Shared {
            state: RwLock::new(state),
            synced: watch::Sender::new(false),
            stop: crew.stop(),
        });
        let informer = Informer { shared };
        let api = match &selection.namespace {
            Some(namespace) => client.namespaced::<K>(namespace),
            None => client.all::<K>(),
        };
        crew.spawn(
            format!("informer {}", K::KIND),
            informer.clone().run(api, selection),
        );
        informer
    }

    /// Waits until the first list is in the cache (or the process is stopping).
    pub async fn synced(&self) {
        let mut synced = self.shared.synced.subscribe();
        tokio::select! {
            _ = synced.wait_for(|synced| *synced) => {}
            () = self.shared.stop.raised() => {}
        }
    }

    /// Whether the first list is in the cache.
    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get_key(&Key::new(namespace, name))
    }

    /// One object by its key.
    pub fn get_key(&self, key: &Key) -> Option<Arc<K>> {
        self.shared.state.read().objects.get(key).cloned()
    }

    /// All objects, in order of namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.state.read().objects.values().cloned().collect()
    }

    /// All objects of a namespace.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        let state = self.shared.state.read();
        let from = state.objects.range(Key::new(namespace, "")..);
        let within = from.take_while(|(key, _)| key.namespace == namespace);
        within.map(|(_, object)| object.clone()).collect()
    }

    /// Number of objects.
    pub fn count(&self) -> usize {
        self.shared.state.read().objects.len()
    }

    /// Keeps an index from the texts `keys_of` finds in an object to the object; a name that
    /// exists already is left alone.
    pub fn add_index(&self, index: &'static str, keys_of: IndexFn<K>) {
        let mut guard = self.shared.state.write();
        let state = &mut *guard;
        if state.indexes.contains_key(index) {
            return;
        }
        let mut entries: BTreeMap<String, BTreeSet<Key>> = BTreeMap::new();
        for (key, object) in &state.objects {
            for text in keys_of(object) {
                entries.entry(text).or_default().insert(key.clone());
            }
        }
        state.indexes.insert(index, (keys_of, entries));
    }

    /// The objects an index has under `text`; none when there is no such index.
    pub fn by_index(&self, index: &str, text: &str) -> Vec<Arc<K>> {
        let state = self.shared.state.read();
        let keys = state
            .indexes
            .get(index)
            .and_then(|(_, entries)| entries.get(text));
        let found = keys
            .into_iter()
            .flatten()
            .filter_map(|key| state.objects.get(key));
        found.cloned().collect()
    }

    /// Puts the answer of a write of one's own into the cache, so that the next look sees it
    /// before the watch delivers it. Resource versions decide, so this can never bring back an
    /// older state: what the watch has seen already is ignored here, and what the watch delivers
    /// later of an older version is ignored there.
    pub fn absorb(&self, object: K) {
        let mut state = self.shared.state.write();
        if number_of(&object) > state.version {
            state.put_newer(object);
        }
    }

    /// All changes from now on, after one change for every object that exists now.
    pub fn subscribe(&self) -> Subscription<K> {
        let mut state = self.shared.state.write();
        let mut pending = Pending {
            order: VecDeque::new(),
            changes: HashMap::new(),
        };
        for (key, object) in &state.objects {
            pending.add(key, None, Some(object.clone()));
        }
        let backlog = Arc::new(Backlog {
            changes: Mutex::new(pending),
            arrived: Notify::new(),
            stop: self.shared.stop.clone(),
        });
        backlog.arrived.notify_one();
        state.subscribers.retain(|weak| weak.strong_count() > 0);
        state.subscribers.push(Arc::downgrade(&backlog));
        Subscription { backlog }
    }

    async fn run(self, api: Api<K>, selection: Selection) {
        let stop = self.shared.stop.clone();
        let mut backoff = watch_backoff();
        while !stop.is_raised() {
            let round = self.clone().list_and_watch(api.clone(), selection.clone());
            let outcome = tokio::select! {
                outcome = round => outcome,
                () = stop.raised() => return,
            };
            if outcome.is_ok() {
                backoff.reset();
            }
            if let Err(status) = outcome {
                let delay = backoff.next_delay();
                tracing::debug!(kind = K::KIND, error = %status, ?delay, "informer starts over");
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = stop.raised() => return,
                }
            }
        }
    }

    /// Lists, then watches until the resource version is too old (`Ok`) or the list fails.
    async fn list_and_watch(self, api: Api<K>, selection: Selection) -> Result<(), meta::Status> {
        let mut backoff = watch_backoff();
        let mut options = ListOptions {
            label_selector: selection.label_selector,
            field_selector: selection.field_selector,
            resource_version: Some("0".into()),
            ..ListOptions::default()
        };
        let list = api.list(&options).await?;
        let mut version = list.metadata.resource_version;
        self.replace(list.items, version.parse().unwrap_or(0));
        self.shared.synced.send_replace(true);
        loop {
            options.resource_version = Some(version.clone());
            let before = version.clone();
            let ended = self.watch_once(&api, &options, &mut version).await;
            if version != before {
                backoff.reset();
            }
            match ended {
                // A server that lets watches run to their time is well; one that ends them at
                // once is stopping.
                Ok(()) if version != before => {}
                Ok(()) => tokio::time::sleep(backoff.next_delay()).await,
                Err(status) if status.is_expired() => return Ok(()),
                Err(status) => {
                    let delay = backoff.next_delay();
                    tracing::debug!(kind = K::KIND, error = %status, ?delay, "watch starts over");
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }

    async fn watch_once(
        &self,
        api: &Api<K>,
        options: &ListOptions,
        version: &mut String,
    ) -> Result<(), meta::Status> {
        let mut watch = api.watch(options).await?;
        while let Some(event) = watch.next().await {
            match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    *version = version_of(&object);
                    let mut state = self.shared.state.write();
                    state.version = number_of(&object);
                    state.put_newer(object);
                }
                WatchEvent::Deleted(object) => {
                    *version = version_of(&object);
                    let mut state = self.shared.state.write();
                    state.version = number_of(&object);
                    state.remove_older(&object);
                }
                WatchEvent::Bookmark(newer) => {
                    self.shared.state.write().version = newer.parse().unwrap_or(0);
                    *version = newer;
                }
            }
        }
        Ok(())
    }

    fn replace(&self, items: Vec<K>, version: u64) {
        let mut state = self.shared.state.write();
        let fresh: BTreeMap<Key, K> = items.into_iter().map(|k| (Key::of(&k), k)).collect();
        let stale =
            |key: &Key, object: &K| !fresh.contains_key(key) && number_of(object) <= version;
        let known = state.objects.iter();
        let gone: Vec<Key> = known
            .filter(|(key, object)| stale(key, object))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            state.put(key, None);
        }
        for object in fresh.into_values() {
            state.put_newer(object);
        }
        state.version = version;
    }
}

fn watch_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(100), Duration::from_secs(10))
}

fn version_of<K: Kind>(object: &K) -> String {
    object
        .metadata()
        .resource_version
        .clone()
        .unwrap_or_default()
}

/// A resource version as a number, which it is in every store we know; 0 when it is not.
fn number_of<K: Kind>(object: &K) -> u64 {
    object
        .metadata()
        .resource_version
        .as_deref()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

impl<K: Kind> State<K> {
    fn put_newer(&mut self, object: K) {
        let key = Key::of(&object);
        let known = self
            .objects
            .get(&key)
            .map(|known| number_of(known.as_ref()));
        if known.is_none_or(|known| known < number_of(&object)) {
            self.put(key, Some(Arc::new(object)));
        }
    }

    fn remove_older(&mut self, object: &K) {
        let key = Key::of(object);
        let known = self
            .objects
            .get(&key)
            .map(|known| number_of(known.as_ref()));
        if known.is_none_or(|known| known <= number_of(object)) {
            self.put(key, None);
        }
    }

    fn put(&mut self, key: Key, new: Option<Arc<K>>) {
        let old = match &new {
            Some(object) => self.objects.insert(key.clone(), object.clone()),
            None => self.objects.remove(&key),
        };
        for (keys_of, entries) in self.indexes.values_mut() {
            for text in old.iter().flat_map(|object| keys_of(object)) {
                if let Some(keys) = entries.get_mut(&text) {
                    keys.remove(&key);
                    if keys.is_empty() {
                        entries.remove(&text);
                    }
                }
            }
            for text in new.iter().flat_map(|object| keys_of(object)) {
                entries.entry(text).or_default().insert(key.clone());
            }
        }
        for backlog in self.subscribers.iter().filter_map(std::sync::Weak::upgrade) {
            backlog.changes.lock().add(&key, old.clone(), new.clone());
            backlog.arrived.notify_one();
        }
    }
}

impl<K> Pending<K> {
    fn add(&mut self, key: &Key, old: Option<Arc<K>>, new: Option<Arc<K>>) {
        match self.changes.get_mut(key) {
            // Created and deleted unseen: a subscriber still hears that the key is gone.
            Some(known) => known.new = new,
            None if old.is_none() && new.is_none() => {}
            None => {
                self.order.push_back(key.clone());
                self.changes.insert(
                    key.clone(),
                    Change {
                        key: key.clone(),
                        old,
                        new,
                    },
                );
            }
        }
    }
}

/// A subscriber's view of the changes of one collection.
pub struct Subscription<K> {
    backlog: Arc<Backlog<K>>,
}

impl<K: Kind> Subscription<K> {
    /// The next change; `None` when the process is stopping. Safe to cancel.
    pub async fn next(&mut self) -> Option<Change<K>> {
        loop {
            if let Some(change) = self.try_next() {
                return Some(change);
            }
            tokio::select! {
                () = self.backlog.arrived.notified() => {}
                () = self.backlog.stop.raised() => return None,
            }
        }
    }

    /// The next change, if there is one now.
    pub fn try_next(&mut self) -> Option<Change<K>> {
        let mut pending = self.backlog.changes.lock();
        let key = pending.order.pop_front()?;
        pending.changes.remove(&key)
    }
}
