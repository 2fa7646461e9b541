//! Requests whose answers are bodies, trees or typed objects, and whose
//! failures are a [`Status`].

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use meta::{Reason, Status};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower::{Service, ServiceExt};

use crate::{Body, BoxError, Transport, empty, full};

/// Greatest body a client reads into memory at once, in bytes.
const BODY_BYTES_MAX: usize = 512 << 20;

/// A handle on the API. Clones are cheap and share connections.
#[derive(Clone)]
pub struct Client {
    transport: Transport,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// A client over any service.
    pub fn new(transport: Transport) -> Client {
        Client { transport }
    }

    /// The service below, for those who put something in front of it.
    pub fn transport(&self) -> Transport {
        self.transport.clone()
    }

    /// A client over a service of this process, as the given identity: `identity`
    /// travels as a typed extension of each request, which nothing outside the
    /// process can set.
    pub fn local<S, I>(service: S, identity: I) -> Client
    where
        S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        I: Clone + Send + Sync + 'static,
    {
        let service = service
            .map_err(Into::into)
            .map_request(move |mut request: Request<Body>| {
                request.extensions_mut().insert(identity.clone());
                request
            });
        Client::new(Transport::new(service))
    }

    /// Sends a request. Every HTTP status from 400 on is an error.
    pub fn send(
        &self,
        request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, Status>> {
        let answer: BoxFuture<'static, Result<Response<Body>, BoxError>> =
            Box::pin(self.transport.clone().oneshot(request));
        // Boxed: the one seam at which all callers' futures stay small and `Send`.
        Box::pin(async move {
            // A call within this process may never wait for anything: it must give way to others
            // all the same, or a caller's loop could not be stopped.
            tokio::task::coop::consume_budget().await;
            let response = match answer.await {
                Ok(response) => response,
                Err(error) => {
                    let message = format!("API server not reached: {error}");
                    return Err(Status::new(Reason::ServiceUnavailable, message));
                }
            };
            let code = response.status().as_u16();
            if code < 400 {
                return Ok(response);
            }
            let body = collect(response.into_body()).await?;
            Err(Status::from_body(code, &body))
        })
    }

    /// Sends a request and waits for the whole answer.
    pub async fn bytes(&self, request: Request<Body>) -> Result<Bytes, Status> {
        collect(self.send(request).await?.into_body()).await
    }

    /// Sends a request and decodes the JSON answer.
    pub async fn json<T: DeserializeOwned>(&self, request: Request<Body>) -> Result<T, Status> {
        let body = self.bytes(request).await?;
        decoded(serde_json::from_slice(&body))
    }

    /// GET of a path as a tree.
    pub async fn get_value(&self, path: &str) -> Result<Value, Status> {
        self.json(request(Method::GET, path, None, empty())?).await
    }

    /// Any method with a JSON body.
    pub async fn send_value(
        &self,
        method: Method,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<Value, Status> {
        self.json(request(
            method,
            path,
            Some("application/json"),
            json_body(body)?,
        )?)
        .await
    }

    /// PATCH of a path with a body of the given media type.
    pub async fn patch_value(
        &self,
        path: &str,
        media_type: &str,
        body: Vec<u8>,
    ) -> Result<Value, Status> {
        self.json(request(Method::PATCH, path, Some(media_type), full(body))?)
            .await
    }

    /// DELETE of a path with optional `DeleteOptions`.
    pub async fn delete_value(&self, path: &str, options: Option<Value>) -> Result<Value, Status> {
        decoded(serde_json::from_slice(
            &self.delete_bytes(path, options).await?,
        ))
    }

    pub(crate) async fn delete_bytes(
        &self,
        path: &str,
        options: Option<Value>,
    ) -> Result<Bytes, Status> {
        let body = options.map_or(Ok(empty()), |options| json_body(&options))?;
        self.bytes(request(
            Method::DELETE,
            path,
            Some("application/json"),
            body,
        )?)
        .await
    }
}

/// A request that asks for JSON.
pub fn request(
    method: Method,
    path: &str,
    content_type: Option<&str>,
    body: Body,
) -> Result<Request<Body>, Status> {
    let mut builder = Request::builder()
        .method(method)
        .uri(path)
        .header(ACCEPT, "application/json");
    if let Some(content_type) = content_type {
        builder = builder.header(CONTENT_TYPE, content_type);
    }
    builder
        .body(body)
        .map_err(|error| Status::bad_request(format!("invalid request: {error}")))
}

/// An answer, or the fault of one that makes no sense.
pub(crate) fn decoded<T>(answer: serde_json::Result<T>) -> Result<T, Status> {
    answer.map_err(|error| Status::internal(format!("answer does not decode: {error}")))
}

pub(crate) fn json_body(body: &impl serde::Serialize) -> Result<Body, Status> {
    serde_json::to_vec(body).map(full).map_err(Status::internal)
}

async fn collect(mut body: Body) -> Result<Bytes, Status> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let data = match frame {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            Err(error) => {
                let message = format!("answer broke off: {error}");
                return Err(Status::new(Reason::ServiceUnavailable, message));
            }
        };
        if whole.len() + data.len() > BODY_BYTES_MAX {
            return Err(Status::internal("answer is too large"));
        }
        // The whole answer in one frame, as from this process, is not copied.
        if whole.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// Appends `key=value` to a path, percent-encoded.
pub(crate) fn add_query(path: &mut String, key: &str, value: &str) {
    path.push(if path.contains('?') { '&' } else { '?' });
    path.push_str(key);
    path.push('=');
    path.push_str(&percent_encode(value));
}

/// Percent-encodes everything but unreserved characters (RFC 3986).
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
