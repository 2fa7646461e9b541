//! The watch cache of one resource: all its objects in order, and the window of its newest changes.
//!
//! ```text
//! store ──one watch──▶ feed ──▶ map (newest state, clones are snapshots)
//!                          └──▶ ring (changes with the state before) ──cursors──▶ watches
//! ```
//! Lists and watches never touch the store. An older state is the newest one with the
//! ring's changes undone, so that pages of one list fit together without keeping copies.

mod change;
pub(crate) mod entry;
pub(crate) mod feed;
mod growth;
pub(crate) mod map;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use encryption::{Encryption, Seal};
use meta::Object;
use parking_lot::{Mutex, RwLock};

pub(crate) use change::{Change, frame};
pub(crate) use entry::{Entry, encode, encode_stored, with_revision};
pub(crate) use feed::Feed;
pub(crate) use growth::Follower;
use growth::Growth;
pub(crate) use map::Map;

use crate::measure::{Stored, Stores};

/// Greatest number of changes kept per resource.
const RING_CHANGES_MAX: usize = 8192;
/// Changes older than this are forgotten, as long as [`RING_CHANGES_MIN`] remain.
const RING_AGE_MAX: Duration = Duration::from_secs(300);
/// Greatest number of bytes kept for the changes of a resource.
const RING_BYTES_MAX: usize = 32 << 20;
/// Events of so many of the newest changes stay encoded; older ones have been sent.
const FRAMES_CHANGES: usize = 256;
/// Writes whose trees wait for their events.
const EXPECTED_MAX: usize = 256;
/// Changes that are kept whatever their age.
const RING_CHANGES_MIN: usize = 128;

/// What happened to an object, as watches name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventType {
    Added,
    Modified,
    Deleted,
}

impl EventType {
    /// The word on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
        }
    }
}

struct State {
    map: Map,
    ring: VecDeque<Arc<Change>>,
    /// What the changes of `ring` weigh together.
    bytes: usize,
    /// Number of the first change in `ring`, counted from the start.
    first: u64,
    /// Every change after this revision is in `ring`.
    oldest: i64,
    /// Revision of the newest change.
    revision: i64,
    /// Counts how often the cache had to start over.
    epoch: u64,
}

/// Is told of every object before the feed reports its revision as reached.
pub(crate) trait Observer: Send + Sync {
    /// A new or changed object; with its tree, where that is at hand.
    fn set(&self, entry: &Entry, tree: Option<&Object>);
    /// An object is gone.
    fn remove(&self, entry: &Entry);
}

/// The cache of one resource.
pub(crate) struct Cache {
    /// Storage prefix, such as `/registry/pods/`.
    pub(crate) prefix: String,
    /// Group and resource.
    named: (String, String),
    counted: Stored,
    strategy: Arc<dyn kinds::Strategy>,
    observer: Option<Arc<dyn Observer>>,
    vault: Option<Vault>,
    state: RwLock<State>,
    /// Tells watches that the ring has grown.
    grown: Growth,
    protobuf: Protobuf,
    /// What writers of this process have just encoded: its events need not be decoded.
    expected: Mutex<VecDeque<(Bytes, Arc<Object>)>>,
    /// The cache that took this one's place; whoever still holds this one reads from there.
    next: OnceLock<Arc<Cache>>,
}

/// Whether objects are kept in protobuf too.
#[derive(Default)]
struct Protobuf {
    /// Somebody listed in that form since the last look.
    used: AtomicBool,
    /// Some object may hold its message.
    held: AtomicBool,
}

/// Encrypts what is stored of one resource.
struct Vault {
    encryption: Arc<Encryption>,
    /// Such as `secrets` or `deployments.apps`.
    resource: String,
}

/// A state of the resource at one revision.
pub(crate) struct Snapshot {
    pub(crate) map: Map,
    pub(crate) revision: i64,
}

/// A place in the ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    next: u64,
    epoch: u64,
}

/// The revision asked for is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooOld {
    pub(crate) oldest: i64,
}

/// A watch fell behind the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lagged;

impl Cache {
    /// An empty cache, to be filled by a [`Feed`].
    pub(crate) fn new(
        prefix: String,
        strategy: Arc<dyn kinds::Strategy>,
        observer: Option<Arc<dyn Observer>>,
    ) -> Cache {
        Cache {
            prefix,
            named: Default::default(),
            counted: Stored::default(),
            strategy,
            observer,
            vault: None,
            state: RwLock::new(State {
                map: Map::default(),
                ring: VecDeque::new(),
                bytes: 0,
                first: 0,
                oldest: 0,
                revision: 0,
                epoch: 0,
            }),
            grown: Growth::default(),
            protobuf: Protobuf::default(),
            expected: Mutex::default(),
            next: OnceLock::new(),
        }
    }

