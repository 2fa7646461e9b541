//! Operators: arithmetic that notices overflow, equality across types, order.

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Outcome, Spec, fault, lazy, no_overload};
use crate::types::ListKind;
use crate::value::{Key, Value};

const ORDERED: &[&str] = &[
    "bool bool -> bool",
    "int int -> bool",
    "int double -> bool",
    "int uint -> bool",
    "uint uint -> bool",
    "uint double -> bool",
    "uint int -> bool",
    "double double -> bool",
    "double int -> bool",
    "double uint -> bool",
    "string string -> bool",
    "bytes bytes -> bool",
    "timestamp timestamp -> bool",
    "duration duration -> bool",
];
const NUMBERS: &[&str] = &[
    "double double -> double",
    "int int -> int",
    "uint uint -> uint",
];

pub(super) const TABLE: &[Spec] = &[
    Spec {
        name: "_?_:_",
        call: lazy,
        overloads: &["bool A A -> A"],
    },
    Spec {
        name: "_&&_",
        call: lazy,
        overloads: &["bool bool -> bool"],
    },
    Spec {
        name: "_||_",
        call: lazy,
        overloads: &["bool bool -> bool"],
    },
    Spec {
        name: "!_",
        call: not,
        overloads: &["bool -> bool"],
    },
    Spec {
        name: "@not_strictly_false",
        call: lazy,
        overloads: &["bool -> bool"],
    },
    Spec {
        name: "_==_",
        call: equals,
        overloads: &["A A -> bool"],
    },
    Spec {
        name: "_!=_",
        call: differs,
        overloads: &["A A -> bool"],
    },
    Spec {
        name: "_<_",
        call: |args| order(args, Ordering::is_lt),
        overloads: ORDERED,
    },
    Spec {
        name: "_<=_",
        call: |args| order(args, Ordering::is_le),
        overloads: ORDERED,
    },
    Spec {
        name: "_>_",
        call: |args| order(args, Ordering::is_gt),
        overloads: ORDERED,
    },
    Spec {
        name: "_>=_",
        call: |args| order(args, Ordering::is_ge),
        overloads: ORDERED,
    },
    Spec {
        name: "_+_",
        call: add,
        overloads: &[
            "bytes bytes -> bytes",
            "double double -> double",
            "duration duration -> duration",
            "duration timestamp -> timestamp",
            "timestamp duration -> timestamp",
            "int int -> int",
            "list<A> list<A> -> list<A>",
            "string string -> string",
            "uint uint -> uint",
        ],
    },
    Spec {
        name: "_-_",
        call: subtract,
        overloads: &[
            "double double -> double",
            "duration duration -> duration",
            "int int -> int",
            "timestamp duration -> timestamp",
            "timestamp timestamp -> duration",
            "uint uint -> uint",
        ],
    },
    Spec {
        name: "_*_",
        call: multiply,
        overloads: NUMBERS,
    },
    Spec {
        name: "_/_",
        call: divide,
        overloads: NUMBERS,
    },
    Spec {
        name: "_%_",
        call: modulo,
        overloads: &["int int -> int", "uint uint -> uint"],
    },
    Spec {
        name: "-_",
        call: negate,
        overloads: &["double -> double", "int -> int"],
    },
    Spec {
        name: "_[_]",
        call: lazy,
        overloads: &[
            "list<A> int -> A",
            "map<A,B> A -> B",
            "optional<list<A>> int -> optional<A>",
            "optional<map<A,B>> A -> optional<B>",
        ],
    },
    Spec {
        name: "_[?_]",
        call: lazy,
        overloads: &[
            "list<A> int -> optional<A>",
            "map<A,B> A -> optional<B>",
            "optional<list<A>> int -> optional<A>",
            "optional<map<A,B>> A -> optional<B>",
        ],
    },
    Spec {
        name: "@in",
        call: contained,
        overloads: &["A list<A> -> bool", "A map<A,B> -> bool"],
    },
    Spec {
        name: "cel.@mapInsert",
        call: lazy,
        overloads: &["map<A,B> A B -> map<A,B>", "map<A,B> map<A,B> -> map<A,B>"],
    },
];

