//! The container engine. [`Engine`] lives in the server and implements the
//! kubelet's traits; each pod has a supervisor of its own, a small process
//! that outlives the server. They meet in the pod's state folder: its files
//! are the truth, its socket carries orders and news.

mod engine;
mod hooks;
mod protocol;
mod spec;
pub mod supervisor;
mod time;
mod units;

pub use engine::{
    Config, Engine, Extras, Gate, OpenError, Outline, SandboxExtras, cdi_kinds, clean_up, open,
    propagation, registries,
};
pub use hooks::{Hook, Hooks, Moment};
pub use linux::cgroup::{DeviceRule, RareLimits};
pub use spec::{DeviceNode, ExecOptions, LogRotation, Rlimit, Tmpfs};
