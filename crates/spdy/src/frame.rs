//! The frames of SPDY/3.1 as bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::SpdyError;
use crate::header::{Compressor, Decompressor, Headers};

const VERSION: u16 = 3;
const CONTROL_BIT: u32 = 1 << 31;
const ID_MASK: u32 = CONTROL_BIT - 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

const FLAG_FIN: u8 = 1;
const FLAG_UNIDIRECTIONAL: u8 = 2;
const INITIAL_WINDOW_SIZE: u32 = 7;

/// The longest control frame that is taken.
const CONTROL_BYTES_MAX: usize = 64 << 10;
/// Longer data frames are handed on in pieces of this size.
pub(crate) const CHUNK_BYTES_MAX: usize = 32 << 10;

/// Why a stream is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Cause {
    ProtocolError = 1,
    RefusedStream = 3,
    Cancel = 5,
}

/// One frame, or a piece of a long data frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    SynStream {
        id: u32,
        headers: Headers,
        fin: bool,
        /// The opener does not expect anything back.
        unidirectional: bool,
    },
    SynReply {
        id: u32,
        fin: bool,
    },
    Reset {
        id: u32,
        cause: u32,
    },
    /// The peer's window of new streams, when it says so.
    Settings {
        initial_window: Option<u32>,
    },
    Ping(u32),
    GoAway {
        last_good: u32,
    },
    Headers {
        id: u32,
        fin: bool,
    },
    WindowUpdate {
        id: u32,
        delta: u32,
    },
    Data {
        id: u32,
        bytes: Bytes,
        fin: bool,
    },
    /// Of a kind that does not concern us.
    Unknown,
}

/// Turns bytes to frames.
pub(crate) struct FrameReader<R> {
    inner: R,
    decompressor: Decompressor,
    /// What is left of a data frame that is read in pieces: stream, bytes, whether it is the last.
    rest: Option<(u32, usize, bool)>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(inner: R) -> FrameReader<R> {
        FrameReader {
            inner,
            decompressor: Decompressor::new(),
            rest: None,
        }
    }

    /// The next frame; `None` at a clean end.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        if let Some(rest) = self.rest.take() {
            return self.data(rest).await.map(Some);
        }
        let mut head = [0; 8];
        if self.inner.read(&mut head[..1]).await? == 0 {
            return Ok(None);
        }
        self.inner.read_exact(&mut head[1..]).await?;
        let mut fields = &head[..];
        let (word, flags) = (fields.get_u32(), fields[0]);
        let length = (fields.get_u32() & 0x00ff_ffff) as usize;
        if word & CONTROL_BIT == 0 {
            return self
                .data((word, length, flags & FLAG_FIN != 0))
                .await
                .map(Some);
        }
        if (word >> 16) as u16 & 0x7fff != VERSION {
            return Err(SpdyError::Protocol("unsupported version"));
        }
        if length > CONTROL_BYTES_MAX {
            return Err(SpdyError::Protocol("a control frame is too long"));
        }
        let mut payload = vec![0; length];
        self.inner.read_exact(&mut payload).await?;
        self.control(word as u16, flags, &payload).map(Some)
    }

    async fn data(&mut self, (id, length, fin): (u32, usize, bool)) -> Result<Frame, SpdyError> {
        let mut bytes = BytesMut::zeroed(length.min(CHUNK_BYTES_MAX));
        self.inner.read_exact(&mut bytes).await?;
        let left = length - bytes.len();
        if left > 0 {
            self.rest = Some((id, left, fin));
        }
        Ok(Frame::Data {
            id,
            bytes: bytes.freeze(),
            fin: fin && left == 0,
        })
    }

    fn control(&mut self, kind: u16, flags: u8, mut body: &[u8]) -> Result<Frame, SpdyError> {
        let least = match kind {
            SYN_STREAM => 10,
            SYN_REPLY | HEADERS | SETTINGS | PING => 4,
            RST_STREAM | GOAWAY | WINDOW_UPDATE => 8,
            _ => 0,
        };
        if body.len() < least {
            return Err(SpdyError::Protocol("a control frame is too short"));
        }
        let fin = flags & FLAG_FIN != 0;
        Ok(match kind {
            SYN_STREAM => {
                let id = body.get_u32() & ID_MASK;
                // The associated stream, the priority and the slot do not matter here.
                body.advance(6);
                Frame::SynStream {
                    id,
                    headers: self.decompressor.headers(body)?,
                    fin,
                    unidirectional: flags & FLAG_UNIDIRECTIONAL != 0,
                }
            }
            // Headers of answers say nothing, but the decompressor must see them.
            SYN_REPLY => {
                let id = body.get_u32() & ID_MASK;
                self.decompressor.headers(body)?;
                Frame::SynReply { id, fin }
            }
            HEADERS => {
                let id = body.get_u32() & ID_MASK;
                self.decompressor.headers(body)?;
                Frame::Headers { id, fin }
            }
            RST_STREAM => Frame::Reset {
                id: body.get_u32() & ID_MASK,
                cause: body.get_u32(),
            },
            SETTINGS => settings(body),
            PING => Frame::Ping(body.get_u32()),
            GOAWAY => Frame::GoAway {
                last_good: body.get_u32() & ID_MASK,
            },
            WINDOW_UPDATE => Frame::WindowUpdate {
                id: body.get_u32() & ID_MASK,
                delta: body.get_u32() & ID_MASK,
            },
            _ => Frame::Unknown,
        })
    }
}

