//! Requests that end at a kubelet or a pod, and not in the store: dialing, and passing on.

use std::sync::Arc;
use std::time::Duration;

use auth::Pki;
use base::Crew;
use client::{Access, Body, BoxError};
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use meta::{Reason, Status};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::chain::audited::Source;
use crate::start::BuildError;

/// How long a kubelet or pod may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers that concern one connection only, and those that say who we are.
const HOP_HEADERS: [&str; 8] = [
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "host",
    "authorization",
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Dials what is not this server.
pub(crate) struct Dialer {
    /// Shows our client certificate, and takes only what the cluster's authority signed.
    kubelet: Arc<rustls::ClientConfig>,
    /// Takes any certificate, as proxies to pods do.
    unverified: Arc<rustls::ClientConfig>,
    crew: Crew,
}

/// How a backend is spoken to.
#[derive(Clone, Debug)]
pub(crate) enum Channel {
    Plain,
    /// TLS with our client certificate.
    Kubelet,
    /// TLS with anybody.
    Unverified,
    /// TLS with whom a configuration trusts, under this name.
    Named(Arc<rustls::ClientConfig>, String),
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Address or name.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) channel: Channel,
}

impl Target {
    /// Host and port.
    pub(crate) fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl Dialer {
    /// Shows kubelets the certificate that they know us by.
    pub(crate) fn new(pki: &Pki, crew: &Crew) -> Result<Dialer, BuildError> {
        let access = Access {
            ca: Some(pki.ca_pem().as_bytes().to_vec()),
            ..Access::default()
        };
        let mut config = client::remote::tls_config(&access).map_err(BuildError::KubeletClient)?;
        config.client_auth_cert_resolver = Arc::clone(pki.shown_to_kubelets()) as _;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let anybody = Access {
            insecure: true,
            ..Access::default()
        };
        let mut unverified =
            client::remote::tls_config(&anybody).map_err(BuildError::KubeletClient)?;
        unverified.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Dialer {
            kubelet: Arc::new(config),
            unverified: Arc::new(unverified),
            crew: crew.clone(),
        })
    }

    /// The crew that streams belong to.
    pub(crate) fn crew(&self) -> &Crew {
        &self.crew
    }

    /// Sends a request over a connection of its own, and hands back what comes; an upgrade is
    /// spliced with the client's.
    pub(crate) async fn pass_on(
        &self,
        target: &Target,
        mut request: Request<Body>,
        client: Option<OnUpgrade>,
    ) -> Result<Response<Body>, Status> {
        let authority = target.authority();
        if let (false, Ok(host)) = (
            request.headers().contains_key(HOST),
            HeaderValue::from_str(&authority),
        ) {
            request.headers_mut().insert(HOST, host);
        }
        let mut answer = self.send(target, request).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer.map(|body| body.map_err(BoxError::from).boxed_unsync()));
        }
        let Some(client) = client else {
            return Err(Status::bad_request("Upgrade request required"));
        };
        let server = hyper::upgrade::on(&mut answer);
        let stop = self.crew.stop();
        self.crew.spawn("stream", async move {
            tokio::select! {
                () = splice(client, server) => {}
                () = stop.raised() => {}
            }
        });
        let (head, _) = answer.into_parts();
        Ok(Response::from_parts(head, client::empty()))
    }

    async fn send(
        &self,
        target: &Target,
        request: Request<Body>,
    ) -> Result<Response<hyper::body::Incoming>, Status> {
        let tls = match &target.channel {
            Channel::Plain => {
                let tcp = connect(target).await?;
                let answer = self.exchange(tcp, request).await;
                return answer.map_err(|error| failed(target, &error));
            }
            Channel::Kubelet => &self.kubelet,
            Channel::Unverified => &self.unverified,
            Channel::Named(tls, _) => tls,
        };
        let tls = connect_tls(target, tls).await?;
        let answer = self.exchange(tls, request).await;
        answer.map_err(|error| failed(target, &error))
    }

    async fn exchange(
        &self,
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        request: Request<Body>,
    ) -> Result<Response<hyper::body::Incoming>, hyper::Error> {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let stop = self.crew.stop();
        self.crew.spawn("stream connection", async move {
            tokio::select! {
                ended = connection.with_upgrades() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection to a backend ended");
                    }
                }
                () = stop.raised() => {}
            }
        });
        sender.send_request(request).await
    }
}

