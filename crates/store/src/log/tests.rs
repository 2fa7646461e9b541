//! Tests of the log's recovery, byte by byte.

use std::convert::Infallible;
use std::fs;

use super::*;

const ID: i64 = 77;
const SEGMENT: u64 = SEGMENT_BYTES_MIN;

/// Opens the log in `dir` and returns it with its records.
fn open(dir: &Path, applied: u64) -> Result<(Log, Vec<Bytes>), LogError> {
    let mut records = Vec::new();
    let log = Log::open::<Infallible>(dir, ID, SEGMENT, applied, |_, record| {
        records.push(record);
        Ok(())
    })?;
    let Ok(log) = log;
    Ok((log, records))
}

fn first_segment(dir: &Path) -> PathBuf {
    dir.join("0000000000000001.log")
}

/// A folder with the given bytes as its only segment.
fn folder_with(segment: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(first_segment(dir.path()), segment).unwrap();
    dir
}

/// The used bytes of a segment with three records, and where each one begins.
fn sample() -> (Vec<u8>, Vec<usize>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), 0).unwrap();
    let mut starts = Vec::new();
    for record in ["first", "second, which is longer", "the third and last"] {
        starts.push(log.current.offset as usize);
        log.append(record.as_bytes(), 0).unwrap();
    }
    let mut bytes = fs::read(first_segment(dir.path())).unwrap();
    bytes.truncate(log.current.offset as usize);
    (bytes, starts)
}

#[test]
fn a_torn_tail_is_dropped_at_every_byte() {
    let (bytes, starts) = sample();
    let payload_end = starts[2] + HEADER_BYTES + "the third and last".len();
    for cut in starts[2]..=bytes.len() {
        let dir = folder_with(&bytes[..cut]);
        let (mut log, records) = open(dir.path(), 0).unwrap();
        let whole = if cut >= payload_end { 3 } else { 2 };
        assert_eq!(records.len(), whole, "cut at {cut}");
        log.append(b"next", 0).unwrap();
        drop(log);
        let (_, records) = open(dir.path(), 0).unwrap();
        assert_eq!(records.len(), whole + 1, "cut at {cut}");
        assert_eq!(records[whole], "next");
    }
}

#[test]
fn a_flipped_bit_drops_the_last_record_and_refuses_others() {
    let (bytes, starts) = sample();
    let payload_end = starts[2] + HEADER_BYTES + "the third and last".len();
    for at in 0..payload_end {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        let dir = folder_with(&bytes);
        let opened = open(dir.path(), 0);
        if at >= starts[2] {
            assert_eq!(opened.unwrap().1.len(), 2, "flipped at {at}");
        } else if opened.is_ok() {
            // Padding means nothing: between the records, and behind the head.
            let second = starts[1] + HEADER_BYTES + "second, which is longer".len();
            let first = starts[0] + HEADER_BYTES + "first".len();
            let is_padding = (first..starts[1]).contains(&at) || (second..starts[2]).contains(&at);
            assert!(is_padding, "flipped at {at}");
        } else {
            assert!(
                matches!(opened, Err(LogError::Damaged { .. })),
                "flipped at {at}"
            );
        }
    }
}

#[test]
fn a_log_that_lost_used_records_is_refused() {
    let (bytes, starts) = sample();
    let dir = folder_with(&bytes[..starts[2]]);
    let refused = open(dir.path(), 3).unwrap_err();
    assert!(matches!(refused, LogError::Missing { last: 2, needed: 3 }));
    assert!(matches!(
        open(tempfile::tempdir().unwrap().path(), 3),
        Err(LogError::Missing { .. })
    ));
}

#[test]
fn segments_are_reused_below_the_checkpoint_only() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), 0).unwrap();
    let record = vec![7; 1 << 20];
    let mut number = 0;
    for _ in 0..20 {
        number = log.append(&record, 0).unwrap();
    }
    let held = log.segments();
    assert_eq!(held, 5);
    for _ in 0..40 {
        let checkpointed = number;
        number = log.append(&record, checkpointed).unwrap();
    }
    assert!(log.segments() <= 2, "{} segments", log.segments());
    drop(log);
    assert!(matches!(open(dir.path(), 3), Err(LogError::Gap { .. })));
    let (mut log, records) = open(dir.path(), number - 1).unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(log.append(b"more", 0).unwrap(), number + 1);
    drop(log);
    assert_eq!(open(dir.path(), number).unwrap().1, ["more"]);
}

#[test]
fn a_damaged_older_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), 0).unwrap();
    for _ in 0..9 {
        log.append(&vec![7; 1 << 20], 0).unwrap();
    }
    drop(log);
    let path = first_segment(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[3 << 20] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(matches!(open(dir.path(), 0), Err(LogError::Damaged { .. })));
}

#[test]
fn another_stores_log_is_refused() {
    let dir = folder_with(&sample().0);
    let other = Log::open::<Infallible>(dir.path(), ID + 1, SEGMENT, 0, |_, _| Ok(()));
    let told = other.unwrap_err().to_string();
    assert!(told.ends_with("it belongs to another store"), "{told}");
}
