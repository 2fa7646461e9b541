//! The controllers against the real API server, all in this process.

mod cluster;
mod garbage;
mod node;
mod workloads;
mod world;
