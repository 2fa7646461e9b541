//! Random histories against a model that keeps every state whole.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt;
use proptest::prelude::*;
use store::{Compare, EventKind, KeyRange, KeyValue, Op, OpResult, Order, Range, StoreError, Txn};

use super::{Opened, config};

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8, u8),
    /// Puts a key only if its modification revision is what the model says,
    /// or, when wrong on purpose, is refused.
    Swap(u8, u8, bool),
    Batch(Vec<(u8, u8)>),
    Range(u8, u8, u8, u8),
    Compact(u8),
    Watch(u8),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..12u8, any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        2 => (0..12u8, 0..4u8).prop_map(|(key, span)| Step::Delete(key, span)),
        3 => (0..12u8, any::<u8>(), any::<bool>()).prop_map(|(k, v, ok)| Step::Swap(k, v, ok)),
        2 => prop::collection::vec((0..12u8, any::<u8>()), 1..6).prop_map(Step::Batch),
        4 => (0..12u8, 0..12u8, any::<u8>(), 0..4u8).prop_map(|(a, b, r, l)| Step::Range(a, b, r, l)),
        1 => any::<u8>().prop_map(Step::Compact),
        2 => any::<u8>().prop_map(Step::Watch),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

/// Every state the store has had, and every change.
struct Model {
    states: Vec<BTreeMap<Bytes, KeyValue>>,
    changes: Vec<(EventKind, KeyValue, Option<KeyValue>)>,
    compacted: i64,
}

impl Model {
    fn revision(&self) -> i64 {
        self.states.len() as i64
    }

    fn newest(&self) -> &BTreeMap<Bytes, KeyValue> {
        self.states.last().unwrap()
    }

    fn put_all(&mut self, puts: &BTreeMap<Bytes, Bytes>) {
        let revision = self.revision() + 1;
        let mut state = self.newest().clone();
        for (key, value) in puts {
            let old = state.get(key).cloned();
            let kv = KeyValue {
                key: key.clone(),
                value: value.clone(),
                create_revision: old.as_ref().map_or(revision, |old| old.create_revision),
                mod_revision: revision,
                version: old.as_ref().map_or(1, |old| old.version + 1),
                lease: 0,
            };
            state.insert(key.clone(), kv.clone());
            self.changes.push((EventKind::Put, kv, old));
        }
        self.states.push(state);
    }

    fn delete(&mut self, keys: &KeyRange) -> i64 {
        let revision = self.revision() + 1;
        let mut state = self.newest().clone();
        let doomed: Vec<Bytes> = state
            .keys()
            .filter(|key| keys.contains(key))
            .cloned()
            .collect();
        for key in &doomed {
            let old = state.remove(key);
            let kv = KeyValue {
                key: key.clone(),
                value: Bytes::new(),
                create_revision: 0,
                mod_revision: revision,
                version: 0,
                lease: 0,
            };
            self.changes.push((EventKind::Delete, kv, old));
        }
        if !doomed.is_empty() {
            self.states.push(state);
        }
        doomed.len() as i64
    }
}

fn key(number: u8) -> Bytes {
    format!("key/{number:02}").into()
}

fn put_op(key: &Bytes, value: &Bytes) -> Op {
    Op::Put {
        key: key.clone(),
        value: value.clone(),
        lease: 0,
        prev_kv: true,
    }
}

async fn check(steps: Vec<Step>, checkpoint_changes: usize) {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), checkpoint_changes);
    let mut opened = Opened::at(config.clone()).await;
    let mut model = Model {
        states: vec![BTreeMap::new()],
        changes: Vec::new(),
        compacted: 0,
    };
    for step in steps {
        if matches!(step, Step::Reopen) {
            opened.close().await;
            opened = Opened::at(config.clone()).await;
        } else {
            take(&opened, &mut model, &step).await;
        }
        assert_eq!(opened.store.revision(), model.revision());
    }
    opened.close().await;
}

async fn take(opened: &Opened, model: &mut Model, step: &Step) {
    match step {
        Step::Put(number, value) => {
            batch(opened, model, &[(*number, *value)]).await;
        }
        Step::Batch(puts) => batch(opened, model, puts).await,
        Step::Swap(number, value, honest) => swap(opened, model, *number, *value, *honest).await,
        Step::Delete(number, span) => {
            let keys = KeyRange::Span(key(*number), key(number + span));
            let wanted: Vec<KeyValue> = model.newest().values().cloned().collect();
            let wanted = wanted
                .into_iter()
                .filter(|kv| keys.contains(&kv.key))
                .collect();
            let delete = Op::Delete {
                keys: keys.clone(),
                prev_kv: true,
            };
            let result = run(opened, Vec::new(), vec![delete]).await;
            let deleted = model.delete(&keys);
            assert_eq!(result, (true, vec![(deleted, wanted)]));
        }
        Step::Range(low, high, at, limit) => range(opened, model, (*low, *high), *at, *limit).await,
        Step::Compact(at) => {
            let revision = i64::from(*at) % (model.revision() + 3);
            let result = opened.store.compact(revision).await;
            if revision <= model.compacted {
                assert!(matches!(result, Err(StoreError::Compacted { .. })));
            } else if revision > model.revision() {
                assert!(matches!(result, Err(StoreError::FutureRevision { .. })));
            } else {
                result.unwrap();
                model.compacted = revision;
            }
        }
        Step::Watch(at) => watch(opened, model, 1 + i64::from(*at) % model.revision()).await,
        Step::Reopen => {}
    }
}