fn settings(mut body: &[u8]) -> Frame {
    let count = body.get_u32() as usize;
    let mut initial_window = None;
    for _ in 0..count.min(body.len() / 8) {
        let (id, value) = (body.get_u32() & 0x00ff_ffff, body.get_u32());
        if id == INITIAL_WINDOW_SIZE {
            initial_window = Some(value & ID_MASK);
        }
    }
    Frame::Settings { initial_window }
}

/// Turns frames to bytes.
pub(crate) struct Encoder(Compressor);

impl Encoder {
    pub(crate) fn new() -> Result<Encoder, SpdyError> {
        Ok(Encoder(Compressor::new()?))
    }

    /// Appends a frame.
    pub(crate) fn encode(&mut self, frame: &Frame, out: &mut BytesMut) -> Result<(), SpdyError> {
        match frame {
            Frame::SynStream {
                id,
                headers,
                fin,
                unidirectional,
            } => {
                let block = self.0.block(headers)?;
                let one_way = if *unidirectional {
                    FLAG_UNIDIRECTIONAL
                } else {
                    0
                };
                control(out, SYN_STREAM, u8::from(*fin) | one_way, 10 + block.len());
                out.put_u32(*id);
                out.put_slice(&[0; 6]);
                out.put_slice(&block);
            }
            Frame::SynReply { id, fin } | Frame::Headers { id, fin } => {
                let block = self.0.block(&Headers::new())?;
                let kind = match frame {
                    Frame::SynReply { .. } => SYN_REPLY,
                    _ => HEADERS,
                };
                control(out, kind, u8::from(*fin), 4 + block.len());
                out.put_u32(*id);
                out.put_slice(&block);
            }
            Frame::Reset { id, cause } => two(out, RST_STREAM, *id, *cause),
            Frame::GoAway { last_good } => two(out, GOAWAY, *last_good, 0),
            Frame::WindowUpdate { id, delta } => two(out, WINDOW_UPDATE, *id, *delta),
            Frame::Settings { initial_window } => {
                let count = u32::from(initial_window.is_some());
                control(out, SETTINGS, 0, 4 + 8 * count as usize);
                out.put_u32(count);
                if let Some(window) = initial_window {
                    out.put_u32(INITIAL_WINDOW_SIZE);
                    out.put_u32(*window);
                }
            }
            Frame::Ping(id) => {
                control(out, PING, 0, 4);
                out.put_u32(*id);
            }
            Frame::Data { id, bytes, fin } => {
                out.put_u32(*id);
                out.put_u32(u32::from(*fin) << 24 | bytes.len() as u32);
                out.put_slice(bytes);
            }
            Frame::Unknown => {}
        }
        Ok(())
    }
}

fn two(out: &mut BytesMut, kind: u16, first: u32, second: u32) {
    control(out, kind, 0, 8);
    out.put_u32(first);
    out.put_u32(second);
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(VERSION | 0x8000);
    out.put_u16(kind);
    out.put_u32(u32::from(flags) << 24 | length as u32);
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn back(frames: &[Frame]) -> Vec<Frame> {
        let mut encoder = Encoder::new().unwrap();
        let mut out = BytesMut::new();
        for frame in frames {
            encoder.encode(frame, &mut out).unwrap();
        }
        let mut reader = FrameReader::new(&out[..]);
        let mut read = Vec::new();
        while let Some(frame) = reader.next().await.unwrap() {
            read.push(frame);
        }
        read
    }

    #[tokio::test]
    async fn frames_survive_the_wire() {
        let frames = || {
            vec![
                Frame::SynStream {
                    id: 1,
                    headers: Headers::new().with("streamtype", "error"),
                    fin: true,
                    unidirectional: false,
                },
                Frame::SynReply { id: 1, fin: false },
                Frame::Headers { id: 1, fin: true },
                Frame::Reset { id: 3, cause: 5 },
                Frame::Settings {
                    initial_window: Some(65_536),
                },
                Frame::Ping(7),
                Frame::WindowUpdate { id: 1, delta: 9 },
                Frame::Data {
                    id: 1,
                    bytes: Bytes::from_static(b"abc"),
                    fin: true,
                },
                Frame::GoAway { last_good: 3 },
            ]
        };
        assert_eq!(back(&frames()).await, frames());
    }

    #[tokio::test]
    async fn long_data_comes_in_pieces() {
        let bytes = Bytes::from(vec![7; CHUNK_BYTES_MAX + 1]);
        let long = Frame::Data {
            id: 1,
            bytes,
            fin: true,
        };
        let pieces = back(&[long]).await;
        let ends: Vec<bool> = pieces
            .iter()
            .map(|piece| matches!(piece, Frame::Data { fin: true, .. }))
            .collect();
        assert_eq!(ends, [false, true]);
    }

    #[tokio::test]
    async fn nonsense_is_refused() {
        for bytes in [
            &b"\x80\x02\x00\x01\x00\x00\x00\x00"[..],
            b"\x80\x03\x00\x01\x00\x00\x00\x04\x00\x00\x00\x01",
            b"\x80\x03\x00\x06\x00\xff\xff\xff",
            b"\x00\x00\x00\x01\x00\x00\x00\x09short",
            b"\x80\x03",
        ] {
            assert!(FrameReader::new(bytes).next().await.is_err(), "{bytes:?}");
        }
        assert!(FrameReader::new(&b""[..]).next().await.unwrap().is_none());
    }
}
