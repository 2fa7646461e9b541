//! Static pods that a web server describes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kubelet::StaticPodUrl;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::rig::{IMAGE, NODE, Rig, pod_path, wait};

/// What a server answers, and the last request it had.
#[derive(Default)]
struct Shelf {
    status: &'static str,
    body: String,
    asked: String,
}

async fn serve(listener: tokio::net::TcpListener, shelf: Arc<Mutex<Shelf>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.unwrap();
        let answer = {
            let mut shelf = shelf.lock();
            shelf.asked = String::from_utf8_lossy(&request[..length]).into_owned();
            let (status, body) = (shelf.status, &shelf.body);
            let length = body.len();
            format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}")
        };
        stream.write_all(answer.as_bytes()).await.ok();
    }
}

fn manifest(name: &str) -> String {
    format!(
        "{{\"metadata\": {{\"name\": {name:?}}}, \"spec\": {{\"containers\": [{{\"name\": {name:?}, \
         \"image\": {IMAGE:?}}}]}}}}"
    )
}

fn list(items: &[&str]) -> String {
    let items: Vec<String> = items.iter().map(|name| manifest(name)).collect();
    format!(
        "{{\"kind\": \"PodList\", \"apiVersion\": \"v1\", \"items\": [{}]}}",
        items.join(",")
    )
}

#[tokio::test]
async fn pods_of_a_server_run_beside_those_of_files() {
    let mut rig = Rig::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/pods", listener.local_addr().unwrap());
    let shelf = Arc::new(Mutex::new(Shelf {
        status: "503 Service Unavailable",
        ..Shelf::default()
    }));
    let server = tokio::spawn(serve(listener, shelf.clone()));
    let folder = rig.folder.path().join("manifests");
    std::fs::create_dir(&folder).unwrap();
    let of_file = manifest("f").replacen('{', "{\"kind\": \"Pod\", ", 1);
    std::fs::write(folder.join("f.json"), of_file).unwrap();
    let mut config = rig.config();
    let headers = BTreeMap::from([("X-Node".to_owned(), vec!["me".to_owned()])]);
    let interval = Duration::from_millis(20);
    config.static_pod_path = Some(folder);
    config.static_pod_url = Some(StaticPodUrl::new(&url, &headers, interval).unwrap());
    rig.restart_with(config).await;

    // A server that fails keeps no pod of a file waiting.
    let name = |of: &str| format!("{of}-{NODE}");
    rig.wait_phase(&name("f"), "Running").await;
    shelf.lock().body = list(&["a", "b"]);
    shelf.lock().status = "200 OK";
    let mirror = rig.wait_phase(&name("a"), "Running").await;
    rig.wait_phase(&name("b"), "Running").await;
    let annotations = &mirror["metadata"]["annotations"];
    assert_eq!(annotations["kubernetes.io/config.source"], "http");
    let asked = shelf.lock().asked.to_lowercase();
    assert!(asked.contains("get /pods http/1.1"), "{asked}");
    assert!(asked.contains("x-node: me"), "{asked}");

    // What it said stands while it fails, and goes when it says something else.
    let a = rig.runtime.running("a").unwrap().id;
    shelf.lock().status = "500 Internal Server Error";
    shelf.lock().asked.clear();
    wait("asked again", || {
        (!shelf.lock().asked.is_empty()).then_some(())
    })
    .await;
    shelf.lock().body = list(&["a"]);
    shelf.lock().status = "200 OK";
    wait("b removed", || {
        let gone = rig.api.get(&pod_path(&name("b"))).is_none();
        (gone && rig.runtime.running("b").is_none()).then_some(())
    })
    .await;
    assert_eq!(rig.runtime.running("a").unwrap().id, a);
    assert!(rig.runtime.running("f").is_some());
    server.abort();
}
