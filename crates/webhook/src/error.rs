//! Why a webhook cannot be called or did not answer, in upstream's words.

use http::{HeaderMap, StatusCode, header};
use meta::{Reason, Status};

/// A webhook's configuration that leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("webhook configuration must have either service or URL")]
    NoTarget,
    #[error("Unparsable URL: {0}")]
    Url(String),
    #[error("unable to load root certificates: {0}")]
    Roots(String),
    #[error("no system certificates to trust: give a caBundle")]
    NoSystemRoots,
    #[error("{0}")]
    Kubeconfig(String),
}

/// A call that brought no usable answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// Such as `Post "https://a.b.svc:443/x?timeout=10s": context deadline exceeded`.
    pub message: String,
    /// What the webhook answered, when it answered with a failure.
    pub status: Option<Box<Status>>,
    transient: bool,
}

impl CallError {
    /// No answer came; `transient`: the same call may succeed a moment later.
    pub(crate) fn transport(url: &str, why: &str, transient: bool) -> CallError {
        CallError {
            message: format!("Post {url:?}: {why}"),
            status: None,
            transient,
        }
    }

    /// An answer came that says nothing.
    pub(crate) fn answer(message: String) -> CallError {
        CallError {
            message,
            status: None,
            transient: false,
        }
    }

    /// The webhook answered with a code other than 2xx.
    pub(crate) fn refused(code: StatusCode, headers: &HeaderMap, body: &[u8]) -> CallError {
        let status = refusal(code, headers, body);
        let retry = matches!(
            status.reason,
            Reason::InternalError | Reason::Timeout | Reason::TooManyRequests
        );
        CallError {
            message: status.message.clone(),
            transient: retry || status.retry_after_seconds.is_some(),
            status: Some(Box::new(status)),
        }
    }

    /// Whether upstream would call again after a pause: a connection that broke, 429, 500, 504,
    /// or a `Retry-After`.
    pub fn should_retry(&self) -> bool {
        self.transient
    }
}

/// A failure as client-go words it: the Status in the body, or a sentence for the code.
fn refusal(code: StatusCode, headers: &HeaderMap, body: &[u8]) -> Status {
    let after = headers.get(header::RETRY_AFTER);
    let after = after.and_then(|value| value.to_str().ok()?.parse().ok());
    let text = shown(body);
    let is_status = serde_json::from_slice::<serde_json::Value>(body)
        .is_ok_and(|tree| tree["kind"] == "Status" && tree["apiVersion"] == "v1");
    let mut status = match is_status {
        true => Status::from_body(code.as_u16(), body),
        false => {
            let (reason, message) = generic(code.as_u16(), &text);
            let mut status = Status::new(reason, message);
            status.code = code.as_u16();
            status
        }
    };
    status.retry_after_seconds = status.retry_after_seconds.or(after);
    status
}

fn generic(code: u16, text: &str) -> (Reason, String) {
    let (reason, message) = match code {
        400 => (
            Reason::BadRequest,
            "the server rejected our request for an unknown reason",
        ),
        401 => (
            Reason::Unauthorized,
            "the server has asked for the client to provide credentials",
        ),
        403 => (Reason::Forbidden, text),
        404 => (
            Reason::NotFound,
            "the server could not find the requested resource",
        ),
        405 => (
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        ),
        409 => (Reason::AlreadyExists, "the server reported a conflict"),
        415 => (Reason::UnsupportedMediaType, text),
        422 => (
            Reason::Invalid,
            "the server rejected our request due to an error in our request",
        ),
        429 => (
            Reason::TooManyRequests,
            "the server has received too many requests and has asked us to try again later",
        ),
        503 => (
            Reason::ServiceUnavailable,
            "the server is currently unable to handle the request",
        ),
        504 => (
            Reason::Timeout,
            "the server was unable to return a response in the time allotted, but may still be \
             processing the request",
        ),
        500.. => {
            let message = format!(
                "an error on the server ({text:?}) has prevented the request from succeeding"
            );
            return (Reason::InternalError, message);
        }
        _ => {
            let message = format!(
                "the server responded with the status code {code} but did not \
                 return more information"
            );
            return (Reason::Unknown, message);
        }
    };
    (reason, message.to_owned())
}

/// The beginning of a body, for people.
pub(crate) fn shown(body: &[u8]) -> String {
    /// As much as client-go shows.
    const SHOWN_BYTES_MAX: usize = 2048;
    let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES_MAX)]);
    match text.trim() {
        "" => "unknown".into(),
        text => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_becomes_client_gos_sentence() {
        let none = HeaderMap::new();
        let refused = |code, body: &[u8]| {
            let code = StatusCode::from_u16(code).unwrap();
            let error = CallError::refused(code, &none, body);
            (error.message.clone(), error.should_retry())
        };
        assert_eq!(
            refused(404, b"404 page not found\n").0,
            "the server could not find the requested resource"
        );
        let (message, retry) = refused(500, b"boom\n");
        let expect = "an error on the server (\"boom\") has prevented the request from succeeding";
        assert_eq!((message.as_str(), retry), (expect, true));
        let body = br#"{"kind":"Status","apiVersion":"v1","message":"no","reason":"Forbidden"}"#;
        assert_eq!(refused(403, body), ("no".to_owned(), false));
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, http::HeaderValue::from_static("3"));
        let error = CallError::refused(StatusCode::SERVICE_UNAVAILABLE, &headers, b"");
        assert_eq!(error.status.as_ref().unwrap().retry_after_seconds, Some(3));
        assert!(error.should_retry());
    }
}
