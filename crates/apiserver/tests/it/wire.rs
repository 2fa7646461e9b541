//! What goes over the wire: encodings, and what is refused.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use schema::protobuf::{decode, open};
use serde_json::{Value, json};

use crate::cluster::{CONFIG_MAPS, Cluster, config_map};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Status, headers and body of a request as a remote client sends it.
pub(crate) async fn ask(
    cluster: &Cluster,
    path: &str,
    headers: &[(&str, &str)],
) -> (StatusCode, HeaderMap, client::Body) {
    let mut request = http::Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(client::empty()).unwrap();
    let identity = auth::Identity::user("admin", &["system:masters"]);
    request.extensions_mut().insert(identity);
    let mut server = cluster.server.clone();
    let answer = tower::Service::call(&mut server, request).await.unwrap();
    let (head, body) = answer.into_parts();
    (head.status, head.headers, body)
}

pub(crate) async fn whole(body: client::Body) -> Bytes {
    body.collect().await.unwrap().to_bytes()
}

fn opened(bytes: &[u8]) -> (String, Value) {
    let envelope = open(bytes).unwrap();
    let (group, version) = match envelope.api_version.split_once('/') {
        Some(parts) => parts,
        None => ("", envelope.api_version),
    };
    let ty = schema::builtin(group, version, envelope.kind).unwrap();
    (envelope.kind.to_owned(), decode(ty, envelope.raw).unwrap())
}

#[tokio::test]
async fn objects_lists_and_failures_are_spoken_in_protobuf() {
    let cluster = Cluster::start().await;
    let mut object = config_map("a", "1");
    object["metadata"]["labels"] = json!({"x": "y"});
    cluster.post(CONFIG_MAPS, object).await.unwrap();
    let large = config_map("b", &"x".repeat(300 << 10));
    cluster.post(CONFIG_MAPS, large).await.unwrap();
    let go = [(
        "accept",
        "application/vnd.kubernetes.protobuf,application/json",
    )];
    let (_, headers, body) = ask(&cluster, &format!("{CONFIG_MAPS}/a"), &go).await;
    assert_eq!(headers["content-type"], PROTOBUF);
    let (kind, tree) = opened(&whole(body).await);
    assert_eq!(
        (kind.as_str(), &tree["data"]),
        ("ConfigMap", &json!({"key": "1"}))
    );
    assert_eq!(tree["metadata"]["labels"]["x"], "y");
    for _ in 0..2 {
        let (_, headers, body) = ask(&cluster, CONFIG_MAPS, &go).await;
        assert_eq!(headers["content-type"], PROTOBUF);
        let (kind, tree) = opened(&whole(body).await);
        assert_eq!(kind, "ConfigMapList");
        let items = tree["items"].as_array().unwrap();
        assert_eq!(items[0]["metadata"]["name"], "a");
        assert_eq!(items[1]["data"]["key"].as_str().unwrap().len(), 300 << 10);
        assert!(tree["metadata"]["resourceVersion"].is_string());
    }
    let zipped = [go[0], ("accept-encoding", "gzip")];
    let (_, headers, body) = ask(&cluster, CONFIG_MAPS, &zipped).await;
    assert_eq!(headers["content-encoding"], "gzip");
    assert!(whole(body).await.len() < 10 << 10);
    let (code, headers, body) = ask(&cluster, &format!("{CONFIG_MAPS}/none"), &go).await;
    assert_eq!(
        (code.as_u16(), &headers["content-type"]),
        (404, &PROTOBUF.parse().unwrap())
    );
    let (kind, tree) = opened(&whole(body).await);
    assert_eq!(
        (kind.as_str(), &tree["reason"]),
        ("Status", &json!("NotFound"))
    );
    cluster.stop().await;
}

#[tokio::test]
async fn watches_come_in_frames_that_are_shared() {
    let cluster = Cluster::start().await;
    cluster
        .post(CONFIG_MAPS, config_map("a", "1"))
        .await
        .unwrap();
    let path = format!("{CONFIG_MAPS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=1");
    let (_, headers, first) = ask(&cluster, &path, &[("accept", PROTOBUF)]).await;
    assert_eq!(
        headers["content-type"],
        "application/vnd.kubernetes.protobuf;stream=watch"
    );
    let (_, _, second) = ask(&cluster, &path, &[("accept", PROTOBUF)]).await;
    cluster
        .put(&format!("{CONFIG_MAPS}/a"), &config_map("a", "2"))
        .await
        .unwrap();
    let gone = format!("{CONFIG_MAPS}?watch=1&resourceVersion=1");
    let (first, second) = tokio::join!(whole(first), whole(second));
    for bytes in [first, second] {
        let shown: Vec<String> = events(bytes)
            .iter()
            .map(|(event, tree)| format!("{event} {}", tree["data"]["key"]))
            .collect();
        let bookmark = "BOOKMARK null";
        assert_eq!(shown, ["ADDED \"1\"", bookmark, "MODIFIED \"2\"", bookmark]);
    }
    // Nothing else was written, so the past is still known; tables have no such form.
    let table = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1";
    let (code, _, body) = ask(&cluster, &gone, &[("accept", table)]).await;
    let body: Value = serde_json::from_slice(&whole(body).await).unwrap();
    assert_eq!(code, 406);
    assert_eq!(
        body["message"],
        "only the following media types are accepted: application/json, application/yaml, \
         application/vnd.kubernetes.protobuf"
    );
    cluster.stop().await;
}

