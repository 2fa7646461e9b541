//! Fluentd's forward protocol: one message of MessagePack for each line.

use std::collections::BTreeMap;
use std::io;

use super::options::option;
use super::{Line, Wire};
use crate::record::Record;

const PORT: u16 = 24_224;
const USUAL: &str = "tcp://127.0.0.1:24224";

pub(super) struct Fluentd {
    /// None where it is not waited for and was not there.
    wire: Option<Wire>,
    address: String,
    tag: String,
    precise: bool,
    /// The same for all lines.
    fields: BTreeMap<String, String>,
}

impl Fluentd {
    pub(super) async fn open(
        record: &Record,
        tag: String,
        more: BTreeMap<String, String>,
    ) -> io::Result<Fluentd> {
        let log = &record.host.log_config;
        let address = match option(log, "fluentd-address") {
            "" => USUAL.to_owned(),
            address => address.to_owned(),
        };
        let truth = |name| option(log, name) == "true";
        let patient = truth("fluentd-async") || truth("fluentd-async-connect");
        let wire = match Wire::open(&address, PORT).await {
            Ok(wire) => Some(wire),
            Err(_) if patient => None,
            Err(error) => return Err(error),
        };
        let mut fields = more;
        fields.insert("container_id".to_owned(), record.id.clone());
        fields.insert("container_name".to_owned(), format!("/{}", record.name));
        Ok(Fluentd {
            wire,
            address,
            tag,
            precise: truth("fluentd-sub-second-precision"),
            fields,
        })
    }

    pub(super) async fn send(&mut self, line: &Line) -> io::Result<()> {
        let bytes = self.message(line);
        let wire = match &mut self.wire {
            Some(wire) => wire,
            none => none.insert(Wire::open(&self.address, PORT).await?),
        };
        wire.send(&bytes).await
    }

    /// `[tag, time, {fields}, {}]`.
    fn message(&self, line: &Line) -> Vec<u8> {
        let mut out = vec![0x94];
        text(&mut out, self.tag.as_bytes());
        let seconds = u32::try_from(line.time / 1_000_000_000).unwrap_or(0);
        let nanos = u32::try_from(line.time % 1_000_000_000).unwrap_or(0);
        match self.precise {
            true => {
                // Their own type of moments.
                out.extend([0xd7, 0x00]);
                out.extend(seconds.to_be_bytes());
                out.extend(nanos.to_be_bytes());
            }
            false => {
                out.push(0xce);
                out.extend(seconds.to_be_bytes());
            }
        }
        let mut fields: Vec<(&str, &[u8])> = self
            .fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        fields.push(("source", line.source().as_bytes()));
        fields.push(("log", &line.text));
        if line.partial {
            fields.push(("partial_message", b"true"));
        }
        out.push(0xde);
        out.extend(u16::try_from(fields.len()).unwrap_or(0).to_be_bytes());
        for (name, value) in fields {
            text(&mut out, name.as_bytes());
            text(&mut out, value);
        }
        out.push(0x80);
        out
    }
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(0xdb);
    out.extend(u32::try_from(bytes.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::tests::{line, record};
    use super::*;

    #[tokio::test]
    async fn a_message_of_the_forward_protocol() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap().to_string();
        let options = [
            ("fluentd-address", address.as_str()),
            ("fluentd-sub-second-precision", "true"),
        ];
        let own = record("fluentd", &options);
        let mut sink = Fluentd::open(&own, "box".to_owned(), BTreeMap::new())
            .await
            .unwrap();
        sink.send(&line("hello")).await.unwrap();
        drop(sink);
        let mut bytes = Vec::new();
        server.accept().unwrap().0.read_to_end(&mut bytes).unwrap();
        let start = [
            0x94, 0xdb, 0, 0, 0, 3, b'b', b'o', b'x', 0xd7, 0, 0, 0, 0, 1,
        ];
        assert_eq!(bytes[..start.len()], start);
        let seen = String::from_utf8_lossy(&bytes).into_owned();
        for part in ["container_name", "/web", "source", "stdout", "log", "hello"] {
            assert!(seen.contains(part), "{part}");
        }
        assert_eq!(bytes.last(), Some(&0x80));
    }

    #[tokio::test]
    async fn who_is_not_waited_for_may_come_later() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let mut options = vec![("fluentd-address", address.as_str())];
        let own = record("fluentd", &options);
        assert!(
            Fluentd::open(&own, String::new(), BTreeMap::new())
                .await
                .is_err()
        );
        options.push(("fluentd-async", "true"));
        let own = record("fluentd", &options);
        let mut late = Fluentd::open(&own, String::new(), BTreeMap::new())
            .await
            .unwrap();
        assert!(late.send(&line("lost")).await.is_err());
        let _server = std::net::TcpListener::bind(&address).unwrap();
        late.send(&line("kept")).await.unwrap();
    }
}
