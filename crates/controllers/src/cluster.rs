//! Controllers that keep house for the cluster.

pub mod bootstrap_tokens;
pub mod certificates;
pub mod certificates_cleaner;
pub(crate) mod discovery;
pub mod disruption;
mod disruption_target;
pub mod garbage;
pub(crate) mod monitor;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod pod_gc;
pub mod resource_quota;
pub mod role_aggregation;
pub mod root_ca;
pub mod serviceaccount;
pub mod taint_eviction;
pub mod tokens;
pub mod tokens_cleaner;
mod worker;

use client::Informer;
use k8s_openapi::api::core::v1::Pod;

use crate::context::Context;

/// Index of pods by the node they are assigned to.
pub(crate) const BY_NODE: &str = "node";

/// The shared cache of pods, with [`BY_NODE`].
pub(crate) fn pods_by_node(context: &Context) -> Informer<Pod> {
    let pods: Informer<Pod> = context.hub.informer();
    pods.add_index(BY_NODE, |pod| {
        node_of(pod).map(str::to_owned).into_iter().collect()
    });
    pods
}

/// The node a pod is assigned to.
pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    let name = pod.spec.as_ref()?.node_name.as_deref()?;
    Some(name).filter(|name| !name.is_empty())
}
