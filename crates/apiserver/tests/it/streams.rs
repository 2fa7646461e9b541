//! Logs, exec and proxies, with a kubelet that only echoes.

use std::convert::Infallible;
use std::sync::Arc;

use client::{Access, Body, full};
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::cluster::{CONFIG_MAPS, Cluster, PODS, config_map, pod};

/// A kubelet's HTTPS port: tells who asked for what, and echoes upgraded streams.
async fn kubelet(cluster: &Cluster) -> u16 {
    echo_over_tls(cluster, "127.0.0.1").await
}

pub(crate) async fn echo_over_tls(cluster: &Cluster, address: &str) -> u16 {
    let pair =
        cluster
            .pki
            .issue_serving("system:node:n1", &["system:nodes"], &["127.0.0.1".into()]);
    let tls = auth::tls::server_config_of(&pair.unwrap(), cluster.pki.ca_pem()).unwrap();
    let mut tls = (*tls).clone();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stop = cluster.crew.stop();
    cluster.crew.spawn("kubelet", async move {
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted.unwrap().0,
                () = stop.raised() => return,
            };
            let stream = acceptor.accept(stream).await.unwrap();
            let has_certificate = stream.get_ref().1.peer_certificates().is_some();
            let service = hyper::service::service_fn(move |request| echo(request, has_certificate));
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::spawn(served);
        }
    });
    port
}

async fn echo(
    mut request: Request<Incoming>,
    has_certificate: bool,
) -> Result<Response<Body>, Infallible> {
    let url = request.uri().to_string();
    if url.contains("/broken") {
        let mut answer = Response::new(full("container is waiting to start"));
        *answer.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(answer);
    }
    let Some(key) = request.headers().get("sec-websocket-key") else {
        let text = format!("{} {url} {has_certificate}", request.method());
        return Ok(Response::new(full(text)));
    };
    let accept = derive_accept_key(key.as_bytes());
    let protocol = request.headers()["sec-websocket-protocol"].clone();
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            // A client's frame, unmasked: the payload is echoed as text.
            let mask: [u8; 4] = buffer[2..6].try_into().unwrap();
            let payload: Vec<u8> = buffer[6..count]
                .iter()
                .enumerate()
                .map(|(at, byte)| byte ^ mask[at % 4])
                .collect();
            let frame = [&[0x81, payload.len() as u8][..], &payload].concat();
            stream.write_all(&frame).await.unwrap();
        }
    });
    let answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", accept)
        .header("sec-websocket-protocol", protocol);
    Ok(answer.body(client::empty()).unwrap())
}

async fn on_node(cluster: &Cluster, name: &str, port: u16) {
    let account = json!({"metadata": {"name": "default"}});
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    if let Err(status) = cluster.post(accounts, account).await {
        assert!(status.is_already_exists());
    }
    let node = json!({"metadata": {"name": "n1"}, "status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    if let Err(status) = cluster.post("/api/v1/nodes", node).await {
        assert!(status.is_already_exists());
    }
    cluster.post(PODS, pod(name)).await.unwrap();
    let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}});
    cluster
        .post(&format!("{PODS}/{name}/binding"), binding)
        .await
        .unwrap();
}

