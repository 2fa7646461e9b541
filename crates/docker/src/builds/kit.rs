//! BuildKit's protocol over connections that docker's clients upgrade: `/grpc` for calls to us, and
//! `/session` for ours to the client.

use std::path::Path;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use build::{Builder, Wishes};
use buildkit::wire::SolveRequest;
use buildkit::{AskCredentials, Backend, Extras, Greeting, Service};
use futures::future::BoxFuture;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Response, StatusCode};
use hyper_util::rt::TokioIo;
use oci::{ImageRecord, Reference};
use serde_json::json;
use tokio::sync::mpsc;

use super::kit_request;
use super::request::Beyond;
use crate::answer::{self, Answer, Body, Fault, Pieces};
use crate::call::Call;
use crate::daemon::Daemon;
use crate::peer::Peer;
use crate::wire::{HostConfig, Ulimit};

/// The one protocol that connections are upgraded to.
const PROTOCOL: &str = "h2c";
/// Pieces of news on their way to a client.
const TOLD: usize = 64;

/// `POST /grpc`.
pub(crate) fn calls(call: Call) -> Answer {
    let service = service(&call.daemon);
    let stop = call.daemon.stop.clone();
    upgrade(call, move |wire| {
        Box::pin(async move {
            tokio::select! {
                () = service.serve(wire) => {}
                () = stop.raised() => {}
            }
        })
    })
}

/// `POST /session`.
pub(crate) fn session(call: Call) -> Answer {
    let service = service(&call.daemon);
    let greeting = Greeting::of_headers(call.request.headers())
        .ok_or_else(|| Fault::bad("a session needs a name"))?;
    if service.has_session(&greeting) {
        return Err(Fault::conflict("there is a session of this name"));
    }
    let stop = call.daemon.stop.clone();
    upgrade(call, move |wire| {
        Box::pin(async move {
            tokio::select! {
                () = service.session(greeting, wire) => {}
                () = stop.raised() => {}
            }
        })
    })
}

/// `POST /build?version=2`: what the build tells goes out encoded, in lines of JSON.
pub(super) fn build(call: Call) -> Answer {
    let request = kit_request::read(&call)?;
    let (daemon, service) = (Arc::clone(&call.daemon), service(&call.daemon));
    let peer = call.request.extensions().get::<Peer>().cloned();
    let (pieces, response) = answer::stream("application/json");
    tokio::spawn(async move {
        let (stop, id) = (base::Stop::new(), request.reference.clone());
        {
            let mut running = daemon.builds.running.lock();
            running.insert(id.clone(), stop.clone());
        }
        tokio::select! {
            () = carry_out(&service, request, &pieces) => {}
            () = pieces.closed() => tracing::debug!("nobody takes the answer of a build"),
            () = super::gone(peer) => tracing::debug!("the client of a build is gone"),
            () = stop.raised() => {
                answer::line(&pieces, &super::fault_line("build cancelled", None)).await;
            }
            () = daemon.stop.raised() => {}
        }
        daemon.builds.running.lock().remove(&id);
    });
    Ok(response)
}

async fn carry_out(service: &Arc<Service>, request: SolveRequest, pieces: &Pieces) {
    let (sender, mut told) = mpsc::channel(TOLD);
    let passing = async {
        while let Some(piece) = told.recv().await {
            let text = BASE64_STANDARD.encode(&piece);
            answer::line(pieces, &json!({"id": "moby.buildkit.trace", "aux": text})).await;
        }
    };
    let (built, ()) = tokio::join!(service.build(request, sender), passing);
    let line = match built {
        Ok(response) => {
            let answer = &response.exporter_response;
            match answer.get("containerimage.config.digest") {
                Some(id) => json!({"id": "moby.image.id", "aux": {"ID": id}}),
                None => return,
            }
        }
        Err(status) => super::fault_line(status.message(), None),
    };
    answer::line(pieces, &line).await;
}

fn service(daemon: &Arc<Daemon>) -> Arc<Service> {
    let backend = || {
        Arc::new(Engine(
            Arc::downgrade(daemon),
            Arc::clone(&daemon.builds.builder),
        ))
    };
    let service = || Service::new(backend());
    Arc::clone(daemon.builds.kit.get_or_init(service))
}

/// Answers that the connection is another protocol's from now on.
fn upgrade(
    mut call: Call,
    work: impl FnOnce(Box<dyn grpc::Wire>) -> BoxFuture<'static, ()> + Send + 'static,
) -> Answer {
    let asked = call.header(UPGRADE.as_str()).unwrap_or_default();
    if asked != PROTOCOL {
        return Err(Fault::bad(format!("protocol {asked:?} not supported")));
    }
    let upgrade = hyper::upgrade::on(&mut call.request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => work(Box::new(TokioIo::new(upgraded))).await,
            Err(error) => tracing::debug!(%error, "connection not upgraded"),
        }
    });
    let mut response: Response<Body> = answer::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    Ok(response)
}

/// The engine as the protocol sees it.
struct Engine(Weak<Daemon>, Arc<Builder>);

#[async_trait]
impl Backend for Engine {
    fn builder(&self) -> Arc<Builder> {
        Arc::clone(&self.1)
    }

    fn wishes(&self, extras: Extras, credentials: AskCredentials) -> Wishes {
        let mut host = HostConfig {
            cgroup_parent: extras.cgroup_parent,
            shm_size: extras.shm_size,
            extra_hosts: Some(extras.hosts).filter(|hosts| !hosts.is_empty()),
            ..HostConfig::default()
        };
        let ulimits = extras.ulimits.into_iter();
        let ulimits = ulimits.map(|(name, soft, hard)| Ulimit { name, soft, hard });
        let ulimits: Vec<Ulimit> = ulimits.collect();
        host.limits.ulimits = Some(ulimits).filter(|limits| !limits.is_empty());
        Some(Arc::new(Beyond {
            host,
            credentials: Default::default(),
            ask: Some(credentials),
        }))
    }

    fn reference(&self, name: &str) -> Result<Reference, String> {
        let parsed = crate::images::with_tag(name).parse::<Reference>();
        parsed.map_err(|error| format!("invalid reference format: {error}"))
    }

    fn named(&self, image: &ImageRecord, name: &Reference) {
        if let Some(daemon) = self.0.upgrade() {
            let name = name.tagged().unwrap_or_default();
            let id = image.id.to_string();
            crate::images::event(&daemon, "tag", &id, crate::images::familiar(&name));
        }
    }

    async fn fetch(&self, url: &str, target: &Path) -> Result<(), String> {
        let daemon = self.0.upgrade().ok_or("the engine is closing")?;
        let fetched = oci::download(daemon.engine.registries(), url, target).await;
        fetched.map(drop).map_err(|error| error.to_string())
    }

    fn gateway(&self) -> String {
        let bridge = self
            .0
            .upgrade()
            .and_then(|daemon| daemon.networks.named("bridge"));
        bridge.map_or_else(String::new, |bridge| bridge.gateway)
    }
}
