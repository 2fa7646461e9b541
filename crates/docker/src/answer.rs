//! Answers and faults, in the shapes docker's clients read.

use std::io;

use bytes::Bytes;
use futures::StreamExt;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use node_api::RuntimeError;
use oci::ImageError;
use serde::Serialize;
use tokio::sync::mpsc;

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;
pub(crate) type Answer = Result<Response<Body>, Fault>;

/// Pieces of a streamed answer that may wait for a slow client.
const PIECES: usize = 16;

/// A refusal: docker's own status and words.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Fault {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Fault {
        Fault {
            status,
            message: message.into(),
        }
    }

    pub(crate) fn bad(message: impl Into<String>) -> Fault {
        Fault::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn missing(message: impl Into<String>) -> Fault {
        Fault::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Fault {
        Fault::new(StatusCode::CONFLICT, message)
    }

    pub(crate) fn internal(message: impl ToString) -> Fault {
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, message.to_string())
    }

    pub(crate) fn unable(message: impl Into<String>) -> Fault {
        Fault::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    /// Nothing to be done: 304, without words.
    pub(crate) fn unchanged() -> Fault {
        Fault::new(StatusCode::NOT_MODIFIED, "")
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        if self.status == StatusCode::NOT_MODIFIED {
            return empty(self.status);
        }
        json(self.status, &serde_json::json!({ "message": self.message }))
    }
}

impl From<RuntimeError> for Fault {
    fn from(error: RuntimeError) -> Fault {
        let status = match &error {
            RuntimeError::NotFound(_) => StatusCode::NOT_FOUND,
            RuntimeError::AlreadyExists(_) | RuntimeError::FailedPrecondition(_) => {
                StatusCode::CONFLICT
            }
            RuntimeError::InvalidArgument(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Fault::new(status, error.to_string())
    }
}

impl From<ImageError> for Fault {
    fn from(error: ImageError) -> Fault {
        match &error {
            ImageError::NotFound(name) => {
                Fault::missing(format!("No such image: {}", crate::images::familiar(name)))
            }
            ImageError::Reference(..) => Fault::bad(format!("invalid reference format: {error}")),
            ImageError::Denied(..) => Fault::missing(error.to_string()),
            ImageError::Conflict(_) => Fault::conflict(error.to_string()),
            _ => Fault::internal(error),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::internal(error)
    }
}

impl From<nix::errno::Errno> for Fault {
    fn from(error: nix::errno::Errno) -> Fault {
        Fault::internal(error)
    }
}

/// The kernel's words for it, as programs written in Go have them.
pub(crate) fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_lowercase(),
        None => error.to_string(),
    }
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

pub(crate) fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn with_type(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

pub(crate) fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Response<Body> {
    // Our own types have string keys only; there is nothing that could not be written.
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    with_type(status, "application/json", full(bytes))
}

pub(crate) fn ok<T: Serialize + ?Sized>(value: &T) -> Answer {
    Ok(json(StatusCode::OK, value))
}

pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(nothing());
    *response.status_mut() = status;
    response
}

pub(crate) fn done() -> Answer {
    Ok(empty(StatusCode::NO_CONTENT))
}

/// The sending end of a streamed answer.
pub(crate) type Pieces = mpsc::Sender<io::Result<Bytes>>;

/// An answer that is sent piece by piece.
pub(crate) fn stream(kind: &'static str) -> (Pieces, Response<Body>) {
    let (sender, mut receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    let pieces = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    let body = StreamBody::new(pieces.map(|piece| piece.map(Frame::data)));
    (sender, with_type(StatusCode::OK, kind, body.boxed_unsync()))
}

/// Sends one JSON document and an end of line; false when the client is gone.
pub(crate) async fn line<T: Serialize>(pieces: &Pieces, value: &T) -> bool {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.extend_from_slice(b"\r\n");
    pieces.send(Ok(bytes.into())).await.is_ok()
}

/// The sending end, for code that blocks.
pub(crate) struct PiecesWriter(pub(crate) Pieces);

impl io::Write for PiecesWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        match self.0.blocking_send(Ok(piece)) {
            Ok(()) => Ok(bytes.len()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
