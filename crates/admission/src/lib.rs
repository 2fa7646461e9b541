//! The ordered chain that every write passes after authorization.

pub mod plugin;

pub use plugin::{Lookup, Operation, Plugin, Request};
