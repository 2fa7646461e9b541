//! Packed pages: unpacked and packed again piece by piece.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder, GzDecoder, GzEncoder};

/// How a page is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Plain,
    Gzip,
    Deflate,
}

impl Coding {
    /// What a `Content-Encoding` names; `None`: nothing that could be unpacked.
    pub(crate) fn read(name: &str) -> Option<Coding> {
        match name {
            "" | "identity" => Some(Coding::Plain),
            "gzip" => Some(Coding::Gzip),
            "deflate" => Some(Coding::Deflate),
            _ => None,
        }
    }
}

type Buffer = Vec<u8>;

/// Both directions of one coding.
pub(super) enum Coder {
    Plain,
    Gzip(Box<(GzDecoder<Buffer>, GzEncoder<Buffer>)>),
    Deflate(Box<(DeflateDecoder<Buffer>, DeflateEncoder<Buffer>)>),
}

impl Coder {
    pub(super) fn new(coding: Coding) -> Coder {
        let level = Compression::fast();
        match coding {
            Coding::Plain => Coder::Plain,
            Coding::Gzip => Coder::Gzip(Box::new((
                GzDecoder::new(Buffer::new()),
                GzEncoder::new(Buffer::new(), level),
            ))),
            Coding::Deflate => Coder::Deflate(Box::new((
                DeflateDecoder::new(Buffer::new()),
                DeflateEncoder::new(Buffer::new(), level),
            ))),
        }
    }

    /// What a piece says.
    pub(super) fn decode(&mut self, piece: &[u8]) -> io::Result<Bytes> {
        match self {
            Coder::Plain => Ok(Bytes::copy_from_slice(piece)),
            Coder::Gzip(own) => {
                own.0.write_all(piece)?;
                own.0.flush()?;
                Ok(std::mem::take(own.0.get_mut()).into())
            }
            Coder::Deflate(own) => {
                own.0.write_all(piece)?;
                own.0.flush()?;
                Ok(std::mem::take(own.0.get_mut()).into())
            }
        }
    }

    /// A piece as it goes out, readable without what follows.
    pub(super) fn encode(&mut self, plain: &Bytes) -> io::Result<Bytes> {
        match self {
            Coder::Plain => Ok(plain.clone()),
            _ if plain.is_empty() => Ok(Bytes::new()),
            Coder::Gzip(own) => {
                own.1.write_all(plain)?;
                own.1.flush()?;
                Ok(std::mem::take(own.1.get_mut()).into())
            }
            Coder::Deflate(own) => {
                own.1.write_all(plain)?;
                own.1.flush()?;
                Ok(std::mem::take(own.1.get_mut()).into())
            }
        }
    }

    /// The last piece, and the end.
    pub(super) fn finish(&mut self, plain: &Bytes) -> io::Result<Bytes> {
        match self {
            Coder::Plain => Ok(plain.clone()),
            Coder::Gzip(own) => {
                own.1.write_all(plain)?;
                own.1.try_finish()?;
                Ok(std::mem::take(own.1.get_mut()).into())
            }
            Coder::Deflate(own) => {
                own.1.write_all(plain)?;
                own.1.try_finish()?;
                Ok(std::mem::take(own.1.get_mut()).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_pieces_are_packed_again() {
        for coding in [Coding::Plain, Coding::Gzip, Coding::Deflate] {
            let text = Bytes::from_static(b"a page that comes in pieces");
            let mut packer = Coder::new(coding);
            let mut packed = packer.encode(&text.slice(..9)).unwrap().to_vec();
            packed.extend(packer.finish(&text.slice(9..)).unwrap());
            let mut coder = Coder::new(coding);
            let mut again = Vec::new();
            for piece in packed.chunks(7) {
                let plain = coder.decode(piece).unwrap();
                again.extend(coder.encode(&plain).unwrap());
            }
            again.extend(coder.finish(&Bytes::new()).unwrap());
            let shown = Coder::new(coding).decode(&again).unwrap();
            assert_eq!(shown, text, "{coding:?}");
        }
    }
}
