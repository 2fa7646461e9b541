//! Whom a registry's client trusts.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

use super::options::Tls;
use crate::error::ImageError;

/// Certificates this machine trusts beyond the built-in ones.
const SYSTEM_CERTIFICATES: [&str; 2] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];

fn fault(path: &Path, error: &dyn std::fmt::Display) -> ImageError {
    ImageError::Registry(format!("TLS: {}: {error}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ImageError> {
    let all = CertificateDer::pem_file_iter(path).map_err(|error| fault(path, &error))?;
    all.collect::<Result<_, _>>()
        .map_err(|error| fault(path, &error))
}

/// Makes connections of TLS to one server.
pub(super) fn connector(tls: &Tls) -> Result<tokio_rustls::TlsConnector, ImageError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| ImageError::Registry(format!("TLS: {error}")))?;
    let builder = match tls.insecure_skip_verify {
        true => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        false => builder.with_root_certificates(roots(tls)?),
    };
    let config = match (&tls.cert_file, &tls.key_file) {
        (Some(certificate), Some(key)) => {
            let chain = certificates(certificate)?;
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| fault(key, &error))?;
            builder
                .with_client_auth_cert(chain, secret)
                .map_err(|error| fault(certificate, &error))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config).into())
}

fn roots(tls: &Tls) -> Result<rustls::RootCertStore, ImageError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let extra = std::env::var("SSL_CERT_FILE").into_iter();
    for path in extra.chain(SYSTEM_CERTIFICATES.map(str::to_owned)) {
        let Ok(certificates) = CertificateDer::pem_file_iter(path) else {
            continue;
        };
        // A certificate we cannot read is one we do not trust.
        roots.add_parsable_certificates(certificates.flatten());
    }
    if let Some(path) = &tls.ca_file {
        roots.add_parsable_certificates(certificates(path)?);
    }
    Ok(roots)
}

/// Trusts every server, as its configuration says.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
