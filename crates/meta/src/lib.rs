//! The vocabulary that all parts share: names of kinds, erased objects,
//! selectors, quantities, statuses and times. No I/O.

pub mod fault;
pub mod names;
pub mod naming;
pub mod object;
pub mod quantity;
pub mod selector;
pub mod status;
pub mod time;

pub use fault::{Fault, FaultKind, Faults};
pub use names::{GroupVersion, Names, Scope};
pub use object::Object;
pub use quantity::Quantity;
pub use selector::{FieldSelector, LabelSelector};
pub use status::{Reason, Status};
