//! A client of OCI registries: one request at a time over HTTP or TLS, with
//! the challenges and redirections registries answer with.

mod challenge;
mod options;
mod tls;

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION, RANGE, USER_AGENT};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::Deserialize;

use crate::error::ImageError;
use crate::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, DOCUMENT_LIMIT, OCI_INDEX, OCI_MANIFEST};
use crate::reference::Reference;

pub(crate) use options::Endpoint;
pub use options::{Auth, Mirror, RegistryOptions, Server, Tls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// A registry that sends nothing for so long is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const REDIRECT_LIMIT: usize = 8;

/// Credentials for one pull.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// A refresh token for the registry's token server.
    pub identity_token: String,
    /// A bearer token for the registry itself.
    pub registry_token: String,
}

/// The client; one per pull, for it remembers tokens.
pub(crate) struct Client {
    endpoint: Endpoint,
    tls: tokio_rustls::TlsConnector,
    /// What the registry wants to see in `Authorization`.
    authorization: Mutex<Option<String>>,
    /// What tokens are asked for; `None` is to pull.
    scopes: Option<Vec<String>>,
}

impl Client {
    pub(crate) fn new(endpoint: Endpoint) -> Result<Client, ImageError> {
        let token = &endpoint.credentials.registry_token;
        Ok(Client {
            authorization: Mutex::new((!token.is_empty()).then(|| format!("Bearer {token}"))),
            tls: tls::connector(&endpoint.tls)?,
            scopes: None,
            endpoint,
        })
    }

    /// Asks for tokens with other rights than to pull.
    pub(crate) fn with_scopes(self, scopes: Vec<String>) -> Client {
        Client {
            scopes: Some(scopes),
            ..self
        }
    }

    /// One request of any kind to the registry itself, with its challenge answered.
    pub(crate) async fn request(
        &self,
        name: &Reference,
        method: Method,
        url: &str,
        headers: &[(http::HeaderName, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>, ImageError> {
        let mut challenged = false;
        loop {
            let mut request = Request::builder().method(method.clone()).uri(url);
            for (name, value) in headers {
                request = request.header(name, *value);
            }
            // Uploads may go elsewhere, where the registry's tokens have no business.
            let own = parse(url)?.authority() == parse(self.top())?.authority();
            if let Some(authorization) = self.lock().clone().filter(|_| own) {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = self.send(request.body(Full::from(body.clone()))).await?;
            if response.status() != StatusCode::UNAUTHORIZED || challenged {
                return Ok(response);
            }
            challenged = true;
            self.answer_challenge(name, &response).await?;
        }
    }

    /// Fetches a manifest or index: its media type and bytes.
    pub(crate) async fn manifest(
        &self,
        name: &Reference,
        which: &str,
    ) -> Result<(String, Bytes), ImageError> {
        let url = self.url(name, &format!("manifests/{which}"));
        let accept = [OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST].join(", ");
        let response = self.get(name, &url, &accept, 0).await?;
        let header = response.headers().get(CONTENT_TYPE);
        let media_type = header
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let media_type = media_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned();
        Ok((media_type, whole(response).await?))
    }

    /// Starts to fetch a blob from `offset` on; the answer may start earlier, at 0 (status 200).
    pub(crate) async fn blob(
        &self,
        name: &Reference,
        digest: &str,
        offset: u64,
    ) -> Result<Response<Incoming>, ImageError> {
        let url = self.url(name, &format!("blobs/{digest}"));
        self.get(name, &url, "*/*", offset).await
    }

    /// Where something of a repository is; a mirror is told whose it is.
    pub(crate) fn url(&self, name: &Reference, path: &str) -> String {
        let (top, repository) = (self.top(), self.endpoint.repository(&name.repository));
        match &self.endpoint.mirror_of {
            Some(registry) => format!("{top}{repository}/{path}?ns={registry}"),
            None => format!("{top}{repository}/{path}"),
        }
    }

    /// Where the API of the registry begins.
    pub(crate) fn top(&self) -> &str {
        &self.endpoint.top
    }

    async fn get(
        &self,
        name: &Reference,
        url: &str,
        accept: &str,
        offset: u64,
    ) -> Result<Response<Incoming>, ImageError> {
        let mut challenged = false;
        loop {
            let response = self.follow(url, accept, offset).await?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            if status == StatusCode::UNAUTHORIZED && !challenged {
                challenged = true;
                self.answer_challenge(name, &response).await?;
                continue;
            }
            let body = whole(response).await.unwrap_or_default();
            return Err(refusal(name, status, &body));
        }
    }

    pub(crate) async fn follow(
        &self,
        url: &str,
        accept: &str,
        offset: u64,
    ) -> Result<Response<Incoming>, ImageError> {
        let first: Uri = parse(url)?;
        let mut url = first.clone();
        for _ in 0..REDIRECT_LIMIT {
            let mut request = Request::builder()
                .method(Method::GET)
                .uri(&url)
                .header(ACCEPT, accept);
            // What the registry may know, the place it redirects to may not.
            let authorization = self
                .lock()
                .clone()
                .filter(|_| url.authority() == first.authority());
            if let Some(authorization) = authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            if offset > 0 {
                request = request.header(RANGE, format!("bytes={offset}-"));
            }
            let response = self.send(request.body(Full::default())).await?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let target = response
                .headers()
                .get(LOCATION)
                .and_then(|value| value.to_str().ok());
            let target = target
                .ok_or_else(|| ImageError::Registry(format!("{url}: redirected to nowhere")))?;
            let next = resolve(&url, target)?;
            if url.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(ImageError::Registry(format!(
                    "{url}: redirected away from TLS"
                )));
            }
            url = next;
        }
        Err(ImageError::Registry(format!(
            "{first}: too many redirections"
        )))
    }

    /// One connection, one request.
    async fn send(
        &self,
        request: Result<Request<Full<Bytes>>, http::Error>,
    ) -> Result<Response<Incoming>, ImageError> {
        let mut request = request.map_err(|error| ImageError::Registry(error.to_string()))?;
        let uri = request.uri().clone();
        let fault = |error: String| {
            ImageError::Registry(format!("{}: {error}", uri.host().unwrap_or_default()))
        };
        let host = uri
            .host()
            .ok_or_else(|| fault("no host".to_owned()))?
            .to_owned();
        let tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let bare = host.trim_matches(['[', ']']).to_owned();
        let connecting = tokio::net::TcpStream::connect((bare.as_str(), port));
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        let stream = stream.map_err(|_| fault("connecting timed out".to_owned()))?;
        let stream = stream.map_err(|error| fault(error.to_string()))?;
        let authority = uri
            .authority()
            .map(|authority| authority.as_str().to_owned())
            .unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(
            HOST,
            authority
                .parse()
                .map_err(|_| fault("wrong host".to_owned()))?,
        );
        headers.insert(USER_AGENT, http::HeaderValue::from_static("sampan"));
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = parse(path)?;
        let exchange = async {
            if tls {
                let name = ServerName::try_from(bare.clone()).map_err(|error| error.to_string())?;
                let stream = self
                    .tls
                    .connect(name, stream)
                    .await
                    .map_err(|error| error.to_string())?;
                exchange(TokioIo::new(stream), request).await
            } else {
                exchange(TokioIo::new(stream), request).await
            }
        };
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await;
        answered
            .map_err(|_| fault("no answer".to_owned()))?
            .map_err(fault)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.authorization
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(|e| e.to_string())?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "registry connection");
        }
    });
    sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string())
}

