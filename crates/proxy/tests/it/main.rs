//! The proxy with real packets, in network namespaces of its own.

#[path = "../../../network/tests/it/lab.rs"]
#[allow(unreachable_pub, reason = "shared with other test crates")]
mod lab;

mod driver;
mod listing;
mod objects;
mod traffic;
