//! What is wrong with this machine, by its kernel's log and by programs that look: the node problem
//! detector's rules, and the findings that follow from them. Knows nothing of Kubernetes' objects.

mod checks;
mod kernel;
mod monitor;
mod oom;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use monitor::{Finding, Monitor, MonitorError, State, Truth};

use std::path::PathBuf;

/// What is watched.
#[derive(Clone, Debug)]
pub struct Config {
    /// The kernel's log; one that cannot be read is not watched.
    pub kernel_log: PathBuf,
    pub monitors: Vec<Monitor>,
    /// Kills for want of the machine's own memory are told as the event `SystemOOM`.
    pub system_ooms: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            kernel_log: PathBuf::from("/dev/kmsg"),
            monitors: vec![Monitor::kernel()],
            system_ooms: true,
        }
    }
}

/// Watches until whoever listens is gone. What each monitor knows at its start comes first.
pub async fn watch(config: Config, findings: mpsc::Sender<Finding>) {
    let (of_kernel, of_checks): (Vec<_>, Vec<_>) =
        config.monitors.into_iter().partition(Monitor::is_of_kernel);
    let mut tasks = JoinSet::new();
    let kills = config.system_ooms.then(oom::Kills::default);
    if !of_kernel.is_empty() || kills.is_some() {
        tasks.spawn(kernel::follow(
            config.kernel_log,
            of_kernel,
            kills,
            findings.clone(),
        ));
    }
    for monitor in of_checks {
        tasks.spawn(checks::follow(monitor, findings.clone()));
    }
    drop(findings);
    while tasks.join_next().await.is_some() {}
}
