//! Blocks of names and values, compressed with one zlib stream per direction.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::SpdyError;

/// The text that both sides know before the first byte (SPDY/3, section 2.6.10.1).
const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");
/// Names and values of one block together, uncompressed.
const BLOCK_BYTES_MAX: usize = 64 << 10;
/// Names of one block.
const NAMES_MAX: u32 = 256;

/// Lower-case names and their values; several values of a name are separated by NUL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(BTreeMap<String, String>);

impl Headers {
    /// No headers.
    pub fn new() -> Headers {
        Headers::default()
    }

    /// With one more header.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Headers {
        self.0.insert(name.to_ascii_lowercase(), value.into());
        self
    }

    /// The first value of a name, in any case; empty when there is none.
    pub fn get(&self, name: &str) -> &str {
        let value = self.0.get(&name.to_ascii_lowercase());
        let value = value.map_or("", String::as_str);
        value.split('\0').next().unwrap_or("")
    }

    fn block(&self) -> Vec<u8> {
        let mut block = Vec::new();
        block.put_u32(self.0.len() as u32);
        for (name, value) in &self.0 {
            for text in [name, value] {
                block.put_u32(text.len() as u32);
                block.put_slice(text.as_bytes());
            }
        }
        block
    }

    fn parse(mut block: &[u8]) -> Result<Headers, SpdyError> {
        let short = SpdyError::Protocol("a header block ends early");
        if block.len() < 4 {
            return Err(short);
        }
        let count = block.get_u32();
        if count > NAMES_MAX {
            return Err(SpdyError::Protocol("too many headers"));
        }
        let mut text = || -> Result<String, SpdyError> {
            let length = match block.len() {
                0..4 => return Err(SpdyError::Protocol("a header block ends early")),
                _ => block.get_u32() as usize,
            };
            if block.len() < length {
                return Err(SpdyError::Protocol("a header block ends early"));
            }
            let text = String::from_utf8_lossy(&block[..length]).into_owned();
            block.advance(length);
            Ok(text)
        };
        let mut headers = BTreeMap::new();
        for _ in 0..count {
            let (name, value) = (text()?, text()?);
            headers.insert(name.to_ascii_lowercase(), value);
        }
        Ok(Headers(headers))
    }
}

/// Compresses the blocks of one direction, in the order of their frames.
pub(crate) struct Compressor(Compress);

impl Compressor {
    pub(crate) fn new() -> Result<Compressor, SpdyError> {
        let mut zlib = Compress::new(Compression::default(), true);
        zlib.set_dictionary(DICTIONARY)
            .map_err(|_| SpdyError::Protocol("the header dictionary was refused"))?;
        Ok(Compressor(zlib))
    }

    pub(crate) fn block(&mut self, headers: &Headers) -> Result<Bytes, SpdyError> {
        let block = headers.block();
        let mut out = Vec::with_capacity(block.len() + 64);
        let begun = self.0.total_in();
        loop {
            let done = (self.0.total_in() - begun) as usize;
            let before = out.len();
            self.0
                .compress_vec(&block[done..], &mut out, FlushCompress::Sync)
                .map_err(|_| SpdyError::Protocol("headers cannot be compressed"))?;
            let all_in = (self.0.total_in() - begun) as usize == block.len();
            if all_in && out.len() < out.capacity() {
                return Ok(out.into());
            }
            if out.len() == before && out.len() < out.capacity() {
                return Err(SpdyError::Protocol("headers cannot be compressed"));
            }
            out.reserve(256);
        }
    }
}

/// Decompresses the blocks of one direction.
pub(crate) struct Decompressor(Decompress);

impl Decompressor {
    pub(crate) fn new() -> Decompressor {
        Decompressor(Decompress::new(true))
    }

    pub(crate) fn headers(&mut self, mut block: &[u8]) -> Result<Headers, SpdyError> {
        let bad = |_| SpdyError::Protocol("headers cannot be decompressed");
        let mut out = Vec::with_capacity(1 << 10);
        loop {
            let (read, length) = (self.0.total_in(), out.len());
            let ended = self
                .0
                .decompress_vec(block, &mut out, FlushDecompress::Sync);
            block = &block[(self.0.total_in() - read) as usize..];
            let progress = self.0.total_in() > read || out.len() > length;
            match ended {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(DICTIONARY).map_err(bad)?;
                    continue;
                }
                Err(error) => return Err(bad(error)),
                Ok(Status::StreamEnd) => return Headers::parse(&out),
                Ok(Status::Ok | Status::BufError) => {}
            }
            if out.len() > BLOCK_BYTES_MAX {
                return Err(SpdyError::Protocol("headers are too long"));
            }
            if out.len() == out.capacity() {
                out.reserve(out.len());
            } else if block.is_empty() || !progress {
                return Headers::parse(&out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_survive_compression_one_after_the_other() {
        let mut compressor = Compressor::new().unwrap();
        let mut decompressor = Decompressor::new();
        let long = "x".repeat(20_000);
        for value in ["error", "data", "", &long] {
            let headers = Headers::new().with("streamType", value).with("Port", "80");
            let block = compressor.block(&headers).unwrap();
            let back = decompressor.headers(&block).unwrap();
            assert_eq!(back, headers);
            assert_eq!(back.get("STREAMTYPE"), value);
        }
    }

    #[test]
    fn bombs_and_nonsense_are_refused() {
        let mut compressor = Compressor::new().unwrap();
        let bomb = Headers::new().with("a", "0".repeat(BLOCK_BYTES_MAX * 4));
        let block = compressor.block(&bomb).unwrap();
        assert!(Decompressor::new().headers(&block).is_err());
        assert!(Decompressor::new().headers(b"nonsense").is_err());
        assert!(Decompressor::new().headers(b"").is_err());
        assert!(Headers::parse(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
