//! Values that may be absent. `or` and `orValue` are the evaluator's: they may leave their argument alone.

use std::sync::Arc;

use super::{Outcome, Spec, fault, lazy, no_overload};
use crate::value::Value;

/// The beginning of year 1, which Go takes for no time at all.
const FIRST_SECOND: i64 = -62_135_596_800;

pub(super) const TABLE: &[Spec] = &[
    Spec {
        name: "optional.of",
        call: of,
        overloads: &["A -> optional<A>"],
    },
    Spec {
        name: "optional.ofNonZeroValue",
        call: of_non_zero,
        overloads: &["A -> optional<A>"],
    },
    Spec {
        name: "optional.none",
        call: |_| Ok(Value::Optional(None)),
        overloads: &["-> optional<A>"],
    },
    Spec {
        name: "value",
        call: value,
        overloads: &["optional<A> . -> A"],
    },
    Spec {
        name: "hasValue",
        call: has_value,
        overloads: &["optional<A> . -> bool"],
    },
    Spec {
        name: "or",
        call: lazy,
        overloads: &["optional<A> . optional<A> -> optional<A>"],
    },
    Spec {
        name: "orValue",
        call: lazy,
        overloads: &["optional<A> . A -> A"],
    },
    Spec {
        name: "first",
        call: |args| end(args, false),
        overloads: &["list<A> . -> optional<A>"],
    },
    Spec {
        name: "last",
        call: |args| end(args, true),
        overloads: &["list<A> . -> optional<A>"],
    },
    Spec {
        name: "optional.unwrap",
        call: unwrap,
        overloads: &["list<optional<A>> -> list<A>"],
    },
    Spec {
        name: "unwrapOpt",
        call: unwrap,
        overloads: &["list<optional<A>> . -> list<A>"],
    },
];

fn of<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value] => Ok(Value::some(value.clone())),
        _ => no_overload(),
    }
}

fn of_non_zero<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [value] = args else { return no_overload() };
    let zero = match value {
        Value::Null | Value::Optional(None) => true,
        Value::Bool(value) => !value,
        Value::Int(value) => *value == 0,
        Value::Uint(value) => *value == 0,
        Value::Double(value) => *value == 0.0,
        Value::Duration(span) => span.is_zero(),
        Value::Timestamp(at) => at.as_second() == FIRST_SECOND && at.subsec_nanosecond() == 0,
        Value::Type(_) | Value::Opaque(_) | Value::Optional(_) => false,
        Value::Object(made) => made.fields.is_empty(),
        Value::JsonMap(map) => map.map.is_empty(),
        other => other.size() == Some(0),
    };
    Ok(if zero {
        Value::Optional(None)
    } else {
        Value::some(value.clone())
    })
}

fn value<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Optional(Some(value))] => Ok(Value::clone(value)),
        [Value::Optional(None)] => fault("optional.none() dereference"),
        _ => no_overload(),
    }
}

fn has_value<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Optional(value)] => Ok(Value::Bool(value.is_some())),
        _ => no_overload(),
    }
}

fn end<'a>(args: &[Value<'a>], last: bool) -> Outcome<'a> {
    let [list @ (Value::List(_) | Value::JsonList(_))] = args else {
        return no_overload();
    };
    let index = if last {
        list.size().unwrap_or(0).wrapping_sub(1)
    } else {
        0
    };
    Ok(Value::Optional(list.item(index).map(Arc::new)))
}

fn unwrap<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [list] = args else { return no_overload() };
    let Some(items) = list.items() else {
        return no_overload();
    };
    let mut present = Vec::new();
    for item in items {
        match item {
            Value::Optional(Some(value)) => present.push(Value::clone(&value)),
            Value::Optional(None) => {}
            other => {
                return fault(format!(
                    "value of type {} is not optional",
                    other.type_name()
                ));
            }
        }
    }
    Ok(Value::list(present))
}
