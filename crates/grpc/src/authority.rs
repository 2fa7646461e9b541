//! Clients of unix sockets that name the socket's path as the server's: gRPC for Go does so where
//! a plugin dials by a function of its own, as nearly all do. A path is no authority for HTTP, and
//! the library below ends such requests; so they come here first, and say `localhost` afterwards.
//!
//! Works on the bytes of HTTP/2: of frames of headers, the value of `:authority` is replaced where
//! it is written out. What is referred to by number later keeps its number.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What every client says first.
const PREFACE: usize = 24;
/// The fixed part of a frame.
const HEAD: usize = 9;
/// Bytes of a frame; more than any peer of ours may send.
const FRAME_MAX: usize = 1 << 20;
/// The type of frames that begin a request.
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// `:authority` in the table that all know.
const AUTHORITY: usize = 1;
const HOST: &[u8] = b"localhost";

/// A connection whose requests name a host.
pub(crate) struct Named<S> {
    stream: S,
    /// What was read, and not looked at.
    raw: Vec<u8>,
    /// What was looked at, and how much of it was taken.
    ready: Vec<u8>,
    taken: usize,
    /// Bytes of the preface that are to come.
    preface: usize,
    ended: bool,
}

impl<S> Named<S> {
    pub(crate) fn new(stream: S) -> Named<S> {
        Named {
            stream,
            raw: Vec::new(),
            ready: Vec::new(),
            taken: 0,
            preface: PREFACE,
            ended: false,
        }
    }

    /// Looks at all frames that are there as a whole.
    fn look(&mut self) -> io::Result<()> {
        let begun = self.raw.len().min(self.preface);
        self.ready.extend(self.raw.drain(..begun));
        self.preface -= begun;
        let mut at = 0;
        while self.preface == 0 && self.raw.len() - at >= HEAD {
            let frame = &self.raw[at..];
            let length = usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8;
            let length = length | usize::from(frame[2]);
            if length > FRAME_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "frame too large",
                ));
            }
            let Some(frame) = frame.get(..HEAD + length) else {
                break;
            };
            match renamed(frame) {
                Some(frame) => self.ready.extend(frame),
                None => self.ready.extend(frame),
            }
            at += HEAD + length;
        }
        self.raw.drain(..at);
        if self.ended {
            // Half a frame is the library's to judge.
            self.ready.append(&mut self.raw);
        }
        Ok(())
    }
}

/// A frame of headers with another authority; `None`: it is well as it is.
fn renamed(frame: &[u8]) -> Option<Vec<u8>> {
    let (head, body) = frame.split_at_checked(HEAD)?;
    let flags = head[4];
    if head[3] != HEADERS || flags & END_HEADERS == 0 {
        return None;
    }
    let (mut begin, mut end) = (0, body.len());
    if flags & PADDED != 0 {
        begin += 1;
        end = end.checked_sub(usize::from(*body.first()?))?;
    }
    if flags & PRIORITY != 0 {
        begin += 5;
    }
    let block = body.get(begin..end)?;
    let value = authority(block)?;
    let mut new = Vec::with_capacity(frame.len());
    new.extend(&body[..begin]);
    new.extend(&block[..value.start]);
    new.push(u8::try_from(HOST.len()).ok()?);
    new.extend(HOST);
    new.extend(&block[value.end..]);
    new.extend(&body[end..]);
    let length = u32::try_from(new.len()).ok()?.to_be_bytes();
    let mut whole = length[1..].to_vec();
    whole.extend(&head[3..]);
    whole.extend(new);
    Some(whole)
}

/// Where in a block of headers the value of `:authority` is written out.
fn authority(block: &[u8]) -> Option<std::ops::Range<usize>> {
    let mut at = 0;
    while at < block.len() {
        let first = block[at];
        // By the first bits: a number, a new entry, another size of the table, or neither.
        let (bits, has_value) = match first {
            first if first & 0x80 != 0 => (7, false),
            first if first & 0x40 != 0 => (6, true),
            first if first & 0x20 != 0 => (5, false),
            _ => (4, true),
        };
        let name = integer(block, &mut at, bits)?;
        if !has_value {
            continue;
        }
        if name == 0 {
            skip_text(block, &mut at)?;
        }
        let begin = at;
        skip_text(block, &mut at)?;
        if name == AUTHORITY {
            return Some(begin..at);
        }
    }
    None
}

