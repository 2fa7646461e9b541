//! The controllers against the real API server, all in this process.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod certificates;
mod cluster;
mod garbage;
mod node;
mod storage;
mod workloads;
mod world;
