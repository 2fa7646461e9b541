//! The one watch of the store that feeds all caches.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use parking_lot::RwLock;
use store::{KeyRange, Range, Store, StoreError, WatchBatch, WatchStream};
use tokio::sync::{Mutex, watch};

use super::Cache;

/// Everything the API server keeps is below this key.
pub(crate) const ROOT: &str = "/registry/";
/// Pairs read at once while a cache is filled.
const LOAD_PAGE: usize = 1000;
/// How long to wait before the watch is opened again after a fault.
const REOPEN_AFTER: Duration = Duration::from_millis(200);

/// Keeps caches up to date, and knows how far they are.
pub(crate) struct Feed {
    store: Arc<dyn Store>,
    caches: RwLock<BTreeMap<String, Arc<Cache>>>,
    /// Every change up to this revision is in its cache.
    applied: watch::Sender<i64>,
    /// Held while changes are taken in, so that a cache can join between two batches.
    step: Mutex<()>,
}

impl Feed {
    /// A feed for caches that will be filled by [`Feed::start`].
    pub(crate) fn new(store: Arc<dyn Store>, caches: Vec<Arc<Cache>>) -> Feed {
        let named = caches
            .into_iter()
            .map(|cache| (cache.prefix.clone(), cache));
        Feed {
            store,
            caches: RwLock::new(named.collect()),
            applied: watch::Sender::new(0),
            step: Mutex::new(()),
        }
    }

    /// Fills all caches, then opens the watch that [`Feed::run`] follows.
    pub(crate) async fn start(&self) -> Result<WatchStream, StoreError> {
        let _step = self.step.lock().await;
        let caches: Vec<_> = self.caches.read().values().cloned().collect();
        let revision = self.store.revision();
        for cache in caches {
            self.fill(&cache, revision).await?;
        }
        self.applied.send_replace(revision);
        let stream = self.store.watch(KeyRange::prefix(ROOT), revision + 1);
        stream.await
    }

    /// Follows the store until told to stop.
    pub(crate) async fn run(self: Arc<Feed>, mut stream: WatchStream, stop: base::Stop) {
        loop {
            let next = tokio::select! {
                next = stream.next() => next,
                () = stop.raised() => return,
            };
            match next {
                Some(Ok(batch)) => self.take(&batch).await,
                other => {
                    if let Some(Err(error)) = other {
                        tracing::warn!(%error, "watch of the store broke off");
                    }
                    let Some(opened) = self.reopen(&stop).await else {
                        return;
                    };
                    stream = opened;
                }
            }
        }
    }

    /// Adds a cache while the feed runs, in the place of one that reads its objects otherwise.
    pub(crate) async fn replace(
        &self,
        old: Option<&Cache>,
        cache: Arc<Cache>,
    ) -> Result<(), StoreError> {
        let _step = self.step.lock().await;
        self.fill(&cache, self.applied()).await?;
        if let Some(old) = old {
            old.hand_over(Arc::clone(&cache));
        }
        self.caches.write().insert(cache.prefix.clone(), cache);
        Ok(())
    }

    /// Forgets a cache.
    pub(crate) fn remove(&self, prefix: &str) {
        self.caches.write().remove(prefix);
    }

    /// The revision up to which all caches are complete.
    pub(crate) fn applied(&self) -> i64 {
        *self.applied.borrow()
    }

    /// Waits until all caches have seen `revision`.
    pub(crate) async fn reached(&self, revision: i64) {
        if self.applied() >= revision {
            return;
        }
        let mut applied = self.applied.subscribe();
        // The sender lives as long as `self`.
        if applied
            .wait_for(|applied| *applied >= revision)
            .await
            .is_err()
        {
            tracing::debug!("feed is gone");
        }
    }

    /// Waits until the caches have everything that was written before this call.
    pub(crate) async fn fresh(&self) {
        self.reached(self.store.revision()).await;
    }

    async fn reopen(&self, stop: &base::Stop) -> Option<WatchStream> {
        loop {
            tokio::select! {
                () = tokio::time::sleep(REOPEN_AFTER) => {}
                () = stop.raised() => return None,
            }
            match self.start().await {
                Ok(stream) => return Some(stream),
                Err(error) => tracing::error!(%error, "caches cannot be filled"),
            }
        }
    }

    async fn take(&self, batch: &WatchBatch) {
        let _step = self.step.lock().await;
        let mut runs: Vec<(Arc<Cache>, Vec<&store::Event>)> = Vec::new();
        {
            let caches = self.caches.read();
            for event in &batch.events {
                let Some(cache) = owner(&caches, &event.kv.key) else {
                    continue;
                };
                match runs.iter_mut().find(|(own, _)| Arc::ptr_eq(own, cache)) {
                    Some((_, events)) => events.push(event),
                    None => runs.push((Arc::clone(cache), vec![event])),
                }
            }
        }
        for (cache, events) in runs {
            cache
                .warm(events.iter().map(|event| &event.kv.value[..]))
                .await;
            cache.apply(&events);
        }
        self.applied
            .send_modify(|applied| *applied = (*applied).max(batch.revision));
    }

    async fn fill(&self, cache: &Cache, revision: i64) -> Result<(), StoreError> {
        let mut entries = Vec::new();
        let mut start = Bytes::from(cache.prefix.clone());
        let end = match KeyRange::prefix(start.clone()) {
            KeyRange::Span(_, end) => end,
            _ => Bytes::new(),
        };
        loop {
            let page = self
                .store
                .range(Range {
                    keys: KeyRange::Span(start.clone(), end.clone()),
                    revision,
                    limit: LOAD_PAGE,
                    keys_only: false,
                    count_only: false,
                })
                .await?;
            cache.warm(page.kvs.iter().map(|kv| &kv.value[..])).await;
            entries.extend(page.kvs.iter().filter_map(|kv| cache.read_entry(kv)));
            match page.kvs.last() {
                Some(last) if page.more => start = [&last.key[..], b"\0"].concat().into(),
                _ => break,
            }
        }
        cache.load(entries, revision);
        Ok(())
    }
}

/// The cache whose prefix begins `key`; no prefix begins another.
fn owner<'a>(caches: &'a BTreeMap<String, Arc<Cache>>, key: &[u8]) -> Option<&'a Arc<Cache>> {
    let key = std::str::from_utf8(key).ok()?;
    let (prefix, cache) = caches
        .range::<str, _>((Bound::Unbounded, Bound::Included(key)))
        .next_back()?;
    key.starts_with(prefix.as_str()).then_some(cache)
}