pub(crate) async fn whole(response: Response<Incoming>) -> Result<Bytes, ImageError> {
    let limit = usize::try_from(DOCUMENT_LIMIT).unwrap_or(usize::MAX);
    let body = Limited::new(response.into_body(), limit).collect();
    let body = tokio::time::timeout(ANSWER_TIMEOUT, body).await;
    let body = body.map_err(|_| ImageError::Registry("no answer".to_owned()))?;
    Ok(body
        .map_err(|error| ImageError::Registry(error.to_string()))?
        .to_bytes())
}

pub(crate) fn refusal(name: &Reference, status: StatusCode, body: &[u8]) -> ImageError {
    #[derive(Deserialize, Default)]
    struct Body {
        #[serde(default)]
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        message: String,
    }
    let parsed: Body = serde_json::from_slice(body).unwrap_or_default();
    let words = parsed
        .errors
        .into_iter()
        .map(|entry| entry.message)
        .next()
        .unwrap_or_default();
    match status {
        StatusCode::NOT_FOUND => ImageError::NotFound(format!("{name}: not found in its registry")),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            ImageError::Denied(name.to_string(), words)
        }
        _ => ImageError::Registry(format!("{name}: the registry answers {status} {words}")),
    }
}

/// Where an answer sends its reader next.
pub(crate) fn location(base: &str, response: &Response<Incoming>) -> Result<String, ImageError> {
    let header = response.headers().get(LOCATION);
    let target = header.and_then(|value| value.to_str().ok());
    let target =
        target.ok_or_else(|| ImageError::Registry(format!("{base}: an upload without a place")))?;
    let next = resolve(&parse(base)?, target)?;
    if base.starts_with("https://") && next.scheme_str() != Some("https") {
        return Err(ImageError::Registry(format!("{base}: sent away from TLS")));
    }
    Ok(next.to_string())
}

fn parse(url: &str) -> Result<Uri, ImageError> {
    url.parse()
        .map_err(|error| ImageError::Registry(format!("{url}: {error}")))
}

fn resolve(base: &Uri, target: &str) -> Result<Uri, ImageError> {
    if target.starts_with("http://") || target.starts_with("https://") {
        return parse(target);
    }
    let scheme = base.scheme_str().unwrap_or("https");
    let authority = base
        .authority()
        .map(|authority| authority.as_str())
        .unwrap_or_default();
    parse(&format!(
        "{scheme}://{authority}/{}",
        target.trim_start_matches('/')
    ))
}
