//! The kubelet against a runtime and an API that live in memory.

#![expect(clippy::unwrap_used, reason = "a test fails by its panic")]

mod admission;
mod api;
mod cgroups;
mod changes;
mod clock;
mod cpus;
mod credentials;
mod devices;
mod garbage;
mod metrics;
mod pods;
mod problems;
mod rig;
mod runtime;
mod server;
mod shutdown;
mod static_url;
mod system_logs;
mod verification;
