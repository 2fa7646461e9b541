//! A connection with a plugin: calls both ways over one socket.

use std::collections::HashMap;
use std::time::Duration;

use base::Stop;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::frame::{
    Decoder, MESSAGE_MAX, Message, PLUGIN, REMOTE_CLOSED, REQUEST, RESPONSE, RUNTIME,
};
use crate::wire;

const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";
pub(crate) const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";
/// Messages that may wait to be written.
const OUTGOING_MAX: usize = 64;
/// Calls of the plugin's that may wait for their turn.
const INCOMING_MAX: usize = 32;

/// gRPC's codes.
pub(crate) mod code {
    pub(crate) const UNKNOWN: i32 = 2;
    pub(crate) const INVALID_ARGUMENT: i32 = 3;
    pub(crate) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(crate) const FAILED_PRECONDITION: i32 = 9;
    pub(crate) const UNIMPLEMENTED: i32 = 12;
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    #[error("the connection is closed")]
    Closed,
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("the answer is malformed")]
    Malformed,
    #[error("more than {MESSAGE_MAX} bytes to be told")]
    TooLong,
    /// The plugin says no.
    #[error("{0}")]
    Refused(String),
}

impl CallError {
    /// Whether the plugin is of no use any longer.
    pub(crate) fn is_fatal(&self) -> bool {
        !matches!(self, CallError::Refused(_))
    }
}

type Answer = Result<Bytes, CallError>;

#[derive(Default)]
struct Calls {
    /// The last stream's number; a caller's are odd.
    last: u32,
    waiting: HashMap<u32, oneshot::Sender<Answer>>,
    closed: bool,
}

/// Our end.
pub(crate) struct Link {
    outgoing: mpsc::Sender<Bytes>,
    calls: Mutex<Calls>,
    end: Stop,
}

/// A call of the plugin's.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) stream: u32,
    pub(crate) service: String,
    pub(crate) method: String,
    pub(crate) payload: Bytes,
}

/// What [`Link::run`] works with.
pub(crate) struct Line {
    stream: UnixStream,
    outgoing: mpsc::Receiver<Bytes>,
    incoming: mpsc::Sender<Incoming>,
}

impl Link {
    /// A link, what runs it, and the plugin's calls.
    pub(crate) fn new(stream: UnixStream) -> (Link, Line, mpsc::Receiver<Incoming>) {
        let (sender, outgoing) = mpsc::channel(OUTGOING_MAX);
        let (incoming, calls) = mpsc::channel(INCOMING_MAX);
        let link = Link {
            outgoing: sender,
            calls: Mutex::default(),
            end: Stop::new(),
        };
        let line = Line {
            stream,
            outgoing,
            incoming,
        };
        (link, line, calls)
    }