fn not<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(!value)),
        _ => no_overload(),
    }
}

fn equals<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [one, two] => Ok(Value::Bool(equal(one, two))),
        _ => no_overload(),
    }
}

fn differs<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [one, two] => Ok(Value::Bool(!equal(one, two))),
        _ => no_overload(),
    }
}

fn order<'a>(args: &[Value<'a>], holds: fn(Ordering) -> bool) -> Outcome<'a> {
    match args {
        [Value::Double(one), _] if one.is_nan() => fault("NaN values cannot be ordered"),
        [_, Value::Double(two)] if two.is_nan() => fault("NaN values cannot be ordered"),
        [one, two] => {
            compare(one, two).map_or_else(no_overload, |order| Ok(Value::Bool(holds(order))))
        }
        _ => no_overload(),
    }
}

/// The order of two values of comparable types; `None` if they are not.
pub(crate) fn compare(one: &Value<'_>, two: &Value<'_>) -> Option<Ordering> {
    Some(match (one, two) {
        (Value::Bool(one), Value::Bool(two)) => one.cmp(two),
        (Value::Int(one), Value::Int(two)) => one.cmp(two),
        (Value::Uint(one), Value::Uint(two)) => one.cmp(two),
        (Value::Int(one), Value::Uint(two)) => i128::from(*one).cmp(&i128::from(*two)),
        (Value::Uint(one), Value::Int(two)) => i128::from(*one).cmp(&i128::from(*two)),
        (Value::Double(one), Value::Double(two)) => one.partial_cmp(two)?,
        (Value::Double(one), Value::Int(two)) => order_double(*one, i128::from(*two))?,
        (Value::Double(one), Value::Uint(two)) => order_double(*one, i128::from(*two))?,
        (Value::Int(one), Value::Double(two)) => order_double(*two, i128::from(*one))?.reverse(),
        (Value::Uint(one), Value::Double(two)) => order_double(*two, i128::from(*one))?.reverse(),
        (Value::String(one), Value::String(two)) => (**one).cmp(&**two),
        (Value::Bytes(one), Value::Bytes(two)) => one.cmp(two),
        (Value::Timestamp(one), Value::Timestamp(two)) => one.cmp(two),
        (Value::Duration(one), Value::Duration(two)) => one.cmp(two),
        (Value::Opaque(one), Value::Opaque(two)) => one.compare(two)?,
        _ => return None,
    })
}

/// A floating point number against a whole one, without losing digits.
fn order_double(one: f64, two: i128) -> Option<Ordering> {
    if one.is_nan() {
        return None;
    }
    // Whole parts of doubles in this range are exact in 128 bits; beyond it the double wins.
    let whole = one.clamp(-1e30, 1e30).trunc();
    Some(
        (whole as i128)
            .cmp(&two)
            .then(one.partial_cmp(&one.trunc()).unwrap_or(Ordering::Equal)),
    )
}

/// Whether two values are equal; values of different types are not.
pub(crate) fn equal(one: &Value<'_>, two: &Value<'_>) -> bool {
    match (one, two) {
        (Value::Null, Value::Null) => true,
        (Value::Type(one), Value::Type(two)) => one == two,
        (Value::Optional(one), Value::Optional(two)) => match (one, two) {
            (Some(one), Some(two)) => equal(one, two),
            (one, two) => one.is_none() && two.is_none(),
        },
        (Value::Opaque(one), Value::Opaque(two)) => one.equals(two),
        (Value::List(_) | Value::JsonList(_), Value::List(_) | Value::JsonList(_)) => {
            lists_equal(one, two)
        }
        (Value::Map(_) | Value::JsonMap(_), Value::Map(_) | Value::JsonMap(_)) => {
            maps_equal(one, two)
        }
        (Value::Object(one), Value::Object(two)) => {
            let same = |(name, value)| {
                two.fields
                    .get(name)
                    .is_some_and(|other| equal(value, other))
            };
            one.name == two.name
                && one.fields.len() == two.fields.len()
                && one.fields.iter().all(same)
        }
        _ => compare(one, two) == Some(Ordering::Equal),
    }
}

