//! Graylog's format: JSON in datagrams, packed and cut where needed, or in a stream.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::options::option;
use super::{Line, Wire, hostname};
use crate::answer::Fault;
use crate::record::{Record, moment};
use crate::wire::LogConfig;

const PORT: u16 = 12_201;
/// Bytes of a datagram, and of what a piece has in front.
const DATAGRAM: usize = 1420;
const HEADER: usize = 12;
const PIECES_MAX: usize = 128;
const MAGIC: [u8; 2] = [0x1e, 0x0f];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Gzip,
    Zlib,
    None,
}

pub(super) struct Gelf {
    wire: Wire,
    packing: Packing,
    level: flate2::Compression,
    /// The same for all lines.
    fields: Map<String, Value>,
}

pub(super) fn check(log: &LogConfig) -> Result<(), Fault> {
    packing(log)?;
    level(log)?;
    match option(log, "gelf-address").split_once("://") {
        Some(("udp" | "tcp", host)) if !host.is_empty() => Ok(()),
        None if option(log, "gelf-address").is_empty() => {
            Err(Fault::bad("gelf-address is a required parameter"))
        }
        _ => Err(Fault::bad("gelf: endpoint needs to be TCP or UDP")),
    }
}

fn packing(log: &LogConfig) -> Result<Packing, Fault> {
    match option(log, "gelf-compression-type") {
        "" | "gzip" => Ok(Packing::Gzip),
        "zlib" => Ok(Packing::Zlib),
        "none" => Ok(Packing::None),
        other => Err(Fault::bad(format!(
            "unknown value \"{other}\" for log opt \"gelf-compression-type\" for gelf log driver"
        ))),
    }
}

fn level(log: &LogConfig) -> Result<flate2::Compression, Fault> {
    match option(log, "gelf-compression-level") {
        "" | "-1" => Ok(flate2::Compression::fast()),
        text => match text.parse() {
            Ok(level @ 0..=9) => Ok(flate2::Compression::new(level)),
            _ => Err(Fault::bad(format!(
                "unknown value {text:?} for log opt \"gelf-compression-level\" for gelf log driver"
            ))),
        },
    }
}

impl Gelf {
    pub(super) async fn open(
        record: &Record,
        tag: String,
        more: BTreeMap<String, String>,
    ) -> io::Result<Gelf> {
        let log = &record.host.log_config;
        let mut fields = Map::new();
        let mut add = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        add("version", json!("1.1"));
        add("host", json!(hostname()));
        add("_container_id", json!(record.id));
        add("_container_name", json!(record.name));
        add("_image_id", json!(record.image_id));
        add("_image_name", json!(record.config.image));
        add("_command", json!(record.args().join(" ")));
        add("_tag", json!(tag));
        add("_created", json!(moment(record.created)));
        for (name, value) in more {
            add(&format!("_{name}"), json!(value));
        }
        Ok(Gelf {
            wire: Wire::open(option(log, "gelf-address"), PORT).await?,
            packing: packing(log).map_err(io::Error::other)?,
            level: level(log).map_err(io::Error::other)?,
            fields,
        })
    }

    pub(super) async fn send(&mut self, line: &Line) -> io::Result<()> {
        let mut message = self.fields.clone();
        message.insert("short_message".to_owned(), json!(line.words()));
        let seconds = (line.time / 1_000_000) as f64 / 1000.0;
        message.insert("timestamp".to_owned(), json!(seconds));
        message.insert("level".to_owned(), json!(line.severity()));
        let mut bytes = serde_json::to_vec(&message)?;
        if self.wire.is_stream() {
            bytes.push(0);
            return self.wire.send(&bytes).await;
        }
        let packed = self.pack(&bytes)?;
        for piece in pieces(&packed)? {
            self.wire.send(&piece).await?;
        }
        Ok(())
    }

    fn pack(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self.packing {
            Packing::None => Ok(bytes.to_vec()),
            Packing::Gzip => {
                let mut packer = flate2::write::GzEncoder::new(Vec::new(), self.level);
                packer.write_all(bytes)?;
                packer.finish()
            }
            Packing::Zlib => {
                let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), self.level);
                packer.write_all(bytes)?;
                packer.finish()
            }
        }
    }
}

/// What fits into datagrams; a message of several has a number of its own.
fn pieces(bytes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    if bytes.len() <= DATAGRAM {
        return Ok(vec![bytes.to_vec()]);
    }
    let count = bytes.len().div_ceil(DATAGRAM - HEADER);
    if count > PIECES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let id: u64 = rand::random();
    let piece = |(index, part): (usize, &[u8])| {
        let mut piece = MAGIC.to_vec();
        piece.extend_from_slice(&id.to_be_bytes());
        piece.extend([index as u8, count as u8]);
        piece.extend_from_slice(part);
        piece
    };
    let parts = bytes.chunks(DATAGRAM - HEADER).enumerate();
    Ok(parts.map(piece).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::tests::{line, record};
    use super::*;

    #[tokio::test]
    async fn messages_are_packed() {
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = format!("udp://{}", server.local_addr().unwrap());
        let options = [("gelf-address", address.as_str())];
        let own = record("gelf", &options);
        let more = [("team".to_owned(), "a".to_owned())].into();
        let mut sink = Gelf::open(&own, "box".to_owned(), more).await.unwrap();
        sink.send(&line("hello")).await.unwrap();
        let mut bytes = [0; 2048];
        let length = server.recv(&mut bytes).unwrap();
        let mut text = String::new();
        let mut unpacked = flate2::read::GzDecoder::new(&bytes[..length]);
        unpacked.read_to_string(&mut text).unwrap();
        let message: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(message["short_message"], "hello");
        assert_eq!(
            (&message["level"], &message["_team"]),
            (&json!(6), &json!("a"))
        );
        assert_eq!(message["timestamp"], json!(1.5));
        assert_eq!(message["_command"], "sh -c x");
    }

    #[test]
    fn long_messages_are_cut() {
        let cut = pieces(&[7; 3000]).unwrap();
        assert_eq!(cut.len(), 3);
        assert!(cut.iter().all(|piece| piece.len() <= DATAGRAM));
        assert_eq!((&cut[2][..2], cut[2][10], cut[2][11]), (&MAGIC[..], 2, 3));
        assert!(pieces(&vec![0; 1 << 20]).is_err());
    }
}
