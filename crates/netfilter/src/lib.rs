//! The kernel's packet filter: nf_tables transactions and connection tracking,
//! spoken as netlink messages. Knows nothing of Kubernetes.
//!
//! A [`Batch`] is one transaction: it happens as a whole or not at all, and no
//! packet ever sees half of it. [`Socket::apply`] hands it to the kernel.

mod batch;
pub mod conntrack;
mod message;
mod rule;
mod set;
mod socket;

pub use batch::{Batch, Family, Hook, HookKind, priority};
pub use rule::{Load, Register, Rule, Verdict};
pub use set::{Element, SetSpec, SetValue, Type, Value};
pub use socket::{Error, Socket};
