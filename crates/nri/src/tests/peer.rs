//! A plugin, as it is at the other end of the socket.

use std::path::Path;

use bytes::Bytes;
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::frame::{self, Decoder, Message, PLUGIN, REQUEST, RESPONSE, RUNTIME};
use crate::wire;

/// What a plugin says to a request.
pub(super) enum Reply {
    With(Vec<u8>),
    Refusal(&'static str),
    /// Nothing, ever.
    Silence,
}

/// An empty answer, which is right for all.
pub(super) fn fine() -> Reply {
    Reply::With(Vec::new())
}

/// The plugin; dropping it closes its connection.
pub(super) struct Peer {
    /// Methods it was called by, or of changes the number of the event.
    pub(super) heard: mpsc::UnboundedReceiver<(String, Bytes)>,
    /// Answers of ours.
    pub(super) answers: mpsc::UnboundedReceiver<wire::Response>,
    calls: mpsc::UnboundedSender<Bytes>,
}

/// What a change is called here.
fn title(method: &str, payload: &Bytes) -> String {
    match method {
        "StateChange" => {
            let event = wire::StateChangeEvent::decode(payload.clone())
                .unwrap()
                .event;
            format!("event {event}")
        }
        method => method.to_owned(),
    }
}

impl Peer {
    /// Connects, and registers.
    pub(super) async fn join(
        socket: &Path,
        index: &str,
        events: i32,
        reply: impl Fn(&str, &Bytes) -> Reply + Send + 'static,
    ) -> Peer {
        let stream = UnixStream::connect(socket).await.unwrap();
        let (told, heard) = mpsc::unbounded_channel();
        let (answered, answers) = mpsc::unbounded_channel();
        let (calls, outgoing) = mpsc::unbounded_channel();
        let work = run(
            stream,
            told,
            answered,
            outgoing,
            move |title, payload| match title {
                "Configure" => Reply::With(wire::ConfigureResponse { events }.encode_to_vec()),
                title => reply(title, payload),
            },
        );
        tokio::spawn(work);
        let mut peer = Peer {
            heard,
            answers,
            calls,
        };
        let request = wire::RegisterPluginRequest {
            plugin_name: "test".to_owned(),
            plugin_idx: index.to_owned(),
            nri_version: String::new(),
        };
        peer.call(1, "RegisterPlugin", &request);
        assert_eq!(peer.answers.recv().await.unwrap().status, None);
        peer
    }

    /// Joins, and has answered that it knows what there is.
    pub(super) async fn joined(
        socket: &Path,
        index: &str,
        reply: impl Fn(&str, &Bytes) -> Reply + Send + 'static,
    ) -> Peer {
        let mut peer = Peer::join(socket, index, 0, reply).await;
        assert_eq!(peer.next().await, "Configure");
        assert_eq!(peer.next().await, "Synchronize");
        peer
    }

    pub(super) fn call(&self, stream: u32, method: &str, request: &impl prost::Message) {
        let request = wire::Request {
            service: crate::link::RUNTIME_SERVICE.to_owned(),
            method: method.to_owned(),
            payload: request.encode_to_vec(),
            timeout_nano: 0,
        };
        let message = Message {
            stream,
            kind: REQUEST,
            flags: frame::REMOTE_CLOSED,
            payload: request.encode_to_vec().into(),
        };
        self.calls.send(message.encode(RUNTIME).unwrap()).unwrap();
    }

    /// What it hears next.
    pub(super) async fn next(&mut self) -> String {
        self.heard.recv().await.unwrap().0
    }
}

async fn run(
    stream: UnixStream,
    told: mpsc::UnboundedSender<(String, Bytes)>,
    answered: mpsc::UnboundedSender<wire::Response>,
    mut outgoing: mpsc::UnboundedReceiver<Bytes>,
    reply: impl Fn(&str, &Bytes) -> Reply,
) {
    let (mut reader, mut writer) = stream.into_split();
    let mut decoder = Decoder::default();
    loop {
        while let Some((connection, message)) = decoder.next().unwrap() {
            if connection == RUNTIME {
                let answer = wire::Response::decode(message.payload).unwrap();
                answered.send(answer).ok();
                continue;
            }
            let request = wire::Request::decode(message.payload).unwrap();
            let payload = Bytes::from(request.payload);
            let title = title(&request.method, &payload);
            // The reply is known before the test hears of the call, so that it can be made to wait.
            let response = match reply(&title, &payload) {
                Reply::With(payload) => Some(wire::Response {
                    status: None,
                    payload,
                }),
                Reply::Refusal(message) => Some(wire::Response {
                    status: Some(wire::Status {
                        code: 2,
                        message: message.to_owned(),
                    }),
                    payload: Vec::new(),
                }),
                Reply::Silence => None,
            };
            told.send((title, payload)).ok();
            if let Some(response) = response {
                let answer = Message {
                    stream: message.stream,
                    kind: RESPONSE,
                    flags: 0,
                    payload: response.encode_to_vec().into(),
                };
                let bytes = answer.encode(PLUGIN).unwrap();
                writer.write_all(&bytes).await.unwrap();
            }
        }
        tokio::select! {
            read = reader.read_buf(&mut decoder.read) => {
                if read.unwrap_or(0) == 0 {
                    return;
                }
            }
            call = outgoing.recv() => match call {
                Some(bytes) => writer.write_all(&bytes).await.unwrap(),
                None => return,
            },
        }
    }
}
