//! Unary gRPC calls over a unix socket: one HTTP/2 request each, on a connection that is kept.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{Method, Request, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixStream;
use tokio::sync::Mutex;

const SERVICE: &str = "/v2.KeyManagementService/";
/// Greatest answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Before each message: whether it is compressed, and its length.
const FRAME_HEAD: usize = 5;

#[derive(Clone, PartialEq, Message)]
pub(super) struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StatusResponse {
    #[prost(string, tag = "1")]
    pub(super) version: String,
    #[prost(string, tag = "2")]
    pub(super) healthz: String,
    #[prost(string, tag = "3")]
    pub(super) key_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DecryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(super) uid: String,
    #[prost(string, tag = "3")]
    pub(super) key_id: String,
    #[prost(btree_map = "string, bytes", tag = "4")]
    pub(super) annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DecryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) plaintext: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EncryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) plaintext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(super) uid: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EncryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(super) key_id: String,
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub(super) annotations: BTreeMap<String, Vec<u8>>,
}

/// A service behind a socket.
pub(super) struct Client {
    socket: PathBuf,
    deadline: Duration,
    connection: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Client {
    pub(super) fn new(socket: &str, deadline: Duration) -> Client {
        Client {
            socket: socket.into(),
            deadline,
            connection: Mutex::default(),
        }
    }

    /// One call; failures are told in words.
    pub(super) async fn call<Answer: Message + Default>(
        &self,
        method: &str,
        message: &impl Message,
    ) -> Result<Answer, String> {
        let exchange = tokio::time::timeout(self.deadline, self.exchange(method, message));
        match exchange.await {
            Ok(Ok(bytes)) => Answer::decode(bytes).map_err(|error| error.to_string()),
            Ok(Err(why)) => Err(why),
            Err(_) => Err(format!("no answer within {:?}", self.deadline)),
        }
    }

    async fn exchange(&self, method: &str, message: &impl Message) -> Result<Bytes, String> {
        let text = |error: hyper::Error| error.to_string();
        let mut sender = self.sender().await?;
        let mut body = BytesMut::with_capacity(FRAME_HEAD + message.encoded_len());
        body.put_u8(0);
        let length = u32::try_from(message.encoded_len()).map_err(|error| error.to_string())?;
        body.put_u32(length);
        message
            .encode(&mut body)
            .map_err(|error| error.to_string())?;
        let request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("http://localhost{SERVICE}{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(body.freeze()))
            .map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await.map_err(text)?;
        let (head, body) = answer.into_parts();
        let limited = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let whole = limited.map_err(|error| error.to_string())?;
        let trailers = whole.trailers().cloned().unwrap_or_default();
        let find = |name: &str| {
            let value = trailers.get(name).or_else(|| head.headers.get(name));
            value
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        match find("grpc-status").as_deref() {
            Some("0") => {}
            Some(code) => {
                let message = find("grpc-message").unwrap_or_default();
                return Err(format!("rpc error: code = {code} desc = {message}"));
            }
            None => return Err(format!("no gRPC status; HTTP status {}", head.status)),
        }
        let mut bytes = whole.to_bytes();
        if bytes.len() < FRAME_HEAD || bytes[0] != 0 {
            return Err("the answer is no plain gRPC message".into());
        }
        Ok(bytes.split_off(FRAME_HEAD))
    }

    /// The connection, made anew when it broke.
    async fn sender(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let mut connection = self.connection.lock().await;
        if let Some(sender) = &*connection
            && !sender.is_closed()
        {
            return Ok(sender.clone());
        }
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|error| format!("{}: {error}", self.socket.display()))?;
        let (sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        // Ends when the sender is dropped or the service hangs up.
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "connection to a key management service ended");
            }
        });
        *connection = Some(sender.clone());
        Ok(sender)
    }
}
