//! The loop, against an API of two lists and two watches.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::Crew;
use bytes::Bytes;
use client::{Body, BoxError, Client, Hub};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::lab::in_own_namespace;
use crate::objects::{config, here, service, slice, table};

type Sender = mpsc::UnboundedSender<Result<http_body::Frame<Bytes>, BoxError>>;

/// Answers lists with one object each and keeps watches open.
#[derive(Clone, Default)]
struct Api {
    watches: Arc<Mutex<Vec<(String, Sender)>>>,
}

impl Api {
    fn answer(&self, request: &Request<Body>) -> Response<Body> {
        let uri = request.uri().to_string();
        let services = uri.contains("/services");
        if uri.contains("watch=") {
            let (sender, receiver) = mpsc::unbounded_channel();
            self.watches.lock().unwrap().push((uri, sender));
            let stream = futures::stream::unfold(receiver, |mut receiver| async {
                let frame = receiver.recv().await?;
                Some((frame, receiver))
            });
            return Response::new(StreamBody::new(stream).boxed_unsync());
        }
        let item = match services {
            true => serde_json::to_value(service("web", "10.96.0.10", json!({}))).unwrap(),
            false => serde_json::to_value(slice("web", &[here("10.244.0.5")])).unwrap(),
        };
        let list = json!({"metadata": {"resourceVersion": "5"}, "items": [versioned(item, 5)]});
        Response::new(client::full(list.to_string()))
    }

    fn send(&self, path: &str, kind: &str, object: Value) {
        let line = json!({"type": kind, "object": object}).to_string() + "\n";
        for (uri, sender) in self.watches.lock().unwrap().iter() {
            if uri.contains(path) {
                let frame = http_body::Frame::data(Bytes::from(line.clone()));
                sender.send(Ok(frame)).ok();
            }
        }
    }

    fn is_watched(&self, path: &str) -> bool {
        let watches = self.watches.lock().unwrap();
        watches.iter().any(|(uri, _)| uri.contains(path))
    }
}

fn versioned(mut object: Value, version: u32) -> Value {
    object["metadata"]["resourceVersion"] = json!(version.to_string());
    object["metadata"]["uid"] = json!("u");
    object
}

async fn until(mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .unwrap();
}

#[test]
fn what_the_api_says_is_in_the_kernel() {
    in_own_namespace(|| async {
        let api = Api::default();
        let answering = api.clone();
        let service_fn = tower::service_fn(move |request: Request<Body>| {
            let response = answering.answer(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        let crew = Crew::new();
        let hub = Hub::new(Client::local(service_fn, ()), &crew);
        crew.spawn_fallible("proxy", proxy::run(hub, config(), crew.stop()));
        let listed = || {
            std::process::Command::new("nft")
                .args(["list", "tables"])
                .output()
                .unwrap()
        };
        until(|| String::from_utf8_lossy(&listed().stdout).contains("sampan-proxy")).await;
        assert!(
            table().contains("10.96.0.10 . 6 . 80 . 0x00000000 : 10.244.0.5 . 8080"),
            "{}",
            table()
        );

        until(|| api.is_watched("/services") && api.is_watched("/endpointslices")).await;
        let changed = slice("web", &[here("10.244.0.6")]);
        let changed = serde_json::to_value(changed).unwrap();
        api.send("/endpointslices", "MODIFIED", versioned(changed, 6));
        until(|| table().contains("10.244.0.6 . 8080")).await;
        assert!(!table().contains("10.244.0.5"));

        let gone = serde_json::to_value(service("web", "10.96.0.10", json!({}))).unwrap();
        api.send("/services", "DELETED", versioned(gone, 7));
        until(|| !table().contains("10.96.0.10")).await;
        crew.stop().raise();
        crew.finished().await.unwrap();
        // What is in the kernel stays: connections outlive the proxy.
        assert!(table().contains("chain prerouting"));
    });
}
