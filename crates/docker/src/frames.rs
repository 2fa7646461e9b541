//! Two outputs in one stream: each piece behind a header of eight bytes, its stream and its length.

use bytes::{BufMut, Bytes, BytesMut};

pub(crate) const STDOUT: u8 = 1;
pub(crate) const STDERR: u8 = 2;

/// What a client that takes both outputs in one is told.
pub(crate) const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
/// The same for a terminal, whose bytes are sent as they are.
pub(crate) const RAW: &str = "application/vnd.docker.raw-stream";

/// One piece with its header, or as it is.
pub(crate) fn piece(stream: u8, raw: bool, bytes: &[u8]) -> Bytes {
    if raw {
        return Bytes::copy_from_slice(bytes);
    }
    let mut framed = BytesMut::with_capacity(bytes.len() + 8);
    framed.put_slice(&[stream, 0, 0, 0]);
    // Pieces are read into buffers far smaller than what four bytes can count.
    framed.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    framed.put_slice(bytes);
    framed.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_stream_and_length() {
        assert_eq!(
            piece(STDERR, false, b"abc"),
            &b"\x02\0\0\0\0\0\0\x03abc"[..]
        );
        assert_eq!(piece(STDOUT, true, b"abc"), &b"abc"[..]);
    }
}
