//! The ordered chain that every write passes after authorization: plugins that complete
//! an object, then plugins that judge it. One file per plugin; [`chain`] holds their order.

#![allow(
    clippy::result_large_err,
    reason = "a Status is made for refusals only, and boxing it would burden every caller"
)]

mod always;
mod always_pull_images;
mod anti_affinity;
mod certificates;
pub mod chain;
mod claim_resize;
mod declared_features;
mod default_class;
mod default_toleration_seconds;
mod deny_external_ips;
mod event_rate_limit;
mod extended_resource_toleration;
mod limit_ranger;
mod measure;
mod namespace_auto_provision;
mod namespace_exists;
mod namespace_lifecycle;
mod node_restriction;
mod owner_references;
pub mod plugin;
mod pod_node_selector;
mod pod_resize;
mod pod_security;
mod pod_toleration_restriction;
mod pod_topology_labels;
pub mod policy;
mod priority;
pub mod quota;
pub mod resources;
mod rounds;
mod runtime_class;
mod service_account;
mod settings;
mod storage_protection;
mod taint_nodes;
mod tree;
mod turns;

pub use chain::{Chain, chain, chain_with};
pub use plugin::{Awaited, Lookup, Notes, Operation, Plugin, Request};
pub use policy::{Later, Policies, Rights, Subject, Views};
pub use priority::system_priority_classes;
pub use rounds::Rounds;
pub use settings::{ConfigError, Settings};

#[cfg(test)]
pub(crate) mod testing;
