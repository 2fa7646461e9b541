//! What systemd has put into the environment of a service.

use std::path::PathBuf;
use std::time::Duration;

/// How systemd wants to hear of this process; empty where it does not.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceManager {
    pub(crate) socket: Option<PathBuf>,
    /// How often it is to hear that we live.
    pub(crate) watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Reads the environment.
    pub(crate) fn of_environment() -> ServiceManager {
        let pid = std::env::var("WATCHDOG_PID").ok();
        let most = std::env::var("WATCHDOG_USEC").unwrap_or_default();
        ServiceManager {
            socket: std::env::var_os("NOTIFY_SOCKET").map(PathBuf::from),
            watchdog: systemd::notify::watchdog(&most, pid.as_deref()),
        }
    }
}
