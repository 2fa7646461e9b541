//! Pulls from a registry on the loopback, with challenge, index and faults.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Write;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use oci::{Credentials, Digest, ImageError, Progress, Puller, RegistryOptions};

use crate::make::{file, leftovers, store, tarball};

type Body = BoxBody<Bytes, std::io::Error>;

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::from(bytes.into())
        .map_err(|never| match never {})
        .boxed()
}

#[derive(Default)]
pub(crate) struct Registry {
    /// Path below `/v2/` → media type and bytes.
    pub(crate) content: HashMap<String, (String, Vec<u8>)>,
    pub(crate) requests: Mutex<Vec<String>>,
    /// What only the rest was asked for of, and from where on.
    pub(crate) ranges: Mutex<Vec<(String, usize)>>,
    pub(crate) wants_token: bool,
    /// Nothing is known unless it is asked for on behalf of this registry.
    pub(crate) mirror_of: Option<String>,
    /// Compressed blobs are cut after so many bytes unless a range is asked for.
    pub(crate) cut: Option<usize>,
    /// No answer has more of a compressed blob than so many bytes, and none says that there is more.
    pub(crate) truncates: Option<usize>,
    /// Compressed blobs stop after their first bytes, and who waits for the rest is told here.
    pub(crate) hangs: Option<tokio::sync::mpsc::UnboundedSender<()>>,
}

impl Registry {
    fn answer(&self, request: &Request<Incoming>, port: u16) -> Response<Body> {
        let path = request.uri().path().to_owned();
        self.requests.lock().unwrap().push(path.clone());
        let header = |name| {
            request
                .headers()
                .get(name)
                .and_then(|value: &http::HeaderValue| value.to_str().ok())
        };
        if path == "/token" {
            let query = request.uri().query().unwrap();
            assert!(
                query.contains("scope=repository%3Ateam%2Fapp%3Apull")
                    && query.contains("service=reg"),
                "{query}"
            );
            // user:secret
            let good = header("authorization") == Some("Basic dXNlcjpzZWNyZXQ=");
            let body = if good { r#"{"token":"T0K"}"# } else { "{}" };
            let status = if good { 200 } else { 401 };
            return Response::builder().status(status).body(full(body)).unwrap();
        }
        if self.wants_token && header("authorization") != Some("Bearer T0K") {
            let challenge =
                format!("Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"reg\"");
            let response = Response::builder()
                .status(401)
                .header("www-authenticate", challenge);
            return response.body(full("")).unwrap();
        }
        let meant = self.mirror_of.as_ref().is_none_or(|registry| {
            request.uri().query() == Some(format!("ns={registry}").as_str())
        });
        let found = self.content.get(path.trim_start_matches("/v2/"));
        let Some((media_type, bytes)) = found.filter(|_| meant) else {
            let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            return Response::builder()
                .status(StatusCode::NOT_FOUND)
                .body(full(body))
                .unwrap();
        };
        let response = Response::builder().header("content-type", media_type);
        let compressed = bytes.starts_with(&[0x1f, 0x8b]) || bytes.starts_with(&[0x28, 0xb5]);
        if let Some(hangs) = self.hangs.clone().filter(|_| compressed) {
            let piece = Ok(Frame::data(Bytes::from(bytes[..8].to_vec())));
            let silence = async move {
                let _ = hangs.send(());
                std::future::pending().await
            };
            let pieces = futures::stream::iter([piece]).chain(futures::stream::once(silence));
            let response = response.header("content-length", bytes.len());
            return response
                .body(BoxBody::new(StreamBody::new(pieces)))
                .unwrap();
        }
        let piece = self.truncates.filter(|_| compressed).unwrap_or(usize::MAX);
        if let Some(range) = header("range") {
            let start: usize = range
                .trim_start_matches("bytes=")
                .trim_end_matches('-')
                .parse()
                .unwrap();
            self.ranges.lock().unwrap().push((path.clone(), start));
            return response
                .status(206)
                .body(full(
                    bytes[start..]
                        .iter()
                        .copied()
                        .take(piece)
                        .collect::<Vec<_>>(),
                ))
                .unwrap();
        }
        if let Some(cut) = self.cut.filter(|_| compressed) {
            // More is promised than comes: the connection breaks.
            let piece = Ok(Frame::data(Bytes::from(bytes[..cut].to_vec())));
            let broken = async {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                Err(std::io::ErrorKind::ConnectionReset.into())
            };
            let pieces = futures::stream::iter([piece]).chain(futures::stream::once(broken));
            let response = response.header("content-length", bytes.len());
            return response
                .body(BoxBody::new(StreamBody::new(pieces)))
                .unwrap();
        }
        let sent: Vec<u8> = bytes.iter().copied().take(piece).collect();
        response.body(full(sent)).unwrap()
    }
}

pub(crate) async fn serve(registry: Registry) -> (Arc<Registry>, u16) {
    serve_by(registry, None).await
}

/// Serves, by TLS where a certificate is given.
pub(crate) async fn serve_by(
    registry: Registry,
    tls: Option<tokio_rustls::TlsAcceptor>,
) -> (Arc<Registry>, u16) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let registry = Arc::new(registry);
    let shared = Arc::clone(&registry);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (registry, tls) = (Arc::clone(&shared), tls.clone());
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request| {
                    let response = registry.answer(&request, port);
                    async move { Ok::<_, Infallible>(response) }
                });
                let server = hyper::server::conn::http1::Builder::new();
                // A cut answer is an error on this side, as intended; so is a client without trust.
                let _ = match tls {
                    None => server.serve_connection(TokioIo::new(stream), service).await,
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => server.serve_connection(TokioIo::new(stream), service).await,
                        Err(_) => Ok(()),
                    },
                };
            });
        }
    });
    (registry, port)
}

