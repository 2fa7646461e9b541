//! API priority and fairness: which request is served now, which waits, and which is refused.
//!
//! ```text
//! request ─ classify ─▶ FlowSchema ─▶ priority level ─ shuffle shard ─▶ queue ─▶ seats
//! ```
//! Each priority level has seats of its own, a share of the server's. A flow (schema and user, or
//! namespace) is dealt a few of the level's queues and joins the shortest; queues are served by
//! fair queuing in virtual time, so that a flood fills its own queues and delays nobody else much.
//! [`accounts`] tell who takes so much processor time that others would feel it.
//! [`queues`] is pure: it is told the time. [`Fairness`] adds waiting, configuration and figures.

pub mod accounts;
pub mod defaults;
mod demand;
mod dump;
mod gate;
mod limits;
mod metrics;
pub mod queues;
mod rules;
pub mod shard;
mod spec;

pub use accounts::{Account, Accounts};
pub use gate::{Fairness, Refused, Seat, Work};
pub use rules::Digest;
