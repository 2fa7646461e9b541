//! `metav1.Status`: how every part of the API says what went wrong.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fault::Faults;
use crate::names::Names;

/// The machine-readable reason of a [`Status`]; the spelling is upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

impl Reason {
    const ALL: [(Reason, &'static str, u16); 19] = [
        (Reason::Unknown, "", 500),
        (Reason::Unauthorized, "Unauthorized", 401),
        (Reason::Forbidden, "Forbidden", 403),
        (Reason::NotFound, "NotFound", 404),
        (Reason::AlreadyExists, "AlreadyExists", 409),
        (Reason::Conflict, "Conflict", 409),
        (Reason::Gone, "Gone", 410),
        (Reason::Invalid, "Invalid", 422),
        (Reason::ServerTimeout, "ServerTimeout", 500),
        (Reason::Timeout, "Timeout", 504),
        (Reason::TooManyRequests, "TooManyRequests", 429),
        (Reason::BadRequest, "BadRequest", 400),
        (Reason::MethodNotAllowed, "MethodNotAllowed", 405),
        (Reason::NotAcceptable, "NotAcceptable", 406),
        (Reason::RequestEntityTooLarge, "RequestEntityTooLarge", 413),
        (Reason::UnsupportedMediaType, "UnsupportedMediaType", 415),
        (Reason::InternalError, "InternalError", 500),
        (Reason::Expired, "Expired", 410),
        (Reason::ServiceUnavailable, "ServiceUnavailable", 503),
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        self.row().1
    }

    /// The HTTP status code that goes with it.
    pub fn code(self) -> u16 {
        self.row().2
    }

    fn row(self) -> (Reason, &'static str, u16) {
        *Reason::ALL
            .iter()
            .find(|row| row.0 == self)
            .unwrap_or(&Reason::ALL[0])
    }

    fn from_word(word: &str) -> Reason {
        Reason::ALL
            .iter()
            .find(|row| row.1 == word)
            .map_or(Reason::Unknown, |row| row.0)
    }
}

/// One entry of `details.causes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// A failure as clients see it. The error type of the API and its clients.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason.
    pub reason: Reason,
    /// Sentence for people, in upstream's wording.
    pub message: String,
    /// `details`: name, group, kind (the plural, as upstream has it), uid, causes.
    pub name: String,
    pub group: String,
    pub kind: String,
    pub causes: Vec<Cause>,
    /// After how many seconds a client may try again.
    pub retry_after_seconds: Option<u32>,
    /// A reason that is none of [`Reason`]'s, as webhooks give them.
    pub odd_reason: Option<Box<str>>,
}

impl Status {
    /// A status of `reason` with that reason's usual code and no details.
    pub fn new(reason: Reason, message: impl Into<String>) -> Status {
        Status {
            code: reason.code(),
            reason,
            message: message.into(),
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            causes: Vec::new(),
            retry_after_seconds: None,
            odd_reason: None,
        }
    }

    /// 404: `pods "web" not found`.
    pub fn not_found(names: &Names, name: &str) -> Status {
        let message = format!("{} \"{name}\" not found", names.group_resource());
        Status::new(Reason::NotFound, message).about(names, name)
    }

    /// 409: `pods "web" already exists`.
    pub fn already_exists(names: &Names, name: &str) -> Status {
        let message = format!("{} \"{name}\" already exists", names.group_resource());
        Status::new(Reason::AlreadyExists, message).about(names, name)
    }

