//! The engine as the kubelet sees it, with real containers. Needs root.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod adjusted;
mod basics;
mod clocks;
mod comeback;
mod crashes;
mod faults;
mod hooks;
mod host;
mod limits;
#[path = "../../../systemd/tests/machine/mod.rs"]
mod machine;
mod sharing;
mod spare;
mod speed;
mod streams;
mod systemd;
mod users;
