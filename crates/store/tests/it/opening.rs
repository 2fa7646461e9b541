//! Opening: who may, and what damage is forgiven.

use base::Crew;
use store::OpenError;

use super::{Opened, config, get, put};

#[tokio::test]
async fn a_second_opener_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(config(dir.path(), 10)).await;
    let crew = Crew::new();
    let refused = store::open(config(dir.path(), 10), &crew).await;
    let Err(error @ OpenError::InUse { .. }) = refused else {
        panic!("opened twice");
    };
    assert!(error.to_string().ends_with("is in use by another process"));
    opened.close().await;
    Opened::at(config(dir.path(), 10)).await.close().await;
}

// The only test of this binary with a scratch store, for it counts what is left.
#[tokio::test]
async fn a_scratch_store_leaves_nothing() {
    let crew = Crew::new();
    let store = store::memory(&crew).await.unwrap();
    put(store.as_ref(), "a", "1").await.unwrap();
    assert_eq!(get(store.as_ref(), "a").await.unwrap(), "1");
    crew.stop().raise();
    drop(store);
    crew.finished().await.unwrap();
    let prefix = format!("sampan-store-{}-", std::process::id());
    let left = std::fs::read_dir(std::env::temp_dir()).unwrap();
    let left = left.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with(&prefix)
    });
    assert_eq!(left.count(), 0);
}

#[tokio::test]
async fn requests_after_the_end_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(config(dir.path(), 10)).await;
    opened.crew.stop().raise();
    opened.crew.finished().await.unwrap();
    let refused = put(opened.store.as_ref(), "a", "1").await;
    assert!(matches!(refused, Err(store::StoreError::Closed)));
}

#[tokio::test]
async fn an_oversize_request_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(config(dir.path(), 10)).await;
    let store = opened.store.as_ref();
    let refused = put(store, "a", vec![0; 2 << 20]).await;
    assert!(matches!(refused, Err(store::StoreError::TooLarge { .. })));
    put(store, "a", vec![0; 1 << 20]).await.unwrap();
    opened.close().await;
}

/// The only segment of a store without checkpoints.
fn segment(dir: &std::path::Path) -> std::path::PathBuf {
    dir.join("log/0000000000000001.log")
}

#[tokio::test]
async fn a_missing_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::at(config(dir.path(), 1)).await;
    put(opened.store.as_ref(), "a", "1").await.unwrap();
    opened.close().await;
    std::fs::remove_file(segment(dir.path())).unwrap();
    let refused = store::open(config(dir.path(), 1), &Crew::new()).await;
    assert!(matches!(refused, Err(OpenError::Log { .. })));
}

#[tokio::test]
async fn a_damaged_checkpoint_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    Opened::at(config(dir.path(), 1)).await.close().await;
    std::fs::write(dir.path().join("checkpoint.redb"), vec![7; 65_536]).unwrap();
    let refused = store::open(config(dir.path(), 1), &Crew::new()).await;
    assert!(matches!(refused, Err(OpenError::Checkpoint { .. })));
}
