//! The pod network of one node: a bridge, a veth pair per pod, addresses from
//! the node's range, and the packet filter rules that lead in and out.
//!
//! Pods get a `/32` address and reach everything, their neighbours on the
//! bridge included, through the gateway: all traffic is routed, so services
//! and policies work whether or not the kernel has `br_netfilter`.

mod addresses;
mod error;
mod firewall;
mod links;
mod namespace;
mod pods;
mod sysctl;
pub mod user;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use base::Ipv4Cidr;
use node_api::PodNetwork;

pub use error::Error;
pub use links::{bring_up_loopback, bring_up_loopback_of, default_route_address};

/// What the pod network of a node is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of the bridge; it is created when absent.
    pub bridge: String,
    /// Addresses of this node's pods. The first is the gateway's.
    pub pod_cidr: Ipv4Cidr,
    /// Addresses of all pods of the cluster. Traffic among them keeps its source.
    pub cluster_cidr: Ipv4Cidr,
    /// Addresses of services. Traffic to them never leaves by the default route.
    pub service_cidr: Ipv4Cidr,
    /// Where allocations are remembered.
    pub state_dir: PathBuf,
    /// Largest packet; the kernel's default when `None`.
    pub mtu: Option<u32>,
}

impl Config {
    /// The usual ranges, with allocations under `state_dir`.
    pub fn new(state_dir: PathBuf) -> Config {
        Config {
            bridge: "sampan0".to_owned(),
            pod_cidr: Ipv4Cidr::new(Ipv4Addr::new(10, 244, 0, 0), 24),
            cluster_cidr: Ipv4Cidr::new(Ipv4Addr::new(10, 244, 0, 0), 16),
            service_cidr: Ipv4Cidr::new(Ipv4Addr::new(10, 96, 0, 0), 12),
            state_dir,
            mtu: None,
        }
    }

    /// The bridge's own address, through which pods reach everything.
    pub fn gateway(&self) -> Ipv4Addr {
        self.pod_cidr.nth(1).unwrap_or(self.pod_cidr.address())
    }
}

/// Prepares the node (bridge, routes, packet filter) in the network namespace
/// of the calling thread, and takes up the allocations of an earlier run.
pub async fn open(config: Config) -> Result<Arc<dyn PodNetwork>, Error> {
    Ok(Arc::new(pods::Pods::open(config).await?))
}

/// The address by which others reach this node: that of the interface the
/// default route leaves by, else the bridge's.
pub async fn node_address(config: &Config) -> Result<Ipv4Addr, Error> {
    Ok(default_route_address().await?.unwrap_or(config.gateway()))
}
