//! As many HTTP/2 connections to one server as its streams need: a server allows so many streams
//! on one connection, and a watch holds its stream for as long as it lasts.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use base::metrics::{Counters, Histograms};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;

use crate::{Body, BoxError};

/// Streams on one connection; servers allow 100 at least, ours and upstream's 250.
const STREAMS_MAX: usize = 100;
/// Connections to one server. Beyond, requests wait for a stream.
const CONNECTIONS_MAX: usize = 64;

static REQUESTS: Counters = Counters::new(
    "rest_client_requests_total",
    "[ALPHA] Number of HTTP requests, partitioned by status code, method, and host.",
    &["code", "host", "method"],
);
static TIME: Histograms = Histograms::new(
    "rest_client_request_duration_seconds",
    "[ALPHA] Request latency in seconds. Broken down by verb, and host.",
    &["host", "verb"],
    &[
        0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0,
    ],
);

type Http = legacy::Client<HttpsConnector<HttpConnector>, Body>;

/// Clones share the connections.
#[derive(Clone)]
pub(crate) struct Pool {
    connector: HttpsConnector<HttpConnector>,
    members: Arc<Mutex<Vec<Member>>>,
}

/// One connection and the answers that are still open on it.
struct Member {
    client: Http,
    open: Arc<AtomicUsize>,
}

/// One open answer.
struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// Connections are made when needed.
    pub(crate) fn new(connector: HttpsConnector<HttpConnector>) -> Pool {
        Pool {
            connector,
            members: Arc::default(),
        }
    }

    /// Sends a request over a connection that has a stream for it.
    pub(crate) async fn send(self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let (client, seat) = self.choose();
        let host = request.uri().authority().map(|own| own.to_string());
        let (host, method) = (host.unwrap_or_default(), request.method().clone());
        let begun = Instant::now();
        let answer = client.request(request).await;
        TIME.observe_time(&[&host, method.as_str()], begun.elapsed());
        let code = answer.as_ref().map(|answer| answer.status());
        let code = code.as_ref().map_or("<error>", |code| code.as_str());
        REQUESTS.add(&[code, &host, method.as_str()], 1);
        let answer = answer?;
        Ok(answer.map(|body| Held { body, _seat: seat }.boxed_unsync()))
    }

    /// The first connection with a free stream, so that later ones empty and go.
    fn choose(&self) -> (Http, Seat) {
        let mut members = self.members.lock();
        let is_open = |member: &Member| member.open.load(Ordering::Relaxed) > 0;
        let mut first = true;
        members.retain(|member| std::mem::take(&mut first) || is_open(member));
        let load = |member: &Member| member.open.load(Ordering::Relaxed);
        let free = members.iter().position(|member| load(member) < STREAMS_MAX);
        let chosen = match free {
            Some(chosen) => chosen,
            None if members.len() < CONNECTIONS_MAX => {
                members.push(Member {
                    client: legacy::Client::builder(TokioExecutor::new())
                        .build(self.connector.clone()),
                    open: Arc::default(),
                });
                members.len() - 1
            }
            None => {
                let least = members.iter().enumerate();
                least
                    .min_by_key(|(_, member)| load(member))
                    .map_or(0, |(at, _)| at)
            }
        };
        let member = &members[chosen];
        member.open.fetch_add(1, Ordering::Relaxed);
        (member.client.clone(), Seat(Arc::clone(&member.open)))
    }
}

/// A body that keeps its seat until it is gone.
struct Held {
    body: hyper::body::Incoming,
    _seat: Seat,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        frame.map(|frame| frame.map(|frame| frame.map_err(BoxError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
