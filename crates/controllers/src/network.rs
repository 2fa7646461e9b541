//! Controllers behind services.

pub mod endpoints;
pub mod endpointslice;
pub(crate) mod service_pods;
