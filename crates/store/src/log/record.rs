//! One record of the log: header, payload, padding to eight bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::{Buf, BufMut, Bytes};

/// Most bytes of a record, header included. Recovery looks this far behind a
/// damaged record for a sound one.
pub(crate) const RECORD_BYTES_MAX: usize = 4 << 20;

/// Mark, payload length, number, segment, chain checksum, header checksum.
pub(super) const HEADER_BYTES: usize = 32;

const MARK: u32 = 0x5350_4c47;

/// Bytes read at a time when looking for a later record.
const WINDOW: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    length: u32,
    number: u64,
    segment: u64,
    /// Checksum of this payload and everything before it.
    pub(super) chain: u32,
    /// Checksum of this header, seeded with the store's id.
    check: u32,
}

impl Header {
    pub(super) fn of(id: i64, segment: u64, number: u64, chain: u32, payload: &[u8]) -> Header {
        let mut header = Header {
            length: payload.len() as u32,
            number,
            segment,
            chain: chain_of(chain, number, payload),
            check: 0,
        };
        header.check = header.checksum(id);
        header
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        self.write_checked(out);
        out.put_u32_le(self.check);
    }

    fn write_checked(&self, out: &mut impl BufMut) {
        out.put_u32_le(MARK);
        out.put_u32_le(self.length);
        out.put_u64_le(self.number);
        out.put_u64_le(self.segment);
        out.put_u32_le(self.chain);
    }

    fn checksum(&self, id: i64) -> u32 {
        let mut bytes = [0; HEADER_BYTES - 4];
        self.write_checked(&mut bytes.as_mut_slice());
        crc32c::crc32c_append(crc32c::crc32c(&id.to_le_bytes()), &bytes)
    }

    /// A header that is sound in itself.
    fn read(mut bytes: &[u8], id: i64) -> Option<Header> {
        if bytes.len() < HEADER_BYTES || bytes.get_u32_le() != MARK {
            return None;
        }
        let header = Header {
            length: bytes.get_u32_le(),
            number: bytes.get_u64_le(),
            segment: bytes.get_u64_le(),
            chain: bytes.get_u32_le(),
            check: bytes.get_u32_le(),
        };
        let fits = header.length as usize <= RECORD_BYTES_MAX - HEADER_BYTES;
        (fits && header.check == header.checksum(id)).then_some(header)
    }
}

pub(super) fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}

fn chain_of(before: u32, number: u64, payload: &[u8]) -> u32 {
    let seeded = crc32c::crc32c_append(before, &number.to_le_bytes());
    crc32c::crc32c_append(seeded, payload)
}

/// The record at `offset`, if it is there and sound. `expected` is the store's
/// id, the segment, the record's number, and the chain up to it.
pub(super) fn read(
    file: &File,
    offset: u64,
    (id, segment, number, chain): (i64, u64, u64, u32),
) -> io::Result<Option<(Header, Bytes)>> {
    let mut head = [0; HEADER_BYTES];
    if read_up_to(file, &mut head, offset)? < HEADER_BYTES {
        return Ok(None);
    }
    let Some(header) = Header::read(&head, id) else {
        return Ok(None);
    };
    if (header.segment, header.number) != (segment, number) {
        return Ok(None);
    }
    let mut payload = vec![0; header.length as usize];
    let read = read_up_to(file, &mut payload, offset + HEADER_BYTES as u64)?;
    if read < payload.len() || chain_of(chain, number, &payload) != header.chain {
        return Ok(None);
    }
    Ok(Some((header, payload.into())))
}

/// Looks behind `offset` for a record of this segment numbered above `number`.
pub(super) fn find_later(
    file: &File,
    offset: u64,
    (id, segment): (i64, u64),
    number: u64,
) -> io::Result<Option<u64>> {
    let mut window = vec![0; WINDOW];
    let end = offset + padded(RECORD_BYTES_MAX) as u64;
    let mut at = offset;
    while at <= end {
        let read = read_up_to(file, &mut window, at)?;
        let Some(last) = read.checked_sub(HEADER_BYTES) else {
            break;
        };
        for start in (0..=last).step_by(8) {
            let candidate = &window[start..start + HEADER_BYTES];
            let found = Header::read(candidate, id)
                .filter(|header| header.segment == segment && header.number > number);
            if let Some(header) = found {
                return Ok(Some(header.number));
            }
        }
        at += (last - last % 8 + 8) as u64;
    }
    Ok(None)
}

/// Fills `buffer` from `offset`; less only at the end of the file.
pub(super) fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
