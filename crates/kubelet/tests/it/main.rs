//! The kubelet against a runtime and an API that live in memory.

#![expect(clippy::unwrap_used, reason = "a test fails by its panic")]

mod admission;
mod api;
mod changes;
mod cpus;
mod devices;
mod pods;
mod problems;
mod rig;
mod runtime;
mod server;
mod shutdown;
