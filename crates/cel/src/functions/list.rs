//! Functions of lists.

use std::cmp::Ordering;

use super::operator::add;
use super::{Outcome, Spec, compare, equal, fault, no_overload};
use crate::types::Type;
use crate::value::Value;

/// How many numbers `lists.range` may make: what one evaluation may cost.
const MAX_RANGE: i64 = 1_000_000;

const COMPARABLE: &[&str] = &[
    "list<int> . -> int",
    "list<uint> . -> uint",
    "list<double> . -> double",
    "list<bool> . -> bool",
    "list<duration> . -> duration",
    "list<timestamp> . -> timestamp",
    "list<string> . -> string",
    "list<bytes> . -> bytes",
];

pub(super) const TABLE: &[Spec] = &[
    Spec {
        name: "isSorted",
        call: is_sorted,
        overloads: &[
            "list<int> . -> bool",
            "list<uint> . -> bool",
            "list<double> . -> bool",
            "list<bool> . -> bool",
            "list<duration> . -> bool",
            "list<timestamp> . -> bool",
            "list<string> . -> bool",
            "list<bytes> . -> bool",
        ],
    },
    Spec {
        name: "sum",
        call: sum,
        overloads: &[
            "list<int> . -> int",
            "list<uint> . -> uint",
            "list<double> . -> double",
            "list<duration> . -> duration",
        ],
    },
    Spec {
        name: "max",
        call: |args| extreme(args, Ordering::Greater, "max"),
        overloads: COMPARABLE,
    },
    Spec {
        name: "min",
        call: |args| extreme(args, Ordering::Less, "min"),
        overloads: COMPARABLE,
    },
    Spec {
        name: "slice",
        call: slice,
        overloads: &["list<A> . int int -> list<A>"],
    },
    Spec {
        name: "flatten",
        call: flatten,
        overloads: &["list<list<A>> . -> list<A>", "list<dyn> . int -> list<dyn>"],
    },
    Spec {
        name: "sort",
        call: sort,
        overloads: &[
            "list<int> . -> list<int>",
            "list<uint> . -> list<uint>",
            "list<double> . -> list<double>",
            "list<bool> . -> list<bool>",
            "list<duration> . -> list<duration>",
            "list<timestamp> . -> list<timestamp>",
            "list<string> . -> list<string>",
            "list<bytes> . -> list<bytes>",
        ],
    },
    Spec {
        name: "@sortByAssociatedKeys",
        call: sort_by_keys,
        overloads: &[
            "list<A> . list<int> -> list<A>",
            "list<A> . list<uint> -> list<A>",
            "list<A> . list<double> -> list<A>",
            "list<A> . list<bool> -> list<A>",
            "list<A> . list<duration> -> list<A>",
            "list<A> . list<timestamp> -> list<A>",
            "list<A> . list<string> -> list<A>",
            "list<A> . list<bytes> -> list<A>",
        ],
    },
    Spec {
        name: "lists.range",
        call: range,
        overloads: &["int -> list<int>"],
    },
    Spec {
        name: "reverse",
        call: reverse,
        overloads: &["list<A> . -> list<A>"],
    },
    Spec {
        name: "distinct",
        call: distinct,
        overloads: &["list<A> . -> list<A>"],
    },
];

/// Where an item stands, counted from the start or found from the end; -1 if it does not.
pub(super) fn position<'a>(list: &Value<'a>, item: &Value<'a>, last: bool) -> Outcome<'a> {
    let (Value::List(_) | Value::JsonList(_), Some(size)) = (list, list.size()) else {
        return no_overload();
    };
    let is_it = |index: &usize| list.item(*index).is_some_and(|other| equal(&other, item));
    let found = if last {
        (0..size).rev().find(is_it)
    } else {
        (0..size).find(is_it)
    };
    Ok(Value::Int(found.map_or(-1, |index| index as i64)))
}

fn is_sorted<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [list] = args else { return no_overload() };
    let Some(items) = list.items() else {
        return no_overload();
    };
    for pair in items.windows(2) {
        match compare(&pair[0], &pair[1]) {
            None => return no_overload(),
            Some(Ordering::Greater) => return Ok(Value::Bool(false)),
            Some(_) => {}
        }
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [list] = args else { return no_overload() };
    let Some(items) = list.items() else {
        return no_overload();
    };
    let mut items = items.into_iter();
    let Some(mut total) = items.next() else {
        return Ok(zero(list));
    };
    if !matches!(
        total,
        Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Duration(_)
    ) {
        return no_overload();
    }
    for item in items {
        total = add(&[total, item])?;
    }
    Ok(total)
}

