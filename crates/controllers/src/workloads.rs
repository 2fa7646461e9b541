//! Controllers that keep pods running.

pub(crate) mod control;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub(crate) mod history;
pub mod job;
pub(crate) mod replica_plan;
pub mod replicaset;
pub mod replicationcontroller;
pub(crate) mod rollout;
pub(crate) mod rollout_status;
pub mod statefulset;
pub mod ttl_after_finished;
