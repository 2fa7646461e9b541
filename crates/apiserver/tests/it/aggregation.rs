//! Another server behind an APIService: it believes the front proxy alone, and says who asked.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use client::{Body, full};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use crate::cluster::Cluster;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const GROUP: &str = "wardle.example.com";
const NAME: &str = "v1alpha1.wardle.example.com";

/// What the other server is like.
struct Other {
    port: u16,
    healthy: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

impl Other {
    async fn start(cluster: &Cluster) -> Other {
        let hosts = ["wardle.default.svc".to_owned()];
        let pair = cluster.pki.issue_serving("wardle", &[], &hosts).unwrap();
        let proxies = cluster.pki.front_proxy_ca_pem();
        let mut tls = (*auth::tls::server_config_of(&pair, proxies).unwrap()).clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, healthy) = (cluster.crew.stop(), Arc::new(AtomicBool::new(true)));
        let shared = Arc::clone(&healthy);
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        cluster.crew.spawn("other", async move {
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    () = stop.raised() => return,
                };
                count.fetch_add(1, Ordering::AcqRel);
                let (acceptor, healthy) = (acceptor.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let proxied = stream.get_ref().1.peer_certificates().is_some();
                    let service = hyper::service::service_fn(move |request| {
                        let good = proxied && healthy.load(Ordering::Acquire);
                        async move { Ok::<_, Infallible>(tell(&request, good)) }
                    });
                    let served = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    drop(served.await);
                });
            }
        });
        Other {
            port,
            healthy,
            connections,
        }
    }

    fn api_service(&self, cluster: &Cluster) -> Value {
        use base64::Engine;
        let bundle = base64::engine::general_purpose::STANDARD.encode(cluster.pki.ca_pem());
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": NAME},
            "spec": {
                "group": GROUP, "version": "v1alpha1", "caBundle": bundle,
                "groupPriorityMinimum": 2000, "versionPriority": 200,
                "service": {"namespace": "default", "name": "wardle", "port": self.port},
            },
        })
    }
}

fn tell(request: &Request<Incoming>, good: bool) -> Response<Body> {
    let headers = request.headers();
    let of = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter();
        values
            .map(|value| value.to_str().unwrap().to_owned())
            .collect()
    };
    if !good {
        return Response::builder()
            .status(403)
            .body(full("who are you"))
            .unwrap();
    }
    let tree = match request.uri().path() {
        "/apis/wardle.example.com/v1alpha1" => json!({
            "kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": "wardle.example.com/v1alpha1",
            "resources": [{"name": "flunders", "singularName": "flunder", "namespaced": true,
                "kind": "Flunder", "verbs": ["get", "list"]}],
        }),
        "/apis" if of("accept")[0].contains("as=APIGroupDiscoveryList") => {
            let kind = json!({"group": GROUP, "version": "v1alpha1", "kind": "Flunder"});
            let tree = json!({"kind": "APIGroupDiscoveryList", "items": [{
                "metadata": {"name": GROUP},
                "versions": [{"version": "v1alpha1", "resources": [{
                    "resource": "flunders", "responseKind": kind, "scope": "Namespaced",
                    "singularResource": "flunder", "verbs": ["get", "list"],
                    "categories": ["from-one-document"],
                }]}],
            }]});
            let media = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
            let answer = Response::builder().header("content-type", media);
            return answer.body(full(tree.to_string())).unwrap();
        }
        "/openapi/v2" => {
            let to = json!({"schema": {"$ref": "#/definitions/Flunder"}});
            json!({
                "swagger": "2.0",
                "paths": {
                    "/apis/wardle.example.com/v1alpha1/flunders":
                        {"get": {"responses": {"200": to}}},
                    "/version/": {"get": {"description": "of the other"}},
                },
                "definitions": {"Flunder": {"type": "object"}},
            })
        }
        "/openapi/v3" => json!({"paths": {"apis/wardle.example.com/v1alpha1":
            {"serverRelativeURL": "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=1"}}}),
        path => json!({
            "method": request.method().as_str(), "path": path, "query": request.uri().query(),
            "user": of("x-remote-user"), "groups": of("x-remote-group"),
            "token": of("authorization"),
        }),
    };
    let answer = Response::builder().header("content-type", "application/json");
    answer.body(full(tree.to_string())).unwrap()
}

/// Watches an APIService until its condition has the reason; returns the message.
async fn until(cluster: &Cluster, name: &str, reason: &str) -> String {
    let request = client::request::request(
        Method::GET,
        &format!("{SERVICES}?watch=true&fieldSelector=metadata.name%3D{name}"),
        None,
        client::empty(),
    );
    let answer = cluster.client.send(request.unwrap()).await.unwrap();
    let mut body = http_body_util::BodyStream::new(answer.into_body());
    let mut text = Vec::new();
    while let Some(frame) = futures::StreamExt::next(&mut body).await {
        text.extend_from_slice(&frame.unwrap().into_data().unwrap());
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).unwrap();
            let condition = &event["object"]["status"]["conditions"][0];
            if condition["reason"] == reason {
                return condition["message"].as_str().unwrap().to_owned();
            }
        }
    }
    panic!("the watch ended before {reason}");
}

