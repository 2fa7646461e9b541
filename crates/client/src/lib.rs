//! One handle on the API, local or remote. A [`Client`] wraps any service that
//! answers HTTP requests: the API server as a value in this process, or a
//! connection to one elsewhere. Callers cannot tell.

pub mod api;
pub mod informer;

pub mod kubeconfig;
mod lean;
mod pool;
pub mod remote;
pub mod request;
pub mod watch;
pub mod wire;

use bytes::Bytes;
use http::{Request, Response};

pub use api::{Api, DeleteOptions, Kind, List, ListOptions, Patch, WriteOptions};
pub use informer::{Change, Hub, Informer, Key, Selection, Subscription};
pub use kubeconfig::Access;
pub use request::Client;
pub use watch::{Watch, WatchEvent};
pub use wire::{Decode, Wire};

/// Any error a transport may raise.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request's or response's body: bytes that may still be arriving.
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

/// What a client calls: cheap to clone, shareable, type-erased.
pub type Transport = tower::util::BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// A body that is all there.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    use http_body_util::BodyExt;
    http_body_util::Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body without bytes.
pub fn empty() -> Body {
    full(Bytes::new())
}
