//! Pages, selectors, versions and forms of lists.

use http::Method;
use serde_json::{Value, json};

use crate::cluster::{CONFIG_MAPS, Cluster, config_map};

async fn filled(count: usize) -> Cluster {
    let cluster = Cluster::start().await;
    for number in 0..count {
        let mut object = config_map(&format!("c{number:03}"), "1");
        object["metadata"]["labels"] = json!({"odd": (number % 2).to_string()});
        cluster.post(CONFIG_MAPS, object).await.unwrap();
    }
    cluster
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

/// What is there, and a list of it, say of which kind it is; its items do not.
#[tokio::test]
async fn items_of_lists_leave_their_kind_to_the_list() {
    let cluster = filled(2).await;
    let check = |list: &Value| {
        assert_eq!(list["kind"], "ConfigMapList");
        assert_eq!(list["apiVersion"], "v1");
        for item in list["items"].as_array().unwrap() {
            let fields: Vec<&str> = item
                .as_object()
                .unwrap()
                .keys()
                .map(String::as_str)
                .collect();
            assert_eq!(fields, ["data", "metadata"]);
        }
        assert_eq!(names(list), ["c000", "c001"]);
    };
    check(&cluster.get(CONFIG_MAPS).await.unwrap());
    check(
        &cluster
            .get(&format!("{CONFIG_MAPS}?limit=5"))
            .await
            .unwrap(),
    );
    let one = cluster.get(&format!("{CONFIG_MAPS}/c000")).await.unwrap();
    assert_eq!(one["kind"], "ConfigMap");
    let deleted = cluster.client.delete_value(CONFIG_MAPS, None).await;
    check(&deleted.unwrap());
    cluster.stop().await;
}

#[tokio::test]
async fn pages_of_one_list_fit_together() {
    let cluster = filled(7).await;
    let first = cluster
        .get(&format!("{CONFIG_MAPS}?limit=3"))
        .await
        .unwrap();
    assert_eq!(names(&first), ["c000", "c001", "c002"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    // What happens in between does not show.
    cluster
        .client
        .delete_value(&format!("{CONFIG_MAPS}/c004"), None)
        .await
        .unwrap();
    cluster
        .post(CONFIG_MAPS, config_map("c003a", "1"))
        .await
        .unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let path = format!("{CONFIG_MAPS}?limit=10&continue={token}");
    let second = cluster.get(&path).await.unwrap();
    assert_eq!(names(&second), ["c003", "c004", "c005", "c006"]);
    assert_eq!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    assert!(second["metadata"].get("continue").is_none());
    let now = cluster.get(CONFIG_MAPS).await.unwrap();
    assert_eq!(names(&now).len(), 7);
    let bad = cluster
        .get(&format!("{CONFIG_MAPS}?continue=abc"))
        .await
        .unwrap_err();
    assert_eq!(bad.code, 400);
    cluster.stop().await;
}

#[tokio::test]
async fn versions_and_selectors() {
    let cluster = filled(4).await;
    let all = cluster.get(CONFIG_MAPS).await.unwrap();
    let version = all["metadata"]["resourceVersion"].as_str().unwrap();
    cluster
        .client
        .delete_value(&format!("{CONFIG_MAPS}/c000"), None)
        .await
        .unwrap();
    let exact = format!("{CONFIG_MAPS}?resourceVersion={version}&resourceVersionMatch=Exact");
    assert_eq!(names(&cluster.get(&exact).await.unwrap()).len(), 4);
    assert_eq!(names(&cluster.get(CONFIG_MAPS).await.unwrap()).len(), 3);
    let odd = cluster
        .get(&format!("{CONFIG_MAPS}?labelSelector=odd%3D1"))
        .await
        .unwrap();
    assert_eq!(names(&odd), ["c001", "c003"]);
    let one = format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Dc002");
    assert_eq!(names(&cluster.get(&one).await.unwrap()), ["c002"]);
    let unknown = format!("{CONFIG_MAPS}?fieldSelector=spec.x%3Dc002");
    let refused = cluster.get(&unknown).await.unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (
            400,
            "\"spec.x\" is not a known field selector: only \"metadata.name\", \
             \"metadata.namespace\""
        )
    );
    let future = cluster
        .get(&format!("{CONFIG_MAPS}?resourceVersion=999999"))
        .await
        .unwrap_err();
    assert_eq!(future.code, 504, "{future:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn tables_and_metadata() {
    let cluster = filled(2).await;
    let ask = |accept: &'static str| {
        let request = http::Request::builder()
            .method(Method::GET)
            .uri(CONFIG_MAPS)
            .header("accept", accept)
            .body(client::empty());
        let client = cluster.client.clone();
        async move { client.json::<Value>(request.unwrap()).await }
    };
    let table = ask("application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
        .await
        .unwrap();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["columnDefinitions"][1]["name"], "Data");
    assert_eq!(table["rows"][0]["cells"][0], "c000");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = ask(partial).await.unwrap();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert!(list["items"][0].get("data").is_none());
    assert_eq!(ask("text/html").await.unwrap_err().code, 406);
    cluster.stop().await;
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let cluster = filled(4).await;
    let path = format!("{CONFIG_MAPS}?labelSelector=odd%3D1");
    let gone = cluster.client.delete_value(&path, None).await.unwrap();
    assert_eq!(names(&gone), ["c001", "c003"]);
    assert_eq!(
        names(&cluster.get(CONFIG_MAPS).await.unwrap()),
        ["c000", "c002"]
    );
    cluster.stop().await;
}

#[tokio::test]
async fn an_expired_page_can_go_on_without_consistency() {
    let crew = base::Crew::new();
    let store = store::memory(&crew).await.unwrap();
    let first = Cluster::over(store.clone(), base::Crew::new(), 6443).await;
    for name in ["a", "b", "c"] {
        first
            .post(CONFIG_MAPS, config_map(name, "1"))
            .await
            .unwrap();
    }
    let page = first.get(&format!("{CONFIG_MAPS}?limit=1")).await.unwrap();
    let token = page["metadata"]["continue"].as_str().unwrap();
    first.post(CONFIG_MAPS, config_map("d", "1")).await.unwrap();
    // A server that has only just started does not know how it was then.
    let second = Cluster::over(store, crew, 6443).await;
    let path = format!("{CONFIG_MAPS}?limit=1&continue={token}");
    let request = client::request::request(Method::GET, &path, None, client::empty()).unwrap();
    let mut server = second.server.clone();
    let mut request = request;
    request.extensions_mut().insert(auth::Identity::loopback());
    let answer = tower::Service::call(&mut server, request).await.unwrap();
    assert_eq!(answer.status(), 410);
    let body = http_body_util::BodyExt::collect(answer.into_body())
        .await
        .unwrap();
    let body: Value = serde_json::from_slice(&body.to_bytes()).unwrap();
    assert_eq!(body["reason"], "Expired");
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .starts_with("The provided continue parameter")
    );
    let token = body["metadata"]["continue"].as_str().unwrap();
    let rest = second
        .get(&format!("{CONFIG_MAPS}?continue={token}"))
        .await
        .unwrap();
    assert_eq!(names(&rest), ["b", "c", "d"]);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn long_lists_come_compressed_and_yaml_is_spoken() {
    let cluster = Cluster::start().await;
    let long = config_map("long", &"x".repeat(300 << 10));
    cluster.post(CONFIG_MAPS, long).await.unwrap();
    let ask = |path: &str, header: &'static str, value: &'static str| {
        let request = http::Request::builder().uri(path).header(header, value);
        let client = cluster.client.clone();
        async move {
            client
                .send(request.body(client::empty()).unwrap())
                .await
                .unwrap()
        }
    };
    let answer = ask(CONFIG_MAPS, "accept-encoding", "gzip").await;
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    let body = http_body_util::BodyExt::collect(answer.into_body())
        .await
        .unwrap()
        .to_bytes();
    assert!(body.len() < 10 << 10, "{}", body.len());
    let mut text = String::new();
    let mut reader = flate2::read::GzDecoder::new(&body[..]);
    std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
    assert!(serde_json::from_str::<Value>(&text).unwrap()["items"][0].is_object());
    let yaml = "metadata:\n  name: yaml\ndata:\n  a: \"1\"\n";
    let request = client::request::request(
        Method::POST,
        CONFIG_MAPS,
        Some("application/yaml"),
        client::full(yaml),
    );
    let made: Value = cluster.client.json(request.unwrap()).await.unwrap();
    assert_eq!(made["data"]["a"], "1");
    let path = format!("{CONFIG_MAPS}/yaml");
    let answer = ask(&path, "accept", "application/yaml").await;
    let body = http_body_util::BodyExt::collect(answer.into_body())
        .await
        .unwrap()
        .to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("kind: ConfigMap"));
    cluster.stop().await;
}
