//! The only writers of the store: one object at a time, each compared with the version it replaces,
//! and what must come and go with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use meta::{Object, Reason, Status};
use store::{
    Compare, KeyRange, KeyValue, Op, OpResult, Order, Range, Store, StoreError, Txn, TxnResult,
};
use tokio::sync::Mutex;

use crate::cache::{Cache, encode_stored, with_revision};
use crate::measure::Stores;

/// An object as just written.
pub(crate) struct Written {
    pub(crate) revision: i64,
    /// With its resourceVersion.
    pub(crate) json: Bytes,
}

/// How a write ended.
pub(crate) enum Outcome {
    Written(Written),
    /// Another version is there now, or none.
    Lost(Option<KeyValue>),
}

/// What is done in the same transaction as a write, or not at all.
#[derive(Default)]
pub(crate) struct Beside {
    compare: Vec<Compare>,
    ops: Vec<Op>,
}

impl Beside {
    /// Puts an object that must not be there yet.
    pub(crate) fn put(&mut self, key: Bytes, value: Bytes) {
        let absent = Compare::ModRevision(key.clone(), Order::Equal, 0);
        self.compare.push(absent);
        self.ops.push(Op::Put {
            key,
            value,
            lease: 0,
            prev_kv: false,
        });
    }

    /// Removes an object if it is there.
    pub(crate) fn remove(&mut self, key: Bytes) {
        self.ops.push(Op::Delete {
            keys: KeyRange::One(key),
            prev_kv: false,
        });
    }
}

/// Puts an object whose version now is `expected`; 0: there is none.
pub(crate) async fn put(
    store: &dyn Store,
    cache: &Cache,
    key: &str,
    expected: i64,
    (tree, lease): (&Arc<Object>, i64),
    beside: Beside,
) -> Result<Outcome, Status> {
    let key = cache.storage_key(key);
    let value = Bytes::from(encode_stored(&tree.0));
    let sealed = cache.seal(&key, value.clone());
    let sealed = sealed.map_err(Status::internal)?;
    cache.expect(&sealed, tree);
    let op = Op::Put {
        key: key.clone(),
        value: sealed.clone(),
        lease,
        prev_kv: false,
    };
    let what = match expected {
        0 => Stores::Create,
        _ => Stores::Update,
    };
    let result = guarded(store, key, expected, op, beside);
    let result = measured(what, cache, result).await;
    if !result.as_ref().is_ok_and(|result| result.succeeded) {
        drop(cache.take_expected(&sealed));
    }
    let result = result?;
    if !result.succeeded {
        return Ok(Outcome::Lost(found(result)));
    }
    let revision = result.revision;
    let json = with_revision(&value, revision).unwrap_or(value);
    Ok(Outcome::Written(Written { revision, json }))
}

/// Removes an object whose version now is `expected`.
pub(crate) async fn remove(
    store: &dyn Store,
    cache: &Cache,
    key: &str,
    expected: i64,
    beside: Beside,
) -> Result<Outcome, Status> {
    let key = cache.storage_key(key);
    let op = Op::Delete {
        keys: KeyRange::One(key.clone()),
        prev_kv: false,
    };
    let result = guarded(store, key, expected, op, beside);
    let result = measured(Stores::Delete, cache, result).await?;
    if !result.succeeded {
        return Ok(Outcome::Lost(found(result)));
    }
    Ok(Outcome::Written(Written {
        revision: result.revision,
        json: Bytes::new(),
    }))
}

/// Counts what the store is asked to do.
async fn measured(
    what: Stores,
    cache: &Cache,
    work: impl Future<Output = Result<TxnResult, Status>>,
) -> Result<TxnResult, Status> {
    let begun = Instant::now();
    let result = work.await;
    cache.count_write(what, result.is_ok(), begun.elapsed());
    result
}

async fn guarded(
    store: &dyn Store,
    key: Bytes,
    expected: i64,
    op: Op,
    beside: Beside,
) -> Result<TxnResult, Status> {
    let mut compare = vec![Compare::ModRevision(key.clone(), Order::Equal, expected)];
    compare.extend(beside.compare);
    let mut success = vec![op];
    success.extend(beside.ops);
    let txn = Txn {
        compare,
        success,
        failure: vec![Op::Range(Range::all(KeyRange::One(key)))],
    };
    store.txn(txn).await.map_err(|error| failed(&error))
}

fn found(result: TxnResult) -> Option<KeyValue> {
    match result.results.into_iter().next() {
        Some(OpResult::Range(range)) => range.kvs.into_iter().next(),
        _ => None,
    }
}

/// What a client is told when the store refuses.
pub(crate) fn failed(error: &StoreError) -> Status {
    match error {
        StoreError::TooLarge { .. } => Status::new(
            Reason::RequestEntityTooLarge,
            format!("etcdserver: {error}"),
        ),
        StoreError::Closed => {
            Status::new(Reason::ServiceUnavailable, "the server is shutting down")
        }
        error => Status::internal(error),
    }
}

/// Leases for objects that expire; one lease serves many, as each would cost a write.
pub(crate) struct EventLeases {
    ttl: Duration,
    current: Mutex<Option<Current>>,
}

struct Current {
    id: i64,
    since: Instant,
    uses: usize,
}

impl EventLeases {
    /// Objects on one lease expire within this time of each other.
    const SHARED_FOR: Duration = Duration::from_secs(60);
    /// Greatest number of objects on one lease.
    const USES_MAX: usize = 1000;

    pub(crate) fn new(ttl: Duration) -> EventLeases {
        EventLeases {
            ttl,
            current: Mutex::new(None),
        }
    }

    /// A lease that lives at least for the time to live.
    pub(crate) async fn get(&self, store: &Arc<dyn Store>) -> Result<i64, Status> {
        let mut current = self.current.lock().await;
        if let Some(lease) = current.as_mut()
            && lease.since.elapsed() < EventLeases::SHARED_FOR
            && lease.uses < EventLeases::USES_MAX
        {
            lease.uses += 1;
            return Ok(lease.id);
        }
        let seconds = (self.ttl + EventLeases::SHARED_FOR).as_secs();
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let granted = store.lease_grant(0, seconds).await;
        let id = granted.map_err(|error| failed(&error))?;
        *current = Some(Current {
            id,
            since: Instant::now(),
            uses: 1,
        });
        Ok(id)
    }
}
