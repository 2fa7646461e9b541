//! Transactions: which are refused outright, and what an accepted one does.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::api::{
    Compare, KeyRange, KeyValue, Op, OpResult, Order, Range, RangeResult, StoreError, Txn,
    TxnResult,
};
use crate::codec::TXN_DEPTH;
use crate::index::Rev;
use crate::state::State;

/// Refuses what no state could make valid: a key written twice, a request too
/// large or nested too deeply.
pub(crate) fn check(txn: &Txn, bytes_max: usize) -> Result<(), StoreError> {
    let size = size_of(txn, TXN_DEPTH)?;
    if size > bytes_max {
        return Err(StoreError::TooLarge {
            size,
            limit: bytes_max,
        });
    }
    written(&txn.success)?;
    written(&txn.failure)?;
    Ok(())
}

/// Whether any branch could change something.
pub(crate) fn writes(txn: &Txn) -> bool {
    let ops = txn.success.iter().chain(&txn.failure);
    ops.into_iter().any(|op| match op {
        Op::Range(_) => false,
        Op::Put { .. } | Op::Delete { .. } => true,
        Op::Txn(txn) => writes(txn),
    })
}

/// A copy that shares no buffer with the caller's, which may be much larger
/// than the slices taken from it.
pub(crate) fn detached(txn: Txn) -> Txn {
    let compare = txn.compare;
    let branch = |ops: Vec<Op>| {
        let op = |op| match op {
            Op::Put {
                key,
                value,
                lease,
                prev_kv,
            } => Op::Put {
                key: Bytes::copy_from_slice(&key),
                value: Bytes::copy_from_slice(&value),
                lease,
                prev_kv,
            },
            Op::Txn(txn) => Op::Txn(detached(txn)),
            other => other,
        };
        ops.into_iter().map(op).collect()
    };
    Txn {
        compare,
        success: branch(txn.success),
        failure: branch(txn.failure),
    }
}

fn size_of(txn: &Txn, depth: usize) -> Result<usize, StoreError> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(StoreError::TooLarge {
            size: TXN_DEPTH + 1,
            limit: TXN_DEPTH,
        });
    };
    let keys = |keys: &KeyRange| match keys {
        KeyRange::One(key) | KeyRange::From(key) => key.len(),
        KeyRange::Span(start, end) => start.len() + end.len(),
    };
    let mut size = 0;
    for compare in &txn.compare {
        size += match compare {
            Compare::Value(key, _, value) => key.len() + value.len(),
            Compare::ModRevision(key, ..)
            | Compare::CreateRevision(key, ..)
            | Compare::Version(key, ..)
            | Compare::Lease(key, ..) => key.len() + 8,
        };
    }
    for op in txn.success.iter().chain(&txn.failure) {
        size += match op {
            Op::Range(range) => keys(&range.keys),
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete { keys: deleted, .. } => keys(deleted),
            Op::Txn(txn) => size_of(txn, depth)?,
        };
    }
    Ok(size)
}

/// Keys that a branch may put, and ranges that it may delete.
type Written<'a> = (BTreeSet<&'a Bytes>, Vec<&'a KeyRange>);

/// Fails when a branch could put a key twice, or put and delete it. The two
/// branches of a nested transaction exclude each other, so they may share keys.
fn written(ops: &[Op]) -> Result<Written<'_>, StoreError> {
    let mut puts = BTreeSet::new();
    let mut deletes: Vec<&KeyRange> = Vec::new();
    let touches = |deletes: &[&KeyRange], key: &Bytes| deletes.iter().any(|d| d.contains(key));
    deletes.extend(ops.iter().filter_map(|op| match op {
        Op::Delete { keys, .. } => Some(keys),
        _ => None,
    }));
    for op in ops {
        let Op::Txn(txn) = op else { continue };
        let (first, first_deletes) = written(&txn.success)?;
        let (second, second_deletes) = written(&txn.failure)?;
        let mut nested = first;
        nested.extend(second);
        for key in nested {
            if touches(&deletes, key) || !puts.insert(key) {
                return Err(StoreError::DuplicateKey);
            }
        }
        deletes.extend(first_deletes);
        deletes.extend(second_deletes);
    }
    for op in ops {
        let Op::Put { key, .. } = op else { continue };
        if touches(&deletes, key) || !puts.insert(key) {
            return Err(StoreError::DuplicateKey);
        }
    }
    Ok((puts, deletes))
}

/// A running transaction: its revision, and how many changes it has made.
struct Run {
    main: i64,
    changes: u32,
    /// Which branch each transaction takes, outermost first, in order of execution.
    path: std::vec::IntoIter<bool>,
}

impl State {
    /// Decides and executes `txn`. Fails without having changed anything,
    /// unless the checkpoint cannot be read ([`StoreError::Fatal`]).
    pub(crate) fn txn(&mut self, txn: &Txn) -> Result<TxnResult, StoreError> {
        let mut path = Vec::new();
        // Every condition is judged before the first change, nested ones too.
        self.decide(txn, &mut path)?;
        self.admit(txn, &mut path.clone().into_iter())?;
        let mut run = Run {
            main: self.revision() + 1,
            changes: 0,
            path: path.into_iter(),
        };
        let mut result = self.execute(txn, &mut run)?;
        self.finish(run.main, run.changes);
        set_revision(&mut result, self.revision());
        Ok(result)
    }

