//! gRPC over unix sockets without generated code: whoever serves gets paths and encoded messages,
//! whoever calls names a path and a message.

mod authority;
mod both;

use std::convert::Infallible;
use std::io;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

use base::Stop;
use bytes::{Buf, BufMut, Bytes};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, ServerStreamingService};
use tonic::{Request, Response, Status, Streaming};

use authority::Named;
pub use both::{Asked, Serve, Wire, serve_wire};

/// Bytes of one message, the bound of all clients of CRI.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Connections of one socket at one time.
const CONNECTIONS_MAX: usize = 1024;

/// What a method answers: one message, or several.
pub type Answer = BoxStream<'static, Result<Bytes, Status>>;

/// Answers calls by their paths, such as `/v1beta1.Registration/Register`.
pub type Dispatch =
    Arc<dyn Fn(String, Bytes) -> BoxFuture<'static, Result<Answer, Status>> + Send + Sync>;

/// Messages as they are on the wire.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

struct Call {
    dispatch: Dispatch,
    path: String,
}

impl ServerStreamingService<Bytes> for Call {
    type Response = Bytes;
    type ResponseStream = Answer;
    type Future = BoxFuture<'static, Result<Response<Answer>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let answer = (self.dispatch)(std::mem::take(&mut self.path), request.into_inner());
        Box::pin(async move { answer.await.map(Response::new) })
    }
}

/// An answer of one message.
pub fn one<M: Message>(message: &M) -> Answer {
    let bytes = Bytes::from(message.encode_to_vec());
    futures::stream::once(async { Ok(bytes) }).boxed()
}

/// Reads a request.
pub fn take<M: Message + Default>(body: Bytes) -> Result<M, Status> {
    M::decode(body).map_err(|error| Status::invalid_argument(format!("request: {error}")))
}

/// Answers connections; ends when the process stops.
pub async fn serve(dispatch: Dispatch, listener: UnixListener, stop: Stop) {
    let work = move |stream| connection(Arc::clone(&dispatch), stream);
    base::listener::serve(listener, CONNECTIONS_MAX, stop, work).await;
}

async fn connection(dispatch: Dispatch, stream: UnixStream) {
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let call = Call {
            dispatch: Arc::clone(&dispatch),
            path: request.uri().path().to_owned(),
        };
        async move {
            let mut grpc = Grpc::new(Raw)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX);
            Ok::<_, Infallible>(grpc.server_streaming(call, request).await)
        }
    });
    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(Named::new(stream)), answer)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

/// Messages of two types.
struct Typed<Q, A>(PhantomData<(Q, A)>);

impl<Q, A> Typed<Q, A> {
    fn new() -> Typed<Q, A> {
        Typed(PhantomData)
    }
}

impl<Q, A> Codec for Typed<Q, A>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    type Encode = Q;
    type Decode = A;
    type Encoder = Typed<Q, A>;
    type Decoder = Typed<Q, A>;

    fn encoder(&mut self) -> Self {
        Typed::new()
    }

    fn decoder(&mut self) -> Self {
        Typed::new()
    }
}

impl<Q: Message, A> Encoder for Typed<Q, A> {
    type Item = Q;
    type Error = Status;

    fn encode(&mut self, item: Q, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(to)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

impl<Q, A: Message + Default> Decoder for Typed<Q, A> {
    type Item = A;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<A>, Status> {
        A::decode(from)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

/// One connection to somebody who serves; it ends when the last clone is dropped, or the server.
#[derive(Clone, Debug)]
pub struct Caller {
    sender: SendRequest<tonic::body::Body>,
}

impl Caller {
    /// Connects to a socket.
    pub async fn connect(socket: &Path) -> io::Result<Caller> {
        let stream = UnixStream::connect(socket).await?;
        let io = TokioIo::new(stream);
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
        Ok(Caller { sender })
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Calls a method with one answer.
    pub async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut stream = self.stream::<Q, A>(path, request).await?;
        let answer = stream.message().await?;
        answer.ok_or_else(|| Status::internal("no answer"))
    }

    /// Calls a method with many answers.
    pub async fn stream<Q, A>(&self, path: &'static str, request: Q) -> Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.grpc();
        let codec: Typed<Q, A> = Typed::new();
        let path = PathAndQuery::from_static(path);
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let answer = grpc
            .server_streaming(Request::new(request), path, codec)
            .await?;
        Ok(answer.into_inner())
    }

    fn grpc(&self) -> tonic::client::Grpc<Sending> {
        let sending = Sending(self.sender.clone());
        let origin = http::Uri::from_static("http://localhost");
        tonic::client::Grpc::with_origin(sending, origin)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// A connection as calls need it.
#[derive(Clone)]
struct Sending(SendRequest<tonic::body::Body>);

impl tower::Service<http::Request<tonic::body::Body>> for Sending {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
