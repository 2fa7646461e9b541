//! What every controller stands on: a work queue, a driver that turns changes
//! into calls of `reconcile(key)`, helpers for owners, and an event recorder.

pub mod driver;
pub mod events;
mod measure;
pub mod owners;
pub mod queue;

pub use driver::{Outcome, Reconcile, drive, feed};
pub use events::Recorder;
pub use queue::Queue;
