//! Names of fields that an expression cannot spell, made spellable (`__dot__`, `__namespace__`).

use crate::words::is_reserved;

/// The name an expression uses for a field, if there is one.
pub fn escape(name: &str) -> Option<String> {
    let first = name.chars().next()?;
    if !(first.is_ascii_alphabetic() || matches!(first, '_' | '-' | '.' | '/')) {
        return None;
    }
    if is_reserved(name) {
        return Some(format!("__{name}__"));
    }
    let mut escaped = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        let (piece, length) = match c {
            '_' if rest.starts_with("__") => ("__underscores__", 2),
            '.' => ("__dot__", 1),
            '-' => ("__dash__", 1),
            '/' => ("__slash__", 1),
            '_' | 'a'..='z' | 'A'..='Z' | '0'..='9' => (&rest[..1], 1),
            _ => return None,
        };
        escaped.push_str(piece);
        rest = &rest[length..];
    }
    Some(escaped)
}

/// The field's name behind an escaped one.
pub fn unescape(escaped: &str) -> String {
    let word = escaped
        .strip_prefix("__")
        .and_then(|rest| rest.strip_suffix("__"));
    if let Some(word) = word.filter(|word| is_reserved(word)) {
        return word.to_owned();
    }
    let pieces = [
        ("__underscores__", "__"),
        ("__dot__", "."),
        ("__dash__", "-"),
        ("__slash__", "/"),
    ];
    let mut name = String::with_capacity(escaped.len());
    let mut rest = escaped;
    'next: while let Some(c) = rest.chars().next() {
        for (piece, plain) in pieces {
            if let Some(after) = rest.strip_prefix(piece) {
                name.push_str(plain);
                rest = after;
                continue 'next;
            }
        }
        name.push(c);
        rest = &rest[c.len_utf8()..];
    }
    name
}
