//! Plain HTTP requests to containers, for probes and hooks.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Redirects that are followed.
const REDIRECTS_MAX: usize = 10;
/// Bytes of an answer that are read.
const BODY_BYTES_MAX: usize = 10 << 10;

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) struct Url {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) https: bool,
    pub(crate) headers: HeaderMap,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// All of the body was read.
    pub(crate) whole: bool,
    /// Where else to ask.
    location: Option<String>,
}

/// The number of a port that may be given by name.
pub(crate) fn port_of(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let ports = container.ports.iter().flatten();
            let mut named = ports.filter(|port| port.name.as_deref() == Some(name));
            named
                .next()
                .map(|port| port.container_port)
                .or_else(|| name.parse().ok())
        }
    };
    let number = number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|n| *n > 0);
    number.ok_or_else(|| match port {
        IntOrString::Int(number) => format!("invalid port number: {number}"),
        IntOrString::String(name) => format!("couldn't find port: {name:?} in container"),
    })
}

impl Url {
    /// The address of an `httpGet`; without a host the pod itself.
    pub(crate) fn of(
        get: &HTTPGetAction,
        container: &Container,
        ip: Option<IpAddr>,
    ) -> Result<Url, String> {
        let host = get.host.clone().filter(|host| !host.is_empty());
        let host = host.or_else(|| ip.map(|ip| ip.to_string()));
        let mut headers = HeaderMap::new();
        for wish in get.http_headers.iter().flatten() {
            let name = HeaderName::from_bytes(wish.name.as_bytes());
            let value = HeaderValue::from_str(&wish.value);
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.append(name, value);
            }
        }
        let path = get.path.clone().unwrap_or_default();
        Ok(Url {
            host: host.ok_or("the pod has no address yet")?,
            port: port_of(&get.port, container)?,
            path: match path.starts_with('/') {
                true => path,
                false => format!("/{path}"),
            },
            https: get.scheme.as_deref() == Some("HTTPS"),
            headers,
        })
    }

    /// An address in words, such as `https://host/path`.
    pub(crate) fn parse(text: &str, headers: HeaderMap) -> Result<Url, String> {
        let base = Url {
            host: String::new(),
            port: 0,
            path: "/".into(),
            https: false,
            headers,
        };
        match text.split_once("://") {
            Some(("http" | "https", _)) => base.resolved(text),
            _ => Err(format!("{text:?} is no address of HTTP")),
        }
    }

    /// As errors name it.
    pub(crate) fn shown(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }

    /// What a redirect of this address means.
    fn resolved(&self, location: &str) -> Result<Url, String> {
        let parse = |text: &str| {
            let uri = text.parse::<Uri>();
            uri.map_err(|fault| format!("failed to parse Location header {location:?}: {fault}"))
        };
        let scheme = if self.https { "https:" } else { "http:" };
        let uri = match location {
            whole if whole.contains("://") => parse(whole)?,
            other if other.starts_with("//") => parse(&format!("{scheme}{other}"))?,
            path if path.starts_with('/') => parse(path)?,
            query if query.starts_with('?') => {
                let path = self.path.split('?').next().unwrap_or_default();
                parse(&format!("{path}{query}"))?
            }
            beside => {
                let path = self.path.split('?').next().unwrap_or_default();
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                parse(&format!("{folder}/{beside}"))?
            }
        };
        let https = uri
            .scheme_str()
            .map_or(self.https, |scheme| scheme == "https");
        let host = uri
            .host()
            .map(|host| host.trim_matches(['[', ']']).to_owned());
        let port = match (uri.port_u16(), &host) {
            (Some(port), _) => port,
            (None, None) => self.port,
            (None, Some(_)) if https => 443,
            (None, Some(_)) => 80,
        };
        Ok(Url {
            host: host.unwrap_or_else(|| self.host.clone()),
            port,
            path: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
            https,
            headers: self.headers.clone(),
        })
    }

    /// The address as text, with brackets around IPv6.
    fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// GET with a time limit for all. Redirects are followed as long as they stay at the host; the answer
/// is the first that is none of those.
pub(crate) async fn get_followed(url: &Url, timeout: Duration) -> Result<Answer, String> {
    get_followed_in(&PROBE, url, timeout).await
}

/// The same in another manner.
pub(crate) async fn get_followed_in(
    manner: &Manner,
    url: &Url,
    timeout: Duration,
) -> Result<Answer, String> {
    let deadline = tokio::time::Instant::now() + timeout;
    let mut url = url.clone();
    for _ in 0..=REDIRECTS_MAX {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let answer = get_in(manner, &url, left).await?;
        let next = match answer.status {
            301 | 302 | 303 | 307 | 308 => answer.location.as_deref().map(|to| url.resolved(to)),
            _ => None,
        };
        match next {
            Some(Ok(next)) if next.host == url.host => url = next,
            Some(Err(fault)) => return Err(format!("Get {:?}: {fault}", url.shown())),
            _ => return Ok(answer),
        }
    }
    let fault = format!("stopped after {REDIRECTS_MAX} redirects");
    Err(format!("Get {:?}: {fault}", url.shown()))
}

