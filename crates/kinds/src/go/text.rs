//! Writes a value by its type, in one line or indented by a space per level.

use serde_json::Value;

use super::{Field, TYPES};
use crate::tree::Tree;

/// What upstream's internal pods keep in their security context.
const OF_SECURITY_CONTEXT: [&str; 5] = [
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "shareProcessNamespace",
    "hostUsers",
];

/// How a value is written.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Form {
    /// In one line.
    Line,
    /// Indented, a space per level.
    Lines,
    /// In one line, where lists and maps without anything in them are null.
    Meaning,
}

/// The value as its type's JSON.
pub(super) fn written(value: &Value, kind: &str, form: Form) -> String {
    let mut writer = Writer {
        text: String::new(),
        depth: (form == Form::Lines).then_some(0),
        meaning: form == Form::Meaning,
    };
    writer.value(value, kind);
    writer.text
}

struct Writer {
    text: String,
    /// How deep lines are indented; `None` where all is one line.
    depth: Option<usize>,
    meaning: bool,
}

impl Writer {
    fn value(&mut self, value: &Value, kind: &str) {
        let (sign, name) = match kind.split_at_checked(1) {
            Some((sign @ ("*" | "[" | "{"), name)) => (sign, name),
            _ => ("", kind),
        };
        let value = match value {
            Value::Array(list) if self.meaning && list.is_empty() => &Value::Null,
            Value::Object(map)
                if self.meaning && map.is_empty() && (sign == "{" || kind == "*") =>
            {
                &Value::Null
            }
            other => other,
        };
        match (sign, name, value) {
            ("", "s", Value::Null) => self.text.push_str("\"\""),
            ("", "i", Value::Null) => self.text.push('0'),
            ("", "b", Value::Null) => self.text.push_str("false"),
            ("", "q", Value::Null) => self.text.push_str("\"0\""),
            ("*" | "[" | "{", _, Value::Null) => self.text.push_str("null"),
            ("[", name, Value::Array(items)) => self.list(items, name),
            ("{", name, Value::Object(map)) => {
                let entries: Vec<_> = map
                    .iter()
                    .map(|(key, value)| (key.as_str(), value))
                    .collect();
                self.map(entries, name);
            }
            (_, name, value) => match TYPES.get(name) {
                Some(fields) if name == "PodSpec" => self.structure(&pod_spec(value), fields),
                Some(fields) => self.structure(value, fields),
                None => self.plain(value),
            },
        }
    }

    /// A value of no known type, its names in alphabetical order.
    fn plain(&mut self, value: &Value) {
        match value {
            Value::Array(items) => self.list(items, ""),
            Value::Object(map) => {
                let entries = map.iter().map(|(key, value)| (key.as_str(), value));
                self.map(entries.collect(), "");
            }
            Value::String(text) => self.quoted(text),
            other => self.text.push_str(&other.to_string()),
        }
    }

    fn structure(&mut self, value: &Value, fields: &[Field]) {
        let relevant = fields.iter().filter_map(|field| {
            let value = value.at(&field.path);
            (!field.omitted || !is_empty(value, field.kind)).then_some((field, value))
        });
        self.enclosed('{', '}', relevant, |writer, (field, value)| {
            writer.name(field.shown);
            writer.value(value, field.kind);
        });
    }

    fn map(&mut self, mut entries: Vec<(&str, &Value)>, kind: &str) {
        entries.sort_by_key(|(key, _)| *key);
        self.enclosed('{', '}', entries.into_iter(), |writer, (key, value)| {
            writer.name(key);
            writer.value(value, kind);
        });
    }

    fn list(&mut self, items: &[Value], kind: &str) {
        self.enclosed('[', ']', items.iter(), |writer, item| {
            writer.value(item, kind)
        });
    }

    fn enclosed<T>(
        &mut self,
        open: char,
        close: char,
        items: impl Iterator<Item = T>,
        write: impl Fn(&mut Self, T),
    ) {
        self.text.push(open);
        self.depth = self.depth.map(|depth| depth + 1);
        let mut any = false;
        for item in items {
            if any {
                self.text.push(',');
            }
            any = true;
            self.new_line();
            write(self, item);
        }
        self.depth = self.depth.map(|depth| depth - 1);
        if any {
            self.new_line();
        }
        self.text.push(close);
    }

    fn new_line(&mut self) {
        if let Some(depth) = self.depth {
            self.text.push('\n');
            self.text.push_str(&" ".repeat(depth));
        }
    }

    fn name(&mut self, name: &str) {
        self.quoted(name);
        self.text
            .push_str(if self.depth.is_some() { ": " } else { ":" });
    }

    /// As Go writes it: what could mean something in HTML is escaped.
    fn quoted(&mut self, text: &str) {
        let plain = Value::from(text).to_string();
        for letter in plain.chars() {
            match letter {
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    self.text.push_str(&format!("\\u{:04x}", letter as u32));
                }
                letter => self.text.push(letter),
            }
        }
    }
}

fn is_empty(value: &Value, kind: &str) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        // Behind a pointer also what is zero counts.
        value if kind != "*" => value == "" || value == 0 || value == false,
        _ => false,
    }
}

/// The specification with what upstream keeps elsewhere moved there.
fn pod_spec(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if !spec.is_object() {
        return spec;
    }
    spec.fill_map("securityContext");
    for field in OF_SECURITY_CONTEXT {
        let value = spec.at(field).clone();
        if !value.is_null() {
            spec["securityContext"][field] = value;
        }
    }
    spec
}
