//! Calls whose messages come one by one, in both directions, and over any connection.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use crate::authority::Named;
use crate::{Answer, Caller, MESSAGE_BYTES_MAX, Raw, Typed};

/// Bytes of one call, and of a connection, that may be on their way.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A connection.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A call that somebody makes.
pub struct Asked {
    pub path: String,
    pub metadata: MetadataMap,
    pub messages: Streaming<Bytes>,
}

impl Asked {
    /// The first message, of a call that has but one.
    pub async fn one<M: Message + Default>(&mut self) -> Result<M, Status> {
        let message = self.messages.message().await?;
        crate::take(message.ok_or_else(|| Status::invalid_argument("no request"))?)
    }

    /// The text of a key of the metadata.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.metadata.get(key)?.to_str().ok()
    }
}

/// Answers calls.
pub type Serve = Arc<dyn Fn(Asked) -> BoxFuture<'static, Result<Answer, Status>> + Send + Sync>;

struct Both {
    serve: Serve,
    path: String,
}

impl StreamingService<Bytes> for Both {
    type Response = Bytes;
    type ResponseStream = Answer;
    type Future = BoxFuture<'static, Result<Response<Answer>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (metadata, _, messages) = request.into_parts();
        let answer = (self.serve)(Asked {
            path: std::mem::take(&mut self.path),
            metadata,
            messages,
        });
        Box::pin(async move { answer.await.map(Response::new) })
    }
}

/// Answers the calls of one connection. When the client gives a call up, its answer is dropped.
pub async fn serve_wire(wire: Box<dyn Wire>, serve: Serve) {
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let call = Both {
            serve: Arc::clone(&serve),
            path: request.uri().path().to_owned(),
        };
        async move {
            let mut grpc = Grpc::new(Raw)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX);
            Ok::<_, Infallible>(grpc.streaming(call, request).await)
        }
    });
    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .serve_connection(TokioIo::new(Named::new(wire)), answer)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

impl Caller {
    /// Calls over a connection that is there. Nothing happens on it but while the future runs, which
    /// ends with the connection.
    pub async fn over(wire: Box<dyn Wire>) -> io::Result<(Caller, BoxFuture<'static, ()>)> {
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(wire))
            .await
            .map_err(io::Error::other)?;
        let carry = async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        };
        Ok((Caller { sender }, Box::pin(carry)))
    }

    /// Calls a method with many messages and many answers.
    pub async fn both<Q, A>(
        &self,
        path: &'static str,
        metadata: MetadataMap,
        messages: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut request = Request::new(messages);
        *request.metadata_mut() = metadata;
        let codec: Typed<Q, A> = Typed::new();
        let path = PathAndQuery::from_static(path);
        let mut grpc = self.grpc();
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc.streaming(request, path, codec).await?.into_inner())
    }
}
