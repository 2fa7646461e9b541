//! Controllers that keep house for the cluster.

pub mod namespace;
pub mod node_lifecycle;
pub mod root_ca;
pub mod serviceaccount;

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
