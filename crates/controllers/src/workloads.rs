//! Controllers that keep pods running.

pub(crate) mod control;
pub mod deployment;
pub(crate) mod replica_plan;
pub mod replicaset;
pub mod replicationcontroller;
pub(crate) mod rollout;
pub(crate) mod rollout_status;
