//! The API server over the real store, called in process and by kubectl.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod addresses;
mod admission;
mod aggregation;
mod certificates;
mod cluster;
mod compared;
mod compared_more;
mod conversion;
mod conversion_owners;
mod custom;
mod encrypted;
mod guards;
mod kinds;
mod kubectl;
mod listener;
mod lists;
mod nonsense;
mod policies;
mod policy_features;
mod proxies;
mod random;
mod rights;
mod served;
mod streams;
mod subresources;
mod tls;
mod versions;
mod watches;
mod webhooks;
mod wire;
mod writes;
