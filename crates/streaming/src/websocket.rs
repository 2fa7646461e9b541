//! Upgrades a request to a WebSocket of the `channel.k8s.io` family: binary frames whose first
//! byte is the channel, or text frames whose first digit is, before base64.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use crate::{Body, full, text};

/// Frames on their way to a slow peer.
const FRAMES_MAX: usize = 16;

/// How long a peer may take to answer the goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A request that became a WebSocket.
pub(crate) struct Accepted {
    /// To be sent first.
    pub(crate) response: Response<Body>,
    pub(crate) protocol: &'static str,
    upgrade: OnUpgrade,
}

/// Accepts an upgrade with the first of `protocols` that the client offers.
pub(crate) fn accept(
    request: Request<Incoming>,
    protocols: &[&'static str],
) -> Result<Accepted, Box<Response<Body>>> {
    let refuse = |message: &str| Box::new(text(StatusCode::BAD_REQUEST, message.to_owned()));
    if !has_word(&request, header::UPGRADE, "websocket") {
        return Err(refuse("Upgrade request required"));
    }
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
    let Some(key) = key.map(|key| derive_accept_key(key.as_bytes())) else {
        return Err(refuse("missing Sec-WebSocket-Key"));
    };
    let named = request
        .headers()
        .contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    let protocol = match named {
        true => protocols.iter().copied().find(|own| offers(&request, own)),
        // Who names none speaks the first of them all.
        false => Some(""),
    };
    let Some(protocol) = protocol else {
        return Err(refuse(
            "none of the requested WebSocket protocols is supported",
        ));
    };
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if named {
        let value = HeaderValue::from_static(protocol);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
    if let Ok(key) = HeaderValue::from_str(&key) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    }
    let upgrade = hyper::upgrade::on(request);
    Ok(Accepted {
        response,
        protocol,
        upgrade,
    })
}

/// Whether a request offers a protocol.
pub(crate) fn offers(request: &Request<Incoming>, protocol: &str) -> bool {
    has_word(request, header::SEC_WEBSOCKET_PROTOCOL, protocol)
}

fn has_word(request: &Request<Incoming>, name: header::HeaderName, word: &str) -> bool {
    let values = request.headers().get_all(name).iter();
    let mut words = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    words.any(|part| part.trim().eq_ignore_ascii_case(word))
}

/// The last frame; clients take any other code, also none, for a fault.
pub(crate) fn goodbye() -> Message {
    Message::Close(Some(CloseFrame {
        code: CloseCode::Normal,
        reason: Default::default(),
    }))
}

/// The sending side of all channels. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sender {
    frames: mpsc::Sender<Message>,
    base64: bool,
}

/// The receiving side.
pub(crate) struct Receiver(SplitStream<Socket>);

impl Sender {
    /// Sends bytes on a channel. Returns whether the peer is still there.
    pub(crate) async fn send(&self, channel: u8, bytes: &[u8]) -> bool {
        let frame = match self.base64 {
            true => Message::text(format!("{channel}{}", STANDARD.encode(bytes))),
            false => {
                let mut frame = BytesMut::with_capacity(bytes.len() + 1);
                frame.put_u8(channel);
                frame.put_slice(bytes);
                Message::Binary(frame.freeze())
            }
        };
        self.frames.send(frame).await.is_ok()
    }

    /// Says goodbye.
    pub(crate) async fn close(&self) {
        // A peer that left already needs no goodbye.
        drop(self.frames.send(goodbye()).await);
    }

    async fn pong(&self, bytes: Bytes) {
        drop(self.frames.send(Message::Pong(bytes)).await);
    }
}

impl Receiver {
    /// The next frame: channel and bytes; `None` when the peer left.
    pub(crate) async fn next(&mut self, sender: &Sender) -> Option<(u8, Bytes)> {
        loop {
            match self.0.next().await?.ok()? {
                Message::Binary(bytes) if !bytes.is_empty() => {
                    return Some((bytes[0], bytes.slice(1..)));
                }
                Message::Text(text) if sender.base64 => {
                    let (channel, rest) = text.split_at_checked(1)?;
                    let channel = channel.parse().ok()?;
                    return Some((channel, STANDARD.decode(rest).ok()?.into()));
                }
                Message::Ping(bytes) => sender.pong(bytes).await,
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }
}

impl Accepted {
    /// Completes the upgrade and runs `work` on the socket.
    pub(crate) async fn run<F, T>(upgrade: OnUpgrade, protocol: &str, work: F)
    where
        F: FnOnce(Sender, Receiver) -> T,
        T: Future<Output = Receiver>,
    {
        let Some(socket) = Accepted::socket(upgrade).await else {
            return;
        };
        let (sink, stream) = socket.split();
        let (queue, frames) = mpsc::channel(FRAMES_MAX);
        let sender = Sender {
            frames: queue,
            base64: protocol.contains("base64"),
        };
        let worked = async {
            let mut receiver = work(sender.clone(), Receiver(stream)).await;
            sender.close().await;
            // Closing with input unread would reset the connection, and what was sent last with it.
            let drained = async { while receiver.next(&sender).await.is_some() {} };
            if tokio::time::timeout(GOODBYE_TIMEOUT, drained)
                .await
                .is_err()
            {
                tracing::debug!("the peer did not answer the goodbye");
            }
        };
        tokio::join!(worked, write(sink, frames));
    }

    /// The socket, once the upgrade is complete.
    pub(crate) async fn socket(upgrade: OnUpgrade) -> Option<Socket> {
        match upgrade.await {
            Ok(upgraded) => {
                let upgraded = TokioIo::new(upgraded);
                Some(WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await)
            }
            Err(error) => {
                tracing::debug!(%error, "upgrade failed");
                None
            }
        }
    }

    /// The parts: what to answer, the protocol, and what becomes the socket.
    pub(crate) fn into_parts(self) -> (Response<Body>, &'static str, OnUpgrade) {
        (self.response, self.protocol, self.upgrade)
    }
}

/// Writes frames until the goodbye or until the peer left.
async fn write(mut sink: SplitSink<Socket, Message>, mut frames: mpsc::Receiver<Message>) {
    while let Some(frame) = frames.recv().await {
        let last = matches!(frame, Message::Close(_));
        if sink.send(frame).await.is_err() || last {
            return;
        }
    }
}
