//! Proxies to pods and services, with a server that tells what it was asked.

use std::convert::Infallible;

use client::{Body, full};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::json;

use crate::cluster::{Cluster, PODS, pod};
use crate::streams::echo_over_tls;

/// An address of this machine that proxies may reach; `None` when there is loopback only.
fn own_address() -> Option<String> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then(|| address.to_string())
}

async fn tell(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value
            .map_or("-", |value| value.to_str().unwrap())
            .to_owned()
    };
    let answer = Response::builder();
    Ok(match request.uri().path() {
        "/moved" => answer
            .status(302)
            .header("location", "/there?x=1")
            .body(full("")),
        "/page" => answer
            .header("content-type", "text/html; charset=utf-8")
            .body(full("<a href='/x'>x</a><a href='y'>y</a>")),
        "/packed" => {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            std::io::Write::write_all(&mut packer, b"<a href='/x'>x</a>").unwrap();
            answer
                .header("content-type", "text/html")
                .header("content-encoding", "gzip")
                .body(full(packer.finish().unwrap()))
        }
        "/gone" => answer.status(410).body(full("gone")),
        path => {
            let text = format!(
                "{} {path} {} {} {}",
                request.method(),
                request.uri().query().unwrap_or(""),
                header("x-forwarded-uri"),
                header("authorization"),
            );
            answer.body(full(text))
        }
    }
    .unwrap())
}

async fn serve(cluster: &Cluster, address: &str) -> u16 {
    let listener = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stop = cluster.crew.stop();
    cluster.crew.spawn("told", async move {
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted.unwrap().0,
                () = stop.raised() => return,
            };
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), hyper::service::service_fn(tell));
            tokio::spawn(served);
        }
    });
    port
}

async fn send(cluster: &Cluster, method: Method, path: &str) -> (u16, http::HeaderMap, String) {
    let mut request = client::request::request(method, path, None, client::empty()).unwrap();
    let bearer = "Bearer secret".parse().unwrap();
    request.headers_mut().insert("authorization", bearer);
    let admin = auth::Identity::user("admin", &["system:masters"]);
    request.extensions_mut().insert(admin);
    let answer = tower::ServiceExt::oneshot(cluster.server.clone(), request).await;
    let answer = answer.unwrap();
    let (head, body) = answer.into_parts();
    let bytes = http_body_util::BodyExt::collect(body)
        .await
        .unwrap()
        .to_bytes();
    let text = match head.headers.contains_key("content-encoding") {
        true => {
            let mut text = String::new();
            let mut reader = flate2::read::GzDecoder::new(&bytes[..]);
            std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
            text
        }
        false => String::from_utf8(bytes.to_vec()).unwrap(),
    };
    (head.status.as_u16(), head.headers, text)
}

/// A pod at an address, a service before it.
async fn behind(cluster: &Cluster, address: &str, port: u16, tls: u16) {
    let account = json!({"metadata": {"name": "default"}});
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    cluster.post(accounts, account).await.unwrap();
    let mut made = cluster.post(PODS, pod("a")).await.unwrap();
    made["status"] = json!({"podIP": address, "podIPs": [{"ip": address}]});
    cluster
        .put(&format!("{PODS}/a/status"), &made)
        .await
        .unwrap();
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [
        {"name": "http", "port": 80}, {"name": "tls", "port": 443}]}});
    let services = "/api/v1/namespaces/default/services";
    cluster.post(services, service).await.unwrap();
    // Loopback addresses are refused as endpoints: this one is not the pod's.
    let endpoint = match address {
        "127.0.0.1" => "192.0.2.9",
        address => address,
    };
    let target = json!({"kind": "Pod", "name": "a", "namespace": "default"});
    let stranger = json!({"addresses": ["10.255.255.1"], "conditions": {"ready": true}});
    let slice = json!({
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": [endpoint], "conditions": {"ready": true}, "targetRef": target},
            stranger,
        ],
        "ports": [{"name": "http", "port": port}, {"name": "tls", "port": tls}],
    });
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    cluster.post(slices, slice).await.unwrap();
}

#[tokio::test]
async fn proxies_pass_every_method_on_and_bring_links_back() {
    let Some(address) = own_address() else {
        return;
    };
    let cluster = Cluster::start().await;
    let port = serve(&cluster, &address).await;
    let tls = echo_over_tls(&cluster, &address).await;
    behind(&cluster, &address, port, tls).await;
    let services = "/api/v1/namespaces/default/services";
    for base in [
        format!("{PODS}/a:{port}/proxy"),
        format!("{services}/http:web:80/proxy"),
    ] {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let path = format!("{base}/some/p%2Fath/?q=a%20b");
            let (code, _, text) = send(&cluster, method.parse().unwrap(), &path).await;
            let uri = format!("{base}/some/p%2Fath/");
            // Whoever is behind the proxy does not see the client's token.
            let expected = format!("{method} /some/p%2Fath/ q=a%20b {uri} -");
            assert_eq!((code, text), (200, expected));
        }
        let (code, headers, _) = send(&cluster, Method::GET, &format!("{base}?x=1")).await;
        assert_eq!(
            (code, headers["location"].to_str().unwrap()),
            (301, &*format!("{base}/?x=1"))
        );
        let (code, headers, _) = send(&cluster, Method::GET, &format!("{base}/moved")).await;
        assert_eq!(
            (code, headers["location"].to_str().unwrap()),
            (302, &*format!("{base}/there?x=1"))
        );
        let (_, _, page) = send(&cluster, Method::GET, &format!("{base}/page")).await;
        assert_eq!(page, format!("<a href='{base}/x'>x</a><a href='y'>y</a>"));
        let (_, _, packed) = send(&cluster, Method::GET, &format!("{base}/packed")).await;
        assert_eq!(packed, format!("<a href='{base}/x'>x</a>"));
        let gone = send(&cluster, Method::GET, &format!("{base}/gone")).await;
        assert_eq!((gone.0, gone.2.as_str()), (410, "gone"));
    }
    let secure = format!("{services}/https:web:tls/proxy/x");
    let (code, _, text) = send(&cluster, Method::GET, &secure).await;
    assert_eq!((code, text.as_str()), (200, "GET /x false"));
    cluster.stop().await;
}

#[tokio::test]
async fn what_proxies_cannot_reach_is_said_in_upstreams_words() {
    let cluster = Cluster::start().await;
    behind(&cluster, "127.0.0.1", 1, 1).await;
    let services = "/api/v1/namespaces/default/services";
    let check = async |path: String, code: u16, message: &str| {
        let failed = cluster.get(&path).await.unwrap_err();
        assert_eq!(
            (failed.code, failed.message.as_str()),
            (code, message),
            "{path}"
        );
    };
    check(format!("{PODS}/a:1/proxy/"), 400, "address not allowed").await;
    let foreign = "no endpoints available for service \"web:http\"";
    check(format!("{services}/web:http/proxy/"), 503, foreign).await;
    let odd = "invalid service request \"ftp:web:80\"";
    check(format!("{services}/ftp:web:80/proxy/"), 400, odd).await;
    let port = "no service port 81 found for service \"web\"";
    check(format!("{services}/web:81/proxy/"), 503, port).await;
    let none = "no endpoints available for service \"web:other\"";
    check(format!("{services}/web:other/proxy/"), 503, none).await;
    cluster.stop().await;
}