/// The outcome, and for each operation how many keys it met and which.
async fn run(
    opened: &Opened,
    compare: Vec<Compare>,
    success: Vec<Op>,
) -> (bool, Vec<(i64, Vec<KeyValue>)>) {
    let txn = Txn {
        compare,
        success,
        failure: Vec::new(),
    };
    let result = opened.store.txn(txn).await.unwrap();
    let met = |one: OpResult| match one {
        OpResult::Put { prev_kv } => (1, prev_kv.into_iter().collect()),
        OpResult::Delete { deleted, prev_kvs } => (deleted, prev_kvs),
        OpResult::Range(range) => (range.count, range.kvs),
        OpResult::Txn(_) => (0, Vec::new()),
    };
    (
        result.succeeded,
        result.results.into_iter().map(met).collect(),
    )
}

async fn batch(opened: &Opened, model: &mut Model, puts: &[(u8, u8)]) {
    let puts: BTreeMap<Bytes, Bytes> = puts
        .iter()
        .map(|(number, value)| (key(*number), vec![*value; 3].into()))
        .collect();
    let ops = puts.iter().map(|(key, value)| put_op(key, value)).collect();
    let wanted = puts
        .keys()
        .map(|key| (1, model.newest().get(key).cloned().into_iter().collect()))
        .collect();
    assert_eq!(run(opened, Vec::new(), ops).await, (true, wanted));
    model.put_all(&puts);
}

async fn swap(opened: &Opened, model: &mut Model, number: u8, value: u8, honest: bool) {
    let key = key(number);
    let value: Bytes = vec![value].into();
    let known = model.newest().get(&key).map_or(0, |kv| kv.mod_revision);
    let claimed = known + i64::from(!honest);
    let compare = vec![Compare::ModRevision(key.clone(), Order::Equal, claimed)];
    let (succeeded, _) = run(opened, compare, vec![put_op(&key, &value)]).await;
    assert_eq!(succeeded, honest);
    if honest {
        model.put_all(&BTreeMap::from([(key, value)]));
    }
}

async fn range(opened: &Opened, model: &Model, (low, high): (u8, u8), at: u8, limit: u8) {
    let keys = KeyRange::Span(key(low), key(high));
    let revision = i64::from(at) % (model.revision() + 2);
    let result = opened
        .store
        .range(Range {
            revision,
            limit: limit.into(),
            ..Range::all(keys.clone())
        })
        .await;
    if revision > model.revision() {
        assert!(matches!(result, Err(StoreError::FutureRevision { .. })));
        return;
    }
    if revision > 0 && revision < model.compacted {
        assert!(matches!(result, Err(StoreError::Compacted { .. })));
        return;
    }
    let read_at = if revision == 0 {
        model.revision()
    } else {
        revision
    };
    let state = &model.states[read_at as usize - 1];
    let mut wanted: Vec<KeyValue> = state.values().cloned().collect();
    wanted.retain(|kv| keys.contains(&kv.key));
    let result = result.unwrap();
    assert_eq!(result.count, wanted.len() as i64);
    if limit > 0 {
        wanted.truncate(limit.into());
    }
    assert_eq!(result.more, result.count > wanted.len() as i64);
    assert_eq!(result.kvs, wanted);
}

async fn watch(opened: &Opened, model: &Model, start: i64) {
    let keys = KeyRange::prefix("key/");
    let mut watch = opened.store.watch(keys, start).await.unwrap();
    let mut events = Vec::new();
    loop {
        match watch.next().await.unwrap() {
            Err(error) => {
                assert!(start < model.compacted, "{error}");
                return;
            }
            Ok(batch) => {
                events.extend(batch.events);
                if batch.revision >= model.revision() {
                    break;
                }
            }
        }
    }
    let seen: Vec<_> = events
        .iter()
        .map(|event| (event.kind, event.kv.clone()))
        .collect();
    let wanted: Vec<_> = model
        .changes
        .iter()
        .filter(|(_, kv, _)| kv.mod_revision >= start)
        .collect();
    let pairs: Vec<_> = wanted
        .iter()
        .map(|(kind, kv, _)| (*kind, kv.clone()))
        .collect();
    assert!(start >= model.compacted);
    assert_eq!(seen, pairs);
    for (event, (_, _, old)) in events.iter().zip(wanted) {
        // What compaction took may be missing, but nothing else may stand there.
        let is_known = event.kv.mod_revision > model.compacted;
        assert!(event.prev_kv == *old || (!is_known && event.prev_kv.is_none()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_store_agrees_with_the_model(steps in steps(), changes in 1..40usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(steps, changes));
    }
}
