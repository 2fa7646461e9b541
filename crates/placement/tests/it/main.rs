//! Placement with device plugins and monitors at its sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by its panic")]

mod cpus;
mod devices;
mod plugin;
