//! gRPC without types: methods take and give encoded messages, so that the machinery is there
//! once and not for each method.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base::Stop;
use bytes::{Buf, BufMut, Bytes};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, ServerStreamingService};
use tonic::{Request, Response, Status};

use crate::Service;
use crate::methods;

/// Bytes of one message, the bound of all CRI clients.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Connections at one time.
const CONNECTIONS_MAX: usize = 1024;

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

/// One call. A method with one answer is a stream of one.
struct Call {
    service: Arc<Service>,
    path: String,
}

impl ServerStreamingService<Bytes> for Call {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (service, path) = (Arc::clone(&self.service), std::mem::take(&mut self.path));
        Box::pin(async move {
            let body = request.into_inner();
            let answer = if methods::ends_with_its_caller(&path) {
                methods::dispatch(&service, &path, body).await
            } else {
                // What has begun to change a pod goes on when its caller has gone.
                let work = async move { methods::dispatch(&service, &path, body).await };
                let ended = tokio::spawn(work).await;
                ended.unwrap_or_else(|_| Err(Status::internal("the call did not end")))
            };
            answer.map(Response::new)
        })
    }
}

/// Answers connections; ends when the process stops.
pub(crate) async fn serve(service: Arc<Service>, listener: UnixListener, stop: Stop) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = stop.raised() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let service = Arc::clone(&service);
        connections.spawn(async move {
            connection(service, stream).await;
            drop(slot);
        });
    }
}

async fn connection(service: Arc<Service>, stream: UnixStream) {
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let call = Call {
            service: Arc::clone(&service),
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
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}
