//! One webhook, ready to be called.

use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::Value;

use crate::connect::{Connector, DialError};
use crate::error::{CallError, ConfigError};
use crate::target::Target;

/// How long a call may take whose caller does not say.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Greatest answer that is read by [`Webhook::call`].
pub const RESPONSE_BYTES_MAX: usize = 16 << 20;
/// How long a connection is kept that nobody uses.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Connections kept per webhook for the next call.
const IDLE_CONNECTIONS_MAX: usize = 32;

/// A webhook and its connections. Cheap to share; calls run side by side.
pub struct Webhook {
    target: Arc<Target>,
    client: Client<Connector, Full<Bytes>>,
    authorization: Option<HeaderValue>,
    user_agent: HeaderValue,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook")
            .field("url", &self.target.url)
            .finish_non_exhaustive()
    }
}

impl Webhook {
    pub(crate) fn new(mut connector: Connector) -> Webhook {
        let target = Arc::clone(&connector.target);
        if let Some(config) = connector.tls.as_mut().map(Arc::make_mut) {
            config.alpn_protocols = match target.http2 {
                true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
                false => vec![b"http/1.1".to_vec()],
            };
        }
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector);
        Webhook {
            target,
            client,
            authorization: None,
            user_agent: HeaderValue::from_static("kube-apiserver"),
        }
    }

    /// The webhook that a kubeconfig file names as its server, called with the credentials of
    /// the file's user: how audit, authentication and authorization webhooks are configured.
    pub fn from_kubeconfig(path: &Path) -> Result<Webhook, ConfigError> {
        let access = client::kubeconfig::load(path, None);
        let access = access.map_err(|error| ConfigError::Kubeconfig(chain(&error)))?;
        Webhook::from_access(&access)
    }

    /// The same from what a kubeconfig says. Without an authority the system's is trusted.
    pub fn from_access(access: &client::Access) -> Result<Webhook, ConfigError> {
        let target = Target::url(&access.server)?;
        let bad = |error: &dyn std::fmt::Display| ConfigError::Kubeconfig(error.to_string());
        let mut config = client::remote::tls_config(access).map_err(|error| bad(&error))?;
        if !access.insecure && target.tls {
            let mut trusting = crate::tls::config(access.ca.as_deref().unwrap_or_default())?;
            trusting.client_auth_cert_resolver = config.client_auth_cert_resolver;
            config = trusting;
        }
        let bearer = access.token.as_ref().map(|token| {
            HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| bad(&"token has characters no header may have"))
        });
        let connector = Connector {
            tls: target.tls.then(|| Arc::new(config)),
            target: Arc::new(target),
            resolver: None,
        };
        let mut webhook = Webhook::new(connector);
        webhook.authorization = bearer.transpose()?;
        Ok(webhook)
    }

    /// Where calls go, without query.
    pub fn url(&self) -> &str {
        &self.target.url
    }

    /// Posts a body and reads the answer's, within `timeout`, of which the webhook is told.
    pub async fn call(&self, body: Bytes, timeout: Duration) -> Result<Bytes, CallError> {
        self.call_bounded(body, timeout, RESPONSE_BYTES_MAX).await
    }

    /// The same for answers up to `bytes_max`.
    pub async fn call_bounded(
        &self,
        body: Bytes,
        timeout: Duration,
        bytes_max: usize,
    ) -> Result<Bytes, CallError> {
        let url = format!("{}?timeout={}", self.target.url, go_duration(timeout));
        let exchange = self.exchange(Method::POST, &url, body, bytes_max);
        match tokio::time::timeout(timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::transport(
                &url,
                "context deadline exceeded",
                false,
            )),
        }
    }

    /// Posts a tree and reads a tree.
    pub async fn call_json(&self, body: &Value, timeout: Duration) -> Result<Value, CallError> {
        let bytes = serde_json::to_vec(body).unwrap_or_default();
        let answer = self.call(bytes.into(), timeout).await?;
        decode(&answer)
    }

    /// Reads what is at the URL, without posting anything: documents of token issuers.
    pub async fn get(&self, timeout: Duration, bytes_max: usize) -> Result<Bytes, CallError> {
        let url = self.target.url.as_str();
        let exchange = self.exchange(Method::GET, url, Bytes::new(), bytes_max);
        let late = |_| CallError::transport(url, "context deadline exceeded", false);
        tokio::time::timeout(timeout, exchange)
            .await
            .map_err(late)?
    }

    async fn exchange(
        &self,
        method: Method,
        url: &str,
        body: Bytes,
        bytes_max: usize,
    ) -> Result<Bytes, CallError> {
        let failed = |why: &dyn std::fmt::Display, transient| {
            CallError::transport(url, &why.to_string(), transient)
        };
        let uri: Uri = url.parse().map_err(|error| failed(&error, false))?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(CONTENT_TYPE, json);
        let accept = HeaderValue::from_static("application/json, */*");
        headers.insert(ACCEPT, accept);
        headers.insert(USER_AGENT, self.user_agent.clone());
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let sent = self.client.request(request).await;
        let answer = sent.map_err(|error| {
            let (why, transient) = told(&error);
            failed(&why, transient)
        })?;
        let (head, body) = answer.into_parts();
        let read = Limited::new(body, bytes_max).collect().await;
        let body = read.map_err(
            |error| match error.is::<http_body_util::LengthLimitError>() {
                true => {
                    CallError::answer(format!("response body is larger than {bytes_max} bytes"))
                }
                false => CallError::answer(
                    "unexpected error when reading response body. Please \
                 retry. Original error: unexpected EOF"
                        .to_owned(),
                ),
            },
        )?;
        let body = body.to_bytes();
        match head.status.is_success() {
            true => Ok(body),
            false => Err(CallError::refused(head.status, &head.headers, &body)),
        }
    }
}

/// Reads an answer, in client-go's words when it is no JSON.
pub fn decode(body: &[u8]) -> Result<Value, CallError> {
    if body.is_empty() {
        return Err(CallError::answer(
            "0-length response with status code: 200 and content type: application/json".into(),
        ));
    }
    serde_json::from_slice(body).map_err(|error| {
        let text = crate::error::shown(body);
        CallError::answer(format!(
            "couldn't get version/kind; json parse error: {error}: {text}"
        ))
    })
}

/// What is wrong with a connection, and whether a new one may be better.
fn told(error: &hyper_util::client::legacy::Error) -> (String, bool) {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(dial) = error.downcast_ref::<DialError>() {
            return (dial.0.clone(), false);
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            let reset = io.kind() == std::io::ErrorKind::ConnectionReset;
            return match reset {
                true => ("read: connection reset by peer".into(), true),
                false => (io.to_string(), false),
            };
        }
        if let Some(hyper) = error.downcast_ref::<hyper::Error>()
            && hyper.is_incomplete_message()
        {
            return ("EOF".into(), true);
        }
        source = error.source();
    }
    let deepest = error.source().map_or(error.to_string(), chain);
    (deepest, false)
}

/// An error with all its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// A duration as Go prints it, rounded up to whole seconds.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}