    /// Objects are about to be listed in protobuf: their messages are kept for the next list.
    pub(crate) fn use_protobuf(&self) {
        self.protobuf.used.store(true, Ordering::Relaxed);
        self.protobuf.held.store(true, Ordering::Relaxed);
    }

    /// Forgets the messages if nobody listed in protobuf since the last call.
    pub(crate) fn forget_protobuf(&self) {
        let used = self.protobuf.used.swap(false, Ordering::Relaxed);
        if used || !self.protobuf.held.swap(false, Ordering::Relaxed) {
            return;
        }
        let map = self.state.read().map.clone();
        map.range("").for_each(|entry| entry.drop_protobuf());
    }

    /// Has the resource's objects encrypted by the rules in force, if there are any.
    pub(crate) fn sealed(self, encryption: Option<&Arc<Encryption>>, names: &meta::Names) -> Cache {
        let resource = match (names.group.as_str(), names.plural.as_str()) {
            // Both groups are stored as the core group's.
            ("events.k8s.io", "events") => "events".into(),
            _ => names.group_resource(),
        };
        let vault = encryption.map(|encryption| Vault {
            encryption: Arc::clone(encryption),
            resource,
        });
        let named = (names.group.to_string(), names.plural.to_string());
        Cache {
            vault,
            named,
            ..self
        }
    }

    /// Group and resource, as metrics name them.
    pub(crate) fn named(&self) -> (&str, &str) {
        (&self.named.0, &self.named.1)
    }

    /// A write was tried.
    pub(crate) fn count_write(&self, what: Stores, good: bool, took: Duration) {
        self.counted.count(what, self.named(), good, took);
    }

    /// What the store keeps of these bytes.
    pub(crate) fn seal(&self, key: &[u8], plain: Bytes) -> Result<Bytes, encryption::SealError> {
        match &self.vault {
            None => Ok(plain),
            Some(vault) => vault.encryption.seal(&vault.resource, key, plain),
        }
    }

    /// Whether an object would be encrypted otherwise if it were written now.
    pub(crate) fn is_stale(&self, entry: &Entry) -> bool {
        let vault = self.vault.as_ref();
        vault.is_some_and(|vault| vault.encryption.is_stale(&vault.resource, entry.seal))
    }

