//! The engine's file of a container's output, from where it was read last.

use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::Line;
use crate::containers::LogFiles;
use crate::record::parse_moment;

const FILE: &str = "shipped.json";
/// Bytes read at once.
const CHUNK: usize = 64 << 10;

/// How far a log was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    inode: u64,
    offset: u64,
}

pub(super) struct Reader {
    files: LogFiles,
    place: Place,
    /// The beginning of a line whose end has not come.
    start: Vec<u8>,
}

impl Reader {
    pub(super) async fn open(folder: &Path, log: &Path) -> io::Result<Reader> {
        let known: Place = match std::fs::read(folder.join(FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Place::default(),
            Err(error) => return Err(error),
        };
        let mut reader = Reader {
            files: LogFiles::from(log.to_owned(), known.inode),
            place: Place::default(),
            start: Vec::new(),
        };
        if reader.next().await? && reader.place.inode == known.inode {
            reader.place.offset = known.offset;
            if let Some(file) = &mut reader.files.open {
                file.seek(SeekFrom::Start(known.offset)).await?;
            }
        }
        Ok(reader)
    }

    async fn next(&mut self) -> io::Result<bool> {
        let found = self.files.next().await?;
        if let Some(file) = &self.files.open {
            let inode = file.metadata().await?.ino();
            if inode != self.place.inode {
                self.place = Place { inode, offset: 0 };
            }
        }
        Ok(found)
    }

    /// What has come; nothing when all was read.
    pub(super) async fn lines(&mut self) -> io::Result<Vec<Line>> {
        loop {
            if let Some(file) = &mut self.files.open {
                let lines = read(file, &mut self.start, &mut self.place.offset).await?;
                if let Some(lines) = lines {
                    return Ok(lines);
                }
            }
            if !self.next().await? {
                return Ok(Vec::new());
            }
        }
    }

    /// Writes down how far it has come, so that it survives this process.
    pub(super) async fn remember(&self, folder: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(&self.place)?;
        let new = folder.join("shipped.json.new");
        tokio::fs::write(&new, text).await?;
        tokio::fs::rename(new, folder.join(FILE)).await
    }
}

/// Whole lines, whose bytes are counted; `None` at the end of the file.
async fn read(
    file: &mut File,
    start: &mut Vec<u8>,
    offset: &mut u64,
) -> io::Result<Option<Vec<Line>>> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = file.read(&mut chunk).await?;
        if length == 0 {
            return Ok(None);
        }
        start.extend_from_slice(&chunk[..length]);
        let Some(end) = start.iter().rposition(|byte| *byte == b'\n') else {
            continue;
        };
        let rest = start.split_off(end + 1);
        let whole = std::mem::replace(start, rest);
        *offset += whole.len() as u64;
        let lines: Vec<Line> = whole
            .split(|byte| *byte == b'\n')
            .filter_map(parse)
            .collect();
        if !lines.is_empty() {
            return Ok(Some(lines));
        }
    }
}

fn parse(line: &[u8]) -> Option<Line> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Line {
        time: std::str::from_utf8(time).ok().and_then(parse_moment)?,
        stderr: stream == b"stderr",
        partial: tag == b"P",
        text: parts.next().unwrap_or_default().to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(lines: Vec<Line>) -> Vec<String> {
        lines.iter().map(Line::words).collect()
    }

    #[tokio::test]
    async fn nothing_is_read_twice_over_rotations_and_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let (folder, log) = (folder.path(), folder.path().join("log"));
        let text = "1970-01-01T00:00:01Z stdout F one\n1970-01-01T00:00:02Z stderr P tw";
        std::fs::write(&log, text).unwrap();
        let mut reader = Reader::open(folder, &log).await.unwrap();
        let lines = reader.lines().await.unwrap();
        assert_eq!(lines[0].time, 1_000_000_000);
        assert_eq!(words(lines), ["one"]);
        assert!(reader.lines().await.unwrap().is_empty());
        reader.remember(folder).await.unwrap();
        drop(reader);
        std::fs::write(&log, format!("{text}o\n")).unwrap();
        std::fs::rename(&log, folder.join("log.1")).unwrap();
        std::fs::write(&log, "1970-01-01T00:00:03Z stdout F three\n").unwrap();
        let mut reader = Reader::open(folder, &log).await.unwrap();
        let lines = reader.lines().await.unwrap();
        assert!(lines[0].stderr && lines[0].partial);
        assert_eq!(words(lines), ["two"]);
        assert_eq!(words(reader.lines().await.unwrap()), ["three"]);
        assert!(reader.lines().await.unwrap().is_empty());
    }
}
