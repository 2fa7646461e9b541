//! Semantic versions.

use super::{Outcome, Spec, fault, no_overload};
use crate::opaque::Opaque;
use crate::semver::Version;
use crate::value::Value;

pub(super) const TABLE: &[Spec] = &[
    Spec {
        name: "semver",
        call: |args| match parse(args) {
            Some(Ok(version)) => Ok(Value::opaque(Opaque::Semver(version))),
            Some(Err(error)) => fault(error),
            None => no_overload(),
        },
        overloads: &[
            "string -> kubernetes.Semver",
            "string bool -> kubernetes.Semver",
        ],
    },
    Spec {
        name: "isSemver",
        call: |args| {
            parse(args).map_or_else(no_overload, |version| Ok(Value::Bool(version.is_ok())))
        },
        overloads: &["string -> bool", "string bool -> bool"],
    },
    Spec {
        name: "major",
        call: |args| part(args, 0),
        overloads: &["kubernetes.Semver . -> int"],
    },
    Spec {
        name: "minor",
        call: |args| part(args, 1),
        overloads: &["kubernetes.Semver . -> int"],
    },
    Spec {
        name: "patch",
        call: |args| part(args, 2),
        overloads: &["kubernetes.Semver . -> int"],
    },
];

fn parse(args: &[Value<'_>]) -> Option<Result<Version, String>> {
    match args {
        [Value::String(text)] => Some(Version::parse(text)),
        [Value::String(text), Value::Bool(false)] => Some(Version::parse(text)),
        [Value::String(text), Value::Bool(true)] => Some(Version::normalized(text)),
        _ => None,
    }
}

fn part<'a>(args: &[Value<'a>], index: usize) -> Outcome<'a> {
    match args {
        [Value::Opaque(opaque)] => match &**opaque {
            Opaque::Semver(version) => Ok(Value::Int(
                i64::try_from(version.numbers[index]).unwrap_or(i64::MAX),
            )),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}
