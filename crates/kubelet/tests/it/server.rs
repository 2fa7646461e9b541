//! The server on the kubelet's port.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use kubelet::{Guard, GuardRequest, Refusal, ServerConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::rig::{IMAGE, Rig};

struct Doorman;

#[async_trait]
impl Guard for Doorman {
    async fn admit(&self, request: &GuardRequest<'_>) -> Result<(), Refusal> {
        match request.token {
            Some("good") => Ok(()),
            Some(_) => Err(Refusal::Forbidden(format!(
                "no {} for you",
                request.subresources.join(" ")
            ))),
            None => Err(Refusal::Unauthorized),
        }
    }
}

pub(crate) struct Front {
    pub(crate) rig: Rig,
    address: std::net::SocketAddr,
    roots: rustls::RootCertStore,
    crew: base::Crew,
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

impl Front {
    pub(crate) async fn new() -> Front {
        Front::with(|_, _| {}).await
    }

    /// With other settings.
    pub(crate) async fn with(
        change: impl FnOnce(&mut kubelet::Config, &mut ServerConfig),
    ) -> Front {
        let rig = Rig::new().await;
        rig.crew.stop().raise();
        rig.crew.finished().await.unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
        let tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.unwrap())
            .unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut config = rig.config();
        let mut server = ServerConfig {
            address,
            tls: Arc::new(tls),
            guard: Arc::new(Doorman),
            debugging: true,
        };
        change(&mut config, &mut server);
        config.server = Some(server);
        let crew = base::Crew::new();
        rig.start_with(config, &crew).await;
        Front {
            rig,
            address,
            roots,
            crew,
        }
    }

    async fn dial(&self) -> TlsStream<TcpStream> {
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect(name, tcp).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        self.get_as(path, Some("good")).await
    }

    async fn get_as(&self, path: &str, token: Option<&str>) -> (u16, String) {
        let stream = TokioIo::new(self.dial().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::get(path).header("host", "localhost");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn websocket(&self, path: &str, protocol: &str) -> WebSocketStream<TlsStream<TcpStream>> {
        let request = Request::get(format!("wss://localhost{path}"))
            .header("host", "localhost")
            .header("authorization", "Bearer good")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", protocol)
            .body(())
            .unwrap();
        let stream = self.dial().await;
        tokio_tungstenite::client_async(request, stream)
            .await
            .unwrap()
            .0
    }

    /// A connection upgraded to SPDY.
    async fn spdy(&self, path: &str, protocol: &str) -> spdy::Session {
        let stream = TokioIo::new(self.dial().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let request = Request::post(path)
            .header("host", "localhost")
            .header("authorization", "Bearer good")
            .header("connection", "Upgrade")
            .header("upgrade", "SPDY/3.1")
            .header("x-stream-protocol-version", protocol)
            .body(Empty::<Bytes>::new())
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 101);
        assert_eq!(answer.headers()["x-stream-protocol-version"], protocol);
        let upgraded = hyper::upgrade::on(answer).await.unwrap();
        let (session, _, work) = spdy::start(TokioIo::new(upgraded), spdy::Role::Client);
        tokio::spawn(work);
        session
    }

    pub(crate) async fn finish(self) {
        self.crew.stop().raise();
        self.crew.finished().await.unwrap();
    }
}

#[tokio::test]
async fn the_configuration_switches_handlers() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let healthz = free.local_addr().unwrap();
    drop(free);
    let front = Front::with(|config, server| {
        server.debugging = false;
        config.healthz = Some(healthz);
        config.shown = json!({"kind": "KubeletConfiguration", "maxPods": 7});
    })
    .await;
    for path in ["/exec/a/b/c", "/containerLogs/a/b/c", "/portForward/a/b"] {
        let disabled = (405, "Debug endpoints are disabled.\n".to_owned());
        assert_eq!(front.get(path).await, disabled, "{path}");
    }
    assert_eq!(front.get_as("/exec/a/b/c", None).await.0, 401);
    let (code, shown) = front.get("/configz").await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((code, &shown["kubeletconfig"]["maxPods"]), (200, &json!(7)));
    let mut plain = TcpStream::connect(healthz).await.unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    plain.write_all(request).await.unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"),
        "{answer}"
    );
    front.finish().await;
}

