//! Encryption at rest: what the store's files hold, how keys are rotated, what a lost key means.

use std::path::Path;
use std::sync::Arc;

use auth::Pki;
use base::Crew;
use encryption::Encryption;
use serde_json::{Value, json};

use crate::cluster::{CONFIG_MAPS, Cluster};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
/// What is looked for in the files: not base64, as what is stored is.
const MARK: &str = "c2VjcmV0LXRlYQ==";

async fn open(folder: &Path) -> (Crew, Arc<dyn store::Store>, Arc<Encryption>) {
    let crew = Crew::new();
    let settings = store::Config {
        dir: folder.join("store"),
        ..store::Config::default()
    };
    let store = store::open(settings, &crew).await.unwrap();
    let encryption = encryption::load(&folder.join("encryption.yaml"), false, &crew)
        .await
        .unwrap();
    (crew, store, encryption)
}

async fn start(folder: &Path) -> Cluster {
    let (crew, store, encryption) = open(folder).await;
    Cluster::with(store, crew, |config| config.encryption = Some(encryption)).await
}

/// Whether any file of the store holds the text.
fn on_disk(folder: &Path, text: &str) -> bool {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.into_iter().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => on_disk(&path, text),
            false => {
                let bytes = std::fs::read(&path).unwrap();
                let mut parts = bytes.windows(text.len());
                parts.any(|part| part == text.as_bytes())
            }
        }
    })
}

fn secret(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "data": {"key": MARK}})
}

#[tokio::test]
async fn secrets_are_not_in_the_files_and_keys_rotate() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path(), folder.path().join("encryption.yaml"));
    // A store from before: nothing is encrypted.
    let plain = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n\
        resources: [{resources: [secrets], providers: [{identity: {}}]}]\n";
    std::fs::write(&file, plain).unwrap();
    let cluster = start(data).await;
    cluster.post(SECRETS, secret("old")).await.unwrap();
    cluster.stop().await;
    assert!(on_disk(&data.join("store"), MARK));
    std::fs::remove_file(&file).unwrap();
    encryption::create_default(&file).unwrap();
    let first = std::fs::read_to_string(&file).unwrap();

    let cluster = start(data).await;
    let old = cluster.get(&format!("{SECRETS}/old")).await.unwrap();
    assert_eq!(old["data"]["key"], MARK);
    let made = cluster.post(SECRETS, secret("new")).await.unwrap();
    assert_eq!(made["data"]["key"], MARK);
    // The same object again: stored anew, as it was not encrypted; and only once.
    let path = format!("{SECRETS}/old");
    let rewritten = cluster.put(&path, &old).await.unwrap();
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    assert_ne!(version(&old), version(&rewritten));
    let again = cluster.put(&path, &rewritten).await.unwrap();
    assert_eq!(version(&again), version(&rewritten));
    let map = json!({"metadata": {"name": "m"}, "data": {"key": "in the clear"}});
    cluster.post(CONFIG_MAPS, map).await.unwrap();
    cluster.stop().await;
    assert!(on_disk(&data.join("store"), "in the clear"));

    // Another key in front; the old one still reads.
    let second = first.replace("name: key1", "name: key2").replace(
        "  - identity: {}\n",
        &first[first.find("  - secretbox").unwrap()..],
    );
    let second = second.replacen("secret: ", "secret: AAAA", 1);
    let cut = |line: &str| match line.split_once("AAAA") {
        Some((head, key)) => format!("{head}AAAA{}\n", &key[4..]),
        None => format!("{line}\n"),
    };
    let second: String = second.lines().map(cut).collect();
    std::fs::write(&file, second).unwrap();
    let cluster = start(data).await;
    let list = cluster.get(SECRETS).await.unwrap();
    for item in list["items"].as_array().unwrap() {
        assert_eq!(item["data"]["key"], MARK);
        let path = format!("{SECRETS}/{}", item["metadata"]["name"].as_str().unwrap());
        let mut item = item.clone();
        item["kind"] = "Secret".into();
        item["apiVersion"] = "v1".into();
        let rewritten = cluster.put(&path, &item).await.unwrap();
        assert_ne!(version(&item), version(&rewritten));
    }
    cluster.stop().await;

    // A key that nobody has: the server does not start rather than miss secrets.
    std::fs::remove_file(&file).unwrap();
    encryption::create_default(&file).unwrap();
    let (crew, store, encryption) = open(data).await;
    let pki = Arc::new(Pki::open(&data.join("pki"), &[]).unwrap());
    let mut config = apiserver::Config::new(pki);
    config.encryption = Some(encryption);
    let refused = apiserver::build(config, store, &crew).await.unwrap_err();
    assert!(
        refused
            .to_string()
            .starts_with("2 stored objects cannot be decrypted"),
        "{refused}"
    );
    crew.stop().raise();
    crew.finished().await.unwrap();
}

#[tokio::test]
async fn a_fresh_store_never_holds_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    encryption::create_default(&data.join("encryption.yaml")).unwrap();
    let cluster = start(data).await;
    cluster.post(SECRETS, secret("a")).await.unwrap();
    let mut changed = cluster.get(&format!("{SECRETS}/a")).await.unwrap();
    changed["data"]["more"] = MARK.into();
    cluster
        .put(&format!("{SECRETS}/a"), &changed)
        .await
        .unwrap();
    cluster
        .client
        .delete_value(&format!("{SECRETS}/a"), None)
        .await
        .unwrap();
    cluster.stop().await;
    assert!(!on_disk(&data.join("store"), MARK));
    assert!(on_disk(&data.join("store"), "k8s:enc:secretbox:v1:key1:"));
}