/// How something is asked for.
#[derive(Clone)]
pub(crate) struct Manner {
    pub(crate) agent: &'static str,
    /// Whom to trust; `None`: anybody.
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    /// Bytes of an answer that are read.
    pub(crate) bytes_max: usize,
}

/// As probes and hooks ask: certificates are not checked, as with upstream's.
const PROBE: Manner = Manner {
    agent: "kube-probe/1.36",
    tls: None,
    bytes_max: BODY_BYTES_MAX,
};

/// GET with a time limit, as probes ask.
pub(crate) async fn get(url: &Url, timeout: Duration) -> Result<Answer, String> {
    get_in(&PROBE, url, timeout).await
}

/// GET with a time limit.
pub(crate) async fn get_in(
    manner: &Manner,
    url: &Url,
    timeout: Duration,
) -> Result<Answer, String> {
    let shown = url.shown();
    let answer = tokio::time::timeout(timeout, get_inner(manner, url)).await;
    match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(fault)) => Err(format!("Get {shown:?}: {fault}")),
        Err(_) => Err(format!(
            "Get {shown:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
    }
}

async fn get_inner(manner: &Manner, url: &Url) -> Result<Answer, String> {
    let dial = TcpStream::connect((url.host.as_str(), url.port)).await;
    let tcp = dial.map_err(|fault| {
        format!(
            "dial tcp {}: connect: {}",
            url.authority(),
            os_words(&fault)
        )
    })?;
    if !url.https {
        return exchange(tcp, manner, url).await;
    }
    let name = ServerName::try_from(url.host.clone()).map_err(|fault| fault.to_string())?;
    let trust = manner.tls.as_ref().unwrap_or(&*TLS);
    let tls = tokio_rustls::TlsConnector::from(trust.clone())
        .connect(name, tcp)
        .await;
    exchange(tls.map_err(|fault| fault.to_string())?, manner, url).await
}

/// The words of the C library, as upstream shows them: `connection refused`.
pub(crate) fn os_words(fault: &std::io::Error) -> String {
    match fault.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_lowercase(),
        None => fault.to_string(),
    }
}

async fn exchange<S>(stream: S, manner: &Manner, url: &Url) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let words = |fault: hyper::Error| fault.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(words)?;
    let mut request = Request::get(&url.path)
        .body(Empty::<Bytes>::new())
        .map_err(|fault| fault.to_string())?;
    let headers = request.headers_mut();
    let host = HeaderValue::from_str(&url.authority()).map_err(|fault| fault.to_string())?;
    headers.insert(header::HOST, host);
    headers.insert(header::USER_AGENT, HeaderValue::from_static(manner.agent));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    for (name, value) in &url.headers {
        headers.insert(name.clone(), value.clone());
    }
    let talk = async {
        let answer = sender.send_request(request).await.map_err(words)?;
        let status = answer.status().as_u16();
        let location = answer.headers().get(header::LOCATION);
        let location = location.and_then(|to| Some(to.to_str().ok()?.to_owned()));
        let mut incoming = answer.into_body();
        let mut body = Vec::new();
        let mut whole = true;
        while let Some(frame) = incoming.frame().await {
            let Ok(frame) = frame else {
                whole = false;
                break;
            };
            body.extend_from_slice(&frame.into_data().unwrap_or_default());
            if body.len() >= manner.bytes_max {
                body.truncate(manner.bytes_max);
                whole = false;
                break;
            }
        }
        Ok(Answer {
            status,
            body,
            whole,
            location,
        })
    };
    // Polled here rather than in a task of its own: it ends with the request.
    tokio::pin!(connection);
    tokio::pin!(talk);
    tokio::select! {
        answer = &mut talk => answer,
        _ = &mut connection => talk.await,
    }
}

static TLS: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(AnyCertificate(provider.clone()));
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Arc::new(config)
});

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_resolved_against_their_address() {
        let url = Url {
            host: "10.0.0.1".into(),
            port: 8080,
            path: "/a/b?c=d".into(),
            https: false,
            headers: HeaderMap::new(),
        };
        for (location, expected) in [
            ("/healthz", "http://10.0.0.1:8080/healthz"),
            ("x?y", "http://10.0.0.1:8080/a/x?y"),
            ("?z", "http://10.0.0.1:8080/a/b?z"),
            ("//other/x", "http://other:80/x"),
            ("https://10.0.0.1/", "https://10.0.0.1:443/"),
            ("http://[fd00::1]:81/x", "http://[fd00::1]:81/x"),
        ] {
            assert_eq!(url.resolved(location).unwrap().shown(), expected);
        }
        assert!(url.resolved("http://a b/").is_err());
    }
}
