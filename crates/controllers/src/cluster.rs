//! Controllers that keep house for the cluster.

pub mod namespace;
pub mod root_ca;
pub mod serviceaccount;
