//! Who is asked for an image, and how: mirrors, their credentials, certificates; and what of another
//! image is here already.

use std::sync::Arc;

use oci::{Credentials, ImageError, Puller, RegistryOptions};
use serde_json::json;

use crate::make::{leftovers, store};
use crate::registry::{Registry, content, serve, serve_by, user};

/// Spoils what is in a layer of every image.
fn lying(mut registry: Registry) -> Registry {
    for (path, (_, bytes)) in &mut registry.content {
        if path.contains("/blobs/") && bytes.starts_with(&[0x1f, 0x8b]) {
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
        }
    }
    registry
}

#[tokio::test]
async fn mirrors_are_asked_before_the_registry_and_need_not_be_good() {
    let mut first = Registry::default();
    first.image("copies/app", "two");
    let (empty, one) = serve(Registry::default()).await;
    let (liar, two) = serve(lying(content())).await;
    first.mirror_of = Some("reg.example".to_owned());
    first.wants_token = false;
    let (good, three) = serve(first).await;
    let endpoint = |port: u16| format!("http://127.0.0.1:{port}");
    let with = |mirrors: serde_json::Value| {
        let tree = json!({"mirrors": {"reg.example": mirrors}});
        RegistryOptions::from_tree(tree).unwrap()
    };
    let (folder, store) = store();
    let all = [
        endpoint(one),
        "http://127.0.0.1:1".to_owned(),
        endpoint(two),
    ];
    let options = with(json!({"endpoint": all}));
    // Nobody has it, and the registry itself is nowhere.
    let none = Credentials::default();
    let fault = Puller::new(&store, &options)
        .pull("reg.example/team/app:v1", &user(), None)
        .await
        .unwrap_err();
    assert!(matches!(fault, ImageError::Registry(_)), "{fault}");
    assert_eq!(leftovers(&folder), Vec::<String>::new());
    let asked = |registry: &Registry| registry.requests.lock().unwrap().len();
    assert_eq!(asked(&empty), 1, "asked for the manifest");
    assert!(asked(&liar) >= 4, "its layers were looked at");
    let more = all.iter().cloned().chain([endpoint(three)]);
    let rewrite = json!({"^team/(.*)$": "copies/$1"});
    let mirrors = json!({"endpoint": more.collect::<Vec<_>>(), "rewrite": rewrite});
    let image = Puller::new(&store, &with(mirrors))
        .pull("reg.example/team/app:v1", &none, None)
        .await
        .unwrap();
    assert!(image.repo_tags.contains("reg.example/team/app:v1"));
    let requests = good.requests.lock().unwrap();
    assert!(
        requests
            .iter()
            .all(|path| path.starts_with("/v2/copies/app/")),
        "{requests:?}"
    );
}

#[tokio::test]
async fn each_server_gets_its_own_credentials_only() {
    let (registry, port) = serve(Registry {
        wants_token: true,
        ..content()
    })
    .await;
    let host = format!("127.0.0.1:{port}");
    let (_folder, store) = store();
    let pull = |options: RegistryOptions, name: String, credentials: Credentials| {
        let store = store.clone();
        async move {
            Puller::new(&store, &options)
                .pull(&name, &credentials, None)
                .await
        }
    };
    let auth = json!({"auth": {"username": "user", "password": "secret"}});
    let mirrored = json!({"reg.example": {"endpoint": [format!("http://{host}")]}});
    let name = "reg.example/team/app:v1".to_owned();
    // What is meant for the registry is not told its mirror.
    let options = RegistryOptions::from_tree(json!({"mirrors": mirrored})).unwrap();
    assert!(pull(options, name.clone(), user()).await.is_err());
    assert!(
        !registry
            .requests
            .lock()
            .unwrap()
            .iter()
            .any(|path| path.contains("/blobs/"))
    );
    let known = json!({"mirrors": mirrored, "configs": {host.as_str(): auth}});
    let options = RegistryOptions::from_tree(known).unwrap();
    pull(options, name, Credentials::default()).await.unwrap();
    let own = RegistryOptions::from_tree(json!({"configs": {host.as_str(): auth}})).unwrap();
    let image = pull(own, format!("{host}/team/app:v1"), Credentials::default()).await;
    assert!(
        image
            .unwrap()
            .repo_tags
            .contains(&format!("{host}/team/app:v1"))
    );
}

#[tokio::test]
async fn certificates_are_those_that_the_file_names() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (ca, key) = (folder.path().join("ca.pem"), folder.path().join("key.pem"));
    std::fs::write(&ca, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut clients = rustls::RootCertStore::empty();
    clients.add(made.cert.der().clone()).unwrap();
    let builder = || {
        rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
    };
    let secret = || made.signing_key.serialize_der().try_into().unwrap();
    let chain = vec![made.cert.der().clone()];
    let open = builder()
        .with_no_client_auth()
        .with_single_cert(chain.clone(), secret())
        .unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(clients),
        Arc::clone(&provider),
    );
    let strict = builder()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, secret())
        .unwrap();
    let open = serve_by(content(), Some(Arc::new(open).into())).await.1;
    let strict = serve_by(content(), Some(Arc::new(strict).into())).await.1;
    let trusted = json!({"ca_file": ca});
    let blind = json!({"insecure_skip_verify": true});
    let known = json!({"ca_file": ca, "cert_file": ca, "key_file": key});
    for (port, tls, works) in [
        (open, json!({}), false),
        (open, trusted.clone(), true),
        (open, blind, true),
        (strict, trusted, false),
        (strict, known, true),
    ] {
        let host = format!("127.0.0.1:{port}");
        // Named with its scheme: this machine's own are otherwise spoken to without TLS.
        let mirrors = json!({host.as_str(): {"endpoint": [format!("https://{host}")]}});
        let said = json!({"mirrors": mirrors, "configs": {host.as_str(): {"tls": tls}}});
        let (_folder, store) = store();
        let options = RegistryOptions::from_tree(said.clone()).unwrap();
        let pulled = Puller::new(&store, &options)
            .pull(
                &format!("{host}/team/app:v1"),
                &Credentials::default(),
                None,
            )
            .await;
        assert_eq!(pulled.is_ok(), works, "{said}: {pulled:?}");
    }
}

#[tokio::test]
async fn of_shared_layers_only_what_is_missing_is_transferred() {
    let mut registry = content();
    registry.image("team/other", "three");
    let (registry, port) = serve(registry).await;
    let (_folder, store) = store();
    let puller = Puller::new(&store, &RegistryOptions::default());
    let none = Credentials::default();
    let pull = |name: &str| format!("127.0.0.1:{port}/team/{name}:v1");
    let first = puller.pull(&pull("app"), &none, None).await.unwrap();
    registry.requests.lock().unwrap().clear();
    let second = puller.pull(&pull("other"), &none, None).await.unwrap();
    assert_eq!(first.layers[0], second.layers[0]);
    let requests = registry.requests.lock().unwrap();
    let blobs: Vec<_> = requests
        .iter()
        .filter(|path| path.contains("/blobs/"))
        .collect();
    let of = |digest: &oci::Digest| format!("/v2/team/other/blobs/{digest}");
    assert_eq!(blobs, [&of(&second.id), &of(&second.layers[1].blob.digest)]);
}
