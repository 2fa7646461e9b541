//! A connection's socket, watched for readiness by the threads that work for the connection: what
//! arrives for a heavy user must not wake the others' threads.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::lanes::{self, Lanes};

/// The socket; it follows the task that polls it from lane to lane.
pub(super) struct Socket {
    /// `None` only where it could not follow.
    stream: Option<TcpStream>,
    /// Who watches it.
    is_heavy: bool,
    lanes: Arc<Lanes>,
}

impl Socket {
    /// A socket that was accepted at home.
    pub(super) fn new(stream: TcpStream, lanes: Arc<Lanes>) -> Socket {
        Socket {
            stream: Some(stream),
            is_heavy: false,
            lanes,
        }
    }

    /// The stream, watched by the runtime of the caller's thread.
    fn here(&mut self, context: &Context<'_>) -> io::Result<Pin<&mut TcpStream>> {
        let is_heavy = lanes::is_heavy_thread();
        if is_heavy != self.is_heavy
            && let Some(runtime) = self.lanes.runtime(is_heavy)
            && let Some(stream) = self.stream.take()
        {
            let stream = stream.into_std()?;
            let _runtime = runtime.enter();
            self.stream = Some(TcpStream::from_std(stream)?);
            self.is_heavy = is_heavy;
            // Whoever waits for the other direction was known to the old watcher only.
            context.waker().wake_by_ref();
        }
        let stream = self.stream.as_mut().map(Pin::new);
        stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.here(context)?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.here(context)?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here(context)?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here(context)?.poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.here(context)?.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::lanes::tests::{FAR, judge};
    use super::*;

    #[tokio::test]
    async fn a_connection_goes_on_in_the_other_lane_and_back() {
        let lanes = Lanes::new();
        let lane = lanes.lane();
        lane.works_for(Some("loud"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let (seen, mut watchers) = tokio::sync::mpsc::unbounded_channel();
        let socket = Socket::new(accepted, Arc::clone(&lanes));
        let echo = tokio::spawn(async move {
            lane.run(async move {
                let mut socket = socket;
                let mut bytes = [0; 64 << 10];
                while let Ok(count @ 1..) = socket.read(&mut bytes).await {
                    socket.write_all(&bytes[..count]).await.unwrap();
                    seen.send(socket.is_heavy).unwrap();
                }
            })
            .await;
        });
        // More than buffers hold, so that both directions have to wait.
        let sent: Vec<u8> = (0..8_u32 << 20).map(|at| at as u8).collect();
        let mut turn = async || {
            let (mut reads, mut writes) = client.split();
            let mut back = vec![0; sent.len()];
            let (wrote, read) = tokio::join!(writes.write_all(&sent), reads.read_exact(&mut back));
            wrote.and(read.map(drop)).unwrap();
            assert!(back == sent);
            let mut last = None;
            while let Ok(is_heavy) = watchers.try_recv() {
                last = Some(is_heavy);
            }
            last
        };
        // From here on the clock is behind what was judged: the turns themselves do not count.
        let begin = judge(&lanes, "loud", FAR, 0.0);
        assert_eq!(turn().await, Some(false));
        let then = judge(&lanes, "loud", begin, lanes.cores() as f64);
        assert_eq!(turn().await, Some(true));
        judge(&lanes, "loud", then, 0.0);
        assert_eq!(turn().await, Some(false));
        drop(client);
        echo.await.unwrap();
    }
}
