//! Calls of a webhook server that behaves, and of others that do not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::net::TcpListener;
use webhook::{CallError, ClientConfig, Resolve, Webhook, Webhooks};

const SOON: Duration = Duration::from_millis(100);
const LATER: Duration = Duration::from_secs(10);

/// A certificate for `names`, and the authority to trust.
struct Identity {
    ca: String,
    chain: Vec<rustls::pki_types::CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn signed(names: &[&str]) -> Identity {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(names).unwrap();
    let own = params.signed_by(&key, &issuer).unwrap();
    Identity {
        ca: ca.pem(),
        chain: vec![own.der().clone()],
        key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    }
}

/// An authority that serves with its own certificate, as many webhooks are set up.
fn self_signed(name: &str) -> Identity {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let own = params.self_signed(&key).unwrap();
    Identity {
        ca: own.pem(),
        chain: vec![own.der().clone()],
        key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    }
}

struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
}

async fn serve(identity: &Identity) -> Server {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else {
                    return;
                };
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let served = server.serve_connection(TokioIo::new(tls), service_fn(answer));
                drop(served.await);
            });
        }
    });
    Server { port, connections }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let query = head.uri.query().unwrap_or("").to_owned();
    let say = |code: u16, body: Bytes| {
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = StatusCode::from_u16(code).unwrap();
        Ok(response)
    };
    match head.uri.path() {
        "/echo" => {
            let said = String::from_utf8_lossy(&body).into_owned();
            say(
                200,
                json!({"said": said, "query": query}).to_string().into(),
            )
        }
        "/hang" => std::future::pending().await,
        "/huge" => say(200, Bytes::from(vec![b' '; 2000])),
        "/garbage" => say(200, "<html>".into()),
        "/empty" => say(200, Bytes::new()),
        _ => say(500, "boom".into()),
    }
}

/// Every service is on this machine.
struct Here(u16);

impl Resolve for Here {
    fn resolve(&self, _: &str, name: &str, _: u16) -> Result<(String, u16), String> {
        match name {
            "absent" => Err("service \"absent\" not found".into()),
            _ => Ok(("127.0.0.1".into(), self.0)),
        }
    }
}

fn by_url(webhooks: &Webhooks, identity: &Identity, port: u16, path: &str) -> Arc<Webhook> {
    let config = ClientConfig {
        url: Some(format!("https://localhost:{port}{path}")),
        ca_bundle: identity.ca.clone().into_bytes(),
        ..ClientConfig::default()
    };
    webhooks.get(&config).unwrap()
}

fn by_service(webhooks: &Webhooks, identity: &Identity, name: &str) -> Arc<Webhook> {
    use base64::Engine;
    let bundle = base64::engine::general_purpose::STANDARD.encode(&identity.ca);
    let tree = json!({"service": {"namespace": "ns", "name": name, "path": "/echo"},
        "caBundle": bundle});
    webhooks.get(&ClientConfig::from_value(&tree)).unwrap()
}

async fn failure(webhook: &Webhook, timeout: Duration) -> CallError {
    webhook.call_json(&json!({}), timeout).await.unwrap_err()
}

#[tokio::test]
async fn calls_share_connections_and_tell_the_timeout() {
    let identity = signed(&["localhost", "hook.ns.svc"]);
    let server = serve(&identity).await;
    let webhooks = Webhooks::new(Arc::new(Here(server.port)));
    let webhook = by_service(&webhooks, &identity, "hook");
    assert!(Arc::ptr_eq(
        &webhook,
        &by_service(&webhooks, &identity, "hook")
    ));
    for _ in 0..3 {
        let answer = webhook.call_json(&json!({"a": 1}), LATER).await.unwrap();
        assert_eq!(answer, json!({"said": "{\"a\":1}", "query": "timeout=10s"}));
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    // On this machine, calls side by side share one HTTP/2 connection.
    let local = by_url(&webhooks, &identity, server.port, "/echo");
    local.call_json(&json!({}), LATER).await.unwrap();
    let body = json!({});
    let calls = (0..8).map(|_| local.call_json(&body, LATER));
    futures::future::try_join_all(calls).await.unwrap();
    assert_eq!(server.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn failures_read_as_upstreams() {
    let identity = signed(&["localhost"]);
    let server = serve(&identity).await;
    let webhooks = Webhooks::new(Arc::new(Here(server.port)));
    let port = server.port;
    let message = |path: &'static str| {
        let webhook = by_url(&webhooks, &identity, port, path);
        async move { failure(&webhook, SOON).await.message }
    };
    assert_eq!(
        message("/hang").await,
        format!("Post \"https://localhost:{port}/hang?timeout=1s\": context deadline exceeded")
    );
    assert_eq!(
        message("/boom").await,
        "an error on the server (\"boom\") has prevented the request from succeeding"
    );
    assert!(
        message("/garbage")
            .await
            .starts_with("couldn't get version/kind; json parse error")
    );
    assert!(message("/empty").await.starts_with("0-length response"));
    let huge = by_url(&webhooks, &identity, port, "/huge");
    let bounded = huge.call_bounded(Bytes::new(), LATER, 1000).await;
    assert_eq!(
        bounded.unwrap_err().message,
        "response body is larger than 1000 bytes"
    );
    assert_eq!(
        failure(&by_service(&webhooks, &identity, "absent"), LATER)
            .await
            .message,
        "Post \"https://absent.ns.svc:443/echo?timeout=10s\": service \"absent\" not found"
    );
    assert_eq!(
        failure(&by_service(&webhooks, &identity, "hook"), LATER)
            .await
            .message,
        "Post \"https://hook.ns.svc:443/echo?timeout=10s\": tls: failed to verify certificate: \
         x509: certificate is valid for localhost, not hook.ns.svc"
    );
    let stranger = signed(&["localhost"]);
    assert_eq!(
        failure(&by_url(&webhooks, &stranger, port, "/echo"), LATER)
            .await
            .message,
        format!(
            "Post \"https://localhost:{port}/echo?timeout=10s\": tls: failed to verify \
             certificate: x509: certificate signed by unknown authority"
        )
    );
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = closed.local_addr().unwrap().port();
    drop(closed);
    let refused = failure(&by_url(&webhooks, &identity, free, "/echo"), LATER).await;
    assert!(
        refused.message.ends_with("connect: connection refused"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_servers_own_certificate_may_be_the_bundle() {
    let identity = self_signed("localhost");
    let server = serve(&identity).await;
    let webhooks = Webhooks::new(Arc::new(Here(server.port)));
    let webhook = by_url(&webhooks, &identity, server.port, "/echo");
    webhook.call_json(&json!({}), LATER).await.unwrap();
    let wrong = by_service(&webhooks, &identity, "hook");
    assert!(
        failure(&wrong, LATER)
            .await
            .message
            .contains("not hook.ns.svc")
    );
}

#[tokio::test]
async fn a_kubeconfig_names_a_webhook_and_its_user() {
    let identity = signed(&["localhost"]);
    let server = serve(&identity).await;
    let webhook = Webhook::from_access(&client::Access {
        server: format!("https://localhost:{}/echo", server.port),
        ca: Some(identity.ca.clone().into_bytes()),
        token: Some("secret".into()),
        ..client::Access::default()
    })
    .unwrap();
    let answer = webhook
        .call_json(&json!("hello"), webhook::CALL_TIMEOUT)
        .await;
    assert_eq!(answer.unwrap()["query"], "timeout=30s");
}
