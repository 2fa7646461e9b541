//! Everything that must speak to the kernel below the standard library, and
//! the only crate with `unsafe` code. Each module offers safe functions; what
//! makes them safe is stated where the `unsafe` block stands.

pub mod allocator;
pub mod attributes;
pub mod bpf;
pub mod capability;
pub mod cgroup;
pub mod loopback;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod process;
pub mod profile;
pub mod quota;
pub mod root;
pub mod seccomp;
pub mod socket;
pub mod terminal;

pub use nix::sched::CloneFlags;
