//! Streams as messages of a WebSocket, for clients that ask for an upgrade: pods' logs and watches.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use client::Body;
use futures::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    UPGRADE,
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

use crate::chain::Call;
use crate::chain::accept::Media;
use crate::respond::Answer;

/// What clients of logs may offer; none at all means the first.
const PROTOCOLS: [&str; 2] = ["binary.k8s.io", "base64.binary.k8s.io"];
/// Messages that carry a watch in protobuf need no length before each event.
const LENGTH_BYTES: usize = 4;
/// How long a client may take to answer the goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a frame of the stream becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Binary,
    Base64,
    /// One event of a watch in JSON.
    Text,
    /// One event of a watch in protobuf.
    Event,
}

impl Form {
    fn message(self, bytes: Bytes) -> Message {
        match self {
            Form::Binary => Message::Binary(bytes),
            Form::Base64 => Message::text(STANDARD.encode(&bytes)),
            Form::Text => Message::text(String::from_utf8_lossy(&bytes).into_owned()),
            Form::Event => Message::Binary(bytes.slice(LENGTH_BYTES.min(bytes.len())..)),
        }
    }
}

/// Whether a request asks for a WebSocket.
pub(crate) fn is_asked(headers: &HeaderMap) -> bool {
    words(headers, &UPGRADE).any(|word| word.eq_ignore_ascii_case("websocket"))
}

/// Whether a request asks to speak something else on its connection.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && words(headers, &CONNECTION).any(|word| word.eq_ignore_ascii_case("upgrade"))
}

fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Takes what asks for the upgrade off the headers that go to the kubelet.
pub(crate) fn strip(headers: &mut HeaderMap) {
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
pub(crate) fn log(
    headers: &HeaderMap,
    upgrade: Option<OnUpgrade>,
    log: Body,
    crew: &base::Crew,
) -> Result<Answer, Status> {
    let offered: Vec<&str> = words(headers, &SEC_WEBSOCKET_PROTOCOL).collect();
    let protocol = PROTOCOLS.into_iter().find(|own| offered.contains(own));
    if protocol.is_none() && !offered.is_empty() {
        return Err(Status::bad_request(format!(
            "none of the requested WebSocket protocols is supported: {}",
            offered.join(", ")
        )));
    }
    let form = match protocol {
        Some("base64.binary.k8s.io") => Form::Base64,
        _ => Form::Binary,
    };
    let mut answer = switch(headers, upgrade, log, form, crew)?;
    if let Some(protocol) = protocol {
        let protocol = HeaderValue::from_static(protocol);
        answer
            .headers_mut()
            .insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(answer)
}

/// Answers with the upgrade, and sends each event of a watch as a message: a text in JSON.
pub(crate) fn watch(
    call: &Call,
    upgrade: Option<OnUpgrade>,
    watch: Answer,
    crew: &base::Crew,
) -> Result<Answer, Status> {
    let headers = &call.headers;
    let offered: Vec<&str> = words(headers, &SEC_WEBSOCKET_PROTOCOL).collect();
    // A server that knows no protocol takes the only one that is offered.
    let protocol = match offered.as_slice() {
        [] => None,
        [one] => HeaderValue::from_str(one).ok(),
        _ => return Err(Status::bad_request("bad protocol")),
    };
    let form = match call.accept.media {
        Media::Protobuf => Form::Event,
        Media::Json | Media::Yaml => Form::Text,
    };
    let (head, body) = watch.into_parts();
    let mut answer = switch(headers, upgrade, body, form, crew)?;
    let own = answer.headers_mut();
    if let Some(media) = head.headers.get(CONTENT_TYPE) {
        own.insert(CONTENT_TYPE, media.clone());
    }
    if let Some(protocol) = protocol {
        own.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(answer)
}

fn switch(
    headers: &HeaderMap,
    upgrade: Option<OnUpgrade>,
    body: Body,
    form: Form,
    crew: &base::Crew,
) -> Result<Answer, Status> {
    let key = headers.get(SEC_WEBSOCKET_KEY);
    let (Some(upgrade), Some(key)) = (upgrade, key) else {
        return Err(Status::bad_request("Upgrade request required"));
    };
    let mut answer = Response::new(client::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let head = answer.headers_mut();
    head.insert(UPGRADE, HeaderValue::from_static("websocket"));
    head.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        head.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    let stop = crew.stop();
    crew.spawn("socket", async move {
        tokio::select! {
            () = send(upgrade, body, form) => {}
            () = stop.raised() => {}
        }
    });
    Ok(answer)
}

async fn send(upgrade: OnUpgrade, body: Body, form: Form) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => TokioIo::new(upgraded),
        Err(error) => return tracing::debug!(%error, "upgrade failed"),
    };
    let socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await;
    let (mut sink, mut stream) = socket.split();
    let out = async {
        let mut frames = BodyStream::new(body);
        while let Some(Ok(frame)) = frames.next().await {
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            if sink.send(form.message(bytes)).await.is_err() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_in_protobuf_need_no_length() {
        let event = Bytes::from_static(b"\0\0\0\x02ab");
        let shown = Form::Event.message(event.clone()).into_data();
        assert_eq!(&shown[..], b"ab");
        assert_eq!(Form::Base64.message(event).into_data(), &b"AAAAAmFi"[..]);
    }
}
