//! CNI's verbs as a trait.

use std::net::IpAddr;
use std::path::PathBuf;

use async_trait::async_trait;

use crate::runtime::{PortMapping, RuntimeError};

/// What CNI passes for one attachment.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PodNetworkConfig {
    /// `CNI_CONTAINERID`: the sandbox's id.
    pub sandbox_id: String,
    /// `CNI_NETNS`: a path that names the pod's network namespace.
    pub netns: PathBuf,
    /// `CNI_IFNAME`, usually `eth0`.
    pub interface: String,
    pub pod_namespace: String,
    pub pod_name: String,
    pub pod_uid: String,
    /// Host ports (CNI's `portMappings` capability).
    pub port_mappings: Vec<PortMapping>,
}

/// What a pod got.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PodNetworkResult {
    /// Addresses of the pod, the primary first.
    pub ips: Vec<IpAddr>,
    /// Host end of the pair, for diagnosis.
    pub host_interface: String,
}

/// A pod network. All calls are idempotent.
#[async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// Attaches a pod: interface, addresses, routes, loopback up.
    async fn add(&self, config: &PodNetworkConfig) -> Result<PodNetworkResult, RuntimeError>;
    /// Detaches it and frees its addresses; a pod that is not attached is no error.
    async fn del(&self, sandbox_id: &str) -> Result<(), RuntimeError>;
    /// Frees what belongs to none of these sandboxes (CNI `GC`), after a restart.
    async fn gc(&self, live_sandbox_ids: &[String]) -> Result<(), RuntimeError>;
}