    /// Calls the plugin.
    pub(crate) async fn call<R: prost::Message + Default>(
        &self,
        method: &str,
        request: &impl prost::Message,
        timeout: Duration,
    ) -> Result<R, CallError> {
        let request = wire::Request {
            service: PLUGIN_SERVICE.to_owned(),
            method: method.to_owned(),
            payload: request.encode_to_vec(),
            timeout_nano: i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX),
        };
        let answered = tokio::time::timeout(timeout, self.ask(request.encode_to_vec().into()));
        let payload = answered.await.map_err(|_| CallError::Late(timeout))??;
        R::decode(payload).map_err(|_| CallError::Malformed)
    }

    async fn ask(&self, payload: Bytes) -> Answer {
        // The place is had before the number, for numbers have to come in their order.
        let place = self.outgoing.reserve().await;
        let place = place.map_err(|_| CallError::Closed)?;
        let answer = {
            let mut calls = self.calls.lock();
            if calls.closed {
                return Err(CallError::Closed);
            }
            let stream = match calls.last {
                0 => 1,
                last => last.checked_add(2).ok_or(CallError::Closed)?,
            };
            let message = Message {
                stream,
                kind: REQUEST,
                flags: REMOTE_CLOSED,
                payload,
            };
            place.send(message.encode(PLUGIN).ok_or(CallError::TooLong)?);
            let (sender, answer) = oneshot::channel();
            // Those who were late have gone.
            calls.waiting.retain(|_, waiting| !waiting.is_closed());
            calls.waiting.insert(stream, sender);
            calls.last = stream;
            answer
        };
        answer.await.unwrap_or(Err(CallError::Closed))
    }

    /// Answers a call of the plugin's.
    pub(crate) async fn answer<M: prost::Message>(
        &self,
        stream: u32,
        answer: Result<M, (i32, String)>,
    ) {
        let response = match answer {
            Ok(message) => wire::Response {
                status: None,
                payload: message.encode_to_vec(),
            },
            Err((code, message)) => wire::Response {
                status: Some(wire::Status { code, message }),
                payload: Vec::new(),
            },
        };
        let message = Message {
            stream,
            kind: RESPONSE,
            flags: 0,
            payload: response.encode_to_vec().into(),
        };
        if let Some(bytes) = message.encode(RUNTIME) {
            // A plugin that has gone wants no answer.
            let _ = self.outgoing.send(bytes).await;
        }
    }

    /// Ends the connection.
    pub(crate) fn close(&self) {
        self.end.raise();
    }

    /// Whether it has ended, or is about to.
    pub(crate) fn is_closed(&self) -> bool {
        self.end.is_raised()
    }

    /// Carries messages until one end closes.
    pub(crate) async fn run(&self, line: Line) -> std::io::Result<()> {
        let Line {
            stream,
            mut outgoing,
            incoming,
        } = line;
        let (mut reader, mut writer) = stream.into_split();
        let write = async {
            while let Some(bytes) = outgoing.recv().await {
                writer.write_all(&bytes).await?;
            }
            Ok(())
        };
        let read = async {
            let mut decoder = Decoder::default();
            loop {
                while let Some((connection, message)) =
                    decoder.next().map_err(std::io::Error::other)?
                {
                    self.take(connection, message, &incoming).await;
                }
                if reader.read_buf(&mut decoder.read).await? == 0 {
                    return Ok(());
                }
            }
        };
        let ended = tokio::select! {
            ended = write => ended,
            ended = read => ended,
            () = self.end.raised() => Ok(()),
        };
        self.end.raise();
        let mut calls = self.calls.lock();
        calls.closed = true;
        calls.waiting.clear();
        ended
    }

    async fn take(&self, connection: u32, message: Message, incoming: &mpsc::Sender<Incoming>) {
        match (connection, message.kind) {
            (PLUGIN, RESPONSE) => {
                let waiting = self.calls.lock().waiting.remove(&message.stream);
                if let Some(waiting) = waiting {
                    // Whoever asked may have lost patience.
                    let _ = waiting.send(opened(message.payload));
                }
            }
            (RUNTIME, REQUEST) => {
                let stream = message.stream;
                let Ok(request) = wire::Request::decode(message.payload) else {
                    let fault = (code::INVALID_ARGUMENT, "malformed request".to_owned());
                    return self.answer::<wire::Empty>(stream, Err(fault)).await;
                };
                let call = Incoming {
                    stream,
                    service: request.service,
                    method: request.method,
                    payload: request.payload.into(),
                };
                if incoming.try_send(call).is_err() {
                    let fault = (code::RESOURCE_EXHAUSTED, "too many calls".to_owned());
                    self.answer::<wire::Empty>(stream, Err(fault)).await;
                }
            }
            // What later versions may say.
            _ => {}
        }
    }
}

fn opened(payload: Bytes) -> Answer {
    let response = wire::Response::decode(payload).map_err(|_| CallError::Malformed)?;
    match response.status {
        Some(status) if status.code != 0 => Err(CallError::Refused(status.message)),
        _ => Ok(response.payload.into()),
    }
}
