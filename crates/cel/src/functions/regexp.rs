//! Regular expressions: `matches`, `find`, `findAll`.

use regex::{Regex, RegexBuilder};

use super::{Outcome, Spec, no_overload};
use crate::error::EvalError;
use crate::value::Value;

/// How big a compiled expression may be, in bytes.
const MAX_PROGRAM: usize = 1 << 20;

pub(super) const TABLE: &[Spec] = &[
    Spec {
        name: "matches",
        call: matches,
        overloads: &["string string -> bool", "string . string -> bool"],
    },
    Spec {
        name: "find",
        call: find,
        overloads: &["string . string -> string"],
    },
    Spec {
        name: "findAll",
        call: find_all,
        overloads: &[
            "string . string -> list<string>",
            "string . string int -> list<string>",
        ],
    },
];

pub(crate) fn compile(pattern: &str) -> Result<Regex, EvalError> {
    RegexBuilder::new(pattern)
        .size_limit(MAX_PROGRAM)
        .build()
        .map_err(|error| {
            let reason = error.to_string();
            let reason = reason
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ");
            EvalError::fault(format!("error parsing regexp: {reason}"))
        })
}

fn matches<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text), Value::String(pattern)] => {
            Ok(Value::Bool(compile(pattern)?.is_match(text)))
        }
        _ => no_overload(),
    }
}

fn find<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text), Value::String(pattern)] => Ok(Value::text(
            compile(pattern)?
                .find(text)
                .map_or("", |found| found.as_str()),
        )),
        _ => no_overload(),
    }
}

fn find_all<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (text, pattern, limit) = match args {
        [Value::String(text), Value::String(pattern)] => (text, pattern, -1),
        [
            Value::String(text),
            Value::String(pattern),
            Value::Int(limit),
        ] => (text, pattern, *limit),
        _ => return no_overload(),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let found = compile(pattern)?;
    Ok(Value::list(
        found
            .find_iter(text)
            .take(limit)
            .map(|found| Value::text(found.as_str()))
            .collect(),
    ))
}
