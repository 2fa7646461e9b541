//! The kubelet against a runtime and an API that live in memory.

mod api;
mod pods;
mod rig;
mod runtime;
mod server;
