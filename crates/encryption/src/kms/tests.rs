//! A key management service of our own, whose key changes and which breaks down.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;

const PLACE: &[u8] = b"/registry/secrets/default/a";

/// A body of one message and its trailers.
struct Frames(std::vec::IntoIter<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(Ok))
    }
}

fn turned(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| !byte).collect()
}

async fn answer(
    request: Request<Incoming>,
    key: Arc<ArcSwap<String>>,
) -> Result<Response<Frames>, Infallible> {
    let key = key.load().to_string();
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body = &body[5..];
    let message = match path.rsplit('/').next().unwrap() {
        "Status" => grpc::StatusResponse {
            version: "v2".into(),
            healthz: if key.is_empty() { "broken" } else { "ok" }.into(),
            key_id: key,
        }
        .encode_to_vec(),
        "Encrypt" => grpc::EncryptResponse {
            ciphertext: turned(&grpc::EncryptRequest::decode(body).unwrap().plaintext),
            annotations: BTreeMap::from([("kms.example.com".into(), key.clone().into_bytes())]),
            key_id: key,
        }
        .encode_to_vec(),
        _ => {
            let asked = grpc::DecryptRequest::decode(body).unwrap();
            assert_eq!(
                asked.annotations["kms.example.com"],
                asked.key_id.as_bytes()
            );
            grpc::DecryptResponse {
                plaintext: turned(&asked.ciphertext),
            }
            .encode_to_vec()
        }
    };
    let mut data = vec![0];
    data.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    data.extend_from_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let frames = vec![Frame::data(data.into()), Frame::trailers(trailers)];
    Ok(Response::new(Frames(frames.into_iter())))
}

fn serve(socket: &Path, key: Arc<ArcSwap<String>>) {
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let key = Arc::clone(&key);
            let service =
                hyper::service::service_fn(move |request| answer(request, Arc::clone(&key)));
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
}

fn kms(socket: &Path) -> Kms {
    Kms::new(&KmsConfiguration {
        api_version: Some("v2".into()),
        name: "vault".into(),
        endpoint: format!("unix://{}", socket.display()),
        ..KmsConfiguration::default()
    })
}

fn body<'a>(kms: &Kms, stored: &'a Bytes) -> &'a [u8] {
    stored.strip_prefix(kms.prefix()).unwrap()
}

#[tokio::test]
async fn seeds_come_from_the_service_and_follow_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("kms.sock");
    let key = Arc::new(ArcSwap::from_pointee("key-1".to_owned()));
    let first = kms(&socket);
    assert!(first.refresh().await.is_err(), "nobody listens");
    assert!(first.seal(PLACE, b"tea").is_err());
    assert!(first.unhealthy().is_some());
    serve(&socket, Arc::clone(&key));
    first.refresh().await.unwrap();
    assert_eq!(first.unhealthy(), None);
    let stored = first.seal(PLACE, b"tea").unwrap();
    assert!(stored.starts_with(b"k8s:enc:kms:v2:vault:"));
    assert_eq!(
        first.open(PLACE, body(&first, &stored)).unwrap().plain,
        "tea"
    );
    // Another process, which does not know the seed.
    let second = kms(&socket);
    second.refresh().await.unwrap();
    assert!(second.open(PLACE, body(&second, &stored)).is_err());
    second.warm(body(&second, &stored)).await;
    let opened = second.open(PLACE, body(&second, &stored)).unwrap();
    assert_eq!(
        (&opened.plain[..], opened.seal),
        (&b"tea"[..], second.seal_now())
    );
    assert!(second.open(b"elsewhere", body(&second, &stored)).is_err());
    key.store(Arc::new("key-2".into()));
    second.refresh().await.unwrap();
    assert_ne!(
        opened.seal,
        second.seal_now(),
        "stale after the key changed"
    );
    key.store(Arc::new(String::new()));
    let why = second.refresh().await.unwrap_err().to_string();
    assert!(
        why.contains("got unexpected healthz status: broken"),
        "{why}"
    );
    assert!(second.seal(PLACE, b"tea").is_ok(), "goes on for a while");
    *second.current.load().as_ref().unwrap().until.lock() = Instant::now();
    tokio::task::yield_now().await;
    assert!(second.seal(PLACE, b"tea").is_err());
    assert!(
        second.open(PLACE, body(&second, &stored)).is_ok(),
        "reads for ever"
    );
}