async fn raw(cluster: &Cluster, path: &str, accept: &str) -> (u16, String) {
    let mut request = client::request::request(Method::GET, path, None, client::empty()).unwrap();
    let headers = request.headers_mut();
    headers.insert("accept", accept.parse().unwrap());
    headers.insert("x-remote-user", "impostor".parse().unwrap());
    headers.insert("authorization", "Bearer secret".parse().unwrap());
    let user = auth::Identity::user("jane", &["system:masters"]);
    request.extensions_mut().insert(user);
    let answer = tower::ServiceExt::oneshot(cluster.server.clone(), request).await;
    let (head, body) = answer.unwrap().into_parts();
    let bytes = http_body_util::BodyExt::collect(body)
        .await
        .unwrap()
        .to_bytes();
    (
        head.status.as_u16(),
        String::from_utf8(bytes.to_vec()).unwrap(),
    )
}

#[tokio::test]
async fn another_server_answers_for_its_group() {
    let cluster = Cluster::start().await;
    let other = Other::start(&cluster).await;
    cluster
        .post(SERVICES, other.api_service(&cluster))
        .await
        .unwrap();
    let said = until(&cluster, NAME, "ServiceNotFound").await;
    assert_eq!(said, "service/wardle in \"default\" is not present");
    let flunders = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders";
    let refused = raw(&cluster, flunders, "*/*").await;
    assert_eq!(refused, (503, "service unavailable\n".into()));

    let service = json!({"metadata": {"name": "wardle"},
        "spec": {"type": "ExternalName", "externalName": "localhost"}});
    let services = "/api/v1/namespaces/default/services";
    cluster.post(services, service).await.unwrap();
    assert_eq!(until(&cluster, NAME, "Passed").await, "all checks passed");
    let (code, text) = raw(&cluster, &format!("{flunders}/a?x=1"), "*/*").await;
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, 200);
    assert_eq!(told["path"], format!("{flunders}/a"));
    assert_eq!(
        (&told["method"], &told["query"]),
        (&json!("GET"), &json!("x=1"))
    );
    assert_eq!(
        told["user"],
        json!(["jane"]),
        "what the client claims does not count"
    );
    assert_eq!(
        told["groups"],
        json!(["system:masters", "system:authenticated"])
    );
    assert_eq!(told["token"], json!([]));

    let groups = cluster.get("/apis").await.unwrap();
    let found = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == GROUP);
    assert_eq!(found.unwrap()["preferredVersion"]["version"], "v1alpha1");
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let entry = async || {
        let (_, text) = raw(&cluster, "/apis", accept).await;
        let tree: Value = serde_json::from_str(&text).unwrap();
        let items = tree["items"].as_array().unwrap().clone();
        let found = items
            .into_iter()
            .find(|one| one["metadata"]["name"] == GROUP);
        found.unwrap()["versions"][0].clone()
    };
    let current = entry().await;
    assert_eq!(current["freshness"], "Current");
    assert_eq!(current["resources"][0]["resource"], "flunders");
    let categories = &current["resources"][0]["categories"];
    assert_eq!(*categories, json!(["from-one-document"]));
    let swagger = cluster.get("/openapi/v2").await.unwrap();
    let flunders = &swagger["paths"]["/apis/wardle.example.com/v1alpha1/flunders"];
    assert!(flunders["get"].is_object());
    assert_eq!(swagger["definitions"]["Flunder"]["type"], "object");
    let version = &swagger["paths"]["/version/"]["get"]["description"];
    assert_ne!(version, "of the other");

    // One request after the other takes the connection of the one before.
    let before = other.connections.load(Ordering::Acquire);
    let wanted = format!("/apis/{GROUP}/v1alpha1/namespaces/x/flunders");
    for _ in 0..20 {
        let (code, _) = raw(&cluster, &wanted, "*/*").await;
        assert_eq!(code, 200);
    }
    let new = other.connections.load(Ordering::Acquire) - before;
    assert!(new < 10, "{new} connections");
    let documents = cluster.get("/openapi/v3").await.unwrap();
    let document = &documents["paths"]["apis/wardle.example.com/v1alpha1"];
    assert!(
        document["serverRelativeURL"]
            .as_str()
            .unwrap()
            .ends_with("?hash=1")
    );
    let list = cluster
        .get("/apis/wardle.example.com/v1alpha1")
        .await
        .unwrap();
    assert_eq!(list["resources"][0]["kind"], "Flunder");

    // It breaks: the service's change makes us look, and what was known stays known.
    other.healthy.store(false, Ordering::Release);
    let mut service = cluster.get(&format!("{services}/wardle")).await.unwrap();
    service["spec"]["ports"] = json!([{"port": 443}]);
    cluster
        .put(&format!("{services}/wardle"), &service)
        .await
        .unwrap();
    let said = until(&cluster, NAME, "FailedDiscoveryCheck").await;
    assert!(
        said.ends_with("/apis/wardle.example.com/v1alpha1: 403"),
        "{said}"
    );
    assert_eq!(entry().await["freshness"], "Stale");
    cluster
        .client
        .delete_value(&format!("{SERVICES}/{NAME}"), None)
        .await
        .unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn own_groups_have_api_services() {
    let cluster = Cluster::start().await;
    let said = until(&cluster, "v1.apps", "Local").await;
    assert_eq!(said, "Local APIServices are always available");
    let apps = cluster.get(&format!("{SERVICES}/v1.apps")).await.unwrap();
    assert_eq!(apps["spec"]["groupPriorityMinimum"], 17800);
    assert_eq!(apps["spec"]["versionPriority"], 15);
    let label = "kube-aggregator.kubernetes.io/automanaged";
    assert_eq!(apps["metadata"]["labels"][label], "onstart");
    let definition = json!({
        "metadata": {"name": "ships.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "ships", "singular": "ship", "kind": "Ship", "listKind": "ShipList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    cluster.post(definitions, definition).await.unwrap();
    until(&cluster, "v1.example.com", "Local").await;
    let own = cluster
        .get(&format!("{SERVICES}/v1.example.com"))
        .await
        .unwrap();
    assert_eq!(own["spec"]["groupPriorityMinimum"], 1000);
    assert_eq!(own["spec"]["versionPriority"], 100);
    assert_eq!(own["metadata"]["labels"][label], "true");
    cluster.stop().await;
}

#[tokio::test]
async fn a_part_of_the_process_answers_until_a_service_does() {
    let asked = |request: Request<Body>| async move {
        let tree = json!({"path": request.uri().path(), "query": request.uri().query()});
        Ok::<_, client::BoxError>(Response::new(full(tree.to_string())))
    };
    let delegate = apiserver::Delegate {
        group: GROUP.into(),
        version: "v1alpha1".into(),
        priority: (100, 100),
        resources: json!({"resources": [{"name": "flunders", "singularName": "flunder",
            "namespaced": true, "kind": "Flunder", "verbs": ["get", "list"]}]}),
        schemas: vec![(
            "Flunder".into(),
            json!({"type": "object", "properties": {
                "size": {"type": "string", "description": "How large it is."},
            }}),
        )],
        service: client::Transport::new(tower::service_fn(asked)),
    };
    let crew = base::Crew::new();
    let store = store::memory(&crew).await.unwrap();
    let cluster = Cluster::with(store, crew, |config| config.delegates = vec![delegate]).await;
    let path = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders";
    let answer = cluster.get(&format!("{path}?limit=1")).await.unwrap();
    assert_eq!(answer, json!({"path": path, "query": "limit=1"}));
    let stranger = cluster.server.client(auth::Identity::user("jane", &[]));
    let refused = stranger.get_value(path).await.unwrap_err();
    assert_eq!(refused.code, 403);
    let groups = cluster.get("/apis").await.unwrap();
    let named = |group: &Value| group["name"] == GROUP;
    assert!(groups["groups"].as_array().unwrap().iter().any(named));
    let group = cluster.get("/apis/wardle.example.com").await.unwrap();
    assert_eq!(group["preferredVersion"]["version"], "v1alpha1");
    // What it says of itself is told with the rest.
    let index = cluster.get("/openapi/v3").await.unwrap();
    let url = &index["paths"]["apis/wardle.example.com/v1alpha1"]["serverRelativeURL"];
    let document = cluster.get(url.as_str().unwrap()).await.unwrap();
    let name = "com.example.wardle.v1alpha1.Flunder";
    let described = &document["components"]["schemas"][name];
    let size = "/properties/size/description";
    assert_eq!(described.pointer(size).unwrap(), "How large it is.");
    let kinds = &described["x-kubernetes-group-version-kind"];
    assert_eq!(kinds[0]["kind"], "Flunder");
    let shown = "/apis/wardle.example.com/v1alpha1/namespaces/{namespace}/flunders";
    let operations = &document["paths"][shown];
    assert!(operations["get"].is_object() && operations.get("post").is_none());
    let swagger = cluster.get("/openapi/v2").await.unwrap();
    let described = &swagger["definitions"][name];
    assert_eq!(described.pointer(size).unwrap(), "How large it is.");
    let service = loop {
        match cluster.get(&format!("{SERVICES}/{NAME}")).await {
            Ok(service) => break service,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(service["status"]["conditions"][0]["reason"], "Local");
    let other = Other::start(&cluster).await;
    let mut replaced = service;
    replaced["spec"] = other.api_service(&cluster)["spec"].clone();
    cluster
        .put(&format!("{SERVICES}/{NAME}"), &replaced)
        .await
        .unwrap();
    // Nobody is there yet: it is the user's, all the same.
    loop {
        match cluster.get(path).await {
            Err(status) if status.code == 503 => break,
            _ => tokio::task::yield_now().await,
        }
    }
    cluster.stop().await;
}
