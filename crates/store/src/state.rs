//! The state that the commands of the log build up: index, recent versions
//! not yet in the checkpoint, leases, and the ring of recent events.
//!
//! ```text
//!   revision   1 ........ checkpoint ........ frozen ........ active ... newest
//!   values        in redb (View)         being written      in memory
//!   events                         [ ring: the newest, for live watches ]
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::api::{Event, EventKind, KeyRange, KeyValue, Range, RangeResult, StoreError};
use crate::codec::Command;
use crate::engine::{Standing, View};
use crate::index::{Index, Rev, Version};

/// Most events, and most bytes of values, kept for live watches.
const RING_EVENTS: usize = 4_096;
const RING_BYTES: usize = 4 << 20;

/// What a version costs in memory beyond its key and value.
const VERSION_BYTES: usize = 256;

/// A version that the checkpoint does not have yet, in the shape watches want.
#[derive(Clone, Debug)]
pub(crate) struct Recent {
    pub(crate) rev: Rev,
    pub(crate) event: Arc<Event>,
}

/// A lease and the keys attached to it.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    pub(crate) ttl: i64,
    pub(crate) keys: BTreeSet<Bytes>,
}

/// Recent events in order; everything from `start` on is complete.
#[derive(Debug)]
pub(crate) struct Ring {
    events: VecDeque<Recent>,
    bytes: usize,
    start: i64,
}

/// How a command was answered.
#[derive(Debug)]
pub(crate) enum Reply {
    Txn(crate::api::TxnResult),
    Done,
}

/// Where the values of a walk are to be found, without holding any lock.
#[derive(Clone)]
pub(crate) struct Depths {
    pub(crate) frozen: Arc<Vec<Recent>>,
    pub(crate) view: Arc<View>,
}

/// One pair found by a walk; its value may still have to be fetched.
pub(crate) struct Found {
    key: Bytes,
    version: Version,
    value: Option<Bytes>,
}

/// See the module.
pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) standing: Standing,
    pub(crate) active: Vec<Recent>,
    pub(crate) active_bytes: usize,
    pub(crate) depths: Depths,
    /// Compacted versions that the checkpoint still has.
    pub(crate) dropped: Vec<Rev>,
    pub(crate) leases: BTreeMap<i64, Lease>,
    pub(crate) lease_changes: Vec<(i64, Option<i64>)>,
    pub(crate) ring: Ring,
}

impl State {
    /// The state of a checkpoint.
    pub(crate) fn load(
        standing: Standing,
        view: View,
        leases: Vec<(i64, i64)>,
    ) -> Result<State, StoreError> {
        let mut state = State {
            index: Index::default(),
            standing,
            active: Vec::new(),
            active_bytes: 0,
            depths: Depths {
                frozen: Arc::default(),
                view: Arc::new(view),
            },
            dropped: Vec::new(),
            leases: BTreeMap::new(),
            lease_changes: Vec::new(),
            ring: Ring {
                events: VecDeque::new(),
                bytes: 0,
                start: standing.revision + 1,
            },
        };
        for (id, ttl) in leases {
            let keys = BTreeSet::new();
            state.leases.insert(id, Lease { ttl, keys });
        }
        let view = state.depths.view.clone();
        view.scan(Rev { main: 0, sub: 0 }, |_, version, key, _| {
            state.enter(&Bytes::copy_from_slice(key), version);
            true
        })?;
        Ok(state)
    }

    /// Applies one command of the log.
    pub(crate) fn apply(&mut self, command: &Command) -> Result<Reply, StoreError> {
        match command {
            Command::Txn(txn) => self.txn(txn).map(Reply::Txn),
            Command::Compact(revision) => self.compact(*revision),
            Command::LeaseGrant { id, ttl } => self.lease_grant(*id, *ttl),
            Command::LeaseRevoke(id) => self.lease_revoke(*id),
        }
    }

    pub(crate) fn revision(&self) -> i64 {
        self.standing.revision
    }

