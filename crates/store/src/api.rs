//! The store's vocabulary: requests, answers and the [`Store`] trait, all in
//! etcd's meaning.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

/// One version of one key (etcd `mvccpb.KeyValue`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    /// Store revision at which the key's current life began.
    pub create_revision: i64,
    /// Store revision of this version.
    pub mod_revision: i64,
    /// Number of versions in the key's current life, from 1.
    pub version: i64,
    /// Lease the key is attached to; 0 for none.
    pub lease: i64,
}

/// A half-open range of keys, in etcd's encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRange {
    /// Exactly this key.
    One(Bytes),
    /// All keys with `start <= key < end`.
    Span(Bytes, Bytes),
    /// All keys `>= start`.
    From(Bytes),
}

impl KeyRange {
    /// All keys that start with `prefix`; the empty prefix means every key.
    pub fn prefix(prefix: impl Into<Bytes>) -> KeyRange {
        let prefix = prefix.into();
        let mut end = prefix.to_vec();
        while let Some(last) = end.pop() {
            if last < 0xff {
                end.push(last + 1);
                return KeyRange::Span(prefix, end.into());
            }
        }
        KeyRange::From(prefix)
    }

    /// Whether `key` lies within.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::One(one) => one == key,
            KeyRange::Span(start, end) => start.as_ref() <= key && key < end.as_ref(),
            KeyRange::From(start) => start.as_ref() <= key,
        }
    }
}

/// etcd `RangeRequest`.
#[derive(Clone, Debug)]
pub struct Range {
    pub keys: KeyRange,
    /// Revision to read at; 0 means the newest.
    pub revision: i64,
    /// Greatest number of pairs to return; 0 means all.
    pub limit: usize,
    pub keys_only: bool,
    pub count_only: bool,
}

impl Range {
    /// Everything in `keys`, at the newest revision.
    pub fn all(keys: KeyRange) -> Range {
        Range {
            keys,
            revision: 0,
            limit: 0,
            keys_only: false,
            count_only: false,
        }
    }
}

/// etcd `RangeResponse`. Pairs come in key order.
#[derive(Clone, Debug, Default)]
pub struct RangeResult {
    /// Store revision when the range was served.
    pub revision: i64,
    pub kvs: Vec<KeyValue>,
    /// Whether `limit` cut the result.
    pub more: bool,
    /// Number of keys in the range, ignoring `limit`.
    pub count: i64,
}

/// One condition of a transaction (etcd `Compare`).
#[derive(Clone, Debug)]
pub enum Compare {
    /// `mod_revision(key) <op> revision`; 0 stands for a key that does not exist.
    ModRevision(Bytes, Order, i64),
    CreateRevision(Bytes, Order, i64),
    Version(Bytes, Order, i64),
    Lease(Bytes, Order, i64),
    Value(Bytes, Order, Bytes),
}

/// How a comparison relates its two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Equal,
    NotEqual,
    Less,
    Greater,
}

/// One operation of a transaction (etcd `RequestOp`).
#[derive(Clone, Debug)]
pub enum Op {
    Range(Range),
    Put {
        key: Bytes,
        value: Bytes,
        lease: i64,
        prev_kv: bool,
    },
    Delete {
        keys: KeyRange,
        prev_kv: bool,
    },
    Txn(Txn),
}

/// etcd `TxnRequest`: if all conditions hold then `success`, else `failure`.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    pub compare: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

/// etcd `TxnResponse`.
#[derive(Clone, Debug)]
pub struct TxnResult {
    /// Store revision after the transaction.
    pub revision: i64,
    pub succeeded: bool,
    pub results: Vec<OpResult>,
}

/// etcd `ResponseOp`.
#[derive(Clone, Debug)]
pub enum OpResult {
    Range(RangeResult),
    Put {
        prev_kv: Option<KeyValue>,
    },
    Delete {
        deleted: i64,
        prev_kvs: Vec<KeyValue>,
    },
    Txn(TxnResult),
}

/// One change. For a deletion `kv` has only the key and the deletion's `mod_revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    pub kv: KeyValue,
    /// The version before, when it exists and is not compacted.
    pub prev_kv: Option<KeyValue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// What a watch delivers. Events of one revision are never split over two batches.
#[derive(Clone, Debug)]
pub struct WatchBatch {
    /// Store revision up to which this watch has seen everything in its range.
    pub revision: i64,
    /// In revision order; empty for a progress report.
    pub events: Vec<Arc<Event>>,
}

/// An open watch; dropping it cancels it.
pub type WatchStream = futures::stream::BoxStream<'static, Result<WatchBatch, StoreError>>;

/// A lease's remaining and granted time to live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    pub id: i64,
    pub ttl_seconds_left: i64,
    pub ttl_seconds_granted: i64,
    pub keys: Vec<Bytes>,
}

/// What the store can refuse.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    #[error("required revision has been compacted (compact revision {compact_revision})")]
    Compacted { compact_revision: i64 },
    #[error("required revision is a future revision (current revision {revision})")]
    FutureRevision { revision: i64 },
    #[error("requested lease not found")]
    LeaseNotFound,
    #[error("lease already exists")]
    LeaseExists,
    #[error("duplicate key given in txn request")]
    DuplicateKey,
    #[error("request is too large ({size} bytes, limit {limit})")]
    TooLarge { size: usize, limit: usize },
    #[error("database space exceeded")]
    NoSpace,
    #[error("watcher fell behind and was cancelled")]
    WatcherLagged,
    #[error("store is shut down")]
    Closed,
    #[error("store failed: {0}")]
    Fatal(String),
}

/// The seam between those who keep objects and whatever keeps bytes: the
/// embedded engine, the engine under Raft, or a real etcd.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    async fn range(&self, range: Range) -> Result<RangeResult, StoreError>;
    /// Durable when it returns.
    async fn txn(&self, txn: Txn) -> Result<TxnResult, StoreError>;
    /// Delivers every change in `keys` from `start_revision` on (0: from now),
    /// with `prev_kv` filled. A compacted start is an error on the stream's first item.
    async fn watch(&self, keys: KeyRange, start_revision: i64) -> Result<WatchStream, StoreError>;
    /// The newest revision; a new store starts at 1.
    fn revision(&self) -> i64;
    /// Asks every open watch to report, as soon as it can, the revision up to
    /// which it has seen everything (etcd `WatchProgressRequest`). Without it
    /// a watch whose keys rest reports a fraction of a second after others moved.
    fn request_progress(&self) {}
    /// Bytes that its files have, as far as they can be looked at.
    fn size_bytes(&self) -> u64;
    async fn compact(&self, revision: i64) -> Result<(), StoreError>;
    /// Grants a lease; `id` 0 lets the store choose. Returns the id.
    async fn lease_grant(&self, id: i64, ttl_seconds: i64) -> Result<i64, StoreError>;
    async fn lease_revoke(&self, id: i64) -> Result<(), StoreError>;
    /// Returns the time to live that was granted, in seconds.
    async fn lease_keep_alive(&self, id: i64) -> Result<i64, StoreError>;
    async fn lease_status(&self, id: i64) -> Result<LeaseStatus, StoreError>;
    async fn leases(&self) -> Result<Vec<i64>, StoreError>;
}
