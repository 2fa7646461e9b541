//! Controllers behind services.

pub mod endpoints;
pub mod endpointslice;
mod prefix;
pub mod service_cidr;
pub(crate) mod service_pods;
