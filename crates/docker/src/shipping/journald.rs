//! The journal's own protocol: datagrams of fields.

use std::collections::BTreeMap;
use std::io;

use super::{Line, Wire, datagrams};
use crate::record::{Record, moment};

const SOCKET: &str = "/run/systemd/journal/socket";

pub(super) struct Journal {
    wire: Wire,
    /// The same for all lines.
    fields: Vec<u8>,
}

impl Journal {
    pub(super) fn open(
        record: &Record,
        tag: String,
        more: BTreeMap<String, String>,
    ) -> io::Result<Journal> {
        Journal::at(SOCKET, record, tag, more)
    }

    fn at(
        path: &str,
        record: &Record,
        tag: String,
        more: BTreeMap<String, String>,
    ) -> io::Result<Journal> {
        let missing = |_| io::Error::other("journald is not enabled on this host");
        let wire = datagrams(path).map_err(missing)?;
        let mut fields = Vec::new();
        for (name, value) in [
            ("CONTAINER_ID", record.short_id()),
            ("CONTAINER_ID_FULL", record.id.as_str()),
            ("CONTAINER_NAME", record.name.as_str()),
            ("CONTAINER_TAG", tag.as_str()),
            ("IMAGE_NAME", record.config.image.as_str()),
            ("SYSLOG_IDENTIFIER", tag.as_str()),
        ] {
            field(&mut fields, name, value.as_bytes());
        }
        for (name, value) in &more {
            field(&mut fields, &clean(name), value.as_bytes());
        }
        Ok(Journal { wire, fields })
    }

    pub(super) async fn send(&mut self, line: &Line) -> io::Result<()> {
        let mut bytes = self.fields.clone();
        field(
            &mut bytes,
            "PRIORITY",
            line.severity().to_string().as_bytes(),
        );
        field(&mut bytes, "SYSLOG_TIMESTAMP", moment(line.time).as_bytes());
        if line.partial {
            field(&mut bytes, "CONTAINER_PARTIAL_MESSAGE", b"true");
        }
        field(&mut bytes, "MESSAGE", &line.text);
        self.wire.send(&bytes).await
    }
}

/// Values with ends of lines in them are told by their length.
fn field(bytes: &mut Vec<u8>, name: &str, value: &[u8]) {
    bytes.extend_from_slice(name.as_bytes());
    match value.contains(&b'\n') {
        true => {
            bytes.push(b'\n');
            bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        }
        false => bytes.push(b'='),
    }
    bytes.extend_from_slice(value);
    bytes.push(b'\n');
}

/// Names are of capitals, digits and underscores, and begin with a capital.
fn clean(name: &str) -> String {
    let plain = |c: char| match c {
        c if c.is_ascii_alphanumeric() => c.to_ascii_uppercase(),
        _ => '_',
    };
    let name: String = name.chars().map(plain).collect();
    name.trim_start_matches(|c: char| !c.is_ascii_uppercase())
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{line, record};
    use super::*;

    #[tokio::test]
    async fn fields_of_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket").display().to_string();
        let server = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let more = [("my.team".to_owned(), "a\nb".to_owned())].into();
        let own = record("journald", &[]);
        let mut sink = Journal::at(&path, &own, "tag".to_owned(), more).unwrap();
        sink.send(&line("hello")).await.unwrap();
        let mut bytes = [0; 4096];
        let length = server.recv(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        for part in [
            "CONTAINER_NAME=web\n",
            "CONTAINER_ID=0123456789ab\n",
            "MY_TEAM\n\u{3}\0\0\0\0\0\0\0a\nb\n",
            "PRIORITY=6\n",
            "MESSAGE=hello\n",
        ] {
            assert!(text.contains(part), "{part:?} in {text:?}");
        }
        assert!(Journal::at("/none", &own, String::new(), BTreeMap::new()).is_err());
    }
}
