//! The write-ahead log: numbered records in segments of fixed size, each
//! record written and flushed once.
//!
//! ```text
//!   000a.log  [head][record 17][record 18]................[rest too small]
//!   000b.log  [head][record 19][record 20][old bytes or zeros .............]
//!                                          ^ the next record goes here
//! ```
//!
//! A record bears its number and a checksum that continues the checksum of the
//! record before it. Records are flushed one at a time, so after a crash only
//! the last one can be damaged, and it was never acknowledged: it is dropped.
//! A damaged record with a sound one behind it means the disk lost something,
//! and is refused. Segments hold their blocks from the start and are reused,
//! so that a flush writes data only, and a full disk is met between segments.

mod record;
mod segment;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::patience::is_full_disk;
use record::{HEADER_BYTES, Header, RECORD_BYTES_MAX};
use segment::{SEGMENT_HEAD_BYTES, Segment, SegmentHead};

/// Smallest segment that [`Log::open`] accepts: room for any record.
pub(crate) const SEGMENT_BYTES_MIN: u64 = RECORD_BYTES_MAX as u64 + 4_096;

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("cannot access {path}: {source}")]
    Access { path: PathBuf, source: io::Error },
    #[error("{path} is damaged at byte {offset}: {what}")]
    Damaged {
        path: PathBuf,
        offset: u64,
        what: String,
    },
    #[error("the log ends at record {last}, but record {needed} was in use: records are missing")]
    Missing { last: u64, needed: u64 },
    #[error(
        "the log starts at record {first}, but record {needed} is needed: segments are missing"
    )]
    Gap { first: u64, needed: u64 },
}

/// Why a record was not appended. Anything but a full disk ends the process,
/// because nobody can say what a disk holds after a failed flush.
#[derive(Debug)]
pub(crate) struct NoSpace;

/// The log, open for appending.
#[derive(Debug)]
pub(crate) struct Log {
    dir: PathBuf,
    id: i64,
    segment_bytes: u64,
    current: Segment,
    /// Full segments with the number of their last record, oldest first.
    full: VecDeque<(PathBuf, u64)>,
    /// Number and checksum of the last record.
    last: u64,
    chain: u32,
    buffer: Vec<u8>,
    /// Whether records are to outlive the machine.
    is_durable: bool,
}

impl Log {
    /// Opens the log in `dir` and hands every record above `applied` to `each`.
    pub(crate) fn open<E>(
        dir: &Path,
        id: i64,
        segment_bytes: u64,
        applied: u64,
        mut each: impl FnMut(u64, Bytes) -> Result<(), E>,
    ) -> Result<Result<Log, E>, LogError> {
        let paths = segment::list(dir).map_err(|source| access(dir, source))?;
        if paths.is_empty() {
            if applied > 0 {
                return Err(LogError::Missing {
                    last: 0,
                    needed: applied,
                });
            }
            let head = SegmentHead {
                id,
                number: 1,
                first: 1,
                chain: 0,
            };
            let current = Segment::create(dir, head, segment_bytes, None)
                .map_err(|source| access(dir, source))?;
            return Ok(Ok(Log::at(dir, segment_bytes, current, 0, 0)));
        }
        let mut reader = Reader::default();
        let mut full = VecDeque::new();
        let count = paths.len();
        let mut end = None;
        for (at, path) in paths.into_iter().enumerate() {
            let file = File::options()
                .read(true)
                .write(true)
                .open(&path)
                .map_err(|source| access(&path, source))?;
            let head = reader.enter(&path, &file, id, applied)?;
            let mut wanted = |number, record| match number > applied {
                true => each(number, record),
                false => Ok(()),
            };
            let offset = match reader.records(&path, &file, &head, &mut wanted)? {
                Ok(offset) => offset,
                Err(error) => return Ok(Err(error)),
            };
            if at + 1 == count {
                reader.judge_tail(&path, &file, &head, offset)?;
                end = Some((path, file, head, offset));
            } else {
                full.push_back((path, reader.last));
            }
        }
        if reader.last < applied {
            return Err(LogError::Missing {
                last: reader.last,
                needed: applied,
            });
        }
        let Some((path, file, head, offset)) = end else {
            return Err(LogError::Missing {
                last: 0,
                needed: applied,
            });
        };
        let current = Segment::resume(path.clone(), file, head, offset, segment_bytes)
            .map_err(|source| access(&path, source))?;
        let log = Log::at(dir, segment_bytes, current, reader.last, reader.chain);
        Ok(Ok(Log { full, ..log }))
    }

    fn at(dir: &Path, segment_bytes: u64, current: Segment, last: u64, chain: u32) -> Log {
        Log {
            dir: dir.to_owned(),
            id: current.head.id,
            segment_bytes,
            current,
            full: VecDeque::new(),
            last,
            chain,
            buffer: Vec::new(),
            is_durable: true,
        }
    }

    /// Records are only kept for as long as the store is open, so that nobody waits for a disk.
    pub(crate) fn forget_at_end(&mut self) {
        self.is_durable = false;
    }

