//! Ports of a pod: over SPDY, over SPDY within a WebSocket, and over plain WebSockets.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use node_api::{Duplex, RuntimeService};
use spdy::{Headers, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use crate::command::pump;
use crate::upgrade::{STREAM_TIMEOUT, run, run_over};
use crate::websocket::{Accepted, Sender, Socket, accept, goodbye};
use crate::{Body, text, upgrade};

const SPDY_PROTOCOLS: [&str; 1] = ["portforward.k8s.io"];
/// SPDY frames in binary messages.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNEL_PROTOCOLS: [&str; 4] = [
    TUNNEL,
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "portforward.k8s.io",
];
/// Ports of one forwarding by channels.
const PORTS_MAX: usize = 100;
/// Streams that wait for their other half.
const HALVES_MAX: usize = 256;
/// Bytes between a tunnel and its session.
const TUNNEL_BYTES: usize = 64 << 10;

/// Whose ports.
#[derive(Clone)]
pub struct Target {
    pub runtime: Arc<dyn RuntimeService>,
    pub sandbox: String,
    /// What messages call the pod.
    pub pod: String,
    pub uid: String,
}

/// Forwards ports of a pod. `wanted` counts for plain WebSockets only: the other protocols name
/// a port with each stream.
pub fn forward(
    target: Target,
    wanted: Result<Vec<u16>, String>,
    request: Request<Incoming>,
) -> Response<Body> {
    if upgrade::is_asked(&request) {
        return match upgrade::accept(request, &SPDY_PROTOCOLS) {
            Ok((response, _, upgrade)) => {
                // Lives as long as the connection it was upgraded from.
                tokio::spawn(run(upgrade, move |_, incoming| target.pairs(incoming)));
                response
            }
            Err(refusal) => *refusal,
        };
    }
    let tunnelled = crate::websocket::offers(&request, TUNNEL);
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(message) if !tunnelled => return text(StatusCode::BAD_REQUEST, message),
        Err(_) => Vec::new(),
    };
    let accepted = match accept(request, &CHANNEL_PROTOCOLS) {
        Ok(accepted) => accepted,
        Err(refusal) => return *refusal,
    };
    let (response, protocol, upgrade) = accepted.into_parts();
    if protocol == TUNNEL {
        tokio::spawn(async move {
            if let Some(socket) = Accepted::socket(upgrade).await {
                target.tunnel(socket).await;
            }
        });
        return response;
    }
    tokio::spawn(Accepted::run(upgrade, protocol, move |sender, receiver| {
        target.channels(wanted, sender, receiver)
    }));
    response
}

/// The ports that a query names by the values of `port`, each a list.
pub fn ports_of<'a>(listed: impl Iterator<Item = &'a str>) -> Result<Vec<u16>, String> {
    let listed: Vec<&str> = listed.collect();
    if listed.is_empty() {
        return Err("query parameter \"port\" is required".into());
    }
    let mut wanted = Vec::new();
    for list in listed {
        if list.is_empty() {
            return Err("query parameter \"port\" cannot be empty".into());
        }
        for one in list.split(',') {
            wanted.push(parse(one)?);
        }
    }
    match wanted.len() <= PORTS_MAX {
        true => Ok(wanted),
        false => Err(format!("at most {PORTS_MAX} ports can be forwarded")),
    }
}

fn parse(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(0) => Err(format!("port {text:?} must be > 0")),
        Ok(port) => Ok(port),
        Err(error) => Err(format!("unable to parse {text:?} as a port: {error}")),
    }
}

impl Target {
    async fn dial(&self, port: u16) -> Result<Box<dyn Duplex>, String> {
        let dialed = self.runtime.port_forward(&self.sandbox, port).await;
        dialed.map_err(|fault| self.refusal(port, &fault))
    }

    fn refusal(&self, port: u16, fault: &dyn std::error::Error) -> String {
        format!(
            "error forwarding port {port} to pod {}, uid {}: {fault}",
            self.pod, self.uid
        )
    }

