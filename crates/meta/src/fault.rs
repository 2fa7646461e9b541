//! Faults of fields, worded as upstream's `field.Error`.

use std::fmt;

use serde_json::Value;

use crate::status::Cause;

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    Required,
    Invalid,
    /// The same of a value that is too large to be shown.
    InvalidUnshown,
    NotSupported,
    Duplicate,
    Forbidden,
    NotFound,
    TooLong,
    TooMany,
    TypeInvalid,
    Internal,
}

impl FaultKind {
    /// The cause's machine-readable reason.
    pub fn reason(self) -> &'static str {
        match self {
            FaultKind::Required => "FieldValueRequired",
            FaultKind::Invalid | FaultKind::InvalidUnshown => "FieldValueInvalid",
            FaultKind::NotSupported => "FieldValueNotSupported",
            FaultKind::Duplicate => "FieldValueDuplicate",
            FaultKind::Forbidden => "FieldValueForbidden",
            FaultKind::NotFound => "FieldValueNotFound",
            FaultKind::TooLong => "FieldValueTooLong",
            FaultKind::TooMany => "FieldValueTooMany",
            FaultKind::TypeInvalid => "FieldValueTypeInvalid",
            FaultKind::Internal => "InternalError",
        }
    }

    fn words(self) -> &'static str {
        match self {
            FaultKind::Required => "Required value",
            FaultKind::Invalid | FaultKind::InvalidUnshown | FaultKind::TypeInvalid => {
                "Invalid value"
            }
            FaultKind::NotSupported => "Unsupported value",
            FaultKind::Duplicate => "Duplicate value",
            FaultKind::Forbidden => "Forbidden",
            FaultKind::NotFound => "Not found",
            FaultKind::TooLong => "Too long",
            FaultKind::TooMany => "Too many",
            FaultKind::Internal => "Internal error",
        }
    }

    fn shows_value(self) -> bool {
        use FaultKind::{Duplicate, Invalid, NotFound, NotSupported, TooMany, TypeInvalid};
        matches!(
            self,
            Duplicate | Invalid | NotFound | NotSupported | TooMany | TypeInvalid
        )
    }
}

/// One fault of one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Such as `spec.containers[0].name`.
    pub field: String,
    pub kind: FaultKind,
    /// The offending value; shown for the kinds that name it.
    pub value: Value,
    /// How the value is shown, where that is not its JSON.
    pub shown: Option<String>,
    /// What would be right; may be empty.
    pub detail: String,
}

impl Fault {
    /// The fault without its field: `Invalid value: -1: must be non-negative`.
    pub fn body(&self) -> String {
        let mut text = self.kind.words().to_owned();
        if self.kind.shows_value() {
            text.push_str(": ");
            match &self.shown {
                Some(shown) => text.push_str(shown),
                None => text.push_str(&self.value.to_string()),
            }
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// All faults of one object, in the order found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// No faults yet.
    pub fn new() -> Faults {
        Faults::default()
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The field must be given.
    pub fn required(&mut self, field: impl Into<String>, detail: impl Into<String>) {
        self.add(field, FaultKind::Required, Value::Null, detail);
    }

    /// The value breaks a rule.
    pub fn invalid(
        &mut self,
        field: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) {
        self.add(field, FaultKind::Invalid, value.into(), detail);
    }

    /// The value is none of `supported`.
    pub fn not_supported(
        &mut self,
        field: impl Into<String>,
        value: impl Into<Value>,
        supported: &[&str],
    ) {
        let mut sorted = supported.to_vec();
        sorted.sort_unstable();
        let quoted: Vec<_> = sorted.iter().map(|word| format!("\"{word}\"")).collect();
        let detail = format!("supported values: {}", quoted.join(", "));
        self.add(field, FaultKind::NotSupported, value.into(), detail);
    }

    /// The value is a domain with a path, such as `acme.io/foo`.
    pub fn domain_prefixed_path(&mut self, field: &str, text: &str) {
        const PATH: &str = "Invalid path (regex used for validation is \
                            '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
        let sound =
            |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
        match text.split_once('/') {
            _ if text.is_empty() => self.required(field, ""),
            Some((host, rest)) if !host.is_empty() && !rest.is_empty() => {
                for rule in crate::naming::dns1123_subdomain(host) {
                    self.invalid(field, host, rule);
                }
                if !rest.bytes().all(sound) {
                    self.invalid(field, rest, PATH);
                }
            }
            _ => {
                let rule = "must be a domain-prefixed path (such as \"acme.io/foo\")";
                self.invalid(field, text, rule);
            }
        }
    }

    /// The value stands twice where it may stand once.
    pub fn duplicate(&mut self, field: impl Into<String>, value: impl Into<Value>) {
        self.add(field, FaultKind::Duplicate, value.into(), "");
    }

    /// The field may not be set, or not changed.
    pub fn forbidden(&mut self, field: impl Into<String>, detail: impl Into<String>) {
        self.add(field, FaultKind::Forbidden, Value::Null, detail);
    }

    /// The value refers to something that does not exist.
    pub fn not_found(&mut self, field: impl Into<String>, value: impl Into<Value>) {
        self.add(field, FaultKind::NotFound, value.into(), "");
    }

    /// The value exceeds `limit` bytes.
    pub fn too_long(&mut self, field: impl Into<String>, limit: usize) {
        let detail = format!("may not be more than {limit} bytes");
        self.add(field, FaultKind::TooLong, Value::Null, detail);
    }

    /// The list has `count` items, more than `limit`.
    pub fn too_many(&mut self, field: impl Into<String>, count: usize, limit: usize) {
        let detail = format!("must have at most {limit} items");
        self.add(field, FaultKind::TooMany, count.into(), detail);
    }

    /// Adds a fault of any kind.
    pub fn add(
        &mut self,
        field: impl Into<String>,
        kind: FaultKind,
        value: Value,
        detail: impl Into<String>,
    ) {
        self.0.push(Fault {
            field: field.into(),
            kind,
            value,
            shown: None,
            detail: detail.into(),
        });
    }

    /// Adds a fault whose value users see as `shown`.
    pub fn add_shown(
        &mut self,
        field: impl Into<String>,
        kind: FaultKind,
        shown: impl Into<String>,
        detail: impl Into<String>,
    ) {
        self.0.push(Fault {
            field: field.into(),
            kind,
            value: Value::Null,
            shown: Some(shown.into()),
            detail: detail.into(),
        });
    }

    /// One line: the fault itself when there is one, else `[a, b]`. What is said twice stands once.
    pub fn summary(&self) -> String {
        let mut lines: Vec<String> = Vec::with_capacity(self.0.len());
        for line in self.0.iter().map(Fault::to_string) {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        match lines.as_slice() {
            [line] => line.clone(),
            lines => format!("[{}]", lines.join(", ")),
        }
    }

    /// The causes of a Status.
    pub fn causes(&self) -> Vec<Cause> {
        let cause = |fault: &Fault| Cause {
            reason: fault.kind.reason().into(),
            message: fault.body(),
            field: fault.field.clone(),
        };
        self.0.iter().map(cause).collect()
    }
}
