//! The engine as the kubelet sees it, with real containers. Needs root.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod basics;
mod comeback;
mod crashes;
mod faults;
mod host;
mod limits;
mod sharing;
mod spare;
mod speed;
mod streams;
mod users;