    /// The revision to read at for a request that names `revision`.
    pub(crate) fn readable(&self, revision: i64) -> Result<i64, StoreError> {
        let Standing {
            revision: newest,
            compact_revision,
            ..
        } = self.standing;
        match revision {
            ..=0 => Ok(newest),
            asked if asked > newest => Err(StoreError::FutureRevision { revision: newest }),
            asked if asked < compact_revision => Err(StoreError::Compacted { compact_revision }),
            asked => Ok(asked),
        }
    }

    /// Serves a whole range at once, at revision `main`.
    pub(crate) fn range(&self, range: &Range, main: i64) -> Result<RangeResult, StoreError> {
        let count = self.index.count(&range.keys, main);
        let mut result = RangeResult {
            revision: self.revision(),
            count: count as i64,
            ..RangeResult::default()
        };
        if !range.count_only {
            let most = Some(range.limit).filter(|limit| *limit > 0);
            let found = self.find(
                &range.keys,
                main,
                most.unwrap_or(usize::MAX),
                range.keys_only,
            );
            result.more = found.len() < count;
            result.kvs = self.depths.fetch(found)?;
        }
        Ok(result)
    }

    /// The first `most` pairs of `keys` at revision `main`.
    pub(crate) fn find(
        &self,
        keys: &KeyRange,
        main: i64,
        most: usize,
        keys_only: bool,
    ) -> Vec<Found> {
        self.index
            .walk(keys, main)
            .take(most)
            .map(|(key, version)| Found {
                key: key.clone(),
                version: *version,
                value: if keys_only {
                    Some(Bytes::new())
                } else {
                    value_in(&self.active, version.rev)
                },
            })
            .collect()
    }

    /// A version with its value.
    pub(crate) fn pair(&self, key: &Bytes, version: &Version) -> Result<KeyValue, StoreError> {
        self.depths.pair(self.found(key, version))
    }

    /// A version with its value as far as it is active; the rest is in the depths.
    pub(crate) fn found(&self, key: &Bytes, version: &Version) -> Found {
        Found {
            key: key.clone(),
            version: *version,
            value: value_in(&self.active, version.rev),
        }
    }

    /// Writes a version of `key`: a put with its value, or a deletion.
    pub(crate) fn write(
        &mut self,
        rev: Rev,
        key: &Bytes,
        put: Option<(&Bytes, i64)>,
    ) -> Result<Option<KeyValue>, StoreError> {
        let old = self.index.newest(key).map(|(key, old)| (key.clone(), *old));
        let prev_kv = match &old {
            Some((key, old)) => Some(self.pair(key, old)?),
            None => None,
        };
        let (create, count) = old.map_or((rev.main, 0), |(_, old)| (old.create, old.version));
        let version = match put {
            Some((_, lease)) => Version {
                rev,
                create,
                version: count + 1,
                lease,
            },
            None => Version {
                rev,
                create: 0,
                version: 0,
                lease: 0,
            },
        };
        let key = self.enter(key, version);
        let value = put.map(|(value, _)| value.clone()).unwrap_or_default();
        let kind = if put.is_some() {
            EventKind::Put
        } else {
            EventKind::Delete
        };
        self.active_bytes += key.len() + value.len() + VERSION_BYTES;
        let event = Arc::new(Event {
            kind,
            kv: pair_of(key, version, value),
            prev_kv: prev_kv.clone(),
        });
        self.active.push(Recent { rev, event });
        Ok(prev_kv)
    }

    /// Ends a command whose changes, if any, bear revision `main`.
    pub(crate) fn finish(&mut self, main: i64, changes: u32) {
        if changes > 0 {
            self.standing.revision = main;
            let new = self.active.len() - changes as usize;
            for recent in &self.active[new..] {
                self.ring.push(recent.clone());
            }
        }
    }