fn list_kind(value: &Value<'_>) -> ListKind {
    match value {
        Value::JsonList(list) => list.kind(),
        _ => ListKind::Atomic,
    }
}

fn item_of<'a>(list: &Value<'a>, index: usize) -> Value<'a> {
    list.item(index).unwrap_or(Value::Null)
}

fn lists_equal(one: &Value<'_>, two: &Value<'_>) -> bool {
    if one.size() != two.size() {
        return false;
    }
    let items = |value: &Value<'_>| value.size().unwrap_or(0);
    match (list_kind(one), list_kind(two)) {
        (ListKind::Atomic, ListKind::Atomic) => (0..items(one)).all(|index| {
            one.item(index)
                .zip(two.item(index))
                .is_some_and(|(one, two)| equal(&one, &two))
        }),
        // The order of sets and of lists with keys says nothing.
        _ => {
            let within = |some: &Value<'_>, all: &Value<'_>| {
                (0..items(some)).all(|index| {
                    let item = item_of(some, index);
                    (0..items(all)).any(|other| equal(&item, &item_of(all, other)))
                })
            };
            within(one, two) && within(two, one)
        }
    }
}

fn maps_equal(one: &Value<'_>, two: &Value<'_>) -> bool {
    if let (Value::JsonMap(one), Value::JsonMap(two)) = (one, two) {
        if one.map.len() != two.map.len() {
            return false;
        }
        if !one.is_map() || !two.is_map() {
            return one.map == two.map;
        }
    }
    let (Some(entries), Some(size)) = (one.entries(), two.size()) else {
        return false;
    };
    entries.len() == size
        && entries
            .iter()
            .all(|(key, value)| lookup(two, key).is_some_and(|other| equal(value, &other)))
}

/// The value at a key of a map.
pub(crate) fn lookup<'a>(map: &Value<'a>, key: &Value<'_>) -> Option<Value<'a>> {
    match map {
        Value::Map(map) => map.get(&Key::of(key)?).cloned(),
        Value::JsonMap(map) => map.get(key.as_str()?),
        _ => None,
    }
}

fn contained<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [item, container] = args else {
        return no_overload();
    };
    if let Some(size) = container
        .size()
        .filter(|_| matches!(container, Value::List(_) | Value::JsonList(_)))
    {
        let found = |index| {
            container
                .item(index)
                .is_some_and(|other| equal(item, &other))
        };
        return Ok(Value::Bool((0..size).any(found)));
    }
    match container {
        Value::Map(_) | Value::JsonMap(_) => Ok(Value::Bool(lookup(container, item).is_some())),
        _ => no_overload(),
    }
}

fn whole<'a>(result: Option<i64>) -> Outcome<'a> {
    result.map_or_else(
        || fault("integer overflow"),
        |result| Ok(Value::Int(result)),
    )
}

fn natural<'a>(result: Option<u64>) -> Outcome<'a> {
    result.map_or_else(
        || fault("unsigned integer overflow"),
        |result| Ok(Value::Uint(result)),
    )
}

/// Durations hold nanoseconds in 64 bits.
pub(super) fn span<'a>(result: Option<SignedDuration>) -> Outcome<'a> {
    match result {
        Some(result) if i64::try_from(result.as_nanos()).is_ok() => Ok(Value::Duration(result)),
        _ => fault("duration overflow"),
    }
}

/// Points in time lie between the years 1 and 9999.
pub(super) fn moment<'a>(result: Option<Timestamp>) -> Outcome<'a> {
    const FIRST: i64 = -62_135_596_800;
    const LAST: i64 = 253_402_300_799;
    match result {
        Some(at) if (FIRST..=LAST).contains(&at.as_second()) => Ok(Value::Timestamp(at)),
        _ => fault("timestamp overflow"),
    }
}