/// All bytes by channel until the server says goodbye.
async fn read_all<S>(socket: &mut WebSocketStream<S>) -> Vec<(u8, String)>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut all: Vec<(u8, String)> = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Close(goodbye) => {
                assert_eq!(
                    u16::from(goodbye.unwrap().code),
                    1000,
                    "clients take others for faults"
                );
                break;
            }
            _ => continue,
        };
        let text = String::from_utf8_lossy(&bytes[1..]).into_owned();
        match all.iter_mut().find(|(channel, _)| *channel == bytes[0]) {
            Some((_, known)) => known.push_str(&text),
            None => all.push((bytes[0], text)),
        }
    }
    all
}

fn frame(channel: u8, bytes: &[u8]) -> Message {
    Message::Binary([&[channel], bytes].concat().into())
}

#[tokio::test]
async fn only_those_the_guard_admits_get_in() {
    let front = Front::new().await;
    assert_eq!(
        front.get_as("/healthz", None).await,
        (401, "Unauthorized".into())
    );
    let refused = front.get_as("/stats/summary", Some("bad")).await;
    assert_eq!(refused, (403, "no stats for you".into()));
    assert_eq!(front.get("/healthz").await, (200, "ok".into()));
    assert_eq!(front.get("/nothing").await.0, 404);
    front.finish().await;
}

#[tokio::test]
async fn logs_are_sent_or_the_reason_why_not() {
    let front = Front::new().await;
    front.rig.create("web", json!({}));
    front.rig.create(
        "stuck",
        json!({"containers": [{"name": "main", "image": "absent:1", "imagePullPolicy": "Never"}]}),
    );
    front.rig.wait_phase("web", "Running").await;
    let log = front.rig.runtime.running("main").unwrap().log_path;
    std::fs::write(
        &log,
        "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stdout F two\n",
    )
    .unwrap();
    let logs = "/containerLogs/default/web/main";
    assert_eq!(front.get(logs).await, (200, "one\ntwo\n".into()));
    assert_eq!(
        front.get(&format!("{logs}?tailLines=1")).await,
        (200, "two\n".into())
    );
    let (code, text) = front.get(&format!("{logs}?previous=true")).await;
    let expected = "previous terminated container \"main\" in pod \"web\" not found";
    assert_eq!((code, text.as_str()), (400, expected));
    let (code, text) = front.get("/containerLogs/default/web/other").await;
    assert_eq!(
        (code, text.as_str()),
        (404, "container \"other\" not found in pod \"web\"")
    );
    front
        .rig
        .wait_pod("stuck", "waits", |pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
                == "ErrImageNeverPull"
        })
        .await;
    let (code, text) = front.get("/containerLogs/default/stuck/main").await;
    let expected = "container \"main\" in pod \"stuck\" is waiting to start: ErrImageNeverPull";
    assert_eq!((code, text.as_str()), (400, expected));
    front.finish().await;
}

