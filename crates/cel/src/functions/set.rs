//! `sets.contains`, `sets.equivalent`, `sets.intersects`.

use super::{Outcome, Spec, equal, no_overload};
use crate::value::Value;

const BOTH: &[&str] = &["list<A> list<A> -> bool"];

pub(super) const TABLE: &[Spec] = &[
    Spec {
        name: "sets.contains",
        call: |args| with(args, within),
        overloads: BOTH,
    },
    Spec {
        name: "sets.equivalent",
        call: |args| with(args, |one, two| within(one, two) && within(two, one)),
        overloads: BOTH,
    },
    Spec {
        name: "sets.intersects",
        call: |args| {
            with(args, |one, two| {
                one.iter()
                    .any(|item| two.iter().any(|other| equal(item, other)))
            })
        },
        overloads: BOTH,
    },
];

fn with<'a>(args: &[Value<'a>], holds: fn(&[Value<'a>], &[Value<'a>]) -> bool) -> Outcome<'a> {
    let [one, two] = args else {
        return no_overload();
    };
    match (one.items(), two.items()) {
        (Some(one), Some(two)) => Ok(Value::Bool(holds(&one, &two))),
        _ => no_overload(),
    }
}

/// Whether the first holds all of the second.
fn within(all: &[Value<'_>], some: &[Value<'_>]) -> bool {
    some.iter()
        .all(|item| all.iter().any(|other| equal(item, other)))
}
