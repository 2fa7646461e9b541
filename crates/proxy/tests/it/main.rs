//! The proxy with real packets, in network namespaces of its own.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../../../network/tests/it/lab.rs"]
#[allow(unreachable_pub, reason = "shared with other test crates")]
mod lab;

mod driver;
mod listing;
mod objects;
mod traffic;