    /// Fetches what [`Cache::read_entry`] needs from afar.
    pub(crate) async fn warm<'a>(&self, stored: impl Iterator<Item = &'a [u8]> + Send) {
        let vault = self.vault.as_ref();
        let Some(vault) = vault.filter(|vault| vault.encryption.is_remote()) else {
            return;
        };
        for value in stored {
            vault.encryption.warm(&vault.resource, value).await;
        }
    }

    /// The cache that has today's objects: this one, or the newest of those that took its place.
    fn newest(&self) -> &Cache {
        let mut newest = self;
        while let Some(next) = newest.next.get() {
            newest = next;
        }
        newest
    }

    /// Hands over to a cache that reads the same objects otherwise; open watches end.
    fn hand_over(&self, next: Arc<Cache>) {
        if self.next.set(next).is_err() {
            tracing::error!(prefix = self.prefix, "a cache was replaced twice");
        }
        self.close();
    }

    /// Ends open watches.
    pub(crate) fn close(&self) {
        self.state.write().epoch += 1;
        self.grown.tell();
    }

    /// The storage key of an object.
    pub(crate) fn storage_key(&self, key: &str) -> Bytes {
        format!("{}{key}", self.prefix).into()
    }

    /// Announces a write of these very bytes, which say what the tree does.
    pub(crate) fn expect(&self, stored: &Bytes, tree: &Arc<Object>) {
        let mut expected = self.newest().expected.lock();
        if expected.len() >= EXPECTED_MAX {
            // Whatever became of it, its event can be decoded.
            expected.pop_front();
        }
        expected.push_back((stored.clone(), Arc::clone(tree)));
    }

    /// The tree of announced bytes; they are announced no longer.
    pub(crate) fn take_expected(&self, stored: &Bytes) -> Option<Arc<Object>> {
        let mut expected = self.newest().expected.lock();
        // Nearly always among the first: writes are applied about in the order they came.
        let at = expected.iter().position(|(own, _)| own == stored)?;
        expected.remove(at).map(|(_, tree)| tree)
    }

    /// Reads one stored object of this resource.
    pub(crate) fn read_entry(&self, kv: &store::KeyValue) -> Option<Arc<Entry>> {
        self.read_known(kv, None)
    }

    /// The same where the tree may be known.
    fn read_known(&self, kv: &store::KeyValue, tree: Option<&Object>) -> Option<Arc<Entry>> {
        let key = std::str::from_utf8(&kv.key).ok()?;
        let key = key.strip_prefix(self.prefix.as_str())?;
        let (value, seal) = match &self.vault {
            None => (kv.value.clone(), Seal::PLAIN),
            Some(vault) => {
                match vault
                    .encryption
                    .open(&vault.resource, &kv.key, kv.value.clone())
                {
                    Ok(opened) => (opened.plain, opened.seal),
                    Err(error) => {
                        tracing::error!(key, %error, "encrypted object left out of the cache");
                        return None;
                    }
                }
            }
        };
        match Entry::read(
            key,
            &value,
            tree,
            (kv.mod_revision, kv.lease),
            &*self.strategy,
        ) {
            Ok(mut entry) => {
                entry.seal = seal;
                Some(Arc::new(entry))
            }
            Err(error) => {
                tracing::error!(%error, "object left out of the cache");
                None
            }
        }
    }

    /// One object as the cache knows it.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.newest().state.read().map.get(key).cloned()
    }

    /// The newest state. `applied`: what the feed had reached before this call.
    pub(crate) fn snapshot(&self, applied: i64) -> Snapshot {
        let state = self.newest().state.read();
        Snapshot {
            map: state.map.clone(),
            revision: state.revision.max(applied),
        }
    }

    /// The state at a revision that was reached already.
    pub(crate) fn snapshot_at(&self, revision: i64) -> Result<Snapshot, TooOld> {
        let state = self.newest().state.read();
        if revision < state.oldest {
            return Err(TooOld {
                oldest: state.oldest,
            });
        }
        let mut map = state.map.clone();
        for change in state.ring.iter().rev() {
            if change.revision <= revision {
                break;
            }
            match (&change.before, &change.after) {
                (Some(before), _) => drop(map.insert(Arc::clone(before))),
                (None, Some(after)) => drop(map.remove(&after.key)),
                (None, None) => {}
            }
        }
        Ok(Snapshot { map, revision })
    }

    /// A cursor behind everything up to `revision`.
    pub(crate) fn cursor_after(&self, revision: i64) -> Result<Cursor, TooOld> {
        let state = self.state.read();
        if revision < state.oldest {
            return Err(TooOld {
                oldest: state.oldest,
            });
        }
        let seen = state
            .ring
            .partition_point(|change| change.revision <= revision);
        Ok(Cursor {
            next: state.first + seen as u64,
            epoch: state.epoch,
        })
    }

    /// The newest state, and the cursor behind it.
    pub(crate) fn snapshot_and_cursor(&self, applied: i64) -> (Snapshot, Cursor) {
        let state = self.state.read();
        let snapshot = Snapshot {
            map: state.map.clone(),
            revision: state.revision.max(applied),
        };
        let cursor = Cursor {
            next: state.first + state.ring.len() as u64,
            epoch: state.epoch,
        };
        (snapshot, cursor)
    }

    /// The next changes, `limit` at most; moves the cursor behind them. Without changes the
    /// cursor has seen everything up to the revision returned.
    pub(crate) fn changes(
        &self,
        cursor: &mut Cursor,
        limit: usize,
        applied: i64,
    ) -> Result<(Vec<Arc<Change>>, i64), Lagged> {
        let state = self.state.read();
        if cursor.epoch != state.epoch || cursor.next < state.first {
            return Err(Lagged);
        }
        let skip = usize::try_from(cursor.next - state.first).map_err(|_| Lagged)?;
        let changes: Vec<_> = state.ring.iter().skip(skip).take(limit).cloned().collect();
        cursor.next += changes.len() as u64;
        Ok((changes, state.revision.max(applied)))
    }

    /// Wakes whenever the ring has grown.
    pub(crate) fn growth(&self) -> Follower {
        self.grown.follow()
    }

    /// How many watches there are.
    pub(crate) fn watches(&self) -> usize {
        self.grown.followers()
    }

    /// How many objects there are.
    pub(crate) fn len(&self) -> usize {
        self.newest().state.read().map.len()
    }

    /// Starts over from what the store holds at `revision`; open watches end.
    fn load(&self, entries: Vec<Arc<Entry>>, revision: i64) {
        let mut map = Map::default();
        for entry in entries {
            map.insert(entry);
        }
        let mut state = self.state.write();
        if let Some(observer) = &self.observer {
            let gone = state
                .map
                .range("")
                .filter(|old| map.get(&old.key).is_none());
            gone.for_each(|old| observer.remove(old));
            map.range("").for_each(|entry| observer.set(entry, None));
        }
        state.map = map;
        state.first += state.ring.len() as u64;
        state.ring.clear();
        state.bytes = 0;
        state.oldest = revision;
        state.revision = revision;
        state.epoch += 1;
        drop(state);
        self.grown.tell();
    }

    /// Takes in the store's events, in order; none may be missing.
    fn apply(&self, events: &[&store::Event]) {
        self.counted.received(self.named(), events.len());
        let now = Instant::now();
        let read = |event: &store::Event| match event.kind {
            store::EventKind::Put => {
                let tree = self.take_expected(&event.kv.value);
                let entry = self.read_known(&event.kv, tree.as_deref());
                entry.map(|entry| (entry, tree))
            }
            store::EventKind::Delete => None,
        };
        let entries: Vec<_> = events.iter().map(|event| read(event)).collect();
        let mut forgotten = Vec::new();
        let mut state = self.state.write();
        for (event, after) in events.iter().zip(entries) {
            let key = std::str::from_utf8(&event.kv.key).unwrap_or_default();
            let key = key.strip_prefix(self.prefix.as_str()).unwrap_or(key);
            let before = match &after {
                Some((entry, _)) => state.map.insert(Arc::clone(entry)),
                None => state.map.remove(key),
            };
            if let Some(before) = &before {
                before.drop_protobuf();
            }
            state.revision = state.revision.max(event.kv.mod_revision);
            match (&self.observer, &before, &after) {
                (_, None, None) => continue,
                (Some(observer), _, Some((after, tree))) => observer.set(after, tree.as_deref()),
                (Some(observer), Some(before), None) => observer.remove(before),
                (None, _, _) => {}
            }
            let after = after.map(|(entry, _)| entry);
            let change = Change::new(event.kv.mod_revision, before, after, now);
            state.push(Arc::new(change));
        }
        state.trim(now, &mut forgotten);
        drop(state);
        self.grown.tell();
    }
}

