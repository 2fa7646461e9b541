//! Lets the store forget: every five minutes, what was old five minutes before,
//! as upstream's compactor does. Nobody can ask for it any more: the caches
//! keep no longer window, and lists continue from the caches.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use base::Stop;
use store::{Store, StoreError};

/// How long old revisions are kept, at least.
const WINDOW: Duration = Duration::from_secs(300);

/// Compacts until told to stop, and tells up to which revision. A store that rests is left alone.
pub(crate) async fn run(store: Arc<dyn Store>, told: Arc<AtomicI64>, stop: Stop) {
    let mut before = store.revision();
    let mut compacted = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(WINDOW) => {}
            () = stop.raised() => return,
        }
        if before > compacted {
            match store.compact(before).await {
                Ok(()) | Err(StoreError::Compacted { .. }) => {
                    compacted = before;
                    told.store(compacted, Ordering::Release);
                }
                Err(StoreError::Closed) => return,
                Err(error) => tracing::warn!(%error, revision = before, "store not compacted"),
            }
        }
        before = store.revision();
    }
}

#[cfg(test)]
mod tests {
    use store::{KeyRange, Op, Range, Txn};

    use super::*;

    #[tokio::test]
    async fn old_revisions_are_forgotten_and_new_ones_kept() {
        let crew = base::Crew::new();
        let store = store::memory(&crew).await.unwrap();
        let put = |value: &'static str| {
            let (key, value) = ("key".into(), value.into());
            let success = vec![Op::Put {
                key,
                value,
                lease: 0,
                prev_kv: false,
            }];
            store.txn(Txn {
                success,
                ..Txn::default()
            })
        };
        let first = put("one").await.unwrap().revision;
        let second = put("two").await.unwrap().revision;
        tokio::time::pause();
        let stop = Stop::new();
        let told = Arc::new(AtomicI64::new(0));
        let compactor = tokio::spawn(run(Arc::clone(&store), Arc::clone(&told), stop.clone()));
        let at = |revision| Range {
            revision,
            ..Range::all(KeyRange::One("key".into()))
        };
        for _ in 0..3 {
            tokio::time::sleep(WINDOW).await;
        }
        stop.raise();
        compactor.await.unwrap();
        tokio::time::resume();
        assert!((first..=second).contains(&told.load(Ordering::Acquire)));
        let forgotten = store.range(at(first)).await;
        assert!(
            matches!(forgotten, Err(StoreError::Compacted { .. })),
            "{forgotten:?}"
        );
        assert_eq!(store.range(at(second)).await.unwrap().kvs[0].value, "two");
        crew.stop().raise();
    }
}