    /// Serves connections, each a pair of streams with one request id, until the peer leaves.
    async fn pairs(self, mut incoming: spdy::Incoming) {
        let mut halves: VecDeque<(Instant, String, Stream)> = VecDeque::new();
        let mut open = JoinSet::new();
        loop {
            let oldest = halves.front().map(|(deadline, _, _)| *deadline);
            let expired = async {
                match oldest {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let offer = tokio::select! {
                offer = incoming.next() => offer,
                () = expired => {
                    if let Some((_, id, half)) = halves.pop_front() {
                        open.spawn(complain(half, format!("request {id} timed out waiting for streams")));
                    }
                    continue;
                }
                Some(_) = open.join_next() => continue,
            };
            let Some(offer) = offer else {
                return;
            };
            if let Err(message) = check(offer.headers()) {
                tracing::debug!(message, "stream refused");
                continue;
            }
            if halves.len() >= HALVES_MAX {
                continue;
            }
            let Ok(stream) = offer.accept().await else {
                return;
            };
            let (id, kind) = (request_id(&stream), kind(&stream).to_owned());
            match halves.iter().position(|(_, own, _)| *own == id) {
                Some(at) if kind_of(&halves, at) == Some(kind.as_str()) => {
                    let message = format!(
                        "error processing stream for request {id}: {kind} stream already assigned"
                    );
                    open.spawn(complain(stream, message));
                }
                Some(at) => {
                    if let Some((_, _, other)) = halves.remove(at) {
                        let (data, error) = match kind.as_str() {
                            "data" => (stream, other),
                            _ => (other, stream),
                        };
                        open.spawn(self.clone().forward(data, error));
                    }
                }
                None => halves.push_back((Instant::now() + STREAM_TIMEOUT, id, stream)),
            }
        }
    }

    /// One connection, until both sides finished or one of them broke off.
    async fn forward(self, data: Stream, mut error: Stream) {
        // Checked when the stream was taken.
        let port = parse(data.headers.get("port")).unwrap_or_default();
        let mut pod = match self.dial(port).await {
            Ok(pod) => pod,
            Err(message) => return complain(error, message).await,
        };
        let mut client = tokio::io::join(data.reader, data.writer);
        match tokio::io::copy_bidirectional(&mut client, &mut pod).await {
            // A runtime behind a URL says only now that it cannot reach the port.
            Err(fault) if fault.kind() == std::io::ErrorKind::ConnectionRefused => {
                return complain(error, self.refusal(port, &fault)).await;
            }
            Err(fault) => tracing::debug!(%fault, port, "forwarded connection ended"),
            Ok(_) => {}
        }
        drop(error.writer.shutdown().await);
    }

    /// A session whose bytes travel in the messages of a WebSocket.
    async fn tunnel(self, socket: Socket) {
        let (near, far) = tokio::io::duplex(TUNNEL_BYTES);
        tokio::join!(
            run_over(near, move |_, incoming| self.pairs(incoming)),
            carry(socket, far),
        );
    }

    /// Channels come in pairs, data and error, each opened by its port's number.
    async fn channels(
        self,
        ports: Vec<u16>,
        sender: Sender,
        mut receiver: crate::websocket::Receiver,
    ) -> crate::websocket::Receiver {
        let mut writers = Vec::new();
        let mut pumps = JoinSet::new();
        for (index, port) in ports.into_iter().enumerate() {
            let channel = u8::try_from(index * 2).unwrap_or(u8::MAX - 1);
            for channel in [channel, channel + 1] {
                if !sender.send(channel, &port.to_le_bytes()).await {
                    return receiver;
                }
            }
            match self.dial(port).await {
                Ok(stream) => {
                    let (reader, writer) = tokio::io::split(stream);
                    let sender = sender.clone();
                    pumps.spawn(async move {
                        pump(Some(Box::new(reader)), channel, &sender).await;
                    });
                    writers.push(Some(writer));
                }
                Err(message) => {
                    sender.send(channel + 1, message.as_bytes()).await;
                    writers.push(None);
                }
            }
        }
        loop {
            let frame = tokio::select! {
                frame = receiver.next(&sender) => frame,
                ended = pumps.join_next() => match ended {
                    Some(_) if !pumps.is_empty() => continue,
                    // The pod closed all of them.
                    _ => return receiver,
                },
            };
            let Some((channel, bytes)) = frame else {
                return receiver;
            };
            feed(writers.get_mut(usize::from(channel / 2)), channel, &bytes).await;
        }
    }
}

fn check(headers: &Headers) -> Result<(), String> {
    match headers.get("port") {
        "" => return Err("\"port\" header is required".into()),
        port => parse(port)?,
    };
    match headers.get("streamType") {
        "data" | "error" => Ok(()),
        "" => Err("\"streamType\" header is required".into()),
        other => Err(format!("invalid stream type {other:?}")),
    }
}

fn kind(stream: &Stream) -> &str {
    stream.headers.get("streamType")
}

fn kind_of(halves: &VecDeque<(Instant, String, Stream)>, at: usize) -> Option<&str> {
    halves.get(at).map(|(_, _, half)| kind(half))
}

/// The id that makes a pair; clients that give none open the error stream right before the other.
fn request_id(stream: &Stream) -> String {
    match (stream.headers.get("requestID"), kind(stream)) {
        ("", "data") => stream.id.saturating_sub(2).to_string(),
        ("", _) => stream.id.to_string(),
        (id, _) => id.to_owned(),
    }
}

/// Says what went wrong, on the error stream of a pair; the data stream is reset.
async fn complain(mut stream: Stream, message: String) {
    tracing::debug!(message, "port not forwarded");
    if kind(&stream) == "error" && stream.writer.write_all(message.as_bytes()).await.is_ok() {
        drop(stream.writer.shutdown().await);
    }
}

/// Moves bytes between a WebSocket and a pipe until both ended.
async fn carry(socket: Socket, pipe: DuplexStream) {
    let (mut sink, mut stream) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(pipe);
    let inwards = async {
        while let Some(Ok(message)) = stream.next().await {
            let written = match message {
                Message::Binary(bytes) => writer.write_all(&bytes).await,
                Message::Close(_) => break,
                _ => Ok(()),
            };
            if written.is_err() {
                break;
            }
        }
        drop(writer.shutdown().await);
    };
    let outwards = async {
        let mut chunk = vec![0; TUNNEL_BYTES];
        while let Ok(count @ 1..) = reader.read(&mut chunk).await {
            let message = Message::Binary(Bytes::copy_from_slice(&chunk[..count]));
            if sink.send(message).await.is_err() {
                return;
            }
        }
        // A peer that left already needs no goodbye.
        drop(sink.send(goodbye()).await);
    };
    tokio::join!(inwards, outwards);
}

async fn feed<W: tokio::io::AsyncWrite + Unpin>(
    slot: Option<&mut Option<W>>,
    channel: u8,
    bytes: &Bytes,
) {
    let Some(slot) = slot.filter(|_| channel.is_multiple_of(2)) else {
        return;
    };
    if let Some(writer) = slot
        && writer.write_all(bytes).await.is_err()
    {
        *slot = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_checked_in_upstreams_words() {
        let check = |listed: &[&str]| ports_of(listed.iter().copied());
        assert_eq!(check(&["80,81", "82"]), Ok(vec![80, 81, 82]));
        assert_eq!(check(&["0"]), Err("port \"0\" must be > 0".into()));
        assert_eq!(
            check(&[]),
            Err("query parameter \"port\" is required".into())
        );
        assert!(
            check(&["http"])
                .unwrap_err()
                .starts_with("unable to parse \"http\" as a port")
        );
        let headers = Headers::new().with("port", "80");
        assert!(super::check(&headers).is_err());
        assert!(super::check(&headers.with("streamType", "data")).is_ok());
    }
}
