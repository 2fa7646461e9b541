//! The answers, first as values, then on the wire.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../../../network/tests/it/lab.rs"]
#[allow(unreachable_pub, reason = "shared with other test crates")]
mod lab;

mod answers;
mod wire;
mod world;
