//! JSON bytes to a tree, with the names that occur twice, and upstream's wording of faults.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Duplicates beyond this many are not reported.
const MAX_DUPLICATES: usize = 100;

/// Maps and lists nest no deeper than this; `serde_json` sets the limit.
pub const MAX_DEPTH: usize = 127;

/// A tree, and what was odd about its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The last of several values wins.
    pub tree: Value,
    /// Paths of fields that occur more than once, such as `spec.containers[0].image`.
    pub duplicates: Vec<String>,
}

/// The bytes are not one JSON value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

/// Reads one JSON value. Nesting deeper than [`MAX_DEPTH`] levels is refused.
pub fn parse_json(bytes: &[u8]) -> Result<Parsed, ParseError> {
    let mut duplicates = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let tree = Node(&mut duplicates).deserialize(&mut reader);
    let tree = tree.and_then(|tree| reader.end().map(|()| tree));
    match tree {
        Ok(tree) => Ok(Parsed { tree, duplicates }),
        Err(error) => Err(ParseError(word(bytes, &error))),
    }
}

struct Node<'found>(&'found mut Vec<String>);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let before = self.0.len();
            let Some(item) = items.next_element_seed(Node(self.0))? else {
                return Ok(Value::Array(list));
            };
            for path in &mut self.0[before..] {
                let dot = if path.starts_with('[') { "" } else { "." };
                *path = format!("[{}]{dot}{path}", list.len());
            }
            list.push(item);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let before = self.0.len();
            let value = entries.next_value_seed(Node(self.0))?;
            for path in &mut self.0[before..] {
                let dot = if path.starts_with('[') { "" } else { "." };
                *path = format!("{key}{dot}{path}");
            }
            if map.contains_key(&key) && self.0.len() < MAX_DUPLICATES {
                self.0.push(key.clone());
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// Go's words for what `serde_json` found.
fn word(bytes: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() {
        return "unexpected end of JSON input".into();
    }
    let text = error.to_string();
    let place = match text.rsplit_once(" at line ") {
        Some((message, _)) => message,
        None => text.as_str(),
    };
    let context = match place {
        "expected value" => "looking for beginning of value",
        "expected `:`" => "after object key",
        "expected `,` or `}`" => "after object key:value pair",
        "expected `,` or `]`" => "after array element",
        "key must be a string" | "trailing comma" => "looking for beginning of object key string",
        "trailing characters" => "after top-level value",
        "invalid number" => "in numeric literal",
        "expected ident" => "in literal",
        "recursion limit exceeded" => return "exceeded max depth".into(),
        "control character (\\u0000-\\u001F) found while parsing a string" => "in string literal",
        "invalid escape" => "in string escape code",
        _ => return place.to_owned(),
    };
    match character_at(bytes, error.line(), error.column()) {
        Some(character) => format!("invalid character {} {context}", quoted(character)),
        None => place.to_owned(),
    }
}

/// A character as Go quotes it.
fn quoted(character: char) -> String {
    match character {
        '"' => "'\"'".into(),
        '\'' => r"'\''".into(),
        '\\' => r"'\\'".into(),
        '\u{7}' => r"'\a'".into(),
        '\u{8}' => r"'\b'".into(),
        '\u{c}' => r"'\f'".into(),
        '\n' => r"'\n'".into(),
        '\r' => r"'\r'".into(),
        '\t' => r"'\t'".into(),
        '\u{b}' => r"'\v'".into(),
        low if low < ' ' || low == '\u{7f}' => format!(r"'\x{:02x}'", low as u32),
        '\u{feff}' => r"'\ufeff'".into(),
        other => format!("'{other}'"),
    }
}

/// `line` and `column` count from 1; a column of 0 is the end of the line before.
fn character_at(bytes: &[u8], line: usize, column: usize) -> Option<char> {
    let start: usize = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .take(line.saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    let rest = bytes.get(start + column.saturating_sub(1)..)?;
    let text = &rest[..rest.len().min(4)];
    let valid = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&text[..error.valid_up_to()]).unwrap_or(""),
    };
    valid.chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn duplicates_are_named_by_path() {
        let text = br#"{"a":1,"a":2,"b":[{"c":{"d":1,"d":1}}],"e":{"f":1,"f":2,"f":3}}"#;
        let parsed = parse_json(text).unwrap();
        assert_eq!(parsed.duplicates, ["a", "b[0].c.d", "e.f", "e.f"]);
        assert_eq!(parsed.tree["a"], json!(2));
    }

    #[test]
    fn faults_are_worded_as_go_words_them() {
        let fault = |text: &str| parse_json(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(fault(""), "unexpected end of JSON input");
        assert_eq!(fault("{\"a\":1"), "unexpected end of JSON input");
        assert_eq!(
            fault("{\"a\":x}"),
            "invalid character 'x' looking for beginning of value"
        );
        assert_eq!(
            fault("{\"a\":1 x}"),
            "invalid character 'x' after object key:value pair"
        );
        assert_eq!(fault("{} x"), "invalid character 'x' after top-level value");
        assert_eq!(
            fault("{\"a\u{1}\":1}"),
            r"invalid character '\x01' in string literal"
        );
        assert_eq!(
            fault("\u{feff}{}"),
            r"invalid character '\ufeff' looking for beginning of value"
        );
        assert_eq!(
            fault("{\n  a: 1}"),
            "invalid character 'a' looking for beginning of object key string"
        );
        assert_eq!(fault(&"[".repeat(1000)), "exceeded max depth");
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse_json(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(parse_json(nested(MAX_DEPTH + 1).as_bytes()).is_err());
    }
}
