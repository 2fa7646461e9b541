//! What the standard library forgot: supervised tasks, back-off, durable file
//! writes. Knows nothing of Kubernetes.

pub mod backoff;
pub mod crew;
pub mod files;

pub use backoff::Backoff;
pub use crew::{Crew, Stop};
