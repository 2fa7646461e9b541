//! Commands in containers over SPDY: a stream for each of stdin, stdout, stderr, the terminal's
//! size and the verdict.

use std::collections::HashMap;

use node_api::{ExecSession, Reader, RuntimeError, TerminalSize, Writer};
use serde::Deserialize;
use spdy::{Stream, StreamWriter};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

use crate::upgrade::STREAM_TIMEOUT;

/// The longest message about a terminal's size.
const SIZE_BYTES_MAX: u64 = 4 << 10;

/// The streams of one command, by type.
pub(crate) struct Streams(HashMap<String, Stream>);

impl Streams {
    /// Waits for streams of all these types; `None` when the peer does not open them in time.
    pub(crate) async fn gather(incoming: &mut spdy::Incoming, types: &[&str]) -> Option<Streams> {
        let gathered = async {
            let mut streams = HashMap::new();
            while types.iter().any(|kind| !streams.contains_key(*kind)) {
                let offer = incoming.next().await?;
                let kind = offer.headers().get("streamType").to_owned();
                // Others are refused by being dropped.
                if types.contains(&kind.as_str()) {
                    streams.insert(kind, offer.accept().await.ok()?);
                }
            }
            Some(Streams(streams))
        };
        tokio::time::timeout(STREAM_TIMEOUT, gathered).await.ok()?
    }

    fn writer(&mut self, kind: &str) -> Option<StreamWriter> {
        self.0.remove(kind).map(|stream| stream.writer)
    }

    /// Moves bytes until the command ended.
    pub(crate) async fn converse(&mut self, session: ExecSession) -> Result<i32, RuntimeError> {
        let ExecSession {
            stdin,
            stdout,
            stderr,
            resize,
            exit,
        } = session;
        let (out, err) = (self.writer("stdout"), self.writer("stderr"));
        // Whole streams: what is only read must not be reset while the command runs.
        let (input, sizes) = (self.0.remove("stdin"), self.0.remove("resize"));
        let outputs = async {
            tokio::join!(pump(stdout, out), pump(stderr, err));
            exit.await.unwrap_or_else(|_| {
                Err(RuntimeError::Internal(
                    "the runtime did not tell how the command ended".into(),
                ))
            })
        };
        let inputs = async {
            tokio::join!(feed(input, stdin), follow_size(sizes, resize));
            std::future::pending().await
        };
        tokio::select! {
            ended = outputs => ended,
            ended = inputs => ended,
        }
    }

    /// Says on the error stream how the command ended.
    pub(crate) async fn say(&mut self, verdict: &[u8]) {
        let Some(mut writer) = self.writer("error") else {
            return;
        };
        if writer.write_all(verdict).await.is_ok() {
            finish(&mut writer).await;
        }
    }
}

async fn finish(writer: &mut StreamWriter) {
    if let Err(error) = writer.shutdown().await {
        tracing::debug!(%error, "stream not closed");
    }
}

async fn pump(reader: Option<Reader>, writer: Option<StreamWriter>) {
    let Some(mut writer) = writer else {
        return;
    };
    // Who asked for a stream that the command does not have finds it empty, not broken.
    if let Some(mut reader) = reader
        && let Err(error) = tokio::io::copy(&mut reader, &mut writer).await
    {
        tracing::debug!(%error, "output ended");
    }
    finish(&mut writer).await;
}

async fn feed(stream: Option<Stream>, stdin: Option<Writer>) {
    let (Some(mut stream), Some(mut stdin)) = (stream, stdin) else {
        return;
    };
    if let Err(error) = tokio::io::copy(&mut stream.reader, &mut stdin).await {
        // The command closed its input; what it prints still counts.
        tracing::debug!(%error, "input ended");
    }
    drop(stdin.shutdown().await);
    finish(&mut stream.writer).await;
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// Sizes come as one JSON object a line.
async fn follow_size(stream: Option<Stream>, resize: Option<mpsc::Sender<TerminalSize>>) {
    let (Some(stream), Some(resize)) = (stream, resize) else {
        return;
    };
    let mut reader = BufReader::new(stream.reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut reader).take(SIZE_BYTES_MAX);
        let read = limited.read_until(b'\n', &mut line);
        if !matches!(read.await, Ok(1..)) {
            return;
        }
        if let Ok(Size { width, height }) = serde_json::from_slice(&line) {
            // A size that does not fit the queue is followed by a newer one.
            if let Err(error) = resize.try_send(TerminalSize { width, height }) {
                tracing::debug!(%error, "terminal size dropped");
            }
        }
    }
}
