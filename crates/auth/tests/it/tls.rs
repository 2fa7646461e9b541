//! Handshakes between the server configuration and clients of all sorts.

use std::sync::Arc;

use auth::certificate::Pair;
use auth::tls::{certificates, server_config};
use auth::{Authenticator, Peer, Pki, Trust};
use http::HeaderMap;

use crate::tokens::Nothing;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn client(ca_pem: &str, pair: Option<&Pair>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for cert in certificates(ca_pem).unwrap() {
        roots.add(cert).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match pair {
        None => builder.with_no_client_auth(),
        Some(pair) => builder
            .with_client_auth_cert(
                certificates(&pair.cert_pem).unwrap(),
                PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// The client's name as the server sees it, or `None` when the handshake fails on either side.
async fn meet(pki: &Pki, config: Arc<ClientConfig>, host: &'static str) -> Option<String> {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let acceptor = tokio_rustls::TlsAcceptor::from(server_config(pki).unwrap());
    let signer = Arc::new(pki.token_signer("issuer").unwrap());
    let server = async move {
        let mut stream = acceptor.accept(far).await.ok()?;
        let (_, connection) = stream.get_ref();
        assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
        let shown = connection.peer_certificates().unwrap_or_default().to_vec();
        let trust = Trust::new(pki.client_ca_pem(), pki.front_proxy_ca_pem()).unwrap();
        let authenticator = Authenticator::new(signer).trust(Arc::new(trust));
        let peer = Peer::new(shown);
        let found = authenticator
            .authenticate(&peer, &HeaderMap::new(), "/", &Nothing)
            .await;
        stream.write_all(b"ok").await.ok()?;
        stream.shutdown().await.ok()?;
        Some(match found {
            Ok(found) => format!(
                "{} {}",
                found.identity.name,
                found.identity.groups.join(",")
            ),
            Err(status) => status.message,
        })
    };
    let visitor = async move {
        let name = ServerName::try_from(host).unwrap();
        let connector = tokio_rustls::TlsConnector::from(config);
        let mut stream = connector.connect(name, near).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        (text == "ok").then_some(())
    };
    let (seen, met) = tokio::join!(server, visitor);
    met.and(seen)
}

#[tokio::test]
async fn certificates_of_the_authority_are_users() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path(), &["192.0.2.7".into()]).unwrap();
    let admin = client(pki.ca_pem(), Some(pki.admin()));
    assert_eq!(
        meet(&pki, admin, "192.0.2.7").await.as_deref(),
        Some("kubernetes-admin system:masters,system:authenticated")
    );
    let anybody = client(pki.ca_pem(), None);
    assert_eq!(
        meet(&pki, anybody, "kubernetes.default.svc")
            .await
            .as_deref(),
        Some("system:anonymous system:unauthenticated")
    );
}

#[tokio::test]
async fn strangers_and_strange_names_are_refused() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pki = Pki::open(dir.path(), &[]).unwrap();
    let foreign = Pki::open(other.path(), &[]).unwrap();
    let impostor = client(pki.ca_pem(), Some(foreign.admin()));
    let unauthorized = Some("Unauthorized".to_owned());
    assert_eq!(meet(&pki, impostor, "localhost").await, unauthorized);
    let lost = client(pki.ca_pem(), None);
    assert_eq!(meet(&pki, lost, "192.0.2.8").await, None);
    let wrong_authority = client(foreign.ca_pem(), None);
    assert_eq!(meet(&pki, wrong_authority, "localhost").await, None);
    // A serving certificate makes nobody a user.
    let server = client(pki.ca_pem(), Some(pki.serving()));
    assert_eq!(meet(&pki, server, "localhost").await, unauthorized);
}
