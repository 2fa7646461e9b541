//! Upgrades HTTP requests to the streams of a container runtime: commands with their terminals,
//! and ports of pods, over WebSockets (`channel.k8s.io`) or SPDY. The kubelet's server and the
//! engine's own streaming server both answer with it. And the other end, for a kubelet whose runtime
//! gives it a URL.

mod client;
mod command;
mod ports;
mod spdy_command;
mod upgrade;
mod websocket;

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

pub use client::{connect_port, connect_session};
pub use command::command;
pub use ports::{Target, forward, ports_of};

/// Bodies of answers.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into()).boxed_unsync()
}

fn text(code: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = code;
    let value = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}
