//! The message a container leaves when it ends.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use node_api::ContainerStatus;

use crate::labels;

/// Bytes of the message file that are kept.
const MESSAGE_BYTES_MAX: u64 = 4_096;
/// Bytes and lines of the log that stand in for it.
const LOG_BYTES_MAX: u64 = 2_048;
const LOG_LINES_MAX: usize = 80;

/// Reads what an ended container wrote to its termination message file, or the end of its log
/// when it failed and wishes so.
pub(crate) fn read(status: &ContainerStatus) -> Option<String> {
    let annotation = |key: &str| {
        let value = status.config.annotations.get(key).map(String::as_str);
        value.filter(|value| !value.is_empty())
    };
    let inside = annotation(labels::MESSAGE_PATH).unwrap_or("/dev/termination-log");
    let mount = status
        .config
        .mounts
        .iter()
        .find(|m| m.container_path == Path::new(inside));
    let written = mount.and_then(|mount| head(&mount.host_path, MESSAGE_BYTES_MAX));
    if let Some(text) = written.filter(|text| !text.is_empty()) {
        return Some(text);
    }
    let fallback = annotation(labels::MESSAGE_POLICY) == Some("FallbackToLogsOnError");
    match fallback && status.exit_code != 0 {
        true => log_tail(&status.log_path),
        false => None,
    }
}

fn head(path: &Path, limit: u64) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(limit)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn log_tail(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    // Lines carry about 40 bytes of time and stream before the text.
    let from = length.saturating_sub(LOG_BYTES_MAX * 3);
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().skip(usize::from(from > 0)).collect();
    let lines = &lines[lines.len().saturating_sub(LOG_LINES_MAX)..];
    let mut message: String = lines.iter().filter_map(|line| text_of(line)).collect();
    let mut cut = message.len().saturating_sub(LOG_BYTES_MAX as usize);
    while !message.is_char_boundary(cut) {
        cut += 1;
    }
    message.drain(..cut);
    (!message.is_empty()).then_some(message)
}

/// The text of a log line. A part of a line has no end of line yet.
fn text_of(line: &str) -> Option<String> {
    let mut words = line.splitn(4, ' ').skip(2);
    let tag = words.next()?;
    let text = words.next()?;
    match tag.starts_with('P') {
        true => Some(text.to_owned()),
        false => Some(format!("{text}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_told_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let log = "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:01Z stderr P DO\n\
                   2026-01-01T00:00:01Z stderr P NE\n";
        std::fs::write(&path, log).unwrap();
        assert_eq!(log_tail(&path).unwrap(), "one\nDONE");
    }
}
