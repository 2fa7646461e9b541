//! What the standard library forgot: supervised tasks, back-off, durable file
//! writes, address ranges. Knows nothing of Kubernetes.

pub mod backoff;
pub mod cidr;
pub mod crew;
pub mod files;

pub use backoff::Backoff;
pub use cidr::Ipv4Cidr;
pub use crew::{Crew, Stop};