/// What nothing amounts to.
fn zero<'a>(list: &Value<'_>) -> Value<'a> {
    let elem = match list {
        Value::JsonList(list) => list.ty.as_ref().map(|ty| &ty.elem.ty),
        _ => None,
    };
    match elem {
        Some(Type::Duration) => Value::Duration(jiff::SignedDuration::ZERO),
        Some(Type::Double) => Value::Double(0.0),
        _ => Value::Int(0),
    }
}

fn extreme<'a>(args: &[Value<'a>], wanted: Ordering, name: &str) -> Outcome<'a> {
    let [list] = args else { return no_overload() };
    let Some(items) = list.items() else {
        return no_overload();
    };
    let mut items = items.into_iter();
    let Some(mut best) = items.next() else {
        return fault(format!("{name} called on empty list"));
    };
    for item in items {
        match compare(&item, &best) {
            None => return no_overload(),
            Some(order) if order == wanted => best = item,
            Some(_) => {}
        }
    }
    Ok(best)
}

fn slice<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [list, Value::Int(start), Value::Int(end)] = args else {
        return no_overload();
    };
    let Some(items) = list.items() else {
        return no_overload();
    };
    if *start < 0 || *end < 0 {
        return fault(format!(
            "cannot slice({start}, {end}), negative indexes not supported"
        ));
    }
    if start > end {
        return fault(format!(
            "cannot slice({start}, {end}), start index must be less than or equal to end index"
        ));
    }
    match items.get(*start as usize..*end as usize) {
        Some(part) => Ok(Value::list(part.to_vec())),
        None => fault(format!(
            "cannot slice({start}, {end}), list is length {}",
            items.len()
        )),
    }
}

fn flatten<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    fn into<'a>(list: &Value<'a>, depth: i64, out: &mut Vec<Value<'a>>) {
        for item in list.items().unwrap_or_default() {
            if depth > 0 && matches!(item, Value::List(_) | Value::JsonList(_)) {
                into(&item, depth - 1, out);
            } else {
                out.push(item);
            }
        }
    }
    let (list, depth) = match args {
        [list] => (list, 1),
        [list, Value::Int(depth)] => (list, *depth),
        _ => return no_overload(),
    };
    if depth < 0 {
        return fault("level must be non-negative");
    }
    if list.items().is_none() {
        return no_overload();
    }
    let mut out = Vec::new();
    into(list, depth, &mut out);
    Ok(Value::list(out))
}

fn sort<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [list] => sort_by_keys(&[list.clone(), list.clone()]),
        _ => no_overload(),
    }
}

fn sort_by_keys<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [list, keys] = args else {
        return no_overload();
    };
    let (Some(items), Some(keys)) = (list.items(), keys.items()) else {
        return no_overload();
    };
    if items.len() != keys.len() {
        let message = format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, \
            but got {} and {} elements respectively",
            items.len(),
            keys.len()
        );
        return fault(message);
    }
    if let Some(first) = keys.first() {
        if keys.iter().any(|key| key.type_name() != first.type_name()) {
            return fault("list elements must have the same type");
        }
        if compare(first, first).is_none() {
            return fault("list elements must be comparable");
        }
    }
    let mut pairs: Vec<_> = keys.into_iter().zip(items).collect();
    pairs.sort_by(|one, two| compare(&one.0, &two.0).unwrap_or(Ordering::Equal));
    Ok(Value::list(
        pairs.into_iter().map(|(_, item)| item).collect(),
    ))
}

fn range<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(end)] if *end > MAX_RANGE => {
            fault(format!("lists.range() of {end} elements is too large"))
        }
        [Value::Int(end)] => Ok(Value::list((0..*end).map(Value::Int).collect())),
        _ => no_overload(),
    }
}

fn reverse<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [list] = args else { return no_overload() };
    let Some(mut items) = list.items() else {
        return no_overload();
    };
    items.reverse();
    Ok(Value::list(items))
}

fn distinct<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [list] = args else { return no_overload() };
    let Some(items) = list.items() else {
        return no_overload();
    };
    let mut seen: Vec<Value<'a>> = Vec::new();
    for item in items {
        if !seen.iter().any(|other| equal(other, &item)) {
            seen.push(item);
        }
    }
    Ok(Value::list(seen))
}
