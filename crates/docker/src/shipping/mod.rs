//! Log drivers that send a container's output elsewhere: syslog, the journal, GELF, fluentd.
//!
//! The engine's own file is written in any case, so that `docker logs` works with each of them, and what
//! the other side does not take yet waits there. How far it was sent stands in a file beside it: after a
//! restart of the engine nothing is sent twice but what was under way.

mod fluentd;
mod gelf;
mod journald;
mod options;
mod reader;
mod syslog;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base::Notice;
use tokio::sync::OwnedRwLockReadGuard;

use crate::answer::Fault;
use crate::daemon::{Container, Daemon};
use crate::record::Record;
use reader::Reader;

pub(crate) use options::rotation;
pub(crate) use options::{DRIVERS, check, is_readable};

/// Waits between tries to reach the other side double from the first to the last.
const FIRST_TRY: Duration = Duration::from_millis(100);
const LAST_TRY: Duration = Duration::from_secs(10);
/// So often it is tried for a container that has ended.
const TRIES_AT_END: u32 = 5;

/// One line of output, or a part of a long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Nanoseconds since the epoch.
    pub(crate) time: i64,
    pub(crate) stderr: bool,
    /// More of it follows.
    pub(crate) partial: bool,
    pub(crate) text: Vec<u8>,
}

impl Line {
    fn words(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }

    fn source(&self) -> &'static str {
        match self.stderr {
            true => "stderr",
            false => "stdout",
        }
    }

    /// In syslog's numbers: an error or information.
    fn severity(&self) -> u8 {
        match self.stderr {
            true => 3,
            false => 6,
        }
    }
}

/// Whoever takes lines.
enum Sink {
    Syslog(syslog::Syslog),
    Journal(journald::Journal),
    Gelf(gelf::Gelf),
    Fluentd(fluentd::Fluentd),
}

impl Sink {
    /// Reaches the other side, where there is somebody to be reached.
    async fn open(record: &Record) -> Result<Sink, Fault> {
        let tag = options::tag(record)?;
        let more = options::attributes(record)?;
        let log = &record.host.log_config;
        let opened = match log.kind.as_str() {
            "syslog" => syslog::Syslog::open(log, tag).await.map(Sink::Syslog),
            "journald" => journald::Journal::open(record, tag, more).map(Sink::Journal),
            "gelf" => gelf::Gelf::open(record, tag, more).await.map(Sink::Gelf),
            _ => fluentd::Fluentd::open(record, tag, more)
                .await
                .map(Sink::Fluentd),
        };
        opened.map_err(|error| {
            Fault::internal(format!(
                "failed to create task for container: failed to initialize logging driver: {error}"
            ))
        })
    }

    async fn send(&mut self, line: &Line) -> io::Result<()> {
        match self {
            Sink::Syslog(sink) => sink.send(line).await,
            Sink::Journal(sink) => sink.send(line).await,
            Sink::Gelf(sink) => sink.send(line).await,
            Sink::Fluentd(sink) => sink.send(line).await,
        }
    }
}

/// A driver that was reached before its container started.
pub(crate) struct Shipper(Sink);

impl Daemon {
    /// Reaches the other side of a container's log driver, if it has one; a container does not start
    /// without it.
    pub(crate) async fn shipper(&self, record: &Record) -> Result<Option<Shipper>, Fault> {
        match DRIVERS.contains(&record.host.log_config.kind.as_str()) {
            true => Ok(Some(Shipper(Sink::open(record).await?))),
            false => Ok(None),
        }
    }

    /// Sends a container's output in a task, until it has ended and all is sent.
    pub(crate) fn ship(&self, container: &Arc<Container>, shipper: Option<Shipper>) {
        let record = container.snapshot();
        if !DRIVERS.contains(&record.host.log_config.kind.as_str()) {
            return;
        }
        let (container, stop) = (Arc::clone(container), self.stop.clone());
        tokio::spawn(async move {
            // Its files stay as long as they are read, and one run's lines come before the next one's.
            let readers = Arc::clone(&container.readers).read_owned().await;
            let sending = Arc::clone(&container.shipping);
            let _turn = sending.lock().await;
            let work = ship(&container, &record, shipper, &readers);
            tokio::select! {
                sent = work => if let Err(error) = sent {
                    tracing::warn!(%error, id = container.id, "output not sent to its log driver");
                },
                () = stop.raised() => {}
            }
        });
    }
}

