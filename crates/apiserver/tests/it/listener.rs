//! Clients that are slow or say too much, and the end of a server, as bytes on connections.

use std::sync::Arc;
use std::time::Duration;

use apiserver::Patience;
use auth::ciphers::Spoken;
use auth::tls::ServingCertificates;
use base::Crew;
use client::Access;
use http::Method;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::cluster::{CONFIG_MAPS, Cluster};

const LONG: Patience = Patience {
    handshake: Duration::from_secs(60),
    headers: Duration::from_secs(60),
    drain: Duration::from_secs(60),
};

/// A server on a port. Its listener and watches end with one crew, the rest with another.
struct Door {
    cluster: Cluster,
    work: Crew,
    port: u16,
}

impl Door {
    async fn open(patience: Patience, settle: impl FnOnce(&mut apiserver::Config)) -> Door {
        let (crew, work) = (Crew::new(), Crew::new());
        let store = store::memory(&crew).await.unwrap();
        let cluster = Cluster::with(store, crew, |config| {
            config.closing = Some(work.stop());
            settle(config);
        })
        .await;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = auth::tls::server_config(&cluster.pki).unwrap();
        let server = cluster.server.clone();
        apiserver::listen_with(server, vec![listener], tls, patience, &work).unwrap();
        Door {
            cluster,
            work,
            port,
        }
    }

    async fn dial(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        let admin = self.cluster.pki.admin();
        let access = Access {
            ca: Some(self.cluster.pki.ca_pem().as_bytes().to_vec()),
            certificate: Some((
                admin.cert_pem.clone().into_bytes(),
                admin.key_pem.clone().into_bytes(),
            )),
            ..Access::default()
        };
        let mut tls = client::remote::tls_config(&access).unwrap();
        tls.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(tls));
        connector.connect(name, stream).await.unwrap()
    }

    async fn stop(self) {
        self.work.stop().raise();
        self.work.finished().await.unwrap();
        self.cluster.stop().await;
    }
}

