//! One stream: two halves that are closed apart from each other.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use crate::frame::{CHUNK_BYTES_MAX, Frame};
use crate::header::Headers;
use crate::session::Shared;

/// What is read before the peer is told that it may send more.
const CREDIT_BYTES: u32 = 32 << 10;

/// A stream that both sides agreed on. Dropping both halves before `shutdown` of the writer resets it.
#[derive(Debug)]
pub struct Stream {
    /// The number of the stream within the connection.
    pub id: u32,
    /// What the opener said of it.
    pub headers: Headers,
    /// What the peer sends. Dropping it discards the rest.
    pub reader: StreamReader,
    /// What we send. `shutdown` says that there will be no more.
    pub writer: StreamWriter,
}

/// What the halves of a stream and its connection share.
pub(crate) struct Life {
    pub(crate) id: u32,
    shared: Arc<Shared>,
    /// We said that there is no more, or may not speak.
    pub(crate) local_done: AtomicBool,
    /// The peer said so.
    pub(crate) remote_done: AtomicBool,
    /// The peer reset the stream, or the connection is gone.
    pub(crate) reset: AtomicBool,
    /// How much the peer takes, if it counts.
    pub(crate) window: AtomicI64,
    pub(crate) writable: AtomicWaker,
}

impl Life {
    pub(crate) fn new(id: u32, shared: Arc<Shared>, window: i64) -> Life {
        Life {
            id,
            shared,
            local_done: AtomicBool::new(false),
            remote_done: AtomicBool::new(false),
            reset: AtomicBool::new(false),
            window: AtomicI64::new(window),
            writable: AtomicWaker::new(),
        }
    }

    fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Acquire)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // Who finished speaking lets the peer go on; nobody reads it.
        let torn = !self.local_done.load(Ordering::Acquire) && !self.is_reset();
        self.shared.forget(self.id, torn);
    }
}

/// The peer's half of a stream.
pub struct StreamReader {
    life: Arc<Life>,
    inbound: mpsc::Receiver<Bytes>,
    current: Bytes,
    /// Bytes read that the peer was not told of.
    uncredited: u32,
}

impl StreamReader {
    pub(crate) fn new(life: Arc<Life>, inbound: mpsc::Receiver<Bytes>) -> StreamReader {
        StreamReader {
            life,
            inbound,
            current: Bytes::new(),
            uncredited: 0,
        }
    }

    fn credit(&mut self, count: usize) {
        self.uncredited = self.uncredited.saturating_add(count as u32);
        if self.uncredited >= CREDIT_BYTES && !self.life.remote_done.load(Ordering::Acquire) {
            let credit = std::mem::take(&mut self.uncredited);
            self.life.shared.credit(self.life.id, credit);
        }
    }
}

impl std::fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StreamReader").field(&self.life.id).finish()
    }
}

impl AsyncRead for StreamReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.is_empty() {
            match ready!(self.inbound.poll_recv(cx)) {
                Some(bytes) => self.current = bytes,
                None if self.life.is_reset() && !self.life.remote_done.load(Ordering::Acquire) => {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.current.len().min(buffer.remaining());
        buffer.put_slice(&self.current[..count]);
        self.current.advance(count);
        self.credit(count);
        Poll::Ready(Ok(()))
    }
}

/// Our half of a stream.
pub struct StreamWriter {
    life: Arc<Life>,
    frames: PollSender<Frame>,
}

impl StreamWriter {
    pub(crate) fn new(life: Arc<Life>, frames: mpsc::Sender<Frame>) -> StreamWriter {
        StreamWriter {
            life,
            frames: PollSender::new(frames),
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let broken = || Err(io::ErrorKind::BrokenPipe.into());
        if self.life.is_reset() {
            return Poll::Ready(broken());
        }
        match ready!(self.frames.poll_reserve(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(_) => Poll::Ready(broken()),
        }
    }

    fn put(&mut self, bytes: Bytes, fin: bool) -> io::Result<()> {
        let id = self.life.id;
        let sent = self.frames.send_item(Frame::Data { id, bytes, fin });
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl std::fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StreamWriter").field(&self.life.id).finish()
    }
}

impl AsyncWrite for StreamWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.life.local_done.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_room(cx))?;
        let mut count = bytes.len().min(CHUNK_BYTES_MAX);
        if self.life.shared.counts_windows() {
            // Registered first, so that a window that opens meanwhile is not missed.
            self.life.writable.register(cx.waker());
            let window = self.life.window.load(Ordering::Acquire);
            match usize::try_from(window) {
                Ok(room @ 1..) => count = count.min(room),
                _ if self.life.is_reset() => {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                _ => return Poll::Pending,
            }
        }
        self.put(Bytes::copy_from_slice(&bytes[..count]), false)?;
        self.life.window.fetch_sub(count as i64, Ordering::AcqRel);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.life.local_done.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_room(cx))?;
        self.put(Bytes::new(), true)?;
        self.life.local_done.store(true, Ordering::Release);
        Poll::Ready(Ok(()))
    }
}
