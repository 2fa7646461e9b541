//! Syslog in docker's formats: the old local one, RFC 3164 and RFC 5424.

use std::io;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::options::option;
use super::{Line, Wire, hostname};
use crate::answer::Fault;
use crate::wire::LogConfig;

const PORT: u16 = 514;
/// Where the machine's own listens.
const PLACES: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];
const USUAL: &str = "daemon";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Unix,
    Rfc3164,
    Rfc5424,
    Rfc5424Micro,
}

pub(super) struct Syslog {
    wire: Wire,
    format: Format,
    facility: u8,
    tag: String,
    hostname: String,
}

pub(super) fn check(log: &LogConfig) -> Result<(), Fault> {
    facility(log)?;
    format(log)?;
    let address = option(log, "syslog-address");
    let kind = address.split_once("://").map(|(kind, _)| kind);
    match kind {
        None if address.is_empty() => Ok(()),
        Some("tcp" | "udp" | "unix" | "unixgram") => Ok(()),
        // Nobody here speaks TLS to loggers.
        Some("tcp+tls") => Err(Fault::unable(
            "syslog-address: tcp+tls is not supported by this engine",
        )),
        _ => Err(Fault::bad(format!("unsupported transport: '{address}'"))),
    }
}

fn facility(log: &LogConfig) -> Result<u8, Fault> {
    let name = match option(log, "syslog-facility") {
        "" => USUAL,
        name => name,
    };
    let number = FACILITIES.iter().position(|known| *known == name);
    let number = number.and_then(|number| u8::try_from(number).ok());
    let number = number.or_else(|| name.parse().ok().filter(|number| *number < 24));
    number.ok_or_else(|| Fault::bad("invalid syslog facility"))
}

fn format(log: &LogConfig) -> Result<Format, Fault> {
    match option(log, "syslog-format") {
        "" => Ok(Format::Unix),
        "rfc3164" => Ok(Format::Rfc3164),
        "rfc5424" => Ok(Format::Rfc5424),
        "rfc5424micro" => Ok(Format::Rfc5424Micro),
        _ => Err(Fault::bad("Invalid syslog format")),
    }
}

impl Syslog {
    pub(super) async fn open(log: &LogConfig, tag: String) -> io::Result<Syslog> {
        let wire = match option(log, "syslog-address") {
            "" => local().await?,
            address => Wire::open(address, PORT).await?,
        };
        Ok(Syslog {
            wire,
            format: format(log).map_err(io::Error::other)?,
            facility: facility(log).map_err(io::Error::other)?,
            tag,
            hostname: hostname(),
        })
    }

    pub(super) async fn send(&mut self, line: &Line) -> io::Result<()> {
        let text = self.text(line);
        self.wire.send(text.as_bytes()).await
    }

    fn text(&self, line: &Line) -> String {
        let priority = self.facility << 3 | line.severity();
        let time = Timestamp::from_nanosecond(line.time.into()).unwrap_or_default();
        let time = time.to_zoned(TimeZone::system());
        let (tag, host, process) = (&self.tag, &self.hostname, std::process::id());
        let words = line.words();
        let old = time.strftime("%b %e %H:%M:%S");
        match self.format {
            Format::Unix => format!("<{priority}>{old} {tag}[{process}]: {words}\n"),
            Format::Rfc3164 => format!("<{priority}>{old} {host} {tag}[{process}]: {words}\n"),
            Format::Rfc5424 | Format::Rfc5424Micro => {
                let time = match self.format {
                    Format::Rfc5424Micro => time.strftime("%Y-%m-%dT%H:%M:%S.%6f%:z"),
                    _ => time.strftime("%Y-%m-%dT%H:%M:%S%:z"),
                };
                format!("<{priority}>1 {time} {host} {tag} {process} {tag} - {words}\n")
            }
        }
    }
}

async fn local() -> io::Result<Wire> {
    for place in PLACES {
        for kind in ["unixgram", "unix"] {
            if let Ok(wire) = Wire::open(&format!("{kind}://{place}"), PORT).await {
                return Ok(wire);
            }
        }
    }
    Err(io::Error::other("Unix syslog delivery error"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{line, record};
    use super::*;

    #[tokio::test]
    async fn lines_in_all_formats() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let server = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let address = format!("unixgram://{}", path.display());
        let said = async |format: &str| {
            let options = [
                ("syslog-address", address.as_str()),
                ("syslog-format", format),
                ("syslog-facility", "local0"),
            ];
            let log = record("syslog", &options).host.log_config;
            let mut sink = Syslog::open(&log, "box".to_owned()).await.unwrap();
            sink.send(&line("hello")).await.unwrap();
            let mut bytes = [0; 1024];
            let length = server.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        let own = format!("box[{}]: hello\n", std::process::id());
        let unix = said("").await;
        assert!(
            unix.starts_with("<134>Jan  1 ") && unix.ends_with(&own),
            "{unix}"
        );
        let old = said("rfc3164").await;
        assert!(old.ends_with(&format!("{} {own}", hostname())), "{old}");
        let new = said("rfc5424micro").await;
        assert!(new.starts_with("<134>1 1970-01-01T"), "{new}");
        assert!(
            new.contains(":01.500000") && new.ends_with(" box - hello\n"),
            "{new}"
        );
        // The first try of a stream finds datagrams.
        let options = [("syslog-address", format!("unix://{}", path.display()))];
        let options: Vec<(&str, &str)> = options.iter().map(|(a, b)| (*a, b.as_str())).collect();
        let log = record("syslog", &options).host.log_config;
        let sink = Syslog::open(&log, String::new()).await.unwrap();
        assert!(!sink.wire.is_stream());
    }
}
