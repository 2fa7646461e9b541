//! The string extension functions, version 2. Positions count characters.

use super::{Outcome, Spec, fault, no_overload};
use crate::error::EvalError;
use crate::value::Value;

pub(super) const TABLE: &[Spec] = &[
    Spec {
        name: "charAt",
        call: char_at,
        overloads: &["string . int -> string"],
    },
    Spec {
        name: "indexOf",
        call: index_of,
        overloads: &[
            "string . string -> int",
            "string . string int -> int",
            "list<A> . A -> int",
        ],
    },
    Spec {
        name: "lastIndexOf",
        call: last_index_of,
        overloads: &[
            "string . string -> int",
            "string . string int -> int",
            "list<A> . A -> int",
        ],
    },
    Spec {
        name: "lowerAscii",
        call: |args| map(args, |text| text.to_ascii_lowercase()),
        overloads: &["string . -> string"],
    },
    Spec {
        name: "upperAscii",
        call: |args| map(args, |text| text.to_ascii_uppercase()),
        overloads: &["string . -> string"],
    },
    Spec {
        name: "trim",
        call: |args| map(args, |text| text.trim().to_owned()),
        overloads: &["string . -> string"],
    },
    Spec {
        name: "replace",
        call: replace,
        overloads: &[
            "string . string string -> string",
            "string . string string int -> string",
        ],
    },
    Spec {
        name: "split",
        call: split,
        overloads: &[
            "string . string -> list<string>",
            "string . string int -> list<string>",
        ],
    },
    Spec {
        name: "substring",
        call: substring,
        overloads: &["string . int -> string", "string . int int -> string"],
    },
    Spec {
        name: "join",
        call: join,
        overloads: &[
            "list<string> . -> string",
            "list<string> . string -> string",
        ],
    },
    Spec {
        name: "strings.quote",
        call: |args| map(args, quote),
        overloads: &["string -> string"],
    },
    Spec {
        name: "format",
        call: super::format::format,
        overloads: &["string . list<dyn> -> string"],
    },
    Spec {
        name: "jsonpatch.escapeKey",
        call: |args| map(args, |key| key.replace('~', "~0").replace('/', "~1")),
        overloads: &["string -> string"],
    },
];

fn map<'a>(args: &[Value<'a>], change: fn(&str) -> String) -> Outcome<'a> {
    match args {
        [Value::String(text)] => Ok(Value::text(change(text))),
        _ => no_overload(),
    }
}

fn out_of_range(index: i64) -> EvalError {
    EvalError::fault(format!("index out of range: {index}"))
}

fn chars(text: &str) -> Vec<char> {
    text.chars().collect()
}

fn char_at<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text), Value::Int(index)] = args else {
        return no_overload();
    };
    let at = usize::try_from(*index).map_err(|_| out_of_range(*index))?;
    match text.chars().nth(at) {
        Some(c) => Ok(Value::text(c.to_string())),
        None if at == text.chars().count() => Ok(Value::text("")),
        None => Err(out_of_range(*index)),
    }
}

fn index_of<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (text, wanted, from) = match args {
        [Value::String(text), Value::String(wanted)] => (chars(text), chars(wanted), 0),
        [Value::String(text), Value::String(wanted), Value::Int(from)] => {
            (chars(text), chars(wanted), *from)
        }
        [list, item] => return super::list::position(list, item, false),
        _ => return no_overload(),
    };
    if wanted.is_empty() {
        return Ok(Value::Int(from));
    }
    let start = usize::try_from(from).map_err(|_| out_of_range(from))?;
    // Beyond the end is a fault; at the end there is simply nothing.
    let rest = text.get(start..).ok_or_else(|| out_of_range(from))?;
    let found = rest.windows(wanted.len()).position(|part| part == wanted);
    Ok(Value::Int(found.map_or(-1, |found| (found + start) as i64)))
}

fn last_index_of<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (text, wanted, from) = match args {
        [Value::String(text), Value::String(wanted)] => (chars(text), chars(wanted), None),
        [Value::String(text), Value::String(wanted), Value::Int(from)] => {
            (chars(text), chars(wanted), Some(*from))
        }
        [list, item] => return super::list::position(list, item, true),
        _ => return no_overload(),
    };
    let outside = |from: &i64| *from < 0 || *from as usize >= text.len().max(1);
    if let Some(from) = from.filter(|from| outside(from) && !wanted.is_empty()) {
        return Err(out_of_range(from));
    }
    if wanted.is_empty() {
        return Ok(Value::Int(from.unwrap_or(text.len() as i64)));
    }
    let last = from.map_or(usize::MAX, |from| from as usize);
    let mut windows = text.windows(wanted.len()).enumerate();
    let found = windows.rfind(|(at, part)| *at <= last && *part == wanted);
    Ok(Value::Int(found.map_or(-1, |(at, _)| at as i64)))
}

fn replace<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text), Value::String(old), Value::String(new)] => {
            Ok(Value::text(text.replace(&**old, new)))
        }
        [
            Value::String(text),
            Value::String(old),
            Value::String(new),
            Value::Int(count),
        ] => Ok(Value::text(match usize::try_from(*count) {
            Ok(count) => text.replacen(&**old, new, count),
            Err(_) => text.replace(&**old, new),
        })),
        _ => no_overload(),
    }
}

fn split<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (text, separator, limit) = match args {
        [Value::String(text), Value::String(separator)] => (text, separator, -1),
        [
            Value::String(text),
            Value::String(separator),
            Value::Int(limit),
        ] => (text, separator, *limit),
        _ => return no_overload(),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut parts: Vec<String> = Vec::new();
    if limit == 0 {
        return Ok(Value::list(Vec::new()));
    }
    if separator.is_empty() {
        // Between all characters; the last part keeps the rest.
        let all = chars(text);
        let single = all.len().min(limit);
        parts.extend(all[..single].iter().map(char::to_string));
        if let Some(last) = parts.last_mut() {
            last.extend(&all[single..]);
        }
    } else {
        parts.extend(text.splitn(limit, &**separator).map(str::to_owned));
    }
    Ok(Value::list(parts.into_iter().map(Value::text).collect()))
}

fn substring<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (text, start, end) = match args {
        [Value::String(text), Value::Int(start)] => (chars(text), *start, None),
        [Value::String(text), Value::Int(start), Value::Int(end)] => {
            (chars(text), *start, Some(*end))
        }
        _ => return no_overload(),
    };
    if let Some(end) = end.filter(|end| start > *end) {
        return fault(format!(
            "invalid substring range. start: {start}, end: {end}"
        ));
    }
    let from = usize::try_from(start)
        .ok()
        .filter(|from| *from <= text.len())
        .ok_or_else(|| out_of_range(start))?;
    let end = end.unwrap_or(text.len() as i64);
    let to = usize::try_from(end)
        .ok()
        .filter(|to| *to <= text.len())
        .ok_or_else(|| out_of_range(end))?;
    Ok(Value::text(text[from..to].iter().collect::<String>()))
}

fn join<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let separator = match args {
        [_] => "",
        [_, Value::String(separator)] => separator,
        _ => return no_overload(),
    };
    let Some(items) = args[0].items() else {
        return no_overload();
    };
    let mut joined = String::new();
    for (index, item) in items.iter().enumerate() {
        let Some(text) = item.as_str() else {
            return no_overload();
        };
        if index > 0 {
            joined.push_str(separator);
        }
        joined.push_str(text);
    }
    Ok(Value::text(joined))
}

/// Text in double quotes, with what needs it escaped.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