/// Types and objects of all events.
fn events(mut bytes: Bytes) -> Vec<(String, Value)> {
    let mut events = Vec::new();
    while bytes.has_remaining() {
        let length = bytes.get_u32() as usize;
        let event = bytes.split_to(length);
        // The type has tag 1, and the object's envelope stands within tag 2.
        let word_length = event[1] as usize;
        let word = String::from_utf8(event[2..2 + word_length].to_vec()).unwrap();
        let at = event
            .windows(4)
            .position(|window| window == schema::protobuf::MAGIC)
            .unwrap();
        events.push((word, opened(&event[at..]).1));
    }
    events
}

#[tokio::test]
async fn metadata_alone_and_older_tables() {
    let cluster = Cluster::start().await;
    cluster
        .post(CONFIG_MAPS, config_map("a", "1"))
        .await
        .unwrap();
    let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;\
                   g=meta.k8s.io;v=v1";
    let (_, _, body) = ask(&cluster, CONFIG_MAPS, &[("accept", partial)]).await;
    let bytes = whole(body).await;
    let envelope = open(&bytes).unwrap();
    assert_eq!(
        (envelope.api_version, envelope.kind),
        ("meta.k8s.io/v1", "PartialObjectMetadataList")
    );
    let maps = schema::builtin("", "v1", "ConfigMapList").unwrap();
    let tree = decode(maps, envelope.raw).unwrap();
    assert_eq!(tree["items"][0]["metadata"]["name"], "a");
    assert!(tree["items"][0].get("data").is_none());
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1beta1";
    let (_, _, body) = ask(&cluster, CONFIG_MAPS, &[("accept", table)]).await;
    let tree: Value = serde_json::from_slice(&whole(body).await).unwrap();
    assert_eq!(tree["apiVersion"], "meta.k8s.io/v1beta1");
    assert_eq!(
        tree["rows"][0]["object"]["apiVersion"],
        "meta.k8s.io/v1beta1"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn what_is_not_spoken_is_refused_by_name() {
    let cluster = Cluster::start().await;
    let (code, headers, body) = ask(&cluster, CONFIG_MAPS, &[("accept", "text/html")]).await;
    let body: Value = serde_json::from_slice(&whole(body).await).unwrap();
    assert_eq!(
        (code.as_u16(), &headers["content-type"]),
        (406, &"application/json".parse().unwrap())
    );
    assert_eq!(
        (body["reason"].as_str(), body["message"].as_str()),
        (
            Some("NotAcceptable"),
            Some(
                "406: Not Acceptable\n\nAvailable representations: application/json, \
                 application/yaml, application/vnd.kubernetes.protobuf, \
                 application/json;stream=watch, \
                 application/vnd.kubernetes.protobuf;stream=watch"
            )
        )
    );
    let request = client::request::request(
        http::Method::POST,
        CONFIG_MAPS,
        Some("text/csv"),
        client::full(BytesMut::from("a,b")),
    );
    let refused = cluster.client.send(request.unwrap()).await.unwrap_err();
    assert_eq!(refused.code, 415);
    assert_eq!(
        refused.message,
        "the body of the request was in an unknown format - accepted media types include: \
         application/json, application/yaml, application/vnd.kubernetes.protobuf"
    );
    cluster.stop().await;
}

const V2: &str = "/openapi/v2";
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

#[tokio::test]
async fn documents_describe_what_there_is_now() {
    let cluster = Cluster::start().await;
    let (code, headers, body) = ask(&cluster, V2, &[]).await;
    assert_eq!(
        (code.as_u16(), &headers["content-type"]),
        (200, &"application/json".parse().unwrap())
    );
    let tree: Value = serde_json::from_slice(&whole(body).await).unwrap();
    assert_eq!(tree["swagger"], "2.0");
    assert!(tree["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
    let pods = &tree["paths"]["/api/v1/namespaces/{namespace}/pods"]["get"];
    assert_eq!(pods["x-kubernetes-action"], "list");
    let tag = headers["etag"].to_str().unwrap().to_owned();
    let (code, _, body) = ask(&cluster, V2, &[("if-none-match", &tag)]).await;
    assert_eq!((code.as_u16(), whole(body).await.len()), (304, 0));
    let zipped = [("accept", V2_PROTOBUF), ("accept-encoding", "gzip")];
    let (_, headers, body) = ask(&cluster, V2, &zipped).await;
    assert_eq!(
        headers["content-type"],
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    );
    let mut message = Vec::new();
    let body = whole(body).await;
    let mut reader = flate2::read::GzDecoder::new(&body[..]);
    std::io::Read::read_to_end(&mut reader, &mut message).unwrap();
    assert!(message.starts_with(b"\x0a\x032.0"));
    let (code, _, _) = ask(&cluster, V2, &[("accept", "text/html")]).await;
    assert_eq!(code, 406);
    cluster.stop().await;
    let cluster = crate::custom::established().await;
    let (code, headers, body) = ask(&cluster, V2, &[("if-none-match", &tag)]).await;
    assert_eq!(code, 200);
    assert_ne!(headers["etag"].to_str().unwrap(), tag);
    let tree: Value = serde_json::from_slice(&whole(body).await).unwrap();
    let paths = tree["paths"].as_object().unwrap();
    assert!(paths.contains_key("/apis/sea.example.com/v1/namespaces/{namespace}/boats"));
    cluster.stop().await;
}

#[tokio::test]
async fn addresses_with_a_hash_are_for_ever() {
    let cluster = Cluster::start().await;
    let index = cluster.get("/openapi/v3").await.unwrap();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    let (code, headers, body) = ask(&cluster, url, &[]).await;
    assert_eq!(
        (code.as_u16(), &headers["cache-control"]),
        (200, &"public, immutable".parse().unwrap())
    );
    assert!(headers.contains_key("expires"));
    let tree: Value = serde_json::from_slice(&whole(body).await).unwrap();
    assert!(tree["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    let tag = headers["etag"].to_str().unwrap();
    assert!(url.ends_with(tag.trim_matches('"')));
    let (code, _, _) = ask(&cluster, url, &[("if-none-match", tag)]).await;
    assert_eq!(code, 304);
    for root in ["apis/apps", "api", "apis", "version", "openid/v1/jwks"] {
        let url = index["paths"][root]["serverRelativeURL"].as_str().unwrap();
        let (code, _, body) = ask(&cluster, url, &[]).await;
        let tree: Value = serde_json::from_slice(&whole(body).await).unwrap();
        let get = &tree["paths"][format!("/{root}/")]["get"];
        assert!(code == 200 && get.is_object(), "{root}");
    }
    let old = "/openapi/v3/apis/apps/v1?hash=OLD";
    let (code, headers, _) = ask(&cluster, old, &[]).await;
    assert_eq!(
        (code.as_u16(), headers["location"].to_str().unwrap()),
        (301, url)
    );
    let message = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
    let (_, headers, body) = ask(&cluster, url, &[("accept", message)]).await;
    assert_eq!(
        headers["content-type"],
        "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
    );
    assert!(whole(body).await.starts_with(b"\x0a\x053.0.0"));
    cluster.stop().await;
}

pub(crate) async fn text(cluster: &Cluster, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let (code, _, body) = ask(cluster, path, headers).await;
    let body = whole(body).await;
    (code.as_u16(), String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn pages_about_the_server_itself() {
    let cluster = Cluster::start().await;
    let get = |path: &'static str| text(&cluster, path, &[]);
    assert_eq!(get("/livez").await, (200, "ok".into()));
    assert_eq!(get("/readyz/informer-sync").await, (200, "ok".into()));
    assert_eq!(get("/readyz/nothing").await.0, 404);
    let (_, verbose) = get("/readyz?verbose&exclude=etcd&exclude=moon").await;
    assert!(
        verbose.starts_with("[+]ping ok\n[+]log ok\n[+]etcd excluded: ok\n"),
        "{verbose}"
    );
    let end = "warn: some health checks cannot be excluded: no matches for \"moon\"\n\
               readyz check passed\n";
    assert!(verbose.ends_with(end), "{verbose}");
    // Some pages are JSON for everybody.
    let go = [(
        "accept",
        "application/vnd.kubernetes.protobuf,application/json",
    )];
    let (_, version) = text(&cluster, "/version", &go).await;
    let version: Value = serde_json::from_str(&version).unwrap();
    assert_eq!(
        (
            &version["minor"],
            &version["emulationMinor"],
            &version["minCompatibilityMinor"]
        ),
        (&json!("36"), &json!("36"), &json!("35"))
    );
    assert!(
        get("/statusz")
            .await
            .1
            .contains("kube-apiserver statusz\nWarning: ")
    );
    assert!(
        get("/flagz")
            .await
            .1
            .contains("\nservice-cluster-ip-range=10.96.0.0/12\n")
    );
    let structured = "application/json;as=Statusz;g=config.k8s.io;v=v1beta1";
    let (_, body) = text(&cluster, "/statusz", &[("accept", structured)]).await;
    let status: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["emulationVersion"], "1.36");
    let (_, metrics) = get("/metrics").await;
    let line = "apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",\
                group=\"\",resource=\"\",scope=\"\",subresource=\"\",verb=\"GET\",version=\"\"}";
    assert!(metrics.contains(line), "{metrics}");
    assert!(metrics.contains("apiserver_storage_objects{resource=\"namespaces\"} "));
    assert!(metrics.contains("apiserver_current_inflight_requests{request_kind=\"mutating\"}"));
    let size = "apiserver_storage_size_bytes{storage_cluster_id=\"etcd-0\"} ";
    let size = metrics.lines().find_map(|line| line.strip_prefix(size));
    assert!(size.unwrap().parse::<u64>().unwrap() > 0);
    cluster.stop().await;
}

#[tokio::test]
async fn discovery_is_one_document_or_many() {
    let cluster = Cluster::start().await;
    let all = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let accept = format!("{all},application/json");
    let (_, headers, body) = ask(&cluster, "/apis", &[("accept", &accept)]).await;
    assert_eq!(headers["content-type"], all);
    let tag = headers["etag"].to_str().unwrap();
    let tree: Value = serde_json::from_slice(&whole(body).await).unwrap();
    let groups = tree["items"].as_array().unwrap();
    let apps = groups
        .iter()
        .find(|group| group["metadata"]["name"] == "apps")
        .unwrap();
    let resources = apps["versions"][0]["resources"].as_array().unwrap();
    let deployments = resources
        .iter()
        .find(|one| one["resource"] == "deployments")
        .unwrap();
    assert_eq!(
        deployments["responseKind"],
        json!({"group": "", "version": "", "kind": "Deployment"})
    );
    assert_eq!(
        deployments["subresources"][0]["responseKind"]["group"],
        "autoscaling"
    );
    let again = [("accept", accept.as_str()), ("if-none-match", tag)];
    assert_eq!(ask(&cluster, "/apis", &again).await.0, 304);
    let plain = cluster.get("/apis/apps/v1").await.unwrap();
    let resources = plain["resources"].as_array().unwrap();
    let deployments = resources
        .iter()
        .find(|one| one["name"] == "deployments")
        .unwrap();
    assert_eq!(deployments["storageVersionHash"], "8aSe+NMegvE=");
    let (_, headers, body) = ask(&cluster, "/api/v1", &[("accept", PROTOBUF)]).await;
    assert_eq!(headers["content-type"], PROTOBUF);
    let (kind, tree) = opened(&whole(body).await);
    assert_eq!(
        (kind.as_str(), &tree["groupVersion"]),
        ("APIResourceList", &json!("v1"))
    );
    assert_eq!(tree["resources"][0]["verbs"], json!(["create"]));
    let (code, ..) = ask(&cluster, "/apis", &[("accept", "text/html")]).await;
    assert_eq!(code, 406);
    cluster.stop().await;
}

#[tokio::test]
async fn questions_have_no_columns_and_old_watches_work() {
    let cluster = Cluster::start().await;
    cluster
        .post(CONFIG_MAPS, config_map("a", "1"))
        .await
        .unwrap();
    cluster
        .post(CONFIG_MAPS, config_map("b", "1"))
        .await
        .unwrap();
    let question = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let request = http::Request::builder()
        .method(http::Method::POST)
        .uri("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .header("content-type", "application/json")
        .body(client::full(question.to_string()))
        .unwrap();
    assert_eq!(cluster.client.send(request).await.unwrap_err().code, 406);
    let old = "/api/v1/watch/namespaces/default/configmaps/b?timeoutSeconds=1";
    let (_, body) = text(&cluster, old, &[]).await;
    let event: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(event["object"]["metadata"]["name"], "b");
    cluster.stop().await;
}

/// Upstream's stable metrics of a server without webhooks and deprecated kinds, and some others.
const METRICS: [&str; 20] = [
    "apiserver_admission_controller_admission_duration_seconds",
    "apiserver_admission_step_admission_duration_seconds",
    "apiserver_current_inflight_requests",
    "apiserver_flowcontrol_dispatched_requests_total",
    "apiserver_longrunning_requests",
    "apiserver_request_duration_seconds",
    "apiserver_request_sli_duration_seconds",
    "apiserver_request_total",
    "apiserver_resource_objects",
    "apiserver_response_sizes",
    "apiserver_storage_events_received_total",
    "apiserver_storage_objects",
    "apiserver_watch_events_total",
    "apiserver_watch_list_duration_seconds",
    "authorization_attempts_total",
    "authorization_duration_seconds",
    "etcd_request_duration_seconds",
    "etcd_requests_total",
    "kubernetes_build_info",
    "process_resident_memory_bytes",
];

#[tokio::test]
async fn metrics_have_upstreams_names() {
    let cluster = Cluster::start().await;
    let map = config_map("counted", "1");
    cluster.post(CONFIG_MAPS, map).await.unwrap();
    cluster.get(CONFIG_MAPS).await.unwrap();
    let watch = format!(
        "{CONFIG_MAPS}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true\
         &resourceVersionMatch=NotOlderThan&timeoutSeconds=1"
    );
    let (_, _, events) = ask(&cluster, &watch, &[]).await;
    whole(events).await;
    let (code, page) = text(&cluster, "/metrics", &[]).await;
    assert_eq!(code, 200);
    for name in METRICS {
        assert!(page.contains(&format!("# TYPE {name} ")), "{name}");
        let shown = |line: &&str| line.starts_with(name);
        assert!(page.lines().any(|line| shown(&line)), "{name}");
    }
    let stored = "etcd_requests_total{group=\"\",operation=\"create\",resource=\"configmaps\"}";
    assert!(page.contains(stored));
    let plugin = "apiserver_admission_controller_admission_duration_seconds_count{\
                  name=\"NamespaceLifecycle\",operation=\"CREATE\",rejected=\"false\",\
                  type=\"validate\"}";
    assert!(page.contains(plugin), "{page}");
    let (_, slis) = text(&cluster, "/metrics/slis", &[]).await;
    assert!(slis.contains("kubernetes_healthcheck{name=\"ping\",type=\"livez\"} 1"));
    assert!(slis.contains("kubernetes_healthchecks_total{"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_are_for_go_tools() {
    let cluster = Cluster::start().await;
    let get = |path: &'static str| {
        let cluster = &cluster;
        async move {
            let (code, headers, body) = ask(cluster, path, &[]).await;
            (code, headers, whole(body).await)
        }
    };
    let (code, headers, page) = get("/debug/pprof/").await;
    assert_eq!(
        (code, &headers["content-type"]),
        (StatusCode::OK, &"text/html; charset=utf-8".parse().unwrap())
    );
    for name in ["cmdline", "profile", "symbol"] {
        assert!(String::from_utf8_lossy(&page).contains(name));
    }
    let (_, _, words) = get("/debug/pprof/cmdline").await;
    assert!(words.first().is_some_and(|byte| *byte > 0) && words.last() != Some(&0));
    let (code, headers, page) = get("/debug/pprof/heap").await;
    assert_eq!(
        (code, &page[..]),
        (StatusCode::NOT_FOUND, &b"Unknown profile\n"[..])
    );
    assert_eq!(headers["x-go-pprof"], "1");
    let (_, _, page) = get("/debug/pprof/symbol?0x1+0x2").await;
    assert_eq!(&page[..], b"num_symbols: 1\n");
    let (code, headers, zipped) = get("/debug/pprof/profile?seconds=1").await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(headers["content-type"], "application/octet-stream");
    let mut profile = Vec::new();
    let mut reader = flate2::read::GzDecoder::new(&zipped[..]);
    std::io::Read::read_to_end(&mut reader, &mut profile).unwrap();
    // The first field is the type of the samples; the table of texts has their names.
    assert_eq!(profile.first(), Some(&0x0a));
    let texts = String::from_utf8_lossy(&profile);
    assert!(texts.contains("nanoseconds") && texts.contains("samples"));
    // Strangers may not look.
    let identity = auth::Identity::user("eve", &["system:authenticated"]);
    let mut request = http::Request::builder().uri("/debug/pprof/profile?seconds=1");
    request.extensions_mut().unwrap().insert(identity);
    let mut server = cluster.server.clone();
    let request = request.body(client::empty()).unwrap();
    let answer = tower::Service::call(&mut server, request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
}