async fn text(cluster: &Cluster, path: &str) -> Result<String, meta::Status> {
    let request = client::request::request(http::Method::GET, path, None, client::empty());
    let bytes = cluster.client.bytes(request.unwrap()).await?;
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn logs_come_from_the_kubelet() {
    let cluster = Cluster::start().await;
    let port = kubelet(&cluster).await;
    on_node(&cluster, "a", port).await;
    let log = text(&cluster, &format!("{PODS}/a/log?tailLines=3&follow=true"))
        .await
        .unwrap();
    assert_eq!(
        log,
        "GET /containerLogs/default/a/main?tailLines=3&follow=true true"
    );
    let wrong = text(&cluster, &format!("{PODS}/a/log?container=x"))
        .await
        .unwrap_err();
    assert_eq!(wrong.message, "container x is not valid for pod a");
    let negative = text(&cluster, &format!("{PODS}/a/log?tailLines=-1"))
        .await
        .unwrap_err();
    assert_eq!(negative.code, 422);
    on_node(&cluster, "broken", port).await;
    let failed = text(&cluster, &format!("{PODS}/broken/log"))
        .await
        .unwrap_err();
    assert_eq!(
        (failed.code, failed.message.as_str()),
        (400, "container is waiting to start")
    );
    let proxied = text(&cluster, "/api/v1/nodes/n1/proxy/stats/summary?x=1")
        .await
        .unwrap();
    assert_eq!(proxied, "GET /stats/summary?x=1 true");
    cluster.post(PODS, pod("idle")).await.unwrap();
    // Nobody has written anything yet.
    let idle = text(&cluster, &format!("{PODS}/idle/log")).await.unwrap();
    assert_eq!(idle, "");
    cluster.stop().await;
}

/// Opens the server's port; says how its administrator reaches it.
fn listen(cluster: &Cluster) -> Access {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("https://{}", listener.local_addr().unwrap());
    let tls = auth::tls::server_config(&cluster.pki).unwrap();
    apiserver::listen(cluster.server.clone(), vec![listener], tls, &cluster.crew).unwrap();
    let admin = cluster.pki.admin();
    Access {
        server,
        ca: Some(cluster.pki.ca_pem().as_bytes().to_vec()),
        certificate: Some((
            admin.cert_pem.clone().into_bytes(),
            admin.key_pem.clone().into_bytes(),
        )),
        ..Access::default()
    }
}

#[tokio::test]
async fn a_watch_is_told_in_messages() {
    let cluster = Cluster::start().await;
    let access = listen(&cluster);
    // Each is one message, though all are there at once.
    for (name, value) in [("a", "1"), ("b", "0")] {
        let map = config_map(name, value);
        cluster.post(CONFIG_MAPS, map).await.unwrap();
    }
    let path = format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1");
    let opened = client::remote::websocket(&access, &path, &["any"]).await;
    let (mut socket, protocol) = opened.unwrap();
    assert_eq!(protocol, "any");
    let mut map = config_map("a", "2");
    map["metadata"]["labels"] = json!({"x": "y"});
    cluster
        .put(&format!("{CONFIG_MAPS}/a"), &map)
        .await
        .unwrap();
    for (event, value) in [("ADDED", "1"), ("ADDED", "0"), ("MODIFIED", "2")] {
        let message = socket.next().await.unwrap().unwrap();
        let tree: serde_json::Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        let told = (&tree["type"], &tree["object"]["data"]["key"]);
        assert_eq!(told, (&json!(event), &json!(value)));
    }
    assert!(socket.next().await.unwrap().unwrap().is_close());
    let two = client::remote::websocket(&access, &path, &["one", "two"]).await;
    assert!(two.is_err());
    cluster.stop().await;
}

#[tokio::test]
async fn a_stream_passes_both_ways() {
    let cluster = Cluster::start().await;
    let port = kubelet(&cluster).await;
    on_node(&cluster, "a", port).await;
    let access = listen(&cluster);
    let path = format!("{PODS}/a/exec?command=ls&stdin=true");
    let opened = client::remote::websocket(&access, &path, &["v5.channel.k8s.io"]).await;
    let (mut socket, protocol) = opened.unwrap();
    assert_eq!(protocol, "v5.channel.k8s.io");
    for word in ["one", "two"] {
        socket.send(word.into()).await.unwrap();
        let back = socket.next().await.unwrap().unwrap();
        assert_eq!(back.to_text().unwrap(), word);
    }
    drop(socket);
    let log = format!("{PODS}/a/log?tailLines=3");
    let opened = client::remote::websocket(&access, &log, &["binary.k8s.io"]).await;
    let (mut socket, protocol) = opened.unwrap();
    assert_eq!(protocol, "binary.k8s.io");
    let message = socket.next().await.unwrap().unwrap();
    let expected = "GET /containerLogs/default/a/main?tailLines=3 true";
    assert_eq!(message.into_data(), expected.as_bytes());
    assert!(socket.next().await.unwrap().unwrap().is_close());
    drop(socket);
    let stranger = Access {
        certificate: None,
        ..access
    };
    let refused = client::remote::websocket(&stranger, &path, &["v5.channel.k8s.io"]).await;
    assert!(
        refused
            .err()
            .unwrap()
            .to_string()
            .contains("system:anonymous")
    );
    cluster.stop().await;
}
