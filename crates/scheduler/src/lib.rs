//! Assigns pods to nodes. A cycle is a pure function of a snapshot; one task
//! owns queue and snapshot, so nothing is locked and nothing is copied.

pub mod cycle;
pub mod node;
pub mod plugins;
pub mod queue;
pub mod resources;
mod run;

pub use cycle::{Cycle, Failure, Plugin, Verdict};
pub use node::NodeView;
pub use queue::Event;
pub use run::{Config, run};