/// Content of `team/app:v1`: an index over two machines, a gzip layer and a zstd layer.
pub(crate) fn content() -> Registry {
    let mut registry = Registry::default();
    registry.image("team/app", "two");
    registry
}

impl Registry {
    /// Adds a repository with one image, `v1`: an index over two machines, a gzip layer that all such
    /// images share, and a zstd layer with a text of its own.
    pub(crate) fn image(&mut self, repository: &str, text: &'static str) {
        let content = &mut self.content;
        let first = tarball(&[file("a", "one"), file("shared", "lower")]);
        let second = tarball(&[file("b", text)]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&first).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(&second[..], 1).unwrap();
        let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }, "os": "linux",
        "config": {"Entrypoint": ["/a"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&first), Digest::of(&second)]},
    })
    .to_string()
    .into_bytes();
        let describe = |kind: &str, bytes: &[u8]| serde_json::json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len()});
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": manifest_type,
            "config": describe("application/vnd.oci.image.config.v1+json", &config),
            "layers": [
                describe("application/vnd.oci.image.layer.v1.tar+gzip", &gzip),
                describe("application/vnd.oci.image.layer.v1.tar+zstd", &zstd),
            ],
        })
        .to_string()
        .into_bytes();
        let mut own = describe(manifest_type, &manifest);
        own["platform"] = serde_json::json!({"os": "linux", "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }});
        let mut other = describe(manifest_type, b"for another machine");
        other["platform"] = serde_json::json!({"os": "linux", "architecture": "s390x"});
        let index_type = "application/vnd.oci.image.index.v1+json";
        let index =
        serde_json::json!({"schemaVersion": 2, "mediaType": index_type, "manifests": [other, own]})
            .to_string()
            .into_bytes();
        for blob in [&config, &gzip, &zstd] {
            let path = format!("{repository}/blobs/{}", Digest::of(blob));
            content.insert(path, ("application/octet-stream".to_owned(), blob.clone()));
        }
        content.insert(
            format!("{repository}/manifests/{}", Digest::of(&manifest)),
            (manifest_type.to_owned(), manifest),
        );
        content.insert(
            format!("{repository}/manifests/v1"),
            (index_type.to_owned(), index),
        );
    }
}