    fn decide(&self, txn: &Txn, path: &mut Vec<bool>) -> Result<(), StoreError> {
        let mut holds = true;
        for compare in &txn.compare {
            holds = holds && self.holds(compare)?;
        }
        path.push(holds);
        for op in branch(txn, holds) {
            if let Op::Txn(nested) = op {
                self.decide(nested, path)?;
            }
        }
        Ok(())
    }

    fn holds(&self, compare: &Compare) -> Result<bool, StoreError> {
        let (key, order) = match compare {
            Compare::ModRevision(key, order, _)
            | Compare::CreateRevision(key, order, _)
            | Compare::Version(key, order, _)
            | Compare::Lease(key, order, _)
            | Compare::Value(key, order, _) => (key, *order),
        };
        let found = self.index.newest(key);
        let number = |field: i64, operand: &i64| relates(order, field.cmp(operand));
        let version = found.map(|(_, version)| version);
        Ok(match compare {
            Compare::ModRevision(_, _, to) => number(version.map_or(0, |v| v.rev.main), to),
            Compare::CreateRevision(_, _, to) => number(version.map_or(0, |v| v.create), to),
            Compare::Version(_, _, to) => number(version.map_or(0, |v| v.version), to),
            Compare::Lease(_, _, to) => number(version.map_or(0, |v| v.lease), to),
            Compare::Value(_, _, to) => match found {
                // An absent value relates to nothing, not even by inequality.
                None => false,
                Some((key, version)) => relates(order, self.pair(key, version)?.value.cmp(to)),
            },
        })
    }

    /// Refuses what the state does not allow, on the path that will be taken.
    fn admit(&self, txn: &Txn, path: &mut std::vec::IntoIter<bool>) -> Result<(), StoreError> {
        let holds = path.next().unwrap_or(false);
        for op in branch(txn, holds) {
            match op {
                Op::Range(range) => {
                    self.readable(range.revision)?;
                }
                Op::Put { lease, .. } if *lease != 0 && !self.leases.contains_key(lease) => {
                    return Err(StoreError::LeaseNotFound);
                }
                Op::Put { .. } | Op::Delete { .. } => {}
                Op::Txn(nested) => self.admit(nested, path)?,
            }
        }
        Ok(())
    }

    fn execute(&mut self, txn: &Txn, run: &mut Run) -> Result<TxnResult, StoreError> {
        let succeeded = run.path.next().unwrap_or(false);
        let mut results = Vec::with_capacity(branch(txn, succeeded).len());
        for op in branch(txn, succeeded) {
            results.push(match op {
                Op::Range(range) => OpResult::Range(self.range_within(range, run)?),
                Op::Put {
                    key,
                    value,
                    lease,
                    prev_kv,
                } => {
                    let old = self.write(run.step(), key, Some((value, *lease)))?;
                    let prev_kv = old.filter(|_| *prev_kv);
                    OpResult::Put { prev_kv }
                }
                Op::Delete { keys, prev_kv } => self.delete(keys, *prev_kv, run)?,
                Op::Txn(nested) => OpResult::Txn(self.execute(nested, run)?),
            });
        }
        Ok(TxnResult {
            revision: 0,
            succeeded,
            results,
        })
    }

    /// A range inside a transaction sees what the transaction did before it.
    fn range_within(&self, range: &Range, run: &Run) -> Result<RangeResult, StoreError> {
        let now = run.main - i64::from(run.changes == 0);
        let main = if range.revision > 0 {
            range.revision
        } else {
            now
        };
        let mut result = self.range(range, main)?;
        result.revision = now;
        Ok(result)
    }

    fn delete(
        &mut self,
        keys: &KeyRange,
        prev_kv: bool,
        run: &mut Run,
    ) -> Result<OpResult, StoreError> {
        let doomed: Vec<Bytes> = self
            .index
            .walk(keys, run.main)
            .map(|(key, _)| key.clone())
            .collect();
        let mut prev_kvs: Vec<KeyValue> = Vec::new();
        for key in &doomed {
            let old = self.write(run.step(), key, None)?;
            prev_kvs.extend(old.filter(|_| prev_kv));
        }
        Ok(OpResult::Delete {
            deleted: doomed.len() as i64,
            prev_kvs,
        })
    }
}

impl Run {
    fn step(&mut self) -> Rev {
        let sub = self.changes;
        self.changes += 1;
        Rev {
            main: self.main,
            sub,
        }
    }
}

fn branch(txn: &Txn, succeeded: bool) -> &[Op] {
    if succeeded {
        &txn.success
    } else {
        &txn.failure
    }
}

fn relates(order: Order, found: std::cmp::Ordering) -> bool {
    match order {
        Order::Equal => found.is_eq(),
        Order::NotEqual => found.is_ne(),
        Order::Less => found.is_lt(),
        Order::Greater => found.is_gt(),
    }
}

fn set_revision(result: &mut TxnResult, revision: i64) {
    result.revision = revision;
    for nested in &mut result.results {
        if let OpResult::Txn(nested) = nested {
            set_revision(nested, revision);
        }
    }
}
