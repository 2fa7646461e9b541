//! What is remembered of a container: one small file each, replaced whole.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::wire::{Config, Endpoint, HostConfig, MountPoint, PortBinding};

/// The record's name in the container's folder.
pub(crate) const FILE: &str = "container.json";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    #[default]
    Created,
    Running,
    Paused,
    Restarting,
    Exited,
    Dead,
}

impl Status {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Exited => "exited",
            Status::Dead => "dead",
        }
    }
}

/// What became of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    pub(crate) status: Status,
    pub(crate) exit_code: i32,
    pub(crate) error: String,
    pub(crate) oom_killed: bool,
    /// Nanoseconds since the epoch; 0 is never.
    pub(crate) started_at: i64,
    pub(crate) finished_at: i64,
    pub(crate) pid: i32,
    /// The engine's sandbox and container, while it runs.
    pub(crate) sandbox: String,
    pub(crate) inner: String,
    /// A user ended it: restart policies leave it alone.
    pub(crate) ended_by_user: bool,
    pub(crate) restarts: u64,
    /// On its networks, with these ports of the machine.
    pub(crate) attached: bool,
    pub(crate) ports: BTreeMap<String, Vec<PortBinding>>,
}

impl State {
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created: i64,
    /// `sha256:…` of the image's configuration.
    pub(crate) image_id: String,
    pub(crate) config: Config,
    pub(crate) host: HostConfig,
    #[serde(default)]
    pub(crate) networks: BTreeMap<String, Endpoint>,
    #[serde(default)]
    pub(crate) mounts: Vec<MountPoint>,
    #[serde(default)]
    pub(crate) state: State,
    /// For a step of a build: an image in the making. Such containers do not outlive the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) making: Option<oci::ImageRecord>,
}

impl Record {
    /// The command, entrypoint first.
    pub(crate) fn args(&self) -> Vec<String> {
        let first = self.config.entrypoint.iter().flatten();
        let second = self.config.cmd.iter().flatten();
        first.chain(second).cloned().collect()
    }

    /// Whether it is in other containers' namespaces, which have to be up before it.
    pub(crate) fn joins_others(&self) -> bool {
        let modes = [
            &self.host.network_mode,
            &self.host.pid_mode,
            &self.host.ipc_mode,
        ];
        let other = |mode: &&String| crate::containers::other_container(mode).is_some();
        modes.iter().any(other)
    }

    pub(crate) fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// The network whose address is the container's main one.
    pub(crate) fn network_mode(&self) -> &str {
        match self.host.network_mode.as_str() {
            "" | "default" => "bridge",
            mode => mode,
        }
    }

    /// Writes it so that it also survives the machine.
    pub(crate) fn save(&self, folder: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self)?;
        base::files::write_atomic(&folder.join(FILE), &bytes, 0o600)
    }

    /// Writes it so that it survives this process, and in a moment the machine, which nobody waits for.
    pub(crate) fn save_soon(&self, folder: &Path) -> io::Result<()> {
        self.save_lightly(folder)?;
        let folder = folder.to_owned();
        tokio::task::spawn_blocking(move || {
            let flushed = std::fs::File::open(folder.join(FILE))
                .and_then(|file| file.sync_all())
                .and_then(|()| std::fs::File::open(&folder)?.sync_all());
            match flushed {
                // It was removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(%error, folder = %folder.display(), "record not flushed")
                }
                Ok(()) => {}
            }
        });
        Ok(())
    }

    /// Writes it so that it survives this process; what it tells of does not survive the machine
    /// either.
    pub(crate) fn save_lightly(&self, folder: &Path) -> io::Result<()> {
        let temporary = folder.join("container.json.new");
        std::fs::write(&temporary, serde_json::to_vec(self)?)?;
        std::fs::rename(&temporary, folder.join(FILE))
    }

    pub(crate) fn load(folder: &Path) -> io::Result<Record> {
        Ok(serde_json::from_slice(&std::fs::read(folder.join(FILE))?)?)
    }
}

/// Nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A moment in docker's writing; 0 is the year one.
pub(crate) fn moment(nanos: i64) -> String {
    if nanos == 0 {
        return "0001-01-01T00:00:00Z".to_owned();
    }
    match Timestamp::from_nanosecond(i128::from(nanos)) {
        Ok(time) => format!("{time:.9}"),
        Err(_) => "0001-01-01T00:00:00Z".to_owned(),
    }
}

/// Seconds with or without a fraction, or a date: what `since` and `until` may be.
pub(crate) fn parse_moment(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(time) = text.parse::<Timestamp>() {
        return i64::try_from(time.as_nanosecond()).ok();
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    let fraction: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanos: i64 = fraction.parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// A span as docker words it.
pub(crate) fn span(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        _ if hours <= 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 730 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_spans() {
        assert_eq!(moment(0), "0001-01-01T00:00:00Z");
        assert_eq!(moment(1_500_000_000), "1970-01-01T00:00:01.500000000Z");
        assert_eq!(parse_moment("1.5"), Some(1_500_000_000));
        assert_eq!(parse_moment("1970-01-01T00:00:01.5Z"), Some(1_500_000_000));
        assert_eq!(parse_moment("10.000000001"), Some(10_000_000_001));
        assert_eq!(parse_moment("soon"), None);
        for (seconds, words) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (90, "About a minute"),
            (3599, "59 minutes"),
            (3700, "About an hour"),
            (86_400 * 3, "3 days"),
            (86_400 * 20, "2 weeks"),
        ] {
            assert_eq!(span(seconds), words);
        }
    }
}
