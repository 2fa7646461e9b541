//! The ordered chain that every write passes after authorization: plugins that complete
//! an object, then plugins that judge it. One file per plugin; [`chain`] holds their order.

#![allow(
    clippy::result_large_err,
    reason = "a Status is made for refusals only, and boxing it would burden every caller"
)]

mod certificates;
pub mod chain;
mod claim_resize;
mod default_class;
mod default_toleration_seconds;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
pub mod plugin;
mod priority;
pub mod quota;
pub mod resources;
mod runtime_class;
mod service_account;
mod taint_nodes;
mod tree;

pub use chain::{Chain, chain};
pub use plugin::{Awaited, Lookup, Operation, Plugin, Request};
pub use priority::system_priority_classes;

#[cfg(test)]
pub(crate) mod testing;
