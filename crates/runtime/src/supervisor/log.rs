//! Container logs in CRI's format: `<time> <stream> <P or F> <line>`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::spec::LogRotation;

/// A longer line is cut into parts.
const PART_LIMIT: usize = 16 << 10;

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// The writer of one container's log.
#[derive(Debug)]
pub(crate) struct Log {
    path: Option<PathBuf>,
    file: Option<File>,
    rotation: Option<LogRotation>,
    /// Bytes in the file; counted only where it is rotated.
    length: u64,
    /// Unfinished lines of both streams.
    unfinished: [Vec<u8>; 2],
}

impl Log {
    /// Opens (creating what is missing) the log at `path`; without a path all is discarded.
    pub(crate) fn open(path: Option<PathBuf>, rotation: Option<LogRotation>) -> io::Result<Log> {
        let file = path.as_deref().map(open_file).transpose()?;
        let length = match (&file, &rotation) {
            (Some(file), Some(_)) => file.metadata()?.len(),
            _ => 0,
        };
        Ok(Log {
            path,
            file,
            rotation,
            length,
            unfinished: Default::default(),
        })
    }

    /// Opens the path anew, after a rotation moved the file.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        self.file = self.path.as_deref().map(open_file).transpose()?;
        Ok(())
    }

    /// Takes output as it comes.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let (slot, name) = match stream {
            Stream::Stdout => (0, "stdout"),
            Stream::Stderr => (1, "stderr"),
        };
        let unfinished = &mut self.unfinished[slot];
        let time = rfc3339(SystemTime::now());
        let mut text = Vec::with_capacity(bytes.len() + 64);
        let mut rest = bytes;
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n');
            let piece = &rest[..end.unwrap_or(rest.len())];
            let room = PART_LIMIT - unfinished.len();
            if piece.len() > room {
                record(&mut text, &time, name, 'P', &[unfinished, &piece[..room]]);
                unfinished.clear();
                rest = &rest[room..];
            } else if let Some(end) = end {
                record(&mut text, &time, name, 'F', &[unfinished, piece]);
                unfinished.clear();
                rest = &rest[end + 1..];
            } else {
                unfinished.extend_from_slice(piece);
                break;
            }
        }
        append(file, &text)?;
        self.rotate(text.len())
    }

    /// Goes on with an empty file when this one has as much as it may; older ones move up one
    /// place, and the oldest goes.
    fn rotate(&mut self, written: usize) -> io::Result<()> {
        let (Some(rotation), Some(path)) = (&self.rotation, &self.path) else {
            return Ok(());
        };
        self.length += written as u64;
        if self.length < rotation.bytes {
            return Ok(());
        }
        let older = |place: u32| numbered(path, place);
        for place in (1..rotation.files).rev() {
            let from = match place {
                1 => path.clone(),
                place => older(place - 1),
            };
            match std::fs::rename(from, older(place)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                moved => moved?,
            }
        }
        if rotation.files <= 1 {
            std::fs::remove_file(path)?;
        }
        self.length = 0;
        self.reopen()
    }

    /// Writes what has no end of line yet; for the end of the container.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        let time = rfc3339(SystemTime::now());
        let mut text = Vec::new();
        for (unfinished, name) in self.unfinished.iter_mut().zip(["stdout", "stderr"]) {
            if !unfinished.is_empty() {
                record(&mut text, &time, name, 'P', &[unfinished]);
                unfinished.clear();
            }
        }
        match &mut self.file {
            Some(file) => append(file, &text),
            None => Ok(()),
        }
    }
}

/// Writes all or nothing: a record without its end would spoil the next one, which may well fit
/// when a full disk has room again.
fn append(file: &mut File, text: &[u8]) -> io::Result<()> {
    let mut rest = text;
    while !rest.is_empty() {
        let fault = match file.write(rest) {
            Ok(0) => io::ErrorKind::WriteZero.into(),
            Ok(length) => {
                rest = &rest[length..];
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => error,
        };
        let written = (text.len() - rest.len()) as u64;
        if written > 0 {
            // Nobody else writes to it.
            file.set_len(file.metadata()?.len().saturating_sub(written))?;
        }
        return Err(fault);
    }
    Ok(())
}

/// The name of a log that was rotated, the youngest with 1.
fn numbered(path: &Path, place: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{place}"));
    name.into()
}

fn open_file(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
}

fn record(text: &mut Vec<u8>, time: &str, stream: &str, tag: char, pieces: &[&[u8]]) {
    text.extend_from_slice(format!("{time} {stream} {tag} ").as_bytes());
    for piece in pieces {
        text.extend_from_slice(piece);
    }
    text.push(b'\n');
}

/// Universal time with nanoseconds.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let (seconds, nanos) = (since.as_secs(), since.subsec_nanos());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years; a year that starts in March ends with the leap day.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_of_leap_and_turn() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000000Z"),
        ] {
            assert_eq!(
                rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
                text
            );
        }
    }

    fn written(chunks: &[(Stream, &[u8])]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/0.log");
        let mut log = Log::open(Some(path.clone()), None).unwrap();
        for (stream, bytes) in chunks {
            log.write(*stream, bytes).unwrap();
        }
        log.finish().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let without_time = |line: &str| line.split_once(' ').unwrap().1.to_owned();
        text.lines().map(without_time).collect()
    }

    #[test]
    fn lines_are_put_together_and_streams_kept_apart() {
        let lines = written(&[
            (Stream::Stdout, b"one\ntw"),
            (Stream::Stderr, b"err\n"),
            (Stream::Stdout, b"o\n\nrest"),
        ]);
        assert_eq!(
            lines,
            [
                "stdout F one",
                "stderr F err",
                "stdout F two",
                "stdout F ",
                "stdout P rest"
            ]
        );
    }

    #[test]
    fn a_full_file_makes_room_for_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let check = |files: u32, expect: &[(&str, &str)]| {
            let rotation = LogRotation { bytes: 60, files };
            let mut log = Log::open(Some(path.clone()), Some(rotation)).unwrap();
            for line in ["one\n", "two\n", "three\n", "four\n", "five\n"] {
                log.write(Stream::Stdout, line.as_bytes()).unwrap();
            }
            let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
            assert_eq!(names.len(), expect.len());
            names.clear();
            for (name, last) in expect {
                let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
                let words: Vec<_> = text.lines().map(|line| line.rsplit(' ').next()).collect();
                assert_eq!(
                    words.last().copied().flatten().unwrap_or(""),
                    *last,
                    "{name}"
                );
                std::fs::remove_file(folder.path().join(name)).unwrap();
            }
        };
        // Two lines of 40 bytes fill a file.
        check(
            3,
            &[("0.log", "five"), ("0.log.1", "four"), ("0.log.2", "two")],
        );
        check(2, &[("0.log", "five"), ("0.log.1", "four")]);
        check(1, &[("0.log", "five")]);
    }

    #[test]
    fn long_lines_come_in_parts() {
        let long = vec![b'x'; PART_LIMIT * 2 + 5];
        let lines = written(&[(Stream::Stdout, &long), (Stream::Stdout, b"\n")]);
        let shape: Vec<_> = lines
            .iter()
            .map(|line| (&line[..8], line.len() - 9))
            .collect();
        let expected = [
            ("stdout P", PART_LIMIT),
            ("stdout P", PART_LIMIT),
            ("stdout F", 5),
        ];
        assert_eq!(shape, expected);
        let exact = vec![b'x'; PART_LIMIT];
        let lines = written(&[(Stream::Stdout, &exact), (Stream::Stdout, b"\n")]);
        assert_eq!(lines.len(), 1);
    }
}
