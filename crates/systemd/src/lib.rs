//! What systemd is asked for: cgroups as its units, word of a machine that goes down (logind), and
//! what it hears of us (`sd_notify`). D-Bus itself is spoken by a small codec of our own.
//!
//! ```text
//!   cgroups  start_scope, start_slice, set_limits, stop ──► Manager ─┐
//!   logind   inhibit, PrepareForShutdown ────────────────────────────┴► Connection ► Message ► Value
//!   notify   READY=1, WATCHDOG=1: a datagram, no D-Bus
//! ```
//!
//! Everything blocks, with deadlines: a pod's supervisor has one thread, and servers have threads
//! for what blocks.

mod connection;
mod groups;
pub mod logind;
mod manager;
mod message;
mod names;
pub mod notify;
mod properties;
mod value;

pub use connection::{Connection, Error, Target};
pub use groups::{is_running, is_unit, prefix, set_limits, start_scope, start_slice, stop};
pub use manager::Manager;
pub use message::{Kind, Message};
pub use names::{NameError, expand, slice_name, slice_of};
pub use value::{Malformed, Value};

/// Where the bus of the system listens.
pub const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
