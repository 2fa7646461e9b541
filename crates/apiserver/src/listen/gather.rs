//! A stream that gathers small writes: HTTP/2 flushes frame by frame, and each would be a record of
//! TLS and a call into the kernel. What was written while the connection's task ran goes out
//! together when it has run; where many streams are answered, after whoever else is ready to write.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are gathered: a few records of TLS, which go to the kernel in one call.
const GATHERED_MAX: usize = 48 << 10;
/// Writes from this size on are not copied: another record costs more than a copy below it.
const LARGE: usize = 8 << 10;
/// Room for an answer of usual size.
const FIRST: usize = 2 << 10;

/// The stream. Clones are the same.
pub(super) struct Gather<S>(Arc<Mutex<State<S>>>);

impl<S> Clone for Gather<S> {
    fn clone(&self) -> Gather<S> {
        Gather(Arc::clone(&self.0))
    }
}

struct State<S> {
    stream: S,
    /// Whether somebody will call [`Gather::send`].
    gathers: bool,
    bytes: Vec<u8>,
    /// How many of the bytes have been sent.
    sent: usize,
    /// Sending was put off once already, or has begun.
    is_due: bool,
    /// All was handed to the stream, which still holds some of it.
    is_held: bool,
    /// Sending has failed, which nobody could be told then.
    is_broken: bool,
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    /// A stream that gathers, or one that passes everything on at once.
    pub(super) fn new(stream: S, gathers: bool) -> Gather<S> {
        Gather(Arc::new(Mutex::new(State {
            stream,
            gathers,
            bytes: Vec::new(),
            sent: 0,
            is_due: false,
            is_held: false,
            is_broken: false,
        })))
    }

    /// Sends what was gathered; to be called whenever the connection's task has run. If others are
    /// about to write, they are waited for once.
    pub(super) fn send(&self, others: bool, context: &mut Context<'_>) {
        let mut state = self.0.lock();
        if state.bytes.is_empty() && !state.is_held {
            return;
        }
        if others && !state.is_due && !state.is_held {
            state.is_due = true;
            // Runs again behind all that are ready now.
            context.waker().wake_by_ref();
            return;
        }
        if let Poll::Ready(Err(error)) = state.drain(context) {
            tracing::debug!(%error, "connection cannot be written to");
            state.bytes = Vec::new();
            state.sent = 0;
            state.is_broken = true;
            context.waker().wake_by_ref();
        }
    }
}

impl<S: AsyncWrite + Unpin> State<S> {
    /// Hands all bytes to the stream, and has them sent.
    fn drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_due = true;
        while self.sent < self.bytes.len() {
            let rest = &self.bytes[self.sent..];
            match Pin::new(&mut self.stream).poll_write(context, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => self.sent += count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        // Idle connections are many: they keep no buffer.
        self.bytes = Vec::new();
        self.sent = 0;
        self.is_due = false;
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.is_held = flushed.is_pending();
        flushed
    }

    /// Whether so many bytes more are to be gathered.
    fn gathers(&self, length: usize) -> bool {
        self.gathers && length < LARGE && self.bytes.len() + length <= GATHERED_MAX
    }

    fn check(&self) -> io::Result<()> {
        match self.is_broken {
            true => Err(io::ErrorKind::BrokenPipe.into()),
            false => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        state.check()?;
        let length = slices.iter().map(|slice| slice.len()).sum();
        if state.gathers(length) {
            if state.bytes.is_empty() {
                state.bytes.reserve(FIRST);
            }
            slices
                .iter()
                .for_each(|slice| state.bytes.extend_from_slice(slice));
            return Poll::Ready(Ok(length));
        }
        if !state.bytes.is_empty() {
            std::task::ready!(state.drain(context))?;
        }
        Pin::new(&mut state.stream).poll_write_vectored(context, slices)
    }

    /// What was gathered counts as flushed: it goes out without being asked for.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        state.check()?;
        match state.bytes.is_empty() {
            true => Pin::new(&mut state.stream).poll_flush(context),
            false => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if !state.bytes.is_empty() {
            std::task::ready!(state.drain(context))?;
        }
        Pin::new(&mut state.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Calls [`Gather::send`] as often as it takes for all to be there.
    async fn sent(gather: &Gather<tokio::io::DuplexStream>, others: bool) -> usize {
        let mut calls = 0;
        poll_fn(|context| {
            if gather.0.lock().bytes.is_empty() {
                return Poll::Ready(());
            }
            calls += 1;
            gather.send(others, context);
            match gather.0.lock().bytes.is_empty() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        calls
    }

    #[tokio::test]
    async fn small_writes_go_out_together_and_in_order() {
        let (here, mut there) = tokio::io::duplex(1 << 20);
        let gather = Gather::new(here, true);
        let mut writer = gather.clone();
        for part in ["one ", "two ", "three"] {
            writer.write_all(part.as_bytes()).await.unwrap();
            writer.flush().await.unwrap();
        }
        let mut bytes = [0; 64];
        let early = tokio::time::timeout(std::time::Duration::ZERO, there.read(&mut bytes));
        assert!(early.await.is_err());
        assert_eq!(sent(&gather, false).await, 1);
        assert_eq!(there.read(&mut bytes).await.unwrap(), 13);
        assert_eq!(&bytes[..13], b"one two three");
        // Others are waited for once.
        writer.write_all(b"x").await.unwrap();
        assert_eq!(sent(&gather, true).await, 2);
        assert_eq!(there.read(&mut bytes).await.unwrap(), 1);
        // What is large comes behind what is small, and is not held.
        writer.write_all(b"head").await.unwrap();
        writer.write_all(&[b'x'; LARGE]).await.unwrap();
        let mut whole = vec![0; 4 + LARGE];
        there.read_exact(&mut whole).await.unwrap();
        assert_eq!(&whole[..5], b"headx");
        writer.write_all(b"end").await.unwrap();
        writer.shutdown().await.unwrap();
        let mut rest = Vec::new();
        there.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"end");
    }

    #[tokio::test]
    async fn a_slow_reader_is_waited_for() {
        let (here, mut there) = tokio::io::duplex(100);
        let gather = Gather::new(here, true);
        let mut writer = gather.clone();
        let text: Vec<u8> = (0..GATHERED_MAX * 3).map(|at| at as u8).collect();
        let write = async {
            for part in text.chunks(1000) {
                writer.write_all(part).await.unwrap();
            }
            sent(&gather, false).await;
            writer.shutdown().await.unwrap();
        };
        let read = async {
            let mut read = Vec::new();
            there.read_to_end(&mut read).await.unwrap();
            read
        };
        let ((), read) = tokio::join!(write, read);
        assert!(read == text);
    }

    /// Takes everything, and sends it at the third flush.
    #[derive(Default)]
    struct Slow {
        flushes: usize,
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            match self.flushes < 3 {
                true => Poll::Pending,
                false => Poll::Ready(Ok(())),
            }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_flush_goes_on_until_it_is_done() {
        let gather = Gather::new(Slow::default(), true);
        gather.0.lock().bytes.push(b'x');
        poll_fn(|context| {
            for _ in 0..5 {
                gather.send(true, context);
                gather.send(false, context);
            }
            Poll::Ready(())
        })
        .await;
        assert_eq!(gather.0.lock().stream.flushes, 3);
    }

    #[tokio::test]
    async fn nothing_is_held_where_nobody_sends() {
        let (here, mut there) = tokio::io::duplex(64);
        let mut plain = Gather::new(here, false);
        plain.write_all(b"now").await.unwrap();
        let mut bytes = [0; 3];
        there.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"now");
    }
}