pub(crate) fn add<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(one), Value::Int(two)] => whole(one.checked_add(*two)),
        [Value::Uint(one), Value::Uint(two)] => natural(one.checked_add(*two)),
        [Value::Double(one), Value::Double(two)] => Ok(Value::Double(one + two)),
        [Value::String(one), Value::String(two)] => Ok(Value::text([&**one, &**two].concat())),
        [Value::Bytes(one), Value::Bytes(two)] => {
            Ok(Value::Bytes([&**one, &**two].concat().into()))
        }
        [Value::Duration(one), Value::Duration(two)] => span(one.checked_add(*two)),
        [Value::Timestamp(at), Value::Duration(by)]
        | [Value::Duration(by), Value::Timestamp(at)] => moment(at.checked_add(*by).ok()),
        [one, two] => match (one.items(), two.items()) {
            (Some(first), Some(second)) => Ok(Value::List(Arc::new(join(one, first, second)))),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

/// Lists one after the other; sets and lists with keys are merged.
fn join<'a>(one: &Value<'a>, mut first: Vec<Value<'a>>, second: Vec<Value<'a>>) -> Vec<Value<'a>> {
    let keys: &[String] = match one {
        Value::JsonList(list) => list.ty.as_ref().map_or(&[], |ty| &ty.keys),
        _ => &[],
    };
    match list_kind(one) {
        ListKind::Atomic => first.extend(second),
        ListKind::Set => {
            for item in second {
                if !first.iter().any(|other| equal(other, &item)) {
                    first.push(item);
                }
            }
        }
        ListKind::Map => {
            let key = |item: &Value<'a>| -> Vec<Option<Value<'a>>> {
                keys.iter()
                    .map(|key| item.field(&crate::escape::escape(key).unwrap_or_default()))
                    .collect()
            };
            let same = |one: &[Option<Value<'a>>], two: &[Option<Value<'a>>]| {
                one.iter().zip(two).all(|pair| match pair {
                    (Some(one), Some(two)) => equal(one, two),
                    (one, two) => one.is_none() && two.is_none(),
                })
            };
            for item in second {
                let wanted = key(&item);
                match first.iter().position(|other| same(&key(other), &wanted)) {
                    Some(index) => first[index] = item,
                    None => first.push(item),
                }
            }
        }
    }
    first
}

fn subtract<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(one), Value::Int(two)] => whole(one.checked_sub(*two)),
        [Value::Uint(one), Value::Uint(two)] => natural(one.checked_sub(*two)),
        [Value::Double(one), Value::Double(two)] => Ok(Value::Double(one - two)),
        [Value::Duration(one), Value::Duration(two)] => span(one.checked_sub(*two)),
        [Value::Timestamp(at), Value::Duration(by)] => moment(at.checked_sub(*by).ok()),
        [Value::Timestamp(one), Value::Timestamp(two)] => span(Some(one.duration_since(*two))),
        _ => no_overload(),
    }
}

fn multiply<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(one), Value::Int(two)] => whole(one.checked_mul(*two)),
        [Value::Uint(one), Value::Uint(two)] => natural(one.checked_mul(*two)),
        [Value::Double(one), Value::Double(two)] => Ok(Value::Double(one * two)),
        _ => no_overload(),
    }
}

fn divide<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
            fault("division by zero")
        }
        [Value::Int(one), Value::Int(two)] => whole(one.checked_div(*two)),
        [Value::Uint(one), Value::Uint(two)] => natural(one.checked_div(*two)),
        [Value::Double(one), Value::Double(two)] => Ok(Value::Double(one / two)),
        _ => no_overload(),
    }
}

fn modulo<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
            fault("modulus by zero")
        }
        [Value::Int(one), Value::Int(two)] => whole(one.checked_rem(*two)),
        [Value::Uint(one), Value::Uint(two)] => natural(one.checked_rem(*two)),
        _ => no_overload(),
    }
}

fn negate<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(value)] => whole(value.checked_neg()),
        [Value::Double(value)] => Ok(Value::Double(-value)),
        _ => no_overload(),
    }
}