    fn enter(&mut self, key: &Bytes, version: Version) -> Bytes {
        let old = self.index.newest(key).map_or(0, |(_, old)| old.lease);
        let key = self.index.push(key, version);
        if old != version.lease {
            if let Some(lease) = self.leases.get_mut(&old) {
                lease.keys.remove(&key);
            }
            if let Some(lease) = self.leases.get_mut(&version.lease) {
                lease.keys.insert(key.clone());
            }
        }
        key
    }

    fn compact(&mut self, revision: i64) -> Result<Reply, StoreError> {
        let Standing {
            revision: newest,
            compact_revision,
            ..
        } = self.standing;
        if revision <= compact_revision {
            return Err(StoreError::Compacted { compact_revision });
        }
        if revision > newest {
            return Err(StoreError::FutureRevision { revision: newest });
        }
        self.standing.compact_revision = revision;
        self.dropped.extend(self.index.compact(revision));
        Ok(Reply::Done)
    }

    fn lease_grant(&mut self, id: i64, ttl: i64) -> Result<Reply, StoreError> {
        if self.leases.contains_key(&id) {
            return Err(StoreError::LeaseExists);
        }
        let keys = BTreeSet::new();
        self.leases.insert(id, Lease { ttl, keys });
        self.lease_changes.push((id, Some(ttl)));
        Ok(Reply::Done)
    }

    fn lease_revoke(&mut self, id: i64) -> Result<Reply, StoreError> {
        let lease = self.leases.remove(&id).ok_or(StoreError::LeaseNotFound)?;
        self.lease_changes.push((id, None));
        let main = self.revision() + 1;
        let mut sub = 0;
        for key in &lease.keys {
            self.write(Rev { main, sub }, key, None)?;
            sub += 1;
        }
        self.finish(main, sub);
        Ok(Reply::Done)
    }
}

impl Depths {
    /// Completes pairs whose value was not in memory.
    pub(crate) fn fetch(&self, found: Vec<Found>) -> Result<Vec<KeyValue>, StoreError> {
        found.into_iter().map(|found| self.pair(found)).collect()
    }

    pub(crate) fn pair(&self, found: Found) -> Result<KeyValue, StoreError> {
        let rev = found.version.rev;
        let value = match found.value.or_else(|| value_in(&self.frozen, rev)) {
            Some(value) => value,
            None => self.view.value(rev)?,
        };
        Ok(pair_of(found.key, found.version, value))
    }
}

impl Found {
    pub(crate) fn key(&self) -> &Bytes {
        &self.key
    }
}

impl Ring {
    /// The first revision from which on every event is here.
    pub(crate) fn start(&self) -> i64 {
        self.start
    }

    /// All events of revision `from` and later; `from` is not below the start.
    pub(crate) fn since(&self, from: i64) -> impl Iterator<Item = &Recent> {
        let skip = self.events.partition_point(|recent| recent.rev.main < from);
        self.events.range(skip..)
    }

    fn push(&mut self, recent: Recent) {
        self.bytes += weight(&recent.event);
        self.events.push_back(recent);
        while self.events.len() > RING_EVENTS || self.bytes > RING_BYTES {
            let Some(oldest) = self.events.pop_front() else {
                break;
            };
            self.bytes -= weight(&oldest.event);
            // The revision's other events may still be here: they no longer count.
            self.start = oldest.rev.main + 1;
        }
    }
}

fn weight(event: &Event) -> usize {
    let old = event.prev_kv.as_ref().map_or(0, |prev| prev.value.len());
    event.kv.value.len() + old + VERSION_BYTES
}

fn pair_of(key: Bytes, version: Version, value: Bytes) -> KeyValue {
    KeyValue {
        key,
        value,
        create_revision: version.create,
        mod_revision: version.rev.main,
        version: version.version,
        lease: version.lease,
    }
}

/// The value of version `rev`, when `recent` reaches back to it.
fn value_in(recent: &[Recent], rev: Rev) -> Option<Bytes> {
    let at = recent
        .binary_search_by_key(&rev, |recent| recent.rev)
        .ok()?;
    Some(recent[at].event.kv.value.clone())
}