impl State {
    fn push(&mut self, change: Arc<Change>) {
        self.bytes += change.weight();
        self.ring.push_back(change);
        let sent = self.ring.len().checked_sub(FRAMES_CHANGES + 1);
        if let Some(sent) = sent.and_then(|place| self.ring.get(place)) {
            sent.retire();
        }
    }

    /// Forgets changes beyond the limits. They are dropped by the caller, outside the lock.
    fn trim(&mut self, now: Instant, forgotten: &mut Vec<Arc<Change>>) {
        while let Some(first) = self.ring.front() {
            let old = now.saturating_duration_since(first.at) > RING_AGE_MAX;
            let much = self.bytes > RING_BYTES_MAX && self.ring.len() > RING_CHANGES_MIN;
            let many = self.ring.len() > RING_CHANGES_MAX || much;
            let goes = many || (old && self.ring.len() > RING_CHANGES_MIN);
            if !goes {
                break;
            }
            if let Some(first) = self.ring.pop_front() {
                self.oldest = first.revision;
                self.bytes -= first.weight();
                self.first += 1;
                forgotten.push(first);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::{Event, EventKind, KeyValue};

    struct Nothing;
    impl kinds::Strategy for Nothing {
        fn cells(&self, _: &serde_json::Value, _: jiff::Timestamp) -> kinds::Cells {
            Vec::new()
        }
    }

    fn event(kind: EventKind, key: &str, revision: i64) -> Event {
        let value = br#"{"kind":"A","apiVersion":"v1","metadata":{"name":"a"}}"#;
        let kv = KeyValue {
            key: format!("/registry/things/{key}").into(),
            value: Bytes::from_static(value),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: 0,
        };
        Event {
            kind,
            kv,
            prev_kv: None,
        }
    }

    fn keys(snapshot: &Snapshot) -> Vec<&str> {
        snapshot.map.range("").map(|entry| &*entry.key).collect()
    }

    fn cache() -> Cache {
        Cache::new("/registry/things/".into(), Arc::new(Nothing), None)
    }

    #[test]
    fn an_older_state_is_the_newest_with_changes_undone() {
        let cache = cache();
        cache.apply(&[
            &event(EventKind::Put, "a", 2),
            &event(EventKind::Put, "b", 3),
            &event(EventKind::Delete, "a", 4),
            &event(EventKind::Put, "a", 5),
            &event(EventKind::Put, "b", 6),
        ]);
        let at = |revision| cache.snapshot_at(revision).unwrap();
        assert_eq!(keys(&at(1)), [""; 0]);
        assert_eq!(keys(&at(2)), ["a"]);
        assert_eq!(keys(&at(3)), ["a", "b"]);
        assert_eq!(keys(&at(4)), ["b"]);
        assert_eq!(at(5).map.get("b").unwrap().revision, 3);
        assert_eq!(at(9).map.get("b").unwrap().revision, 6);
    }

    #[test]
    fn the_ring_forgets_and_says_so() {
        let cache = cache();
        let mut cursor = cache.cursor_after(0).unwrap();
        let mut last = 0;
        for revision in 2..=(RING_CHANGES_MAX as i64 + 10) {
            cache.apply(&[&event(EventKind::Put, "a", revision)]);
            last = revision;
        }
        let oldest = last - RING_CHANGES_MAX as i64;
        assert_eq!(cache.snapshot_at(oldest - 1).err(), Some(TooOld { oldest }));
        assert!(cache.snapshot_at(oldest).is_ok());
        assert_eq!(cache.changes(&mut cursor, 10, 0).err(), Some(Lagged));
        let mut cursor = cache.cursor_after(oldest).unwrap();
        let (changes, seen) = cache.changes(&mut cursor, 10, 0).unwrap();
        assert_eq!(
            (changes[0].revision, changes.len(), seen),
            (oldest + 1, 10, last)
        );
    }

    #[test]
    fn the_ring_weighs_its_changes_and_drops_what_was_sent() {
        let cache = cache();
        let mut put = event(EventKind::Put, "a", 2);
        let text = "x".repeat(RING_BYTES_MAX / 200);
        let tree = serde_json::json!({"kind": "A", "apiVersion": "v1", "metadata": {"name": "a"},
            "text": text});
        put.kv.value = encode(&tree).into();
        for revision in 2..=400 {
            put.kv.mod_revision = revision;
            cache.apply(&[&put]);
        }
        let state = cache.state.read();
        assert!(state.bytes <= RING_BYTES_MAX && state.ring.len() < 201);
        assert!(state.ring.len() > RING_CHANGES_MIN);
        let weights = state.ring.iter().map(|change| change.weight());
        assert_eq!(state.bytes, weights.sum::<usize>());
        // A late one gets what the others got.
        let change = &state.ring[0];
        let shared = change.frame(EventType::Modified);
        change.retire();
        assert_eq!(change.frame(EventType::Modified), shared);
        assert_ne!(change.frame(EventType::Modified).as_ptr(), shared.as_ptr());
    }

    #[derive(Default)]
    struct Trees(Mutex<Vec<bool>>);
    impl Observer for Trees {
        fn set(&self, _: &Entry, tree: Option<&Object>) {
            self.0.lock().push(tree.is_some());
        }
        fn remove(&self, _: &Entry) {}
    }

    #[test]
    fn an_announced_tree_is_used_once() {
        let trees = Arc::new(Trees::default());
        let observer: Arc<dyn Observer> = Arc::clone(&trees) as _;
        let cache = Cache::new(
            "/registry/things/".into(),
            Arc::new(Nothing),
            Some(observer),
        );
        let tree = serde_json::json!({"kind": "A", "apiVersion": "v1",
            "metadata": {"name": "a", "uid": "7", "labels": {"b": "c"}}});
        let tree = Arc::new(Object(tree));
        let stored: Bytes = encode_stored(&tree.0).into();
        cache.expect(&stored, &tree);
        let mut put = event(EventKind::Put, "a", 2);
        // The store keeps bytes of its own.
        put.kv.value = Bytes::copy_from_slice(&stored);
        cache.apply(&[&put]);
        let first = cache.get("a").unwrap();
        put.kv.mod_revision = 3;
        cache.apply(&[&put]);
        let second = cache.get("a").unwrap();
        assert_eq!(*trees.0.lock(), [true, false]);
        assert_eq!((&*first.uid, first.label("b")), ("7", Some("c")));
        assert_eq!((&first.uid, &first.labels), (&second.uid, &second.labels));
    }

    #[test]
    fn a_deletion_shows_what_was_with_the_new_version() {
        let cache = cache();
        let mut cursor = cache.cursor_after(0).unwrap();
        cache.apply(&[
            &event(EventKind::Put, "a", 2),
            &event(EventKind::Delete, "a", 7),
        ]);
        let (changes, _) = cache.changes(&mut cursor, 10, 0).unwrap();
        let frame = changes[1].frame(EventType::Deleted);
        let expect = concat!(
            r#"{"type":"DELETED","object":{"kind":"A","apiVersion":"v1","#,
            r#""metadata":{"resourceVersion":"7","name":"a"}}}"#,
            "\n"
        );
        assert_eq!(frame, expect);
    }
}
