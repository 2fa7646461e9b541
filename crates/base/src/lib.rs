//! What the standard library forgot: supervised tasks, back-off, durable file
//! writes, changes of files, address ranges, listeners, metrics. Knows
//! nothing of Kubernetes.

pub mod backoff;
pub mod cidr;
pub mod cidr6;
pub mod crew;
pub mod files;
pub mod listener;
pub mod metrics;
pub mod notice;

pub use backoff::Backoff;
pub use cidr::Ipv4Cidr;
pub use cidr6::Ipv6Cidr;
pub use crew::{Crew, Stop};
pub use notice::Notice;
