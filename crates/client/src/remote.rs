//! Reaching an API server over the network.

use std::sync::Arc;

use http::{HeaderValue, Request, Uri, header};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tower::ServiceExt;

use crate::kubeconfig::Access;
use crate::pool::Pool;
use crate::request::Client;
use crate::{Body, Transport};

/// Why a client could not be made or a stream not opened.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("certificate or key in kubeconfig is not valid: {0}")]
    Credentials(String),
    #[error("server address {0:?} is not valid")]
    Server(String),
    #[error("cannot connect to {server}")]
    Connect {
        server: String,
        source: std::io::Error,
    },
    #[error("{0}")]
    Upgrade(String),
}

impl Client {
    /// A client that dials the server `access` names. Connections are made when needed.
    pub fn remote(access: &Access) -> Result<Client, RemoteError> {
        let server: Uri = access
            .server
            .parse()
            .map_err(|_| RemoteError::Server(access.server.clone()))?;
        let parts = server.into_parts();
        let (scheme, authority) = match (parts.scheme, parts.authority) {
            (Some(scheme), Some(authority)) => (scheme, authority),
            _ => return Err(RemoteError::Server(access.server.clone())),
        };
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls_config(access)?)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(connector);
        let pool = Pool::new(https);
        let bearer = bearer(access)?;
        let service = tower::service_fn(move |request| pool.clone().send(request)).map_request(
            move |request: Request<Body>| {
                let (mut head, body) = request.into_parts();
                let mut uri = http::uri::Parts::from(head.uri);
                uri.scheme = Some(scheme.clone());
                uri.authority = Some(authority.clone());
                head.uri = Uri::from_parts(uri).unwrap_or_default();
                if let Some(bearer) = &bearer {
                    head.headers.insert(header::AUTHORIZATION, bearer.clone());
                }
                Request::from_parts(head, body)
            },
        );
        Ok(Client::new(Transport::new(service)))
    }
}

/// Opens a WebSocket to `path_and_query` with one of `protocols`; the chosen one is in the answer.
pub async fn websocket(
    access: &Access,
    path_and_query: &str,
    protocols: &[&str],
) -> Result<(WebSocketStream<TlsStream<TcpStream>>, String), RemoteError> {
    let server: Uri = access
        .server
        .parse()
        .map_err(|_| RemoteError::Server(access.server.clone()))?;
    let bad_server = || RemoteError::Server(access.server.clone());
    let host = server
        .host()
        .ok_or_else(bad_server)?
        .trim_matches(['[', ']'])
        .to_owned();
    let port = server.port_u16().unwrap_or(443);
    let connect = |source| RemoteError::Connect {
        server: access.server.clone(),
        source,
    };
    let tcp = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(connect)?;
    tcp.set_nodelay(true).map_err(connect)?;
    let mut config = tls_config(access)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(host).map_err(|_| bad_server())?;
    let tls = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .map_err(connect)?;
    let mut request = Request::builder()
        .uri(format!(
            "wss://{}{path_and_query}",
            server.authority().map_or("", |a| a.as_str())
        ))
        .header(header::HOST, server.authority().map_or("", |a| a.as_str()))
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(
            header::SEC_WEBSOCKET_KEY,
            tokio_tungstenite::tungstenite::handshake::client::generate_key(),
        )
        .header(header::SEC_WEBSOCKET_PROTOCOL, protocols.join(", "));
    if let Some(bearer) = bearer(access)? {
        request = request.header(header::AUTHORIZATION, bearer);
    }
    let request = request
        .body(())
        .map_err(|error| RemoteError::Upgrade(error.to_string()))?;
    let (stream, response) = tokio_tungstenite::client_async(request, tls)
        .await
        .map_err(upgrade_error)?;
    let chosen = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
    let chosen = chosen
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    Ok((stream, chosen))
}

/// The server's own words, when it answered with a Status instead of an upgrade.
fn upgrade_error(error: tokio_tungstenite::tungstenite::Error) -> RemoteError {
    use tokio_tungstenite::tungstenite::Error;
    match error {
        Error::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            let status = meta::Status::from_body(response.status().as_u16(), body);
            RemoteError::Upgrade(status.message)
        }
        error => RemoteError::Upgrade(error.to_string()),
    }
}

fn bearer(access: &Access) -> Result<Option<HeaderValue>, RemoteError> {
    let header = |token: &String| {
        HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| RemoteError::Credentials("token has characters no header may have".into()))
    };
    access.token.as_ref().map(header).transpose()
}

/// The TLS configuration a user's access calls for.
pub fn tls_config(access: &Access) -> Result<rustls::ClientConfig, RemoteError> {
    let bad = |error: &dyn std::fmt::Display| RemoteError::Credentials(error.to_string());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(&error))?;
    let builder = if access.insecure {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustAnybody))
    } else {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(access.ca.as_deref().unwrap_or_default())
        {
            let certificate = certificate.map_err(|error| bad(&error))?;
            roots.add(certificate).map_err(|error| bad(&error))?;
        }
        builder.with_root_certificates(roots)
    };
    match &access.certificate {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
            let chain = chain.map_err(|error| bad(&error))?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| bad(&error))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| bad(&error))
        }
    }
}

/// `insecure-skip-tls-verify`: the user asked for no verification.
#[derive(Debug)]
struct TrustAnybody;

impl rustls::client::danger::ServerCertVerifier for TrustAnybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
