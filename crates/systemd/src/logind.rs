//! logind's word that the machine goes down, and a lock that has it wait meanwhile.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::connection::{Connection, Error, Target};
use crate::value::Value;

/// Where administrators and others tell logind what to do.
pub const CONFIGURATION: &str = "/etc/systemd/logind.conf.d";
/// Our word there: upstream's kubelet's, which it is in place of.
const OVERRIDE: &str = "99-kubelet.conf";
/// logind reads its configuration anew some time after it is told to.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(5);
const INTERFACE: &str = "org.freedesktop.login1.Manager";
const LOGIND: Target<'static> = Target {
    name: "org.freedesktop.login1",
    path: "/org/freedesktop/login1",
    interface: INTERFACE,
};
const SYSTEMD: Target<'static> = Target {
    name: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
const MATCH: &str = "type='signal',interface='org.freedesktop.login1.Manager',\
    member='PrepareForShutdown',path='/org/freedesktop/login1'";
const CHANGED: &str = "type='signal',interface='org.freedesktop.DBus.Properties',\
    member='PropertiesChanged',path='/org/freedesktop/login1'";

/// Why the machine will not wait for us.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error(transparent)]
    Bus(#[from] Error),
    #[error("{0}: {1}")]
    Configuration(PathBuf, #[source] io::Error),
    #[error(
        "node shutdown manager was unable to update logind InhibitDelayMaxSec to {wanted:?} \
         (ShutdownGracePeriod), current value of InhibitDelayMaxSec ({current:?}) is less than \
         requested ShutdownGracePeriod"
    )]
    TooShort { wanted: Duration, current: Duration },
    #[error("logind gave no lock")]
    NoLock,
}

/// As long as it is kept, logind delays the end of the machine: up to its longest delay.
#[derive(Debug)]
pub struct Lock {
    _fd: OwnedFd,
}

/// A connection on which logind tells.
#[derive(Debug)]
pub struct Watch(Connection);

impl Watch {
    /// Connects to the system's bus, has logind wait `wanted` if it would not (by a file below
    /// `configuration`), and takes a lock.
    pub fn open(
        bus: &Path,
        configuration: &Path,
        wanted: Duration,
    ) -> Result<(Watch, Lock), WatchError> {
        let mut watch = Watch(Connection::bus(bus)?);
        for rule in [MATCH, CHANGED] {
            watch.0.ask_bus("AddMatch", vec![Value::text(rule)])?;
        }
        if watch.longest_delay()? < wanted {
            write_override(configuration, wanted)?;
            watch.reload(wanted)?;
        }
        let lock = watch.inhibit()?;
        Ok((watch, lock))
    }

    fn longest_delay(&mut self) -> Result<Duration, Error> {
        let target = Target {
            interface: "org.freedesktop.DBus.Properties",
            ..LOGIND
        };
        let words = vec![Value::text(INTERFACE), Value::text("InhibitDelayMaxUSec")];
        let answer = self.0.call(target, "Get", words)?;
        let time = answer.body.first().and_then(Value::as_u64);
        Ok(Duration::from_micros(time.unwrap_or_default()))
    }

    /// Has logind read its configuration, and waits until it shows.
    fn reload(&mut self, wanted: Duration) -> Result<(), WatchError> {
        let hangup = nix::libc::SIGHUP;
        let words = vec![
            Value::text("systemd-logind.service"),
            Value::text("all"),
            Value::I32(hangup),
        ];
        self.0.call(SYSTEMD, "KillUnit", words)?;
        // It tells nobody when it has read: its answers are asked for until then.
        let deadline = Instant::now() + RELOAD_TIMEOUT;
        loop {
            let current = self.longest_delay()?;
            if current >= wanted {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(WatchError::TooShort { wanted, current });
            }
            // Whatever it says meanwhile wakes us early.
            let pause = Instant::now() + Duration::from_millis(50);
            self.0.next_message(Some(pause))?;
        }
    }

    fn inhibit(&mut self) -> Result<Lock, WatchError> {
        let words = [
            "shutdown",
            "kubelet",
            "Kubelet needs time to handle node shutdown",
            "delay",
        ];
        let words = words.map(Value::text).into();
        let mut answer = self.0.call(LOGIND, "Inhibit", words)?;
        let fd = answer.fds.pop().ok_or(WatchError::NoLock)?;
        Ok(Lock { _fd: fd })
    }

    /// Waits for logind's next word: whether the machine goes down, or stays after all.
    pub fn next_word(&mut self) -> Result<bool, Error> {
        loop {
            if let Some(message) = self.0.next_message(None)?
                && message.is_signal(INTERFACE, "PrepareForShutdown")
                && let Some(begins) = message.body.first().and_then(Value::as_bool)
            {
                return Ok(begins);
            }
        }
    }

    /// Something that ends [`Watch::next_word`] when it is called.
    pub fn breaker(&self) -> Result<impl Fn() + Send + Sync + use<>, Error> {
        self.0.breaker()
    }
}

fn write_override(folder: &Path, wanted: Duration) -> Result<(), WatchError> {
    let path = folder.join(OVERRIDE);
    let seconds = wanted.as_secs_f64().ceil();
    let text = format!("# Kubelet logind override\n[Login]\nInhibitDelayMaxSec={seconds}\n");
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|error| WatchError::Configuration(path, error))
}
