//! The service proxy of one node: Services and EndpointSlices become one table
//! of the kernel's packet filter.
//!
//! A connection is looked up once: address, protocol and port of a service lead
//! by a verdict map to a chain, and there is one chain per *shape* (so many
//! endpoints, sticky or not), not per service. The chain draws a number and
//! finds the endpoint in a second map. So a change of a service is a change of
//! a few map elements, whatever the number of services.
//!
//! `model` reads the API's objects, `plan` decides, `ruleset` finds what has
//! changed, `rules` says it in the packet filter's words, `engine` acts.

mod driver;
mod engine;
mod model;
mod plan;
mod rules;
mod ruleset;

use base::Ipv4Cidr;

pub use driver::run;
pub use engine::{Engine, cleanup};

/// What the proxy must know of its node and cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's name: endpoints of that node are local.
    pub node_name: String,
    /// The node's zone, for topology hints.
    pub zone: Option<String>,
    /// Addresses of all pods of the cluster: they can be answered as they are.
    pub cluster_cidr: Ipv4Cidr,
    /// Addresses of services: those that no service has are rejected.
    pub service_cidr: Ipv4Cidr,
}

/// What can end the proxy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("packet filter: {0}")]
    Netfilter(#[from] netfilter::Error),
    #[error("the thread that talks to the packet filter died")]
    ThreadDied,
}