pub(crate) fn user() -> Credentials {
    Credentials {
        username: "user".to_owned(),
        password: "secret".to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn with_a_token_through_an_index() {
    let (registry, port) = serve(Registry {
        wants_token: true,
        ..content()
    })
    .await;
    let (_folder, store) = store();
    let puller = Puller::new(&store, &RegistryOptions::default());
    let name = format!("127.0.0.1:{port}/team/app:v1");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let report = {
        let seen = Arc::clone(&seen);
        Arc::new(move |progress| seen.lock().unwrap().push(progress))
    };
    let image = puller.pull(&name, &user(), Some(report)).await.unwrap();
    assert_eq!(image.layers.len(), 2);
    assert_eq!(
        std::fs::read_to_string(store.layer_folder(&image.layers[0].diff_id).join("a")).unwrap(),
        "one"
    );
    assert_eq!(
        std::fs::read_to_string(store.layer_folder(&image.layers[1].diff_id).join("b")).unwrap(),
        "two"
    );
    assert_eq!(store.get(&name).unwrap().id, image.id);
    let digest = image.repo_digests.iter().next().unwrap().clone();
    assert_eq!(store.get(&digest).unwrap().id, image.id);
    {
        let seen = seen.lock().unwrap();
        assert!(matches!(&seen[0], Progress::Resolved(layers) if layers.len() == 2));
        assert_eq!(
            seen.iter()
                .filter(|p| matches!(p, Progress::Unpacked(_)))
                .count(),
            2
        );
    }
    // Again: no layer is fetched twice.
    registry.requests.lock().unwrap().clear();
    puller.pull(&name, &user(), None).await.unwrap();
    let blobs = registry
        .requests
        .lock()
        .unwrap()
        .iter()
        .filter(|path| path.contains("/blobs/"))
        .count();
    assert_eq!(blobs, 1, "the configuration only");
}

#[tokio::test]
async fn refusals_leave_nothing() {
    let (_registry, port) = serve(Registry {
        wants_token: true,
        ..content()
    })
    .await;
    let (folder, store) = store();
    let puller = Puller::new(&store, &RegistryOptions::default());
    let name = format!("127.0.0.1:{port}/team/app:v1");
    let wrong = Credentials {
        password: "wrong".to_owned(),
        ..user()
    };
    let fault = puller.pull(&name, &wrong, None).await.unwrap_err();
    assert!(matches!(fault, ImageError::Denied(..)), "{fault}");
    let absent = format!("127.0.0.1:{port}/team/app:v2");
    let fault = puller.pull(&absent, &user(), None).await.unwrap_err();
    assert!(matches!(fault, ImageError::NotFound(_)), "{fault}");
    assert!(puller.pull("127.0.0.1:1/x/y", &user(), None).await.is_err());
    assert_eq!(leftovers(&folder), Vec::<String>::new());
}

#[tokio::test]
async fn a_broken_connection_is_resumed() {
    let (registry, port) = serve(Registry {
        cut: Some(40),
        ..content()
    })
    .await;
    let (_folder, store) = store();
    let puller = Puller::new(&store, &RegistryOptions::default());
    let image = puller
        .pull(&format!("127.0.0.1:{port}/team/app:v1"), &user(), None)
        .await
        .unwrap();
    assert!(
        store
            .layer_folder(&image.layers[0].diff_id)
            .join("shared")
            .is_file()
    );
    let requests = registry.requests.lock().unwrap();
    let of_layers = |path: &&String| {
        image
            .layers
            .iter()
            .any(|layer| path.ends_with(layer.blob.digest.as_str()))
    };
    assert_eq!(
        requests.iter().filter(of_layers).count(),
        4,
        "each layer in two pieces"
    );
}

#[tokio::test]
async fn answers_that_end_early_are_resumed_but_not_for_ever() {
    for (piece, enough) in [(60, true), (8, false)] {
        let (registry, port) = serve(Registry {
            truncates: Some(piece),
            ..content()
        })
        .await;
        let (folder, store) = store();
        let puller = Puller::new(&store, &RegistryOptions::default());
        let name = format!("127.0.0.1:{port}/team/app:v1");
        let pulled = puller.pull(&name, &user(), None).await;
        assert_eq!(pulled.is_ok(), enough, "{pulled:?}");
        let has_resumed = |(_, start): &(String, usize)| *start == piece;
        assert!(registry.ranges.lock().unwrap().iter().any(has_resumed));
        let Err(fault) = pulled else { continue };
        assert!(fault.to_string().contains(" bytes came"), "{fault}");
        assert_eq!(leftovers(&folder), Vec::<String>::new());
        // Who asks again begins where that one ended.
        let mut tries = 1;
        while puller.pull(&name, &user(), None).await.is_err() {
            tries += 1;
            assert!(tries < 100, "no pull gets further than the one before");
        }
        let mut starts: HashMap<String, Vec<usize>> = HashMap::new();
        for (path, start) in registry.ranges.lock().unwrap().iter() {
            starts.entry(path.clone()).or_default().push(*start);
        }
        let mut all = starts.values();
        assert!(all.all(|starts| starts.is_sorted()), "{starts:?}");
    }
}

#[tokio::test]
async fn what_a_crashed_pull_had_is_not_fetched_again() {
    let (registry, port) = serve(content()).await;
    let (folder, store) = store();
    let puller = Puller::new(&store, &RegistryOptions::default());
    let name = format!("127.0.0.1:{port}/team/app:v1");
    let image = puller.pull(&name, &user(), None).await.unwrap();
    let blob = |index: usize| &image.layers[index].blob.digest;
    let bytes = [0, 1].map(|index| std::fs::read(store.blob_path(blob(index))).unwrap());
    assert!(store.remove(&name).unwrap());
    // A process that is no more had half of the one and all of the other.
    let tmp = folder.path().join("images/tmp");
    std::fs::create_dir_all(tmp.join("dead/2")).unwrap();
    std::fs::write(tmp.join("dead.lock"), "").unwrap();
    let half = bytes[0].len() / 2;
    let file = |number: usize, index| tmp.join(format!("dead/{number}.{}", blob(index).hex()));
    std::fs::write(file(1, 0), &bytes[0][..half]).unwrap();
    std::fs::write(file(3, 1), &bytes[1]).unwrap();
    let store = oci::Store::open(&folder.path().join("images")).unwrap();
    assert_eq!(leftovers(&folder), Vec::<String>::new());
    registry.requests.lock().unwrap().clear();
    let again = puller.pull(&name, &user(), None).await.unwrap();
    assert_eq!(again, image);
    for (index, bytes) in bytes.iter().enumerate() {
        assert_eq!(&std::fs::read(store.blob_path(blob(index))).unwrap(), bytes);
    }
    let text = store.layer_folder(&image.layers[1].diff_id).join("b");
    assert_eq!(std::fs::read_to_string(text).unwrap(), "two");
    let path = |index| format!("/v2/team/app/blobs/{}", blob(index));
    assert_eq!(*registry.ranges.lock().unwrap(), [(path(0), half)]);
    assert!(!registry.requests.lock().unwrap().contains(&path(1)));
    let begun = folder.path().join("images/begun");
    assert_eq!(std::fs::read_dir(begun).unwrap().count(), 0);
}

#[tokio::test]
async fn what_a_crashed_pull_had_is_checked_with_the_rest() {
    let (_registry, port) = serve(content()).await;
    let (folder, store) = store();
    let puller = Puller::new(&store, &RegistryOptions::default());
    let name = format!("127.0.0.1:{port}/team/app:v1");
    let image = puller.pull(&name, &user(), None).await.unwrap();
    let blob = &image.layers[0].blob;
    assert!(store.remove(&name).unwrap());
    let begun = folder.path().join("images/begun").join(blob.digest.hex());
    // Not its bytes, and more than it has.
    for (length, refused) in [(9, true), (blob.size + 1, false)] {
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        bytes[..2].copy_from_slice(&[0x1f, 0x8b]);
        std::fs::write(&begun, bytes).unwrap();
        let pulled = puller.pull(&name, &user(), None).await;
        assert_eq!(pulled.is_err(), refused, "{pulled:?}");
        assert!(!begun.exists());
    }
    assert_eq!(store.list().unwrap(), [image]);
}

#[tokio::test]
async fn a_corrupt_layer_is_refused() {
    let mut registry = content();
    for (path, (_, bytes)) in &mut registry.content {
        if path.contains("/blobs/") && bytes.starts_with(&[0x1f, 0x8b]) {
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
        }
    }
    let (_registry, port) = serve(registry).await;
    let (folder, store) = store();
    let puller = Puller::new(&store, &RegistryOptions::default());
    let fault = puller
        .pull(&format!("127.0.0.1:{port}/team/app:v1"), &user(), None)
        .await
        .unwrap_err();
    assert!(matches!(fault, ImageError::Corrupt(_)), "{fault}");
    assert_eq!(leftovers(&folder), Vec::<String>::new());
}

#[tokio::test]
async fn a_registry_that_falls_silent_is_given_up() {
    let (hangs, mut waits) = tokio::sync::mpsc::unbounded_channel();
    let (_registry, port) = serve(Registry {
        hangs: Some(hangs),
        ..content()
    })
    .await;
    let (folder, store) = store();
    let puller = Puller::new(&store, &RegistryOptions::default());
    tokio::time::pause();
    let name = format!("127.0.0.1:{port}/team/app:v1");
    let user = user();
    let pull = puller.pull(&name, &user, None);
    tokio::pin!(pull);
    let fault = loop {
        tokio::select! {
            biased;
            ended = &mut pull => break ended.unwrap_err(),
            Some(()) = waits.recv() => tokio::time::advance(std::time::Duration::from_secs(61)).await,
        }
    };
    assert!(
        fault.to_string().contains("nothing came for a minute"),
        "{fault}"
    );
    assert_eq!(leftovers(&folder), Vec::<String>::new());
}

#[tokio::test]
async fn documents_with_another_digest_are_refused() {
    for part in ["/manifests/sha256", "/blobs/"] {
        let mut registry = content();
        for (path, (_, bytes)) in &mut registry.content {
            // The manifest that the index names, and the configuration that the manifest names.
            if path.contains(part) && bytes.starts_with(b"{") {
                let end = bytes.len() - 1;
                bytes.insert(end, b' ');
            }
        }
        let (_registry, port) = serve(registry).await;
        let (folder, store) = store();
        let puller = Puller::new(&store, &RegistryOptions::default());
        let name = format!("127.0.0.1:{port}/team/app:v1");
        let fault = puller.pull(&name, &user(), None).await.unwrap_err();
        assert!(matches!(fault, ImageError::Corrupt(_)), "{part}: {fault}");
        assert_eq!(leftovers(&folder), Vec::<String>::new());
        assert!(store.list().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_disk_that_fills_up_during_a_pull() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("images");
    std::fs::create_dir(&disk).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(
        Some("tmpfs"),
        &disk,
        Some("tmpfs"),
        flags,
        Some("size=256k"),
    )
    .unwrap();
    let (_registry, port) = serve(content()).await;
    let store = oci::Store::open(&disk).unwrap();
    let puller = Puller::new(&store, &RegistryOptions::default());
    let name = format!("127.0.0.1:{port}/team/app:v1");
    // Not one page is left: only the folders that a pull begins with can be made.
    let filler = disk.join("filler");
    let block = vec![0u8; 4096];
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&block).is_ok() {}
    let fault = puller.pull(&name, &user(), None).await;
    let left = leftovers(&folder);
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    let again = puller.pull(&name, &user(), None).await;
    drop((puller, store));
    nix::mount::umount2(&disk, nix::mount::MntFlags::MNT_DETACH).unwrap();
    let fault = fault.unwrap_err();
    assert!(
        matches!(&fault, ImageError::Io(_, error) if error.kind() == std::io::ErrorKind::StorageFull),
        "{fault}"
    );
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(again.unwrap().layers.len(), 2, "with room again it works");
}