#[tokio::test]
async fn commands_run_over_websockets() {
    let front = Front::new().await;
    front.rig.create("web", json!({}));
    front.rig.wait_phase("web", "Running").await;
    let exec = "/exec/default/web/main?output=1&error=1&command=";
    let mut socket = front
        .websocket(&format!("{exec}echo&command=a%20b"), "v5.channel.k8s.io")
        .await;
    let said = read_all(&mut socket).await;
    assert_eq!(said[0], (1, "ran echo a b\n".into()));
    assert_eq!(said[1], (3, r#"{"metadata":{},"status":"Success"}"#.into()));
    let mut socket = front
        .websocket(&format!("{exec}false"), "v4.channel.k8s.io")
        .await;
    let said = read_all(&mut socket).await;
    let status: Value = serde_json::from_str(&said[1].1).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "1");
    // Standard input, closed by the frame of version 5.
    let mut socket = front
        .websocket(&format!("{exec}cat&input=1"), "v5.channel.k8s.io")
        .await;
    socket.send(frame(0, b"hello")).await.unwrap();
    socket.send(frame(255, &[0])).await.unwrap();
    let said = read_all(&mut socket).await;
    assert_eq!(said[0], (1, "ran cat\nhello".into()));
    front.finish().await;
}

#[tokio::test]
async fn ports_are_forwarded_in_pairs_of_channels() {
    let front = Front::new().await;
    front.rig.create(
        "web",
        json!({"containers": [{"name": "main", "image": IMAGE}]}),
    );
    front.rig.wait_phase("web", "Running").await;
    let mut socket = front
        .websocket("/portForward/default/web?port=8080", "v4.channel.k8s.io")
        .await;
    let mut next = async || socket.next().await.unwrap().unwrap().into_data();
    let port = 8080u16.to_le_bytes();
    assert_eq!(next().await[..], [0, port[0], port[1]]);
    assert_eq!(next().await[..], [1, port[0], port[1]]);
    socket.send(frame(0, b"ping")).await.unwrap();
    assert_eq!(
        socket.next().await.unwrap().unwrap().into_data()[..],
        *b"\0ping"
    );
    front.finish().await;
}

async fn stream(session: &spdy::Session, headers: &[(&str, &str)]) -> spdy::Stream {
    let headers = headers
        .iter()
        .fold(spdy::Headers::new(), |all, (key, value)| {
            all.with(key, *value)
        });
    session.open(headers).await.unwrap()
}

async fn text_of(mut reader: impl AsyncRead + Unpin) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn commands_run_over_spdy() {
    let front = Front::new().await;
    front.rig.create("web", json!({}));
    front.rig.wait_phase("web", "Running").await;
    let path = "/exec/default/web/main?command=cat&input=1&output=1&error=1";
    let session = front.spdy(path, "v4.channel.k8s.io").await;
    let error = stream(&session, &[("streamType", "error")]).await;
    let mut input = stream(&session, &[("streamType", "stdin")]).await;
    let output = stream(&session, &[("streamType", "stdout")]).await;
    let _errors = stream(&session, &[("streamType", "stderr")]).await;
    input.writer.write_all(b"hello").await.unwrap();
    input.writer.shutdown().await.unwrap();
    assert_eq!(text_of(output.reader).await, "ran cat\nhello");
    assert_eq!(
        text_of(error.reader).await,
        r#"{"metadata":{},"status":"Success"}"#
    );
    let session = front
        .spdy(
            "/exec/default/web/main?command=false&output=1",
            "v4.channel.k8s.io",
        )
        .await;
    let error = stream(&session, &[("streamType", "error")]).await;
    let _output = stream(&session, &[("streamType", "stdout")]).await;
    let status: Value = serde_json::from_str(&text_of(error.reader).await).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "1");
    front.finish().await;
}

/// One connection to a port: what comes back on the data and the error stream.
async fn forwarded(session: &spdy::Session, port: &str, id: &str) -> (spdy::Stream, spdy::Stream) {
    let of = |kind| [("streamType", kind), ("port", port), ("requestID", id)];
    let mut error = stream(session, &of("error")).await;
    error.writer.shutdown().await.unwrap();
    (stream(session, &of("data")).await, error)
}