    /// 409: `Operation cannot be fulfilled on pods "web": why`.
    pub fn conflict(names: &Names, name: &str, why: &str) -> Status {
        let resource = names.group_resource();
        let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}");
        Status::new(Reason::Conflict, message).about(names, name)
    }

    /// 403 from admission: `pods "web" is forbidden: why`.
    pub fn forbidden(names: &Names, name: &str, why: &str) -> Status {
        let resource = names.group_resource();
        let subject = if name.is_empty() {
            resource
        } else {
            format!("{resource} \"{name}\"")
        };
        let message = format!("{subject} is forbidden: {why}");
        Status::new(Reason::Forbidden, message).about(names, name)
    }

    /// 422 with one cause per fault: `Pod "web" is invalid: spec.containers: Required value`.
    pub fn invalid(names: &Names, name: &str, faults: &Faults) -> Status {
        let qualified = match names.group.as_str() {
            "" => names.kind.clone(),
            group => format!("{}.{group}", names.kind),
        };
        let message = format!("{qualified} \"{name}\" is invalid: {}", faults.summary());
        let mut status = Status::new(Reason::Invalid, message).about(names, name);
        status.kind = names.kind.clone();
        status.causes = faults.causes();
        status
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::new(Reason::BadRequest, message)
    }

    /// 500: `Internal error occurred: …`.
    pub fn internal(message: impl std::fmt::Display) -> Status {
        Status::new(
            Reason::InternalError,
            format!("Internal error occurred: {message}"),
        )
    }

    /// 410 for a resource version that is no longer kept.
    pub fn expired(message: impl Into<String>) -> Status {
        Status::new(Reason::Expired, message)
    }

    /// Fills name, group and (plural) kind of the details.
    pub fn about(mut self, names: &Names, name: &str) -> Status {
        self.name = name.into();
        self.group = names.group.clone();
        self.kind = names.plural.clone();
        self
    }

    /// The body of the response.
    pub fn to_value(&self) -> Value {
        let mut details = serde_json::Map::new();
        let texts = [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.kind),
        ];
        for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            details.insert(field.into(), text.as_str().into());
        }
        if !self.causes.is_empty() {
            details.insert("causes".into(), json!(self.causes));
        }
        if let Some(seconds) = self.retry_after_seconds {
            details.insert("retryAfterSeconds".into(), seconds.into());
        }
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if self.reason != Reason::Unknown {
            body["reason"] = self.reason.as_str().into();
        } else if let Some(reason) = &self.odd_reason {
            body["reason"] = (**reason).into();
        }
        if !details.is_empty() || self.always_has_details() {
            body["details"] = Value::Object(details);
        }
        body
    }

    /// Whether upstream gives details even where there are none.
    fn always_has_details(&self) -> bool {
        use Reason::{Forbidden, Invalid, MethodNotAllowed, NotFound};
        matches!(
            self.reason,
            Forbidden | Invalid | MethodNotAllowed | NotFound
        ) || ["406: ", "415: "]
            .iter()
            .any(|code| self.message.starts_with(code))
    }

    /// Reads a failure's body; anything that is no Status becomes a message of its own.
    pub fn from_body(code: u16, body: &[u8]) -> Status {
        let tree: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let text = |pointer: &str| {
            tree.pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        if text("/kind") != "Status" {
            let shown = String::from_utf8_lossy(&body[..body.len().min(512)]);
            let mut status = Status::new(Reason::Unknown, format!("HTTP {code}: {}", shown.trim()));
            status.code = code;
            return status;
        }
        let causes = tree
            .pointer("/details/causes")
            .cloned()
            .unwrap_or(Value::Null);
        let retry = tree
            .pointer("/details/retryAfterSeconds")
            .and_then(Value::as_u64);
        Status {
            code: tree
                .get("code")
                .and_then(Value::as_u64)
                .map_or(code, |code| code as u16),
            reason: Reason::from_word(&text("/reason")),
            message: text("/message"),
            name: text("/details/name"),
            group: text("/details/group"),
            kind: text("/details/kind"),
            causes: serde_json::from_value(causes).unwrap_or_default(),
            retry_after_seconds: retry.map(|seconds| seconds as u32),
            odd_reason: match (Reason::from_word(&text("/reason")), text("/reason")) {
                (Reason::Unknown, word) if !word.is_empty() => Some(word.into()),
                _ => None,
            },
        }
    }

    /// Whether the object did not exist.
    pub fn is_not_found(&self) -> bool {
        self.reason == Reason::NotFound
    }

    /// Whether another writer was faster.
    pub fn is_conflict(&self) -> bool {
        self.reason == Reason::Conflict
    }

    /// Whether the name was taken.
    pub fn is_already_exists(&self) -> bool {
        self.reason == Reason::AlreadyExists
    }

    /// Whether a list or watch must start over.
    pub fn is_expired(&self) -> bool {
        matches!(self.reason, Reason::Expired | Reason::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_the_wire() {
        let names = Names::namespaced("apps", "v1", "Deployment", "deployments");
        let status = Status::not_found(&names, "web");
        assert_eq!(status.message, "deployments.apps \"web\" not found");
        let body = serde_json::to_vec(&status.to_value()).unwrap();
        assert_eq!(Status::from_body(404, &body), status);
    }

    #[test]
    fn a_foreign_body_is_shown() {
        let status = Status::from_body(502, b"<html>bad gateway</html>");
        assert_eq!((status.code, status.reason), (502, Reason::Unknown));
        assert!(status.message.contains("bad gateway"));
    }
}
