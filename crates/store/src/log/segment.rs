//! One file of the log: made whole before it gets its name, filled in order.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::record::read_up_to;
use crate::patience::is_full_disk;

/// Bytes before the first record.
pub(super) const SEGMENT_HEAD_BYTES: u64 = 64;

const MARK: u64 = 0x3130_474f_4c50_5350;

/// Zeros written ahead of the records into a segment never filled before, so
/// that most flushes need not record new blocks in the file system's journal.
const ZERO_AHEAD: u64 = 1 << 20;

const SPARE: &str = "spare";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHead {
    /// The store that the segment belongs to.
    pub(super) id: i64,
    pub(super) number: u64,
    /// Number of the first record.
    pub(super) first: u64,
    /// Checksum that the first record continues.
    pub(super) chain: u32,
}

impl SegmentHead {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEGMENT_HEAD_BYTES as usize);
        bytes.put_u64_le(MARK);
        bytes.put_i64_le(self.id);
        bytes.put_u64_le(self.number);
        bytes.put_u64_le(self.first);
        bytes.put_u32_le(self.chain);
        bytes.put_u32_le(crc32c::crc32c(&bytes));
        bytes.resize(SEGMENT_HEAD_BYTES as usize, 0);
        bytes
    }

    pub(super) fn read(file: &File) -> io::Result<Option<SegmentHead>> {
        let mut bytes = [0; SEGMENT_HEAD_BYTES as usize];
        read_up_to(file, &mut bytes, 0)?;
        let mut from = bytes.as_slice();
        let mark = from.get_u64_le();
        let head = SegmentHead {
            id: from.get_i64_le(),
            number: from.get_u64_le(),
            first: from.get_u64_le(),
            chain: from.get_u32_le(),
        };
        let sound = mark == MARK && head.encode() == bytes && head.first > 0;
        Ok(sound.then_some(head))
    }
}

/// A segment open for writing.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) head: SegmentHead,
    /// Where the next record goes.
    pub(super) offset: u64,
    pub(super) bytes: u64,
    /// Up to here the file has been written at least once.
    touched: u64,
}

impl Segment {
    /// Makes the next segment, from an old one if there is one. It has all its
    /// blocks, and a durable head, before it has its name.
    pub(super) fn create(
        dir: &Path,
        head: SegmentHead,
        bytes: u64,
        old: Option<PathBuf>,
    ) -> io::Result<Segment> {
        let spare = dir.join(SPARE);
        let mut touched = SEGMENT_HEAD_BYTES;
        if let Some(old) = old {
            std::fs::rename(&old, &spare)?;
        }
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&spare)?;
        // A spare left by a full disk or a crash is completed here.
        if file.metadata()?.len() == bytes {
            touched = bytes;
        }
        if let Err(error) = reserve(&file, bytes) {
            // What was reserved so far is worth more to others.
            file.set_len(0)?;
            return Err(error);
        }
        file.write_all_at(&head.encode(), 0)?;
        file.sync_all()?;
        let path = dir.join(format!("{:016x}.log", head.number));
        std::fs::rename(&spare, &path)?;
        File::open(dir)?.sync_all()?;
        Ok(Segment {
            path,
            file,
            head,
            offset: SEGMENT_HEAD_BYTES,
            bytes,
            touched,
        })
    }

    /// Continues a segment found at start, behind its last sound record.
    pub(super) fn resume(
        path: PathBuf,
        file: File,
        head: SegmentHead,
        offset: u64,
        bytes: u64,
    ) -> io::Result<Segment> {
        let bytes = bytes.max(file.metadata()?.len());
        match reserve(&file, bytes) {
            Err(error) if is_full_disk(&error) => {}
            reserved => reserved?,
        }
        Ok(Segment {
            path,
            file,
            head,
            offset,
            bytes,
            touched: offset,
        })
    }

    /// Writes one record at the end, without flushing or counting it.
    pub(super) fn write(&mut self, record: &[u8]) -> io::Result<()> {
        let end = self.offset + record.len() as u64;
        if end > self.touched {
            let ahead = (end + ZERO_AHEAD).min(self.bytes);
            let zeros = vec![0; (ahead - end) as usize];
            self.file.write_all_at(&zeros, end)?;
            self.touched = ahead;
        }
        // Last, so that a record that found no room is never whole.
        self.file.write_all_at(record, self.offset)
    }
}

/// The segments of `dir` in order.
pub(super) fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes as i64) {
        // Such a file system reserves nothing; a full disk is then met by a write.
        Err(Errno::EOPNOTSUPP) => file.set_len(bytes),
        reserved => Ok(reserved?),
    }
}
