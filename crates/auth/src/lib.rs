//! Who are you, may you: identities, certificates, tokens, RBAC.

pub mod identity;

pub use identity::{Attributes, Decision, Identity};