fn skip_text(block: &[u8], at: &mut usize) -> Option<()> {
    let length = integer(block, at, 7)?;
    *at = at.checked_add(length).filter(|end| *end <= block.len())?;
    Some(())
}

/// A number that begins in the lower bits of a byte.
fn integer(block: &[u8], at: &mut usize, bits: u32) -> Option<usize> {
    let most = (1_usize << bits) - 1;
    let mut number = usize::from(*block.get(*at)?) & most;
    *at += 1;
    if number < most {
        return Some(number);
    }
    for shift in [0, 7, 14, 21] {
        let byte = usize::from(*block.get(*at)?);
        *at += 1;
        number += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

impl<S: AsyncRead + Unpin> AsyncRead for Named<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let own = &mut *self;
        while own.taken == own.ready.len() && !own.ended {
            (own.taken, own.ready) = (0, Vec::new());
            let mut space = [0; 4_096];
            let mut read = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut own.stream).poll_read(context, &mut read))?;
            own.ended = read.filled().is_empty();
            own.raw.extend(read.filled());
            own.look()?;
        }
        let rest = &own.ready[own.taken..];
        let part = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..part]);
        own.taken += part;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Named<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn frame(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.extend(body);
        frame
    }

    /// POST, http, a new entry for the path, and one for the authority.
    fn headers(authority: &[u8]) -> Vec<u8> {
        let mut block = vec![0x83, 0x86, 0x44, 2, b'/', b'R', 0x41];
        block.push(u8::try_from(authority.len()).unwrap());
        block.extend(authority);
        block.extend([0x40, 1, b'a', 1, b'b', 0xbf]);
        block
    }

    #[test]
    fn only_the_authority_is_another() {
        let path = b"%2Fvar%2Flib%2Fkubelet.sock";
        let plain = frame(HEADERS, END_HEADERS, &headers(path));
        let expected = frame(HEADERS, END_HEADERS, &headers(HOST));
        assert_eq!(renamed(&plain), Some(expected));
        let around = |authority: &[u8]| {
            let mut body = vec![2, 0, 0, 0, 0, 9];
            body.extend(headers(authority));
            body.extend([0, 0]);
            frame(HEADERS, END_HEADERS | PADDED | PRIORITY, &body)
        };
        assert_eq!(renamed(&around(path)), Some(around(HOST)));
        assert_eq!(renamed(&frame(0, END_HEADERS, &headers(path))), None);
        assert_eq!(renamed(&frame(HEADERS, 0, &headers(path))), None);
        assert_eq!(renamed(&frame(HEADERS, END_HEADERS, &[0x83, 0x86])), None);
        // What is cut off stays as it is.
        let cut = &headers(path)[..12];
        assert_eq!(renamed(&frame(HEADERS, END_HEADERS, cut)), None);
    }

    #[tokio::test]
    async fn frames_come_in_any_pieces() {
        let (mut client, server) = tokio::io::duplex(7);
        let mut sent = vec![b'P'; PREFACE];
        sent.extend(frame(4, 0, &[1; 6]));
        sent.extend(frame(HEADERS, END_HEADERS, &headers(b"/a/path.sock")));
        sent.extend(frame(0, 1, &[7; 300]));
        let mut expected = vec![b'P'; PREFACE];
        expected.extend(frame(4, 0, &[1; 6]));
        expected.extend(frame(HEADERS, END_HEADERS, &headers(HOST)));
        expected.extend(frame(0, 1, &[7; 300]));
        let write = async {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let mut named = Named::new(server);
        let (_, read) = tokio::join!(write, named.read_to_end(&mut got));
        read.unwrap();
        assert_eq!(got, expected);
    }
}
