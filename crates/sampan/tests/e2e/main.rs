//! The built binary under real clients: each test starts clusters of its own,
//! in network and mount namespaces of their own, and leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod build;
mod cluster;
mod docker;
mod enroll;
mod extras;
mod faults;
mod interactive;
mod kubectl;
#[allow(dead_code, reason = "other tests use other layouts")]
#[path = "../../../systemd/tests/machine/mod.rs"]
mod machine;
mod matrix;
mod pulls;
#[path = "../../../docker/tests/it/registry.rs"]
mod registry;
mod roles;
mod systemd;
mod top;
mod tour;
mod wire;
