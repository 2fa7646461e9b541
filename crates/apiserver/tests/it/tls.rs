//! The TLS listener: who gets in, and what is too much.

use client::{Access, Client, Watch};
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{CONFIG_MAPS, Cluster, config_map};

async fn listening(cluster: &Cluster) -> Access {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("https://{}", listener.local_addr().unwrap());
    let tls = auth::tls::server_config(&cluster.pki).unwrap();
    apiserver::listen(cluster.server.clone(), vec![listener], tls, &cluster.crew).unwrap();
    Access {
        server,
        ca: Some(cluster.pki.ca_pem().as_bytes().to_vec()),
        ..Access::default()
    }
}

async fn who(access: &Access) -> Result<Value, meta::Status> {
    let client = Client::remote(access).unwrap();
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let answer = client.send_value(Method::POST, path, &json!({})).await?;
    Ok(answer["status"]["userInfo"].clone())
}

#[tokio::test]
async fn certificates_and_tokens_are_told_apart_from_strangers() {
    let cluster = Cluster::start().await;
    let access = listening(&cluster).await;
    let admin = cluster.pki.admin();
    let by_certificate = Access {
        certificate: Some((
            admin.cert_pem.clone().into_bytes(),
            admin.key_pem.clone().into_bytes(),
        )),
        ..access.clone()
    };
    assert_eq!(
        who(&by_certificate).await.unwrap()["username"],
        "kubernetes-admin"
    );
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    cluster
        .post(accounts, json!({"metadata": {"name": "robot"}}))
        .await
        .unwrap();
    let token = cluster
        .post(&format!("{accounts}/robot/token"), json!({}))
        .await
        .unwrap();
    let by_token = Access {
        token: token["status"]["token"].as_str().map(str::to_owned),
        ..access.clone()
    };
    let robot = who(&by_token).await.unwrap();
    assert_eq!(robot["username"], "system:serviceaccount:default:robot");
    // With the account its tokens go.
    cluster
        .client
        .delete_value(&format!("{accounts}/robot"), None)
        .await
        .unwrap();
    assert_eq!(who(&by_token).await.unwrap_err().code, 401);
    let wrong = Access {
        token: Some("nonsense".into()),
        ..access.clone()
    };
    let refused = who(&wrong).await.unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (401, "Unauthorized")
    );
    let stranger = Client::remote(&access).unwrap();
    assert_eq!(stranger.get_value(CONFIG_MAPS).await.unwrap_err().code, 403);
    assert!(stranger.get_value("/version").await.unwrap()["gitVersion"].is_string());
    cluster.stop().await;
}

#[tokio::test]
async fn front_proxies_name_users_and_strange_certificates_nobody() {
    let cluster = Cluster::start().await;
    let access = listening(&cluster).await;
    let with = |pair: &auth::certificate::Pair| Access {
        certificate: Some((
            pair.cert_pem.clone().into_bytes(),
            pair.key_pem.clone().into_bytes(),
        )),
        ..access.clone()
    };
    let ask = async |access: &Access| {
        let request = http::Request::builder()
            .method(Method::POST)
            .uri("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header("content-type", "application/json")
            .header("X-Remote-User", "jane")
            .header("X-Remote-Group", "dev")
            .header("X-Remote-Extra-Scopes", "read")
            .body(client::full("{}"))
            .unwrap();
        let answer: Result<Value, _> = Client::remote(access).unwrap().json(request).await;
        answer.map(|answer| answer["status"]["userInfo"].clone())
    };
    let jane = ask(&with(cluster.pki.front_proxy_client())).await.unwrap();
    assert_eq!(
        jane,
        json!({"username": "jane", "groups": ["dev", "system:authenticated"],
            "extra": {"scopes": ["read"]}})
    );
    // From anybody else the headers are noise.
    let admin = ask(&with(cluster.pki.admin())).await.unwrap();
    assert_eq!(admin["username"], "kubernetes-admin");
    assert_eq!(ask(&access).await.unwrap_err().code, 403);
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = auth::Pki::open(elsewhere.path(), &[]).unwrap();
    let refused = ask(&with(foreign.admin())).await.unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (401, "Unauthorized")
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_client_cannot_name_itself_and_large_bodies_are_refused() {
    let cluster = Cluster::start().await;
    let access = listening(&cluster).await;
    let stranger = Client::remote(&access).unwrap();
    let request = http::Request::builder()
        .uri(CONFIG_MAPS)
        .header("impersonate-user", "kubernetes-admin")
        .header("impersonate-group", "system:masters")
        .body(client::empty())
        .unwrap();
    let refused = stranger.send(request).await.unwrap_err();
    assert!(
        refused.message.contains("cannot impersonate"),
        "{}",
        refused.message
    );
    let admin = cluster.pki.admin();
    let access = Access {
        certificate: Some((
            admin.cert_pem.clone().into_bytes(),
            admin.key_pem.clone().into_bytes(),
        )),
        ..access
    };
    let client = Client::remote(&access).unwrap();
    let large = config_map("large", &"x".repeat(4 << 20));
    let refused = client
        .send_value(Method::POST, CONFIG_MAPS, &large)
        .await
        .unwrap_err();
    assert_eq!(refused.code, 413, "{refused:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn watches_beyond_a_connections_streams_take_another() {
    let cluster = Cluster::start().await;
    let admin = cluster.pki.admin();
    let access = Access {
        certificate: Some((
            admin.cert_pem.clone().into_bytes(),
            admin.key_pem.clone().into_bytes(),
        )),
        ..listening(&cluster).await
    };
    let client = Client::remote(&access).unwrap();
    let mut watches = Vec::new();
    for _ in 0..260 {
        let path = format!("{CONFIG_MAPS}?watch=1");
        let request = client::request::request(Method::GET, &path, None, client::empty()).unwrap();
        let body = client.send(request).await.unwrap().into_body();
        watches.push(Watch::<Value>::new(body));
    }
    client
        .send_value(Method::POST, CONFIG_MAPS, &config_map("a", "1"))
        .await
        .unwrap();
    for watch in &mut watches {
        let event = watch.next().await.unwrap().unwrap();
        assert!(matches!(event, client::WatchEvent::Added(object) if object["data"]["key"] == "1"));
    }
    // An open watch does not hold up the end.
    cluster.stop().await;
}