    /// Makes `payload` durable as one record and returns its number. Segments
    /// whose records are all at or below `checkpointed` may be reused.
    pub(crate) fn append(&mut self, payload: &[u8], checkpointed: u64) -> Result<u64, NoSpace> {
        assert!(
            payload.len() <= RECORD_BYTES_MAX - HEADER_BYTES,
            "a record must fit the reader's window"
        );
        let size = record::padded(HEADER_BYTES + payload.len()) as u64;
        if self.current.offset + size > self.current.bytes {
            self.rotate(checkpointed)?;
        }
        let number = self.last + 1;
        let header = Header::of(
            self.id,
            self.current.head.number,
            number,
            self.chain,
            payload,
        );
        self.buffer.clear();
        header.write(&mut self.buffer);
        self.buffer.extend_from_slice(payload);
        self.buffer.resize(size as usize, 0);
        match self.current.write(&self.buffer) {
            Ok(()) => {}
            Err(error) if is_full_disk(&error) => return Err(NoSpace),
            Err(error) => die(&self.current.path, "write", &error),
        }
        if self.is_durable
            && let Err(error) = self.current.file.sync_data()
        {
            die(&self.current.path, "flush", &error);
        }
        self.current.offset += size;
        self.last = number;
        self.chain = header.chain;
        // One large batch must not hold its memory for ever.
        if self.buffer.capacity() > BUFFER_KEPT {
            self.buffer = Vec::new();
        }
        Ok(number)
    }

    fn rotate(&mut self, checkpointed: u64) -> Result<(), NoSpace> {
        let mut spare = None;
        while let Some((path, last)) = self.full.front() {
            if *last > checkpointed {
                break;
            }
            if spare.is_none() {
                spare = Some(path.clone());
            } else if let Err(error) = std::fs::remove_file(path) {
                tracing::warn!(%error, path = %path.display(), "old log segment not removed");
            }
            self.full.pop_front();
        }
        let head = SegmentHead {
            id: self.id,
            number: self.current.head.number + 1,
            first: self.last + 1,
            chain: self.chain,
        };
        match Segment::create(&self.dir, head, self.segment_bytes, spare) {
            Ok(next) => {
                let full = std::mem::replace(&mut self.current, next);
                self.full.push_back((full.path, self.last));
                Ok(())
            }
            Err(error) if is_full_disk(&error) => Err(NoSpace),
            Err(error) => die(&self.dir, "start a segment", &error),
        }
    }

    /// Bytes that the segments occupy.
    #[cfg(test)]
    fn segments(&self) -> usize {
        self.full.len() + 1
    }
}

/// Capacity of the write buffer that survives a batch.
const BUFFER_KEPT: usize = 256 << 10;

/// What reading the segments one after the other has shown so far.
#[derive(Default)]
struct Reader {
    started: bool,
    last: u64,
    chain: u32,
}

impl Reader {
    /// Checks that the segment continues the one before it.
    fn enter(
        &mut self,
        path: &Path,
        file: &File,
        id: i64,
        applied: u64,
    ) -> Result<SegmentHead, LogError> {
        let head = SegmentHead::read(file).map_err(|source| access(path, source))?;
        let Some(head) = head else {
            return Err(damaged(path, 0, "its head is unreadable"));
        };
        if head.id != id {
            return Err(damaged(path, 0, "it belongs to another store"));
        }
        if !self.started && head.first > applied + 1 {
            return Err(LogError::Gap {
                first: head.first,
                needed: applied + 1,
            });
        }
        if self.started && (head.first, head.chain) != (self.last + 1, self.chain) {
            let what = format!("it does not continue record {}", self.last);
            return Err(damaged(path, 0, &what));
        }
        self.started = true;
        self.last = head.first - 1;
        self.chain = head.chain;
        Ok(head)
    }

    /// Reads sound records up to the first that is not; returns its offset.
    fn records<E>(
        &mut self,
        path: &Path,
        file: &File,
        head: &SegmentHead,
        each: &mut impl FnMut(u64, Bytes) -> Result<(), E>,
    ) -> Result<Result<u64, E>, LogError> {
        let mut offset = SEGMENT_HEAD_BYTES;
        loop {
            let expected = (head.id, head.number, self.last + 1, self.chain);
            let found = record::read(file, offset, expected);
            let Some((header, payload)) = found.map_err(|source| access(path, source))? else {
                return Ok(Ok(offset));
            };
            offset += record::padded(HEADER_BYTES + payload.len()) as u64;
            self.last += 1;
            self.chain = header.chain;
            if let Err(error) = each(self.last, payload) {
                return Ok(Err(error));
            }
        }
    }

    /// Tells a torn tail from damage: behind a torn record there is nothing.
    fn judge_tail(
        &self,
        path: &Path,
        file: &File,
        head: &SegmentHead,
        offset: u64,
    ) -> Result<(), LogError> {
        let later = record::find_later(file, offset, (head.id, head.number), self.last + 1)
            .map_err(|source| access(path, source))?;
        match later {
            None => Ok(()),
            Some(later) => {
                let what = format!(
                    "record {} is unreadable, but {later} follows",
                    self.last + 1
                );
                Err(damaged(path, offset, &what))
            }
        }
    }
}

fn access(path: &Path, source: io::Error) -> LogError {
    let path = path.to_owned();
    LogError::Access { path, source }
}

fn damaged(path: &Path, offset: u64, what: &str) -> LogError {
    LogError::Damaged {
        path: path.to_owned(),
        offset,
        what: what.to_owned(),
    }
}

/// Ends the process: what the disk holds is unknown, and only a restart that
/// reads it back can tell.
fn die(path: &Path, action: &str, error: &io::Error) -> ! {
    tracing::error!(%error, path = %path.display(), "log: cannot {action}, aborting");
    std::process::abort()
}

#[cfg(test)]
mod tests;
