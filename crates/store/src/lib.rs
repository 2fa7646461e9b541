//! MVCC bytes with watch and leases, in etcd's meaning, replicated by design.
//! Knows nothing of Kubernetes.
//!
//! [`open`] returns the embedded engine behind the [`Store`] trait. A write
//! takes this way:
//!
//! ```text
//!  callers ──► queue ──► sequencer thread ──► log (one write, one fdatasync)
//!                                     │
//!                                     ├──► state: index + overlay + event ring
//!                                     │       └── full? ► checkpoint thread ► redb
//!                                     ├──► wakes the watches concerned
//!                                     └──► acknowledges
//! ```
//!
//! A new key or value is never visible before it is durable. Values that are in
//! the checkpoint are read from there; the index of keys stays in memory.
//!
//! The log holds commands, not effects, so that consensus can be put between
//! queue and state later. Everything in `state` is a function of the commands
//! applied so far: checkpoint plus log gives the same state again.

mod api;
mod checkpoint;
mod codec;
mod embedded;
mod engine;
mod index;
mod lease;
mod log;
mod open;
mod patience;
mod sequencer;
mod state;
mod txn;
mod watch;

pub use api::*;
pub use open::{Config, OpenError, memory, open};
