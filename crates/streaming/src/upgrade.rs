//! Upgrades a request to SPDY/3.1, as kubectl before 1.31 asks for.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use spdy::{Role, Session, SpdyError};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Body, full, text};

const SPDY: &str = "SPDY/3.1";
const PROTOCOL: &str = "x-stream-protocol-version";
const ACCEPTED_PROTOCOLS: &str = "x-accepted-stream-protocol-versions";
/// How long a peer may take to open the streams that it needs.
pub(crate) const STREAM_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a peer may take to leave after the goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether a request asks for SPDY.
pub(crate) fn is_asked(request: &Request<Incoming>) -> bool {
    let value = request.headers().get(header::UPGRADE);
    let value = value.and_then(|value| value.to_str().ok()).unwrap_or("");
    value.eq_ignore_ascii_case(SPDY)
}

/// What to answer, the protocol, and what becomes the connection.
pub(crate) type Accepted = (Response<Body>, &'static str, OnUpgrade);

/// Accepts an upgrade with the first of the client's protocols that is known; a client that names
/// none means the oldest, which is the last known.
pub(crate) fn accept(
    request: Request<Incoming>,
    known: &[&'static str],
) -> Result<Accepted, Box<Response<Body>>> {
    let offered: Vec<String> = request
        .headers()
        .get_all(PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|word| word.trim().to_owned())
        .collect();
    let oldest = known.last().copied().unwrap_or_default();
    let chosen = match offered.as_slice() {
        [] => Some(oldest),
        offered => offered
            .iter()
            .find_map(|word| known.iter().copied().find(|own| own == word)),
    };
    let Some(chosen) = chosen else {
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server supports [{}]",
            offered.join(" "),
            known.join(" ")
        );
        let mut refusal = text(StatusCode::FORBIDDEN, message);
        for own in known {
            let value = HeaderValue::from_static(own);
            refusal.headers_mut().append(ACCEPTED_PROTOCOLS, value);
        }
        return Err(Box::new(refusal));
    };
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static(SPDY));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if !offered.is_empty() {
        headers.insert(PROTOCOL, HeaderValue::from_static(chosen));
    }
    Ok((response, chosen, hyper::upgrade::on(request)))
}

/// Waits for the upgrade, and runs `work` on the session.
pub(crate) async fn run<F, T>(upgrade: OnUpgrade, work: F)
where
    F: FnOnce(Session, spdy::Incoming) -> T,
    T: Future<Output = ()>,
{
    match upgrade.await {
        Ok(upgraded) => run_over(TokioIo::new(upgraded), work).await,
        Err(error) => tracing::debug!(%error, "upgrade failed"),
    }
}

/// Runs `work` on a session over a transport, until it is done or the peer left.
pub(crate) async fn run_over<F, T>(transport: impl AsyncRead + AsyncWrite + Send + 'static, work: F)
where
    F: FnOnce(Session, spdy::Incoming) -> T,
    T: Future<Output = ()>,
{
    let (session, incoming, moving) = spdy::start(transport, Role::Server);
    tokio::pin!(moving);
    let work = async {
        work(session.clone(), incoming).await;
        session.close().await;
    };
    let left = tokio::select! {
        () = work => None,
        moved = &mut moving => Some(moved),
    };
    let moved = match left {
        Some(moved) => moved,
        // Closing with input unread would reset the connection, and what was sent last with it.
        None => tokio::time::timeout(GOODBYE_TIMEOUT, moving)
            .await
            .unwrap_or(Err(SpdyError::Closed)),
    };
    if let Err(error) = moved {
        tracing::debug!(%error, "SPDY connection ended");
    }
}
