//! What the server tells of the node: its pods, their use of resources, its
//! own settings.

use http::{Response, StatusCode};
use k8s_openapi::api::core::v1::Pod;
use node_api::ContainerState;
use serde_json::json;

use super::page::PROMETHEUS;
use super::{Body, json as answer, with_type};
use crate::shared::Shared;

/// `/pods`.
pub(super) fn pods(shared: &Shared) -> Response<Body> {
    let items: Vec<Pod> = shared
        .pods
        .all()
        .into_iter()
        .map(|view| Pod {
            status: Some(view.status),
            ..view.pod.as_ref().clone()
        })
        .collect();
    answer(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// `/configz`.
pub(super) fn configz(shared: &Shared) -> Response<Body> {
    answer(&json!({"kubeletconfig": shared.config.shown}))
}

/// `/metrics`.
pub(super) fn metrics(shared: &Shared) -> Response<Body> {
    let views = shared.pods.all();
    let count = |state: ContainerState| {
        let all = views.iter().flat_map(|view| view.containers.values());
        all.filter(|container| container.state == state).count()
    };
    let mut out = format!(
        "# TYPE kubelet_running_pods gauge\nkubelet_running_pods {}\n\
         # TYPE kubelet_running_containers gauge\n\
         kubelet_running_containers{{container_state=\"running\"}} {}\n\
         kubelet_running_containers{{container_state=\"exited\"}} {}\n\
         # TYPE kubelet_node_name gauge\nkubelet_node_name{{node={:?}}} 1\n",
        views.len(),
        count(ContainerState::Running),
        count(ContainerState::Exited),
        shared.config.node_name,
    );
    // Of what this process counts, that which is the kubelet's.
    let counted = base::metrics::page();
    let own = |line: &&str| {
        let comment = line
            .strip_prefix("# HELP ")
            .or(line.strip_prefix("# TYPE "));
        comment.unwrap_or(line).starts_with("kubelet_")
    };
    for line in counted.lines().filter(own) {
        out.push_str(line);
        out.push('\n');
    }
    with_type(StatusCode::OK, out, PROMETHEUS)
}

/// `/metrics/probes`.
pub(super) fn probes() -> Response<Body> {
    with_type(StatusCode::OK, crate::probe::page(), PROMETHEUS)
}