fn failed(target: &Target, error: &dyn std::fmt::Display) -> Status {
    let place = target.authority();
    let text = format!("error dialing backend: dial tcp {place}: {error}");
    Status::new(Reason::InternalError, text)
}

async fn connect(target: &Target) -> Result<TcpStream, Status> {
    let place = (target.host.as_str(), target.port);
    let tcp = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(place)).await;
    let tcp = tcp
        .map_err(|_| failed(target, &"i/o timeout"))?
        .map_err(|error| failed(target, &error))?;
    tcp.set_nodelay(true)
        .map_err(|error| failed(target, &error))?;
    Ok(tcp)
}

/// A connection to a target with which this configuration agrees.
pub(crate) async fn connect_tls(
    target: &Target,
    tls: &Arc<rustls::ClientConfig>,
) -> Result<TlsStream<TcpStream>, Status> {
    let tcp = connect(target).await?;
    let name = match &target.channel {
        Channel::Named(_, name) => name.clone(),
        _ => target.host.clone(),
    };
    let name = ServerName::try_from(name).map_err(|error| failed(target, &error))?;
    let connector = TlsConnector::from(Arc::clone(tls));
    let tls = tokio::time::timeout(CONNECT_TIMEOUT, connector.connect(name, tcp)).await;
    tls.map_err(|_| failed(target, &"TLS handshake timeout"))?
        .map_err(|error| failed(target, &error))
}

async fn splice(client: OnUpgrade, server: OnUpgrade) {
    let (client, server): (Upgraded, Upgraded) = match tokio::try_join!(client, server) {
        Ok(both) => both,
        Err(error) => return tracing::debug!(%error, "upgrade failed"),
    };
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut server).await {
        tracing::debug!(%error, "stream ended");
    }
}

/// Adds the address that a request came from to those that others named.
pub(crate) fn forwarded_for(headers: &mut HeaderMap, extensions: &http::Extensions) {
    let Some(Source(address)) = extensions.get::<Source>() else {
        return;
    };
    let known = headers.get_all(FORWARDED_FOR).iter();
    let known = known.filter_map(|value| value.to_str().ok().map(str::to_owned));
    let all: Vec<String> = known
        .chain([address.ip().to_canonical().to_string()])
        .collect();
    if let Ok(value) = HeaderValue::from_str(&all.join(", ")) {
        headers.insert(FORWARDED_FOR, value);
    }
}

/// The headers that a request keeps on its way.
pub(crate) fn passed_headers(headers: &HeaderMap) -> HeaderMap {
    let mut passed = headers.clone();
    for name in HOP_HEADERS {
        passed.remove(name);
    }
    let impersonation: Vec<_> = passed
        .keys()
        .filter(|name| name.as_str().starts_with("impersonate-"))
        .cloned()
        .collect();
    for name in impersonation {
        passed.remove(name);
    }
    if !passed.contains_key(UPGRADE) {
        passed.remove(CONNECTION);
    }
    passed
}

/// A failure that a kubelet words as plain text, as a Status.
pub(crate) async fn failure(answer: Response<Body>) -> Status {
    let code = answer.status().as_u16();
    let text = match crate::body::read(answer.into_body()).await {
        Ok(body) => String::from_utf8_lossy(&body).trim().to_owned(),
        Err(status) => status.message,
    };
    let reason = match code {
        400 => Reason::BadRequest,
        401 => Reason::Unauthorized,
        403 => Reason::Forbidden,
        404 => Reason::NotFound,
        503 => Reason::ServiceUnavailable,
        _ => Reason::InternalError,
    };
    let mut status = Status::new(reason, text);
    status.code = code;
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asked_is_added_to_those_who_passed_it_on() {
        let mut headers = HeaderMap::new();
        let mut extensions = http::Extensions::new();
        forwarded_for(&mut headers, &extensions);
        assert!(headers.is_empty());
        extensions.insert(Source(([192, 0, 2, 7], 4711).into()));
        headers.insert(FORWARDED_FOR, HeaderValue::from_static("198.51.100.1"));
        forwarded_for(&mut headers, &extensions);
        assert_eq!(headers[FORWARDED_FOR], "198.51.100.1, 192.0.2.7");
    }
}
