//! The built binary under real clients: each test starts clusters of its own,
//! in network and mount namespaces of their own, and leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod cluster;
mod docker;
mod extras;
mod faults;
mod interactive;
mod kubectl;
mod roles;
mod tour;
