//! Quantities, such as `100Mi`.

use std::cmp::Ordering;

use meta::Quantity;

use super::{Outcome, Spec, fault, no_overload};
use crate::opaque::Opaque;
use crate::value::Value;

const NANO: i128 = 1_000_000_000;
const COMPARE: &[&str] = &["kubernetes.Quantity . kubernetes.Quantity -> bool"];
const COMBINE: &[&str] = &[
    "kubernetes.Quantity . kubernetes.Quantity -> kubernetes.Quantity",
    "kubernetes.Quantity . int -> kubernetes.Quantity",
];

pub(super) const TABLE: &[Spec] = &[
    Spec {
        name: "quantity",
        call: quantity,
        overloads: &["string -> kubernetes.Quantity"],
    },
    Spec {
        name: "isQuantity",
        call: |args| match args {
            [Value::String(text)] => Ok(Value::Bool(Quantity::parse(text).is_ok())),
            _ => no_overload(),
        },
        overloads: &["string -> bool"],
    },
    // Upstream declares it as a plain function as well.
    Spec {
        name: "sign",
        call: |args| of(args, |own| Ok(Value::Int(own.nano().signum() as i64))),
        overloads: &["kubernetes.Quantity -> int", "kubernetes.Quantity . -> int"],
    },
    Spec {
        name: "asApproximateFloat",
        call: |args| {
            of(args, |own| {
                Ok(Value::Double(own.nano() as f64 / NANO as f64))
            })
        },
        overloads: &["kubernetes.Quantity . -> double"],
    },
    Spec {
        name: "asInteger",
        call: |args| of(args, as_integer),
        overloads: &["kubernetes.Quantity . -> int"],
    },
    Spec {
        name: "isInteger",
        call: |args| of(args, |own| Ok(Value::Bool(as_integer(own).is_ok()))),
        overloads: &["kubernetes.Quantity . -> bool"],
    },
    Spec {
        name: "add",
        call: |args| combine(args, |one, two| one + two),
        overloads: COMBINE,
    },
    Spec {
        name: "sub",
        call: |args| combine(args, |one, two| one - two),
        overloads: COMBINE,
    },
    // These three serve versions as well.
    Spec {
        name: "isGreaterThan",
        call: |args| super::ordered(args, |order| Value::Bool(order == Ordering::Greater)),
        overloads: &[COMPARE[0], "kubernetes.Semver . kubernetes.Semver -> bool"],
    },
    Spec {
        name: "isLessThan",
        call: |args| super::ordered(args, |order| Value::Bool(order == Ordering::Less)),
        overloads: &[COMPARE[0], "kubernetes.Semver . kubernetes.Semver -> bool"],
    },
    Spec {
        name: "compareTo",
        call: |args| super::ordered(args, |order| Value::Int(order as i64)),
        overloads: &[
            "kubernetes.Quantity . kubernetes.Quantity -> int",
            "kubernetes.Semver . kubernetes.Semver -> int",
        ],
    },
];

fn quantity<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text)] => match Quantity::parse(text) {
            Ok(own) => Ok(Value::opaque(Opaque::Quantity(own))),
            Err(error) => fault(error.to_string()),
        },
        _ => no_overload(),
    }
}

fn own(value: &Value<'_>) -> Option<Quantity> {
    match value {
        Value::Opaque(opaque) => match &**opaque {
            Opaque::Quantity(own) => Some(*own),
            _ => None,
        },
        _ => None,
    }
}

fn of<'a>(args: &[Value<'a>], then: fn(Quantity) -> Outcome<'a>) -> Outcome<'a> {
    match args {
        [value] => own(value).map_or_else(no_overload, then),
        _ => no_overload(),
    }
}

fn as_integer<'a>(own: Quantity) -> Outcome<'a> {
    let whole = (own.nano() % NANO == 0)
        .then(|| i64::try_from(own.nano() / NANO).ok())
        .flatten();
    whole.map_or_else(
        || fault("cannot convert value to integer"),
        |whole| Ok(Value::Int(whole)),
    )
}

fn combine<'a>(args: &[Value<'a>], with: fn(Quantity, Quantity) -> Quantity) -> Outcome<'a> {
    let [one, two] = args else {
        return no_overload();
    };
    let second = match two {
        Value::Int(number) => Some(Quantity::from_units(*number)),
        other => own(other),
    };
    match (own(one), second) {
        (Some(one), Some(two)) => Ok(Value::opaque(Opaque::Quantity(with(one, two)))),
        _ => no_overload(),
    }
}
