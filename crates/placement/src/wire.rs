//! Messages of the APIs that plugins and monitors speak, by their numbers.

pub mod device_plugin;
pub mod pod_resources;
