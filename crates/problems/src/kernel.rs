//! Follows the kernel's log.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::monitor::{Finding, Monitor};
use crate::oom::{self, Kills};

/// The kernel's longest record.
const RECORD_MAX: usize = 8192;
/// Says that reads do not wait, as Linux has it on all its architectures that we are built for.
const NONBLOCK: i32 = 0o4000;
/// What a read says when records were overwritten before they were read; the next one goes on.
const OVERWRITTEN: i32 = 32;

/// Reads the log until nobody listens, or it ends.
pub(crate) async fn follow(
    path: PathBuf,
    monitors: Vec<Monitor>,
    mut kills: Option<Kills>,
    findings: mpsc::Sender<Finding>,
) {
    let log = match open(&path) {
        Ok(log) => log,
        Err(error) => return tracing::info!(%error, "the kernel's log is not watched"),
    };
    for finding in monitors.iter().flat_map(Monitor::at_first) {
        if findings.send(finding).await.is_err() {
            return;
        }
    }
    let started = since_boot();
    let mut record = vec![0; RECORD_MAX];
    loop {
        let length = tokio::select! {
            length = read(&log, &mut record) => length,
            () = findings.closed() => return,
        };
        let text = match length {
            Ok(0) => return,
            Ok(length) => String::from_utf8_lossy(&record[..length]),
            Err(error) if error.raw_os_error() == Some(OVERWRITTEN) => {
                if let Some(kills) = &mut kills {
                    kills.lose();
                }
                continue;
            }
            Err(error) => return tracing::warn!(%error, "the kernel's log is watched no more"),
        };
        for (at, line) in text.lines().filter_map(parse) {
            let recent = |lookback| is_recent(at, lookback, started);
            let judging = monitors.iter().filter(|one| recent(one.lookback));
            let judged = judging.flat_map(|monitor| monitor.judge(line));
            let heard = kills.as_mut().filter(|_| recent(oom::LOOKBACK));
            for finding in judged.chain(heard.and_then(|kills| kills.hear(line))) {
                if findings.send(finding).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn open(path: &Path) -> io::Result<AsyncFd<File>> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).custom_flags(NONBLOCK).open(path)?;
    #[expect(
        deprecated,
        reason = "what replaces it needs unsafe code, and a file stays the same file"
    )]
    AsyncFd::new(file)
}

async fn read(log: &AsyncFd<File>, into: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut ready = log.readable().await?;
        match ready.try_io(|log| (&mut log.get_ref()).read(into)) {
            Ok(length) => return length,
            Err(_would_block) => continue,
        }
    }
}

/// `priority,number,microseconds,flags;message`; lines that go on begin with a space.
fn parse(line: &str) -> Option<(Duration, &str)> {
    let (head, message) = line.split_once(';').filter(|_| !line.starts_with(' '))?;
    let micros: u64 = head.split(',').nth(2)?.parse().ok()?;
    Some((Duration::from_micros(micros), message))
}

/// What was said long before we looked is not news.
fn is_recent(at: Duration, lookback: Duration, started: Duration) -> bool {
    at.saturating_add(lookback) >= started
}

/// How long the machine has been up.
fn since_boot() -> Duration {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text
        .split_whitespace()
        .next()
        .and_then(|text| text.parse::<f64>().ok());
    Duration::try_from_secs_f64(seconds.unwrap_or(0.0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        let at = Duration::from_micros(5_140_900);
        assert_eq!(
            parse("6,339,5140900,-;eth0: up; really"),
            Some((at, "eth0: up; really"))
        );
        assert_eq!(parse(" DEVICE=+pci:0000;x"), None);
        assert_eq!(parse("nonsense"), None);
        let seconds = Duration::from_secs;
        assert!(is_recent(seconds(70), seconds(30), seconds(100)));
        assert!(!is_recent(seconds(69), seconds(30), seconds(100)));
    }
}
