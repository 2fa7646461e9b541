//! Leases as time passes.

use std::time::{Duration, Instant};

use futures::StreamExt;
use store::{KeyRange, Op, Store, StoreError, Txn};

use super::{Opened, config};

async fn put_leased(store: &dyn Store, key: &'static str, lease: i64) {
    let put = Op::Put {
        key: key.into(),
        value: "v".into(),
        lease,
        prev_kv: false,
    };
    let success = vec![put];
    let txn = Txn {
        success,
        ..Txn::default()
    };
    store.txn(txn).await.unwrap();
}

#[tokio::test]
async fn keys_go_when_their_lease_expires() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(config(dir.path(), 10)).await;
    let store = &opened.store;
    let short = store.lease_grant(0, 1).await.unwrap();
    let long = store.lease_grant(0, 100).await.unwrap();
    put_leased(store.as_ref(), "short", short).await;
    put_leased(store.as_ref(), "long", long).await;
    let status = store.lease_status(long).await.unwrap();
    assert_eq!(
        (status.ttl_seconds_left, status.ttl_seconds_granted),
        (100, 100)
    );
    let began = Instant::now();
    let mut watch = store.watch(KeyRange::prefix(""), 0).await.unwrap();
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!(batch.events[0].kv.key, "short");
    assert!(began.elapsed() > Duration::from_millis(800), "too early");
    assert!(began.elapsed() < Duration::from_millis(1_500), "too late");
    assert!(matches!(
        store.lease_keep_alive(short).await,
        Err(StoreError::LeaseNotFound)
    ));
    assert_eq!(store.leases().await.unwrap(), [long]);
    drop(watch);
    opened.close().await;
}

#[tokio::test]
async fn a_lease_kept_alive_stays_and_expires_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(config(dir.path(), 10)).await;
    let store = &opened.store;
    store.lease_grant(5, 1).await.unwrap();
    put_leased(store.as_ref(), "kept", 5).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(store.lease_keep_alive(5).await.unwrap(), 1);
    }
    opened.close().await;
    let opened = Opened::at(config(dir.path(), 10)).await;
    let revision = opened.store.revision();
    let all = KeyRange::prefix("");
    let mut watch = opened.store.watch(all, revision + 1).await.unwrap();
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!(batch.events[0].kv.key, "kept");
    assert!(batch.events[0].prev_kv.is_some());
    drop(watch);
    opened.close().await;
}
