//! `metrics.k8s.io`: what nodes and pods use right now, for `kubectl top` and autoscalers; in the
//! place of upstream's metrics-server.
//!
//! ```text
//!   request ─▶ answer ─▶ sampler: two scrapes of each kubelet's /metrics/resource, by which
//!                           │     counters become rates
//!                           └─▶ goes on every 15 s as long as somebody asks
//! ```
//!
//! It speaks to nothing but the API, which reaches the kubelets for it (`nodes/proxy`).

mod answer;
mod sampler;
mod schemas;
mod scrape;
mod tables;

use std::sync::{Arc, OnceLock};

use base::Crew;
use client::{Body, BoxError, Client, Transport};
use http::request::Parts;
use http::{Request, Response};
use meta::{Reason, Status};
use serde_json::{Value, json};

use sampler::Sampler;
pub use schemas::schemas;

/// The group that is answered for.
pub const GROUP: &str = "metrics.k8s.io";
/// Its version.
pub const VERSION: &str = "v1beta1";

/// The server; it answers when it was started.
#[derive(Clone, Default)]
pub struct Metrics {
    sampler: Arc<OnceLock<Arc<Sampler>>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// A server that knows no cluster yet.
    pub fn new() -> Metrics {
        Metrics::default()
    }

    /// Lets it ask a cluster: `client` reads nodes and pods, and reaches kubelets.
    pub async fn start(&self, client: Client, crew: &Crew) -> Result<(), Status> {
        let sampler = Arc::new(Sampler::new(client.clone()));
        if self.sampler.set(Arc::clone(&sampler)).is_ok() {
            crew.spawn("metrics of nodes and pods", sampler.run(crew.stop()));
        }
        let path = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
        match client.send_value(http::Method::POST, path, &role()).await {
            Err(status) if !status.is_already_exists() => Err(status),
            _ => Ok(()),
        }
    }

    /// What is served, as an `APIResourceList`.
    pub fn resources(&self) -> Value {
        let resource = |name: &str, kind: &str, namespaced: bool| {
            json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind,
                "verbs": ["get", "list"]})
        };
        json!({
            "kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": format!("{GROUP}/{VERSION}"),
            "resources": [
                resource("nodes", "NodeMetrics", false),
                resource("pods", "PodMetrics", true),
            ],
        })
    }

    /// The service that answers requests below `/apis/metrics.k8s.io/v1beta1`. Whoever calls it
    /// has seen to it that the client may ask.
    pub fn service(&self) -> Transport {
        let own = self.clone();
        Transport::new(tower::service_fn(move |request: Request<Body>| {
            let own = own.clone();
            let (parts, _) = request.into_parts();
            async move { Ok::<Response<Body>, BoxError>(own.respond(&parts).await) }
        }))
    }

    async fn respond(&self, request: &Parts) -> Response<Body> {
        let answered = match self.sampler.get() {
            Some(sampler) => answer::answer(sampler, request, self.resources()).await,
            None => Err(Status::new(
                Reason::ServiceUnavailable,
                "metrics are not there yet",
            )),
        };
        answer::response(answered)
    }
}

/// Lets those see metrics who may see the rest.
fn role() -> Value {
    let aggregated = |into: &str| format!("rbac.authorization.k8s.io/aggregate-to-{into}");
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "system:aggregated-metrics-reader", "labels": {
            "k8s-app": "metrics-server", aggregated("admin"): "true", aggregated("edit"): "true",
            aggregated("view"): "true",
        }},
        "rules": [{"apiGroups": [GROUP], "resources": ["pods", "nodes"],
            "verbs": ["get", "list", "watch"]}],
    })
}
