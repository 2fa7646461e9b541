//! The embedded engine: the [`Store`] trait over sequencer, state and watches.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use async_trait::async_trait;
use base::Stop;
use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::mpsc;

use crate::api::{
    KeyRange, LeaseStatus, Range, RangeResult, Store, StoreError, Txn, TxnResult, WatchStream,
};
use crate::checkpoint::Progress;
use crate::codec::Command;
use crate::engine::random_id;
use crate::lease::{LeaseClock, TTL_MAX};
use crate::sequencer::{self, Job};
use crate::state::{Reply, State};
use crate::txn;
use crate::watch::{self, Watchers};

/// Pairs that are read between two looks at the state, so that a long list
/// holds up no writer.
const CHUNK: usize = 1_024;

/// What all threads and tasks of a store share.
pub(crate) struct Shared {
    pub(crate) state: RwLock<State>,
    /// The state's revision, readable without a lock.
    pub(crate) revision: AtomicI64,
    pub(crate) watchers: Watchers,
    pub(crate) leases: LeaseClock,
    pub(crate) checkpoints: Progress,
    pub(crate) closed: AtomicBool,
    /// Where its files are.
    pub(crate) dir: PathBuf,
    /// Held for as long as anything of the store lives.
    pub(crate) _lock: File,
    /// A folder that goes away with the store.
    pub(crate) _scratch: Option<Scratch>,
}

/// The folder of the log, below that of the store.
pub(crate) const LOG_DIR: &str = "log";

/// Bytes of the files in a folder; those that go away meanwhile count nothing.
fn files_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| entry.metadata().ok());
    let files = files.filter(std::fs::Metadata::is_file);
    files.map(|file| file.len()).sum()
}

/// A folder that is removed when dropped.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, path = %self.0.display(), "scratch folder not removed");
        }
    }
}

impl Shared {
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Refuses further requests and ends all watches.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.watchers.wake_all();
    }

    /// Reads the first chunk of a range; also returns what remains to be read:
    /// where, at which revision, and how many pairs.
    fn begin(&self, range: &Range) -> Result<(RangeResult, Option<Rest>), StoreError> {
        let (mut result, found, depths, main) = {
            let state = self.state.read();
            let main = state.readable(range.revision)?;
            let result = RangeResult {
                revision: state.revision(),
                count: state.index.count(&range.keys, main) as i64,
                ..RangeResult::default()
            };
            if range.count_only {
                return Ok((result, None));
            }
            let most = Some(range.limit).filter(|limit| *limit > 0);
            let most = most.unwrap_or(usize::MAX).min(CHUNK);
            let found = state.find(&range.keys, main, most, range.keys_only);
            (result, found, state.depths.clone(), main)
        };
        result.kvs = depths.fetch(found)?;
        let count = result.count as usize;
        let wanted = match range.limit {
            0 => count,
            limit => limit.min(count),
        };
        result.more = wanted < count;
        let rest = wanted.saturating_sub(result.kvs.len());
        let rest = result.kvs.last().filter(|_| rest > 0).map(|last| Rest {
            after: last.key.clone(),
            main,
            pairs: rest,
        });
        Ok((result, rest))
    }

    /// Reads the rest of a range, chunk by chunk, at the same revision.
    fn go_on(
        &self,
        range: &Range,
        mut rest: Rest,
        result: &mut RangeResult,
    ) -> Result<(), StoreError> {
        while rest.pairs > 0 {
            let (found, depths) = {
                let state = self.state.read();
                state.readable(rest.main)?;
                let keys = beyond(&range.keys, &rest.after);
                let most = rest.pairs.min(CHUNK);
                let found = state.find(&keys, rest.main, most, range.keys_only);
                (found, state.depths.clone())
            };
            let Some(last) = found.last() else {
                break;
            };
            rest.after = last.key().clone();
            rest.pairs -= found.len();
            result.kvs.extend(depths.fetch(found)?);
        }
        Ok(())
    }
}

/// What remains of a range.
struct Rest {
    after: Bytes,
    main: i64,
    pairs: usize,
}

/// The part of `keys` behind `last`.
fn beyond(keys: &KeyRange, last: &Bytes) -> KeyRange {
    let mut start = last.to_vec();
    start.push(0);
    match keys {
        KeyRange::One(_) => KeyRange::Span(start.clone().into(), start.into()),
        KeyRange::Span(_, end) => KeyRange::Span(start.into(), end.clone()),
        KeyRange::From(_) => KeyRange::From(start.into()),
    }
}

