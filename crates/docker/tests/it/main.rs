//! The API over its socket, as clients send it: an engine in namespaces of its own for each test.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod builds;
mod drivers;
mod host;
mod kit;
mod leaks;
mod life;
mod limits;
mod nets;
mod registries;
mod registry;
mod share;
mod ships;
mod userns;
