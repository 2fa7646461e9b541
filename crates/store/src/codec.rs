//! Commands as bytes, for the log.

use bytes::{Buf, BufMut, Bytes};

use crate::api::{Compare, KeyRange, Op, Order, Range, Txn};

/// Deepest nesting of transactions; etcd's clients do not go beyond a few.
pub(crate) const TXN_DEPTH: usize = 16;

/// What changes the state. Applying the same commands in the same order gives
/// the same state.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Txn(Txn),
    Compact(i64),
    LeaseGrant { id: i64, ttl: i64 },
    LeaseRevoke(i64),
}

/// A record of the log that this version cannot read.
#[derive(Debug, thiserror::Error)]
#[error("a command in the log cannot be decoded")]
pub(crate) struct Malformed;

/// Appends `command`, preceded by its length.
pub(crate) fn encode(command: &Command, out: &mut Vec<u8>) {
    let start = out.len();
    out.put_u32_le(0);
    match command {
        Command::Txn(txn) => {
            out.put_u8(1);
            put_txn(out, txn);
        }
        Command::Compact(revision) => {
            out.put_u8(2);
            out.put_i64_le(*revision);
        }
        Command::LeaseGrant { id, ttl } => {
            out.put_u8(3);
            out.put_i64_le(*id);
            out.put_i64_le(*ttl);
        }
        Command::LeaseRevoke(id) => {
            out.put_u8(4);
            out.put_i64_le(*id);
        }
    }
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// About how many bytes a command has; seldom too few.
pub(crate) fn room(command: &Command) -> usize {
    const SMALL: usize = 256;
    let Command::Txn(txn) = command else {
        return SMALL;
    };
    let ops = txn.success.iter().chain(&txn.failure);
    let sizes = ops.map(|op| match op {
        Op::Put { key, value, .. } => key.len() + value.len() + SMALL,
        _ => SMALL,
    });
    SMALL * txn.compare.len() + sizes.sum::<usize>()
}

/// Reads back all commands of one record.
pub(crate) fn decode_all(mut record: Bytes) -> Result<Vec<Command>, Malformed> {
    let mut commands = Vec::new();
    while record.has_remaining() {
        let length = record.try_get_u32_le().map_err(|_| Malformed)? as usize;
        let mut one = take(&mut record, length)?;
        commands.push(command(&mut one)?);
        if one.has_remaining() {
            return Err(Malformed);
        }
    }
    Ok(commands)
}

fn command(from: &mut Bytes) -> Result<Command, Malformed> {
    Ok(match byte(from)? {
        1 => Command::Txn(get_txn(from, TXN_DEPTH)?),
        2 => Command::Compact(number(from)?),
        3 => Command::LeaseGrant {
            id: number(from)?,
            ttl: number(from)?,
        },
        4 => Command::LeaseRevoke(number(from)?),
        _ => return Err(Malformed),
    })
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

fn put_keys(out: &mut Vec<u8>, keys: &KeyRange) {
    match keys {
        KeyRange::One(key) => {
            out.put_u8(1);
            put_bytes(out, key);
        }
        KeyRange::Span(start, end) => {
            out.put_u8(2);
            put_bytes(out, start);
            put_bytes(out, end);
        }
        KeyRange::From(start) => {
            out.put_u8(3);
            put_bytes(out, start);
        }
    }
}

fn put_txn(out: &mut Vec<u8>, txn: &Txn) {
    out.put_u32_le(txn.compare.len() as u32);
    for compare in &txn.compare {
        put_compare(out, compare);
    }
    for branch in [&txn.success, &txn.failure] {
        out.put_u32_le(branch.len() as u32);
        for op in branch {
            put_op(out, op);
        }
    }
}

fn put_compare(out: &mut Vec<u8>, compare: &Compare) {
    let (tag, key, order) = match compare {
        Compare::ModRevision(key, order, _) => (1, key, order),
        Compare::CreateRevision(key, order, _) => (2, key, order),
        Compare::Version(key, order, _) => (3, key, order),
        Compare::Lease(key, order, _) => (4, key, order),
        Compare::Value(key, order, _) => (5, key, order),
    };
    out.put_u8(tag);
    put_bytes(out, key);
    out.put_u8(match order {
        Order::Equal => 0,
        Order::NotEqual => 1,
        Order::Less => 2,
        Order::Greater => 3,
    });
    match compare {
        Compare::ModRevision(_, _, operand)
        | Compare::CreateRevision(_, _, operand)
        | Compare::Version(_, _, operand)
        | Compare::Lease(_, _, operand) => out.put_i64_le(*operand),
        Compare::Value(_, _, operand) => put_bytes(out, operand),
    }
}

fn put_op(out: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Range(range) => {
            out.put_u8(1);
            put_keys(out, &range.keys);
            out.put_i64_le(range.revision);
            out.put_u64_le(range.limit as u64);
            out.put_u8(u8::from(range.keys_only) | u8::from(range.count_only) << 1);
        }
        Op::Put {
            key,
            value,
            lease,
            prev_kv,
        } => {
            out.put_u8(2);
            put_bytes(out, key);
            put_bytes(out, value);
            out.put_i64_le(*lease);
            out.put_u8(u8::from(*prev_kv));
        }
        Op::Delete { keys, prev_kv } => {
            out.put_u8(3);
            put_keys(out, keys);
            out.put_u8(u8::from(*prev_kv));
        }
        Op::Txn(txn) => {
            out.put_u8(4);
            put_txn(out, txn);
        }
    }
}

fn take(from: &mut Bytes, length: usize) -> Result<Bytes, Malformed> {
    if from.remaining() < length {
        return Err(Malformed);
    }
    Ok(from.split_to(length))
}

fn byte(from: &mut Bytes) -> Result<u8, Malformed> {
    from.try_get_u8().map_err(|_| Malformed)
}

fn number(from: &mut Bytes) -> Result<i64, Malformed> {
    from.try_get_i64_le().map_err(|_| Malformed)
}

fn length(from: &mut Bytes) -> Result<usize, Malformed> {
    from.try_get_u32_le()
        .map(|length| length as usize)
        .map_err(|_| Malformed)
}

/// Copied, so that one small value does not keep a whole record alive.
fn get_bytes(from: &mut Bytes) -> Result<Bytes, Malformed> {
    let length = length(from)?;
    take(from, length).map(|bytes| Bytes::copy_from_slice(&bytes))
}

fn get_keys(from: &mut Bytes) -> Result<KeyRange, Malformed> {
    Ok(match byte(from)? {
        1 => KeyRange::One(get_bytes(from)?),
        2 => KeyRange::Span(get_bytes(from)?, get_bytes(from)?),
        3 => KeyRange::From(get_bytes(from)?),
        _ => return Err(Malformed),
    })
}

fn get_txn(from: &mut Bytes, depth: usize) -> Result<Txn, Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    let compares = length(from)?;
    let compare = (0..compares)
        .map(|_| get_compare(from))
        .collect::<Result<_, _>>()?;
    let mut branch = || {
        let ops = length(from)?;
        (0..ops)
            .map(|_| get_op(from, depth))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok(Txn {
        compare,
        success: branch()?,
        failure: branch()?,
    })
}

fn get_compare(from: &mut Bytes) -> Result<Compare, Malformed> {
    let tag = byte(from)?;
    let key = get_bytes(from)?;
    let order = match byte(from)? {
        0 => Order::Equal,
        1 => Order::NotEqual,
        2 => Order::Less,
        3 => Order::Greater,
        _ => return Err(Malformed),
    };
    Ok(match tag {
        1 => Compare::ModRevision(key, order, number(from)?),
        2 => Compare::CreateRevision(key, order, number(from)?),
        3 => Compare::Version(key, order, number(from)?),
        4 => Compare::Lease(key, order, number(from)?),
        5 => Compare::Value(key, order, get_bytes(from)?),
        _ => return Err(Malformed),
    })
}

fn get_op(from: &mut Bytes, depth: usize) -> Result<Op, Malformed> {
    Ok(match byte(from)? {
        1 => {
            let keys = get_keys(from)?;
            let revision = number(from)?;
            let limit = number(from)? as usize;
            let flags = byte(from)?;
            Op::Range(Range {
                keys,
                revision,
                limit,
                keys_only: flags & 1 != 0,
                count_only: flags & 2 != 0,
            })
        }
        2 => Op::Put {
            key: get_bytes(from)?,
            value: get_bytes(from)?,
            lease: number(from)?,
            prev_kv: byte(from)? != 0,
        },
        3 => Op::Delete {
            keys: get_keys(from)?,
            prev_kv: byte(from)? != 0,
        },
        4 => Op::Txn(get_txn(from, depth)?),
        _ => return Err(Malformed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Command> {
        let key = Bytes::from_static(b"k");
        let inner = Txn {
            compare: vec![
                Compare::ModRevision(key.clone(), Order::Less, 7),
                Compare::CreateRevision(key.clone(), Order::Greater, 6),
                Compare::Version(key.clone(), Order::NotEqual, 5),
                Compare::Lease(key.clone(), Order::Equal, 4),
                Compare::Value(key.clone(), Order::Equal, Bytes::from_static(b"v")),
            ],
            success: vec![
                Op::Put {
                    key: key.clone(),
                    value: Bytes::from_static(b"v"),
                    lease: 3,
                    prev_kv: true,
                },
                Op::Delete {
                    keys: KeyRange::prefix("p"),
                    prev_kv: false,
                },
            ],
            failure: vec![Op::Range(Range {
                keys: KeyRange::From(key.clone()),
                revision: 2,
                limit: 9,
                keys_only: true,
                count_only: false,
            })],
        };
        let outer = Txn {
            failure: vec![Op::Txn(inner)],
            ..Txn::default()
        };
        vec![
            Command::Txn(outer),
            Command::Compact(4),
            Command::LeaseGrant { id: 7, ttl: 60 },
            Command::LeaseRevoke(7),
        ]
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut record = Vec::new();
        for command in sample() {
            encode(&command, &mut record);
        }
        let decoded = decode_all(record.into()).unwrap();
        assert_eq!(format!("{decoded:?}"), format!("{:?}", sample()));
    }

    #[test]
    fn a_cut_record_is_refused_and_never_panics() {
        let mut record = Vec::new();
        encode(&sample()[0], &mut record);
        for end in 1..record.len() {
            assert!(decode_all(Bytes::copy_from_slice(&record[..end])).is_err());
        }
    }
}