/// The handle behind [`crate::open`].
pub(crate) struct Embedded {
    pub(crate) shared: Arc<Shared>,
    pub(crate) queue: mpsc::Sender<Job>,
    pub(crate) request_bytes_max: usize,
    pub(crate) closing: Stop,
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.closing.raise();
    }
}

impl Embedded {
    async fn submit(&self, command: Command) -> Result<Reply, StoreError> {
        // Room for what the encoding adds to a request of the greatest size.
        let bytes_max = self.request_bytes_max + self.request_bytes_max / 2;
        sequencer::submit(&self.queue, command, bytes_max).await
    }

    fn check_open(&self) -> Result<(), StoreError> {
        match self.shared.is_closed() {
            true => Err(StoreError::Closed),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn range(&self, range: Range) -> Result<RangeResult, StoreError> {
        self.check_open()?;
        let (mut result, rest) = self.shared.begin(&range)?;
        let Some(rest) = rest else {
            return Ok(result);
        };
        let shared = self.shared.clone();
        let read = move || {
            shared.go_on(&range, rest, &mut result)?;
            Ok(result)
        };
        tokio::task::spawn_blocking(read)
            .await
            .map_err(|error| StoreError::Fatal(format!("range: {error}")))?
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResult, StoreError> {
        self.check_open()?;
        txn::check(&txn, self.request_bytes_max)?;
        if !txn::writes(&txn) {
            return self.shared.state.write().txn(&txn);
        }
        match self.submit(Command::Txn(txn::detached(txn))).await? {
            Reply::Txn(result) => Ok(result),
            Reply::Done => Err(StoreError::Fatal("txn: wrong reply".to_owned())),
        }
    }

    async fn watch(&self, keys: KeyRange, start_revision: i64) -> Result<WatchStream, StoreError> {
        self.check_open()?;
        Ok(watch::open(self.shared.clone(), keys, start_revision))
    }

    fn revision(&self) -> i64 {
        self.shared.revision.load(Ordering::Acquire)
    }

    fn request_progress(&self) {
        self.shared.watchers.wake_all();
    }

    fn size_bytes(&self) -> u64 {
        let own = files_bytes(&self.shared.dir);
        own + files_bytes(&self.shared.dir.join(LOG_DIR))
    }

    async fn compact(&self, revision: i64) -> Result<(), StoreError> {
        self.submit(Command::Compact(revision)).await.map(drop)
    }

    async fn lease_grant(&self, id: i64, ttl_seconds: i64) -> Result<i64, StoreError> {
        if ttl_seconds > TTL_MAX {
            return Err(StoreError::TooLarge {
                size: ttl_seconds as usize,
                limit: TTL_MAX as usize,
            });
        }
        let ttl = ttl_seconds.max(1);
        loop {
            let chosen = if id == 0 { random_id() } else { id };
            let command = Command::LeaseGrant { id: chosen, ttl };
            match self.submit(command).await {
                Err(StoreError::LeaseExists) if id == 0 => {}
                granted => return granted.map(|_| chosen),
            }
        }
    }

    async fn lease_revoke(&self, id: i64) -> Result<(), StoreError> {
        self.submit(Command::LeaseRevoke(id)).await.map(drop)
    }

    async fn lease_keep_alive(&self, id: i64) -> Result<i64, StoreError> {
        self.check_open()?;
        let kept = self.shared.leases.keep_alive(id);
        kept.ok_or(StoreError::LeaseNotFound)
    }

    async fn lease_status(&self, id: i64) -> Result<LeaseStatus, StoreError> {
        let state = self.shared.state.read();
        let lease = state.leases.get(&id).ok_or(StoreError::LeaseNotFound)?;
        Ok(LeaseStatus {
            id,
            ttl_seconds_left: self.shared.leases.seconds_left(id).unwrap_or(0),
            ttl_seconds_granted: lease.ttl,
            keys: lease.keys.iter().cloned().collect(),
        })
    }

    async fn leases(&self) -> Result<Vec<i64>, StoreError> {
        self.check_open()?;
        Ok(self.shared.state.read().leases.keys().copied().collect())
    }
}