/// All that comes until the other end closes.
async fn rest(stream: &mut TlsStream<TcpStream>) -> String {
    let mut bytes = Vec::new();
    // An end without goodbye is an end too.
    let _read = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What comes up to and with `end`.
async fn until(stream: &mut TlsStream<TcpStream>, end: &str) -> String {
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains(end) {
        let byte = stream.read_u8().await;
        bytes.push(
            byte.unwrap_or_else(|error| {
                panic!("{error} after {}", String::from_utf8_lossy(&bytes))
            }),
        );
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn say(stream: &mut TlsStream<TcpStream>, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

#[tokio::test]
async fn whoever_does_not_shake_hands_loses_the_seat() {
    let short = Patience {
        handshake: Duration::from_millis(10),
        ..LONG
    };
    let door = Door::open(short, |_| {}).await;
    let mut mute = TcpStream::connect(("127.0.0.1", door.port)).await.unwrap();
    let mut nothing = Vec::new();
    let _read = mute.read_to_end(&mut nothing).await;
    assert!(nothing.is_empty());
    door.stop().await;
}

#[tokio::test]
async fn whoever_does_not_get_on_loses_the_seat() {
    let short = Patience {
        headers: Duration::from_secs(1),
        ..LONG
    };
    let door = Door::open(short, |_| {}).await;
    let said = async |protocol: &[u8], text: &str| {
        let mut stream = door.dial(protocol).await;
        say(&mut stream, text).await;
        rest(&mut stream).await
    };
    // Nothing at all, half a preface, headers without an end, silence after an answer.
    let (silent, half, slow, idle) = tokio::join!(
        said(b"http/1.1", ""),
        said(b"h2", "PRI * HTTP/2.0\r\n"),
        said(b"http/1.1", "GET /version HTTP/1.1\r\nHost: a\r\nX-Slow: "),
        said(b"http/1.1", "GET /version HTTP/1.1\r\nHost: a\r\n\r\n"),
    );
    assert_eq!((silent.as_str(), half.as_str()), ("", ""));
    assert!(!slow.contains("200 OK"), "{slow}");
    assert!(idle.starts_with("HTTP/1.1 200 OK"), "{idle}");
    door.stop().await;
}

#[tokio::test]
async fn headers_have_a_limit_and_bodies_a_time() {
    let short = |config: &mut apiserver::Config| {
        config.request_timeout = Duration::from_secs(4);
    };
    let door = Door::open(LONG, short).await;
    let large = async {
        let mut stream = door.dial(b"http/1.1").await;
        let header = "x".repeat(100 << 10);
        let request = format!("GET /version HTTP/1.1\r\nHost: a\r\nX-Large: {header}\r\n\r\n");
        // The answer may come before all is said, and be lost when the other end hangs up.
        let _written = stream.write_all(request.as_bytes()).await;
        rest(&mut stream).await
    };
    let drip = async {
        let mut stream = door.dial(b"http/1.1").await;
        let head = format!(
            "POST {CONFIG_MAPS} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
             Content-Length: 1000\r\n\r\n{{\"kind\":"
        );
        say(&mut stream, &head).await;
        until(&mut stream, "\r\n").await
    };
    let (large, drip) = tokio::join!(large, drip);
    assert!(
        large.is_empty() || large.starts_with("HTTP/1.1 431"),
        "{large}"
    );
    assert!(drip.starts_with("HTTP/1.1 504"), "{drip}");
    door.stop().await;
}

#[tokio::test]
async fn the_end_waits_for_what_was_begun() {
    let leaving = base::Stop::new();
    let own = leaving.clone();
    let door = Door::open(LONG, move |config| config.leaving = own).await;
    // Not ready, and serving on.
    leaving.raise();
    let page = async |path: &str| {
        let request = client::request::request(Method::GET, path, None, client::empty());
        let answer = door.cluster.client.bytes(request.unwrap()).await;
        answer.map_err(|status| status.code)
    };
    assert_eq!(page("/readyz").await.unwrap_err(), 500);
    assert_eq!(page("/livez").await.unwrap(), "ok");
    let mut watch = door.dial(b"http/1.1").await;
    let path = format!("{CONFIG_MAPS}?watch=1");
    say(
        &mut watch,
        &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"),
    )
    .await;
    let head = until(&mut watch, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    let mut idle = door.dial(b"http/1.1").await;
    let mut write = door.dial(b"http/1.1").await;
    let body = r#"{"metadata": {"name": "late"}}"#;
    let (first, second) = body.split_at(10);
    say(
        &mut write,
        &format!(
            "POST {CONFIG_MAPS} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
             Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ),
    )
    .await;
    // The server is reading the body: the request is under way.
    let going = until(&mut write, "\r\n\r\n").await;
    assert!(going.starts_with("HTTP/1.1 100"), "{going}");
    say(&mut write, first).await;
    door.work.stop().raise();
    // A watch ends as one that is done, an idle connection at once, a write with its answer.
    let events = rest(&mut watch).await;
    assert!(events.ends_with("0\r\n\r\n"), "{events}");
    assert_eq!(rest(&mut idle).await, "");
    say(&mut write, second).await;
    let answer = rest(&mut write).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(
        answer.to_lowercase().contains("connection: close"),
        "{answer}"
    );
    door.work.finished().await.unwrap();
    assert!(TcpStream::connect(("127.0.0.1", door.port)).await.is_err());
    assert!(
        door.cluster
            .get(&format!("{CONFIG_MAPS}/late"))
            .await
            .is_ok()
    );
    door.stop().await;
}

#[tokio::test]
async fn versions_and_ciphers_are_a_choice() {
    let dir = tempfile::tempdir().unwrap();
    let pki = auth::Pki::open(dir.path(), &[]).unwrap();
    let spoken = Spoken::of(
        Some("VersionTLS12"),
        &["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256".to_owned()],
    );
    let newest = Spoken::of(Some("VersionTLS13"), &[]);
    for (spoken, old_works) in [(spoken.unwrap(), true), (newest.unwrap(), false)] {
        let shown = Arc::new(ServingCertificates::new(pki.serving()).unwrap());
        let tls = auth::tls::open_config(shown, &spoken).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(tls);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        for root in auth::tls::certificates(pki.ca_pem()).unwrap() {
            roots.add(root).unwrap();
        }
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (near, far) = tokio::io::duplex(64 << 10);
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        let (dialed, accepted) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
        assert_eq!(dialed.is_ok(), old_works);
        let suite = accepted
            .ok()
            .and_then(|stream| stream.get_ref().1.negotiated_cipher_suite());
        let suite = suite.map(|suite| suite.suite());
        let wanted = rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256;
        assert_eq!(suite, old_works.then_some(wanted));
    }
}
