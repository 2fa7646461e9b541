//! Tests of the store through its public face.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod crash;
mod full_disk;
mod leases;
mod model;
mod opening;
mod script;
mod watching;

use std::path::Path;
use std::sync::Arc;

use base::Crew;
use bytes::Bytes;
use store::{Config, KeyRange, Op, Range, Store, StoreError, Txn, TxnResult};

/// An open store with its crew.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) crew: Crew,
}

/// Small segments, and a checkpoint after each `changes` changes.
pub(crate) fn config(dir: &Path, changes: usize) -> Config {
    Config {
        dir: dir.to_owned(),
        segment_bytes: 0,
        checkpoint_changes: changes,
        ..Config::default()
    }
}

impl Opened {
    pub(crate) async fn at(config: Config) -> Opened {
        let crew = Crew::new();
        let store = store::open(config, &crew).await.unwrap();
        Opened { store, crew }
    }

    pub(crate) async fn close(self) {
        self.crew.stop().raise();
        drop(self.store);
        self.crew.finished().await.unwrap();
    }
}

pub(crate) async fn put(
    store: &dyn Store,
    key: &str,
    value: impl Into<Bytes>,
) -> Result<TxnResult, StoreError> {
    let put = Op::Put {
        key: key.to_owned().into(),
        value: value.into(),
        lease: 0,
        prev_kv: false,
    };
    let txn = Txn {
        success: vec![put],
        ..Txn::default()
    };
    store.txn(txn).await
}

pub(crate) async fn get(store: &dyn Store, key: &str) -> Option<Bytes> {
    let keys = KeyRange::One(key.to_owned().into());
    let result = store.range(Range::all(keys)).await.unwrap();
    result.kvs.into_iter().next().map(|kv| kv.value)
}
