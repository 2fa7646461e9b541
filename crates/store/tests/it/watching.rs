//! Watches under load: no gap, no double, whole revisions.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use store::{KeyRange, Op, Store, StoreError, Txn};

use super::{Opened, config, put};

/// Writes `revisions` transactions of three keys each.
async fn write(store: &dyn Store, revisions: i64) {
    for step in 0..revisions {
        let success = ["a", "b", "c"].map(|part| Op::Put {
            key: format!("{part}/{}", step % 50).into(),
            value: vec![b'x'; 600].into(),
            lease: 0,
            prev_kv: false,
        });
        let txn = Txn {
            success: success.into(),
            ..Txn::default()
        };
        store.txn(txn).await.unwrap();
    }
}

/// Reads until `last` and checks every revision from `first` on.
async fn follow(store: &dyn Store, prefix: &str, first: i64, last: i64, each: usize, slow: bool) {
    let keys = KeyRange::prefix(prefix.to_owned());
    let mut watch = store.watch(keys, first).await.unwrap();
    let mut seen: BTreeMap<i64, usize> = BTreeMap::new();
    let mut reached = first - 1;
    while reached < last {
        let batch = watch.next().await.unwrap().unwrap();
        for event in &batch.events {
            let revision = event.kv.mod_revision;
            assert!(revision > reached, "revision {revision} split or repeated");
            assert!(revision <= batch.revision);
            let is_first = event.kv.version == 1;
            assert_eq!(event.prev_kv.is_none(), is_first);
            if let Some(prev_kv) = &event.prev_kv {
                assert_eq!(prev_kv.version + 1, event.kv.version);
                assert_eq!(prev_kv.value.len(), 600);
            }
            *seen.entry(revision).or_default() += 1;
        }
        reached = batch.revision;
        if slow {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let wanted: BTreeMap<i64, usize> = (first..=last).map(|revision| (revision, each)).collect();
    assert!(
        seen == wanted,
        "{prefix}: {} of {}",
        seen.len(),
        wanted.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_see_everything_once() {
    const REVISIONS: i64 = 6_000;
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(config(dir.path(), 1_000)).await;
    let store = opened.store.as_ref();
    write(store, 2_000).await;
    let last = REVISIONS + 1;
    tokio::join!(
        write(store, REVISIONS - 2_000),
        follow(store, "", 2, last, 3, false),
        follow(store, "", 2_000, last, 3, true),
        follow(store, "a/", 2, last, 1, true),
        follow(store, "b/", 2_002, last, 1, false),
    );
    opened.close().await;
}

#[tokio::test]
async fn a_reader_slower_than_compaction_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(config(dir.path(), 100)).await;
    let store = opened.store.as_ref();
    let mut watch = store.watch(KeyRange::prefix(""), 0).await.unwrap();
    write(store, 3_000).await;
    store.compact(3_000).await.unwrap();
    let told = watch.next().await.unwrap();
    assert!(matches!(
        told,
        Err(StoreError::Compacted {
            compact_revision: 3_000
        })
    ));
    assert!(watch.next().await.is_none());
    drop(watch);
    opened.close().await;
}

#[tokio::test]
async fn a_resting_watch_reports_progress() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(config(dir.path(), 100)).await;
    let store = opened.store.as_ref();
    let keys = KeyRange::prefix("quiet/");
    let mut watch = store.watch(keys, 0).await.unwrap();
    put(store, "loud/1", "x").await.unwrap();
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!((batch.revision, batch.events.len()), (2, 0));
    opened.crew.stop().raise();
    assert!(matches!(watch.next().await, Some(Err(StoreError::Closed))));
}
