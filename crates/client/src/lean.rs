//! JSON of objects without `managedFields`: half of a small object, dozens of maps once decoded,
//! and nobody who reads typed objects asks for it. A write without it leaves it as it is.

use std::borrow::Cow;

/// Begins the list; within text its quotes would be escaped.
const BEGIN: &[u8] = b"\"managedFields\":[";

/// The same JSON without its lists of managed fields; what has none, or is written otherwise than
/// by our server, stays as it is.
pub(crate) fn lean(json: &[u8]) -> Cow<'_, [u8]> {
    let mut kept = Vec::new();
    let mut rest = json;
    while let Some(found) = find(rest) {
        let Some(length) = list_length(&rest[found + BEGIN.len() - 1..]) else {
            break;
        };
        let (before, behind) = (&rest[..found], &rest[found + BEGIN.len() - 1 + length..]);
        if kept.is_empty() {
            kept.reserve(json.len() - length);
        }
        // One comma goes along.
        let (before, behind) = match (before.split_last(), behind.split_first()) {
            (_, Some((b',', behind))) => (before, behind),
            (Some((b',', before)), _) => (before, behind),
            _ => (before, behind),
        };
        kept.extend_from_slice(before);
        rest = behind;
    }
    match kept.is_empty() {
        true => Cow::Borrowed(json),
        false => {
            kept.extend_from_slice(rest);
            Cow::Owned(kept)
        }
    }
}

fn find(json: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        // Letters that are rare elsewhere are looked for first.
        let at = from + json[from..].iter().position(|byte| *byte == b'F')?;
        let start = at.checked_sub(b"\"managed".len());
        if let Some(start) = start.filter(|start| json[*start..].starts_with(BEGIN)) {
            return Some(start);
        }
        from = at + 1;
    }
}

/// How long the list is that the text begins with; `None` if it does not end.
fn list_length(json: &[u8]) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, byte) in json.iter().enumerate() {
        match (quoted, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => quoted = !quoted,
            (false, b'[') => depth += 1,
            (false, b']') if depth == 1 => return Some(at + 1),
            (false, b']') => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_managers_are_left_out() {
        let check = |json: &str, expected: &str| {
            assert_eq!(
                std::str::from_utf8(&lean(json.as_bytes())).unwrap(),
                expected
            );
        };
        check(r#"{"a":1}"#, r#"{"a":1}"#);
        check(r#"{"managedFields":[]}"#, "{}");
        check(
            r#"{"managedFields":[{"x":["]"]}],"name":"a"}"#,
            r#"{"name":"a"}"#,
        );
        check(r#"{"a":"F","managedFields":["\"]"]}"#, r#"{"a":"F"}"#);
        check(
            r#"[{"m":{"managedFields":[1],"n":1}},{"m":{"k":2,"managedFields":[{"f:a":{}}]}}]"#,
            r#"[{"m":{"n":1}},{"m":{"k":2}}]"#,
        );
        // A text that speaks of it, a field that is no list, and what breaks off.
        check(
            r#"{"a":"\"managedFields\":[1]"}"#,
            r#"{"a":"\"managedFields\":[1]"}"#,
        );
        check(r#"{"managedFields":{}}"#, r#"{"managedFields":{}}"#);
        check(r#"{"managedFields":[{"#, r#"{"managedFields":[{"#);
    }
}
