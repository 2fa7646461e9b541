//! Controllers that keep pods running.

pub mod deployment;
pub mod replicaset;
pub(crate) mod rollout;
pub(crate) mod rollout_status;
