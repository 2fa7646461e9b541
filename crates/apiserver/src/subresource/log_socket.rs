//! A pod's log as messages of a WebSocket, for clients that ask for an upgrade.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::Body;
use futures::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::BodyStream;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use meta::Status;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use crate::respond::Answer;

/// What clients may offer; none at all means the first.
const PROTOCOLS: [&str; 2] = ["binary.k8s.io", "base64.binary.k8s.io"];
/// How long a client may take to answer the goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether a request asks for a WebSocket.
pub(super) fn is_asked(headers: &HeaderMap) -> bool {
    words(headers, &UPGRADE).any(|word| word.eq_ignore_ascii_case("websocket"))
}

fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Takes what asks for the upgrade off the headers that go to the kubelet.
pub(super) fn strip(headers: &mut HeaderMap) {
    headers.remove(CONNECTION);
    headers.remove(UPGRADE);
    let own: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("sec-websocket-"))
        .cloned()
        .collect();
    for name in own {
        headers.remove(name);
    }
}

/// Answers with the upgrade, and sends the log once it is complete.
pub(super) fn answer(
    headers: &HeaderMap,
    upgrade: Option<OnUpgrade>,
    log: Response<Body>,
    crew: &base::Crew,
) -> Result<Answer, Status> {
    let key = headers.get(SEC_WEBSOCKET_KEY);
    let (Some(upgrade), Some(key)) = (upgrade, key) else {
        return Err(Status::bad_request("Upgrade request required"));
    };
    let offered: Vec<&str> = words(headers, &SEC_WEBSOCKET_PROTOCOL).collect();
    let protocol = PROTOCOLS.into_iter().find(|own| offered.contains(own));
    if protocol.is_none() && !offered.is_empty() {
        return Err(Status::bad_request(format!(
            "none of the requested WebSocket protocols is supported: {}",
            offered.join(", ")
        )));
    }
    let mut answer = Response::new(client::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let head = answer.headers_mut();
    head.insert(UPGRADE, HeaderValue::from_static("websocket"));
    head.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        head.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(protocol) = protocol {
        head.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    let stop = crew.stop();
    let base64 = protocol == Some(PROTOCOLS[1]);
    crew.spawn("log socket", async move {
        tokio::select! {
            () = send(upgrade, log.into_body(), base64) => {}
            () = stop.raised() => {}
        }
    });
    Ok(answer)
}

async fn send(upgrade: OnUpgrade, log: Body, base64: bool) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => TokioIo::new(upgraded),
        Err(error) => return tracing::debug!(%error, "upgrade failed"),
    };
    let socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await;
    let (mut sink, mut stream) = socket.split();
    let out = async {
        let mut frames = BodyStream::new(log);
        while let Some(Ok(frame)) = frames.next().await {
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            let message = match base64 {
                true => Message::text(STANDARD.encode(&bytes)),
                false => Message::Binary(bytes),
            };
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let goodbye = CloseFrame {
            code: CloseCode::Normal,
            reason: Default::default(),
        };
        // A client that left already needs no goodbye.
        drop(sink.send(Message::Close(Some(goodbye))).await);
    };
    let left = async { while let Some(Ok(_)) = stream.next().await {} };
    tokio::pin!(left);
    tokio::select! {
        () = out => {}
        () = &mut left => return,
    }
    if tokio::time::timeout(GOODBYE_TIMEOUT, left).await.is_err() {
        tracing::debug!("the client did not answer the goodbye");
    }
}
