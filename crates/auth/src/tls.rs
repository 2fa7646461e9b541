//! How the API server speaks TLS.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};

use crate::certificate::{Pair, facts};
use crate::ciphers::{Spoken, SpokenError};
use crate::pki::Pki;

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("not PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("{0}")]
    Rustls(#[from] rustls::Error),
    #[error("serving certificate: {0}")]
    Serving(String),
    #[error("client authority: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error("{0}")]
    Spoken(#[from] SpokenError),
}

/// TLS 1.2 and 1.3, HTTP/2 and 1.1; clients may show any certificate, of which they must hold the
/// key. What it proves is for [`crate::Trust`] to say, request by request.
pub fn server_config(pki: &Pki) -> Result<Arc<ServerConfig>, TlsError> {
    let certificates = Arc::new(ServingCertificates::new(pki.serving())?);
    open_config(certificates, &Spoken::default())
}

/// The same over certificates that may change, in chosen versions and ciphers.
pub fn open_config(
    certificates: Arc<ServingCertificates>,
    spoken: &Spoken,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(spoken.provider());
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(spoken.versions())?
        .with_client_cert_verifier(Arc::new(AnyHolder(provider)))
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What the server shows: one certificate by default, others for certain names. All of them may
/// be replaced while it serves.
#[derive(Debug)]
pub struct ServingCertificates(ArcSwap<Shown>);

#[derive(Debug)]
struct Shown {
    usual: Arc<CertifiedKey>,
    /// By name of host, the exact ones before those with a star.
    named: Vec<(String, Arc<CertifiedKey>)>,
}

impl ServingCertificates {
    /// Shows one certificate to all.
    pub fn new(usual: &Pair) -> Result<ServingCertificates, TlsError> {
        Ok(ServingCertificates(ArcSwap::from_pointee(shown(
            usual,
            &[],
        )?)))
    }

    /// Replaces everything. Each of `named` (`--tls-sni-cert-key`) is shown to whoever asks for
    /// one of its patterns, or, without patterns, for one of the names in it; the first one wins.
    pub fn set(&self, usual: &Pair, named: &[(Pair, Vec<String>)]) -> Result<(), TlsError> {
        self.0.store(Arc::new(shown(usual, named)?));
        Ok(())
    }
}

fn shown(usual: &Pair, named: &[(Pair, Vec<String>)]) -> Result<Shown, TlsError> {
    let mut list = Vec::new();
    for (pair, patterns) in named {
        let key = certified(pair)?;
        let facts = facts(&pair.cert_pem).map_err(|error| TlsError::Serving(error.to_string()))?;
        let own = facts.hosts.into_iter().chain([facts.common_name]);
        let patterns = match patterns.as_slice() {
            [] => own.filter(|name| !name.is_empty()).collect(),
            patterns => patterns.to_vec(),
        };
        list.extend(
            patterns
                .into_iter()
                .map(|name| (name.to_lowercase(), Arc::clone(&key))),
        );
    }
    // Stable: among equals the first one stays first.
    list.sort_by_key(|(name, _)| name.starts_with('*'));
    Ok(Shown {
        usual: certified(usual)?,
        named: list,
    })
}

fn certified(pair: &Pair) -> Result<Arc<CertifiedKey>, TlsError> {
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes())?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?;
    let certified = CertifiedKey::new(certificates(&pair.cert_pem)?, key);
    certified.keys_match()?;
    Ok(Arc::new(certified))
}

impl ResolvesServerCert for ServingCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.load();
        let fits = |pattern: &str, name: &str| match pattern.strip_prefix("*.") {
            None => pattern == name,
            Some(domain) => name.split_once('.').is_some_and(|(_, rest)| rest == domain),
        };
        let named = hello.server_name().and_then(|name| {
            let name = name.to_ascii_lowercase();
            shown.named.iter().find(|(pattern, _)| fits(pattern, &name))
        });
        Some(Arc::clone(named.map_or(&shown.usual, |(_, key)| key)))
    }
}

/// What this process shows to servers that it dials; may be replaced at any time.
#[derive(Debug)]
pub struct ClientCertificate(ArcSwap<CertifiedKey>);

impl ClientCertificate {
    /// Shows this one.
    pub fn new(pair: &Pair) -> Result<ClientCertificate, TlsError> {
        Ok(ClientCertificate(ArcSwap::new(certified(pair)?)))
    }

    /// Shows this one from now on.
    pub fn set(&self, pair: &Pair) -> Result<(), TlsError> {
        self.0.store(certified(pair)?);
        Ok(())
    }
}

impl ResolvesClientCert for ClientCertificate {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let own = self.0.load_full();
        own.key.choose_scheme(schemes).is_some().then_some(own)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Takes any certificate whose key the client holds.
#[derive(Debug)]
struct AnyHolder(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyHolder {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // None: the authorities may change, and clients keep to hints.
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// From a serving certificate and a client authority: a certificate of any other is refused in
/// the handshake, as a kubelet does.
pub fn server_config_of(
    serving: &Pair,
    client_ca_pem: &str,
) -> Result<Arc<ServerConfig>, TlsError> {
    let shown = Arc::new(ServingCertificates::new(serving)?);
    closed_config(shown, client_ca_pem, &Spoken::default())
}

/// The same over certificates that may change, in chosen versions and ciphers. Without an
/// authority no client is asked for a certificate.
pub fn closed_config(
    certificates_shown: Arc<ServingCertificates>,
    client_ca_pem: &str,
    spoken: &Spoken,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(spoken.provider());
    let mut roots = RootCertStore::empty();
    for cert in certificates(client_ca_pem)? {
        roots.add(cert)?;
    }
    let verifier: Arc<dyn ClientCertVerifier> = match roots.is_empty() {
        true => WebPkiClientVerifier::no_client_auth(),
        false => {
            let roots = Arc::new(roots);
            WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
                .allow_unauthenticated()
                .build()?
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(spoken.versions())?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificates_shown);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// All certificates of a PEM text.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    Ok(CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>()?)
}