async fn ship(
    container: &Container,
    record: &Record,
    shipper: Option<Shipper>,
    _readers: &OwnedRwLockReadGuard<()>,
) -> io::Result<()> {
    let mut sink = shipper.map(|Shipper(sink)| sink);
    let mut progress = container.progress.subscribe();
    let mut notice = Notice::of_folder(&container.folder)?;
    let mut reader = Reader::open(&container.folder, &container.log_path()).await?;
    loop {
        let over = {
            let progress = progress.borrow_and_update();
            !progress.up || progress.removed
        };
        loop {
            let lines = reader.lines().await?;
            if lines.is_empty() {
                break;
            }
            for line in &lines {
                deliver(&mut sink, record, line, over).await?;
            }
            reader.remember(&container.folder).await?;
        }
        if over {
            return Ok(());
        }
        tokio::select! {
            changed = notice.changed() => changed?,
            changed = progress.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

/// Sends one line, whatever it takes; only for a container that has ended it is given up.
async fn deliver(
    sink: &mut Option<Sink>,
    record: &Record,
    line: &Line,
    over: bool,
) -> io::Result<()> {
    let (mut wait, mut tries) = (FIRST_TRY, 0);
    loop {
        if sink.is_none() {
            *sink = Sink::open(record).await.ok();
        }
        if let Some(open) = sink
            && open.send(line).await.is_ok()
        {
            return Ok(());
        }
        *sink = None;
        tries += 1;
        if over && tries >= TRIES_AT_END {
            return Err(io::ErrorKind::TimedOut.into());
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LAST_TRY);
    }
}

/// A stream or datagrams to the other side.
enum Wire {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
    Udp(tokio::net::UdpSocket),
    Datagrams(std::os::unix::net::UnixDatagram),
}

impl Wire {
    /// `tcp://host:port`, `udp://…`, `unix://path`, `unixgram://path`; without a port the usual one.
    async fn open(address: &str, usual_port: u16) -> io::Result<Wire> {
        let (kind, rest) = address.split_once("://").unwrap_or(("tcp", address));
        let fault = |error: io::Error| {
            let words = crate::answer::words(&error);
            io::Error::new(error.kind(), format!("dial {kind} {rest}: {words}"))
        };
        let place = match rest.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => rest.to_owned(),
            _ => format!("{rest}:{usual_port}"),
        };
        match kind {
            "tcp" => tokio::net::TcpStream::connect(place).await.map(Wire::Tcp),
            "unix" => match tokio::net::UnixStream::connect(rest).await {
                // A stream's name may be one of datagrams.
                Err(error) if error.raw_os_error() == Some(nix::libc::EPROTOTYPE) => {
                    datagrams(rest)
                }
                other => other.map(Wire::Unix),
            },
            "unixgram" => datagrams(rest),
            _ => udp(&place).await,
        }
        .map_err(fault)
    }

    fn is_stream(&self) -> bool {
        matches!(self, Wire::Tcp(_) | Wire::Unix(_))
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        use tokio::io::AsyncWriteExt;
        match self {
            Wire::Tcp(stream) => stream.write_all(bytes).await,
            Wire::Unix(stream) => stream.write_all(bytes).await,
            Wire::Udp(socket) => socket.send(bytes).await.map(drop),
            Wire::Datagrams(socket) => {
                // A full queue is waited for where it may.
                let (socket, bytes) = (socket.try_clone()?, bytes.to_vec());
                let sent = tokio::task::spawn_blocking(move || socket.send(&bytes)).await;
                sent.map_err(io::Error::other)?.map(drop)
            }
        }
    }
}

fn datagrams(path: &str) -> io::Result<Wire> {
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_write_timeout(Some(LAST_TRY))?;
    Ok(Wire::Datagrams(socket))
}

async fn udp(place: &str) -> io::Result<Wire> {
    let address = tokio::net::lookup_host(place).await?.next();
    let address = address.ok_or(io::ErrorKind::NotFound)?;
    let any = match address.is_ipv4() {
        true => "0.0.0.0:0",
        false => "[::]:0",
    };
    let socket = tokio::net::UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    Ok(Wire::Udp(socket))
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn record(kind: &str, options: &[(&str, &str)]) -> Record {
        let text = r#"{"id":"0123456789abcdef","name":"web","created":0,
            "image_id":"sha256:fedcba9876543210","config":{"Image":"busybox","Cmd":["sh","-c","x"],
            "Env":["COLOUR=red","OTHER=1"],"Labels":{"team":"a","other":"b"}},"host":{}}"#;
        let mut record: Record = serde_json::from_str(text).unwrap();
        record.host.log_config.kind = kind.to_owned();
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        record.host.log_config.config = Some(options.iter().map(pair).collect());
        record
    }

    pub(super) fn line(text: &str) -> Line {
        Line {
            time: 1_500_000_000,
            stderr: false,
            partial: false,
            text: text.as_bytes().to_vec(),
        }
    }

    #[tokio::test]
    async fn who_is_not_there_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none").display().to_string();
        let options = [("fluentd-address", format!("unix://{path}"))];
        let options: Vec<(&str, &str)> = options.iter().map(|(a, b)| (*a, b.as_str())).collect();
        let fault = Sink::open(&record("fluentd", &options))
            .await
            .err()
            .unwrap();
        let words = format!("logging driver: dial unix {path}: no such file or directory");
        assert!(fault.message.ends_with(&words), "{fault}");
    }
}
