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
    if let Some(operators) = nested_repetition(pattern) {
        let reason = format!("invalid nested repetition operator: `{operators}`");
        return Err(EvalError::fault(format!("error parsing regexp: {reason}")));
    }
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
            let reason = match reason {
                "unopened group" => format!("unexpected ): `{pattern}`"),
                "unclosed group" => format!("missing closing ): `{pattern}`"),
                other => other.to_owned(),
            };
            EvalError::fault(format!("error parsing regexp: {reason}"))
        })
}

/// Repetitions of repetitions, such as `++`, which RE2 has not.
fn nested_repetition(pattern: &str) -> Option<&str> {
    let bytes = pattern.as_bytes();
    let mut at = 0;
    // Where the repetition begins that ends here.
    let mut before: Option<usize> = None;
    let mut in_class = false;
    while at < bytes.len() {
        let length = match bytes[at] {
            b'\\' => 2,
            b'[' if !in_class => {
                in_class = true;
                // A bracket that comes first is itself.
                let after = &bytes[at + 1..];
                let negated = usize::from(after.first() == Some(&b'^'));
                1 + negated + usize::from(after.get(negated) == Some(&b']'))
            }
            b']' if in_class => {
                in_class = false;
                1
            }
            b'*' | b'+' | b'?' | b'{' if !in_class => match repetition(&bytes[at..]) {
                0 => 1,
                length => {
                    if let Some(start) = before {
                        return pattern.get(start..at + length);
                    }
                    before = Some(at);
                    at += length;
                    continue;
                }
            },
            _ => 1,
        };
        before = None;
        at += length;
    }
    None
}

/// How long a repetition is, with the mark that makes it lazy; 0 if it is none.
fn repetition(bytes: &[u8]) -> usize {
    let length = match bytes.first() {
        Some(b'{') => {
            let Some(end) = bytes.iter().position(|byte| *byte == b'}') else {
                return 0;
            };
            let counts = &bytes[1..end];
            let is_count = |byte: &u8| byte.is_ascii_digit() || *byte == b',';
            match counts.first().is_some_and(u8::is_ascii_digit) && counts.iter().all(is_count) {
                true => end + 1,
                false => return 0,
            }
        }
        _ => 1,
    };
    length + usize::from(bytes.get(length) == Some(&b'?'))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_re2() {
        let check = |pattern: &str, expect: Option<&str>| {
            let error = compile(pattern).err().map(|error| error.to_string());
            let expect = expect.map(|reason| format!("error parsing regexp: {reason}"));
            assert_eq!(error, expect, "{pattern}");
        };
        check("a+?b{2,3}[+*]\\+\\++[]+]+", None);
        check("x++", Some("invalid nested repetition operator: `++`"));
        check(
            "x{2}?*",
            Some("invalid nested repetition operator: `{2}?*`"),
        );
        check(")", Some("unexpected ): `)`"));
        check("a(", Some("missing closing ): `a(`"));
    }
}