#[tokio::test]
async fn ports_are_forwarded_over_spdy_also_within_a_websocket() {
    let front = Front::new().await;
    front.rig.create("web", json!({}));
    front.rig.wait_phase("web", "Running").await;
    let path = "/portForward/default/web";
    let direct = front.spdy(path, "portforward.k8s.io").await;
    let socket = front.websocket(path, "SPDY/3.1+portforward.k8s.io").await;
    let (near, far) = tokio::io::duplex(1 << 10);
    tokio::spawn(carry(socket, far));
    let (tunnelled, _, work) = spdy::start(near, spdy::Role::Client);
    tokio::spawn(work);
    for session in [direct, tunnelled] {
        let (mut first, error) = forwarded(&session, "8080", "0").await;
        let (mut second, _) = forwarded(&session, "8080", "1").await;
        for (data, word) in [(&mut first, b"one!"), (&mut second, b"two!")] {
            data.writer.write_all(word).await.unwrap();
            let mut back = [0; 4];
            data.reader.read_exact(&mut back).await.unwrap();
            assert_eq!(&back, word);
        }
        first.writer.shutdown().await.unwrap();
        assert_eq!(text_of(first.reader).await, "");
        assert_eq!(text_of(error.reader).await, "");
        let refused = session
            .open(spdy::Headers::new().with("streamType", "data"))
            .await;
        assert!(matches!(refused, Err(spdy::SpdyError::Reset)));
    }
    front.finish().await;
}

/// The client's end of a tunnel.
async fn carry(
    mut socket: WebSocketStream<TlsStream<TcpStream>>,
    mut pipe: tokio::io::DuplexStream,
) {
    let mut chunk = vec![0; 1 << 10];
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => pipe.write_all(&bytes).await.unwrap(),
                _ => return,
            },
            read = pipe.read(&mut chunk) => match read {
                Ok(count @ 1..) => {
                    let bytes = Bytes::copy_from_slice(&chunk[..count]);
                    socket.send(Message::Binary(bytes)).await.unwrap();
                }
                _ => return,
            },
        }
    }
}

#[tokio::test]
async fn pods_and_numbers_can_be_read() {
    let front = Front::new().await;
    front.rig.create("web", json!({}));
    front.rig.wait_phase("web", "Running").await;
    let (_, text) = front.get("/pods").await;
    let pods: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(pods["items"][0]["status"]["phase"], "Running");
    let (_, text) = front.get("/stats/summary").await;
    let summary: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(summary["pods"][0]["podRef"]["name"], "web");
    assert!(
        front
            .get("/metrics")
            .await
            .1
            .contains("kubelet_running_pods 1")
    );
    assert_eq!(front.get("/metrics/resource").await.0, 200);
    let runtime = &front.rig.runtime;
    runtime.end(&runtime.running("main").unwrap().id, 139);
    let restarted = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"] == 1;
    front.rig.wait_pod("web", "restarted", restarted).await;
    let (_, text) = front.get("/metrics").await;
    let counted =
        "kubelet_terminated_containers_total{container_type=\"container\",exit_code=\"139\"";
    assert!(text.contains(counted), "{text}");
    front.finish().await;
}

#[tokio::test]
async fn who_may_not_log_in_reads_where_there_is_a_port_for_it() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let front = Front::with(|config, _| config.read_only = Some(address)).await;
    front.rig.create("web", json!({}));
    front.rig.wait_phase("web", "Running").await;
    let ask = |line: &'static str| async move {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        answer
    };
    for (line, code, text) in [
        ("GET /healthz", 200, "ok"),
        ("GET /pods", 200, "\"name\":\"web\""),
        ("GET /stats/summary", 200, "\"nodeName\":\"node-1\""),
        ("GET /metrics", 200, "kubelet_running_pods 1"),
        (
            "GET /metrics/cadvisor",
            200,
            "container_cpu_usage_seconds_total",
        ),
        ("GET /metrics/resource", 200, "node_cpu_usage_seconds_total"),
        (
            "GET /containerLogs/default/web/main",
            405,
            "Debug endpoints are disabled.",
        ),
        (
            "POST /exec/default/web/main?command=id&output=1",
            405,
            "Debug endpoints are disabled.",
        ),
        ("GET /logs/", 405, "Debug endpoints are disabled."),
        ("GET /configz", 404, "404 page not found"),
        ("GET /", 404, "404 page not found"),
    ] {
        let answer = ask(line).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {code} ")),
            "{line}: {answer}"
        );
        assert!(answer.contains(text), "{line}: {answer}");
    }
    front.finish().await;
}
