//! Streams of a container or an exec over the connection that asked for them.

use std::io;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use node_api::{ExecSession, Reader, Writer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::answer::{self, Body, Fault};
use crate::frames::{self, STDERR, STDOUT};

/// Bytes read at once.
const CHUNK: usize = 32 << 10;
/// Bytes on their way to a client that did not ask for an upgrade.
const PLAIN_BUFFER: usize = 64 << 10;

/// Why a session came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All outputs have ended.
    Finished,
    /// The client typed the keys to leave.
    Detached,
    /// The client is gone.
    Gone,
}

/// Both directions of a client's connection.
pub(crate) struct Wire {
    pub(crate) input: Reader,
    pub(crate) output: Writer,
}

/// Answers the request so that its connection carries streams, and lets `work` do so.
pub(crate) fn take(
    mut request: Request<Incoming>,
    kind: &'static str,
    work: impl FnOnce(Wire) -> BoxFuture<'static, ()> + Send + 'static,
) -> Response<Body> {
    if !request.headers().contains_key(UPGRADE) {
        return without_upgrade(kind, work);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                let (input, output) = tokio::io::split(TokioIo::new(upgraded));
                let wire = Wire {
                    input: Box::new(input),
                    output: Box::new(output),
                };
                work(wire).await;
            }
            Err(error) => tracing::debug!(%error, "connection not upgraded"),
        }
    });
    let mut response = answer::with_type(StatusCode::SWITCHING_PROTOCOLS, kind, answer::nothing());
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    response
}

/// A client that only reads gets the outputs as an ordinary body.
fn without_upgrade(
    kind: &'static str,
    work: impl FnOnce(Wire) -> BoxFuture<'static, ()> + Send + 'static,
) -> Response<Body> {
    let (pieces, response) = answer::stream(kind);
    let (near, mut far) = tokio::io::duplex(PLAIN_BUFFER);
    tokio::spawn(async move {
        let wire = Wire {
            input: Box::new(tokio::io::empty()),
            output: Box::new(near),
        };
        let carry = async {
            let mut chunk = vec![0; CHUNK];
            while let Ok(length @ 1..) = far.read(&mut chunk).await {
                let piece = Bytes::copy_from_slice(&chunk[..length]);
                if pieces.send(Ok(piece)).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(work(wire), carry);
    });
    response
}

/// Carries a session's streams until it ends. `input` is dropped, and with it the program's standard
/// input, when the client closes its side.
pub(crate) async fn carry(
    session: &mut ExecSession,
    wire: &mut Wire,
    raw: bool,
    detach: Option<&[u8]>,
) -> End {
    let (stdout, stderr) = (session.stdout.take(), session.stderr.take());
    let blind = stdout.is_none() && stderr.is_none();
    let stdin = session.stdin.take();
    let (input, output) = (&mut wire.input, &mut wire.output);
    let outputs = async {
        if blind {
            // There is nothing to send; the end of the program is the end.
            let _ = (&mut session.exit).await;
            return Ok(());
        }
        pump(stdout, stderr, output, raw).await
    };
    tokio::select! {
        ended = outputs => match ended {
            Ok(()) => End::Finished,
            Err(_) => End::Gone,
        },
        () = feed(input, stdin, detach) => End::Detached,
    }
}

async fn pump(
    mut stdout: Option<Reader>,
    mut stderr: Option<Reader>,
    output: &mut Writer,
    raw: bool,
) -> io::Result<()> {
    let (mut out, mut err) = (vec![0; CHUNK], vec![0; CHUNK]);
    while stdout.is_some() || stderr.is_some() {
        let (stream, read) = tokio::select! {
            read = next(&mut stdout, &mut out) => (STDOUT, read),
            read = next(&mut stderr, &mut err) => (STDERR, read),
        };
        let chunk = if stream == STDOUT { &out } else { &err };
        if let Some(length) = read {
            let piece = frames::piece(stream, raw, &chunk[..length]);
            output.write_all(&piece).await?;
            output.flush().await?;
        }
    }
    Ok(())
}

/// Reads a chunk; `None`, and no reader any more, at its end. Never comes back without a reader.
async fn next(reader: &mut Option<Reader>, chunk: &mut [u8]) -> Option<usize> {
    let Some(open) = reader else {
        return std::future::pending().await;
    };
    match open.read(chunk).await {
        Ok(length @ 1..) => Some(length),
        _ => {
            *reader = None;
            None
        }
    }
}

/// Carries input; comes back only when the client types the keys to leave.
async fn feed(input: &mut Reader, stdin: Option<Writer>, detach: Option<&[u8]>) {
    let Some(mut stdin) = stdin else {
        return std::future::pending().await;
    };
    let mut chunk = vec![0; CHUNK];
    let mut keys = Keys::new(detach.unwrap_or_default());
    while let Ok(length @ 1..) = input.read(&mut chunk).await {
        let (bytes, leave) = keys.pass(&chunk[..length]);
        if stdin.write_all(&bytes).await.is_err() || stdin.flush().await.is_err() {
            break;
        }
        if leave {
            return;
        }
    }
    drop(stdin);
    std::future::pending().await
}

/// Looks for the keys to leave in what is typed; they themselves are not passed on.
struct Keys<'a> {
    keys: &'a [u8],
    seen: usize,
}

impl<'a> Keys<'a> {
    fn new(keys: &'a [u8]) -> Keys<'a> {
        Keys { keys, seen: 0 }
    }

    fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.keys.get(self.seen) == Some(byte) {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.seen]);
            self.seen = 0;
            if self.keys.first() == Some(byte) {
                self.seen = 1;
            } else {
                out.push(*byte);
            }
        }
        (out, false)
    }
}

/// `ctrl-p,ctrl-q` as bytes.
pub(crate) fn detach_keys(text: &str) -> Result<Vec<u8>, Fault> {
    let text = if text.is_empty() {
        "ctrl-p,ctrl-q"
    } else {
        text
    };
    let key = |word: &str| -> Option<u8> {
        let word = word.to_ascii_lowercase();
        let named = match word.strip_prefix("ctrl-") {
            None => &word,
            Some(rest) => {
                let byte = *rest.as_bytes().first().filter(|_| rest.len() == 1)?;
                return match byte {
                    b'a'..=b'z' => Some(byte - b'a' + 1),
                    b'@' => Some(0),
                    b'[' => Some(27),
                    b'\\' => Some(28),
                    b']' => Some(29),
                    b'^' => Some(30),
                    b'_' => Some(31),
                    _ => None,
                };
            }
        };
        match named.as_str() {
            "del" => Some(127),
            one if one.len() == 1 => one.bytes().next(),
            _ => None,
        }
    };
    let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
    keys.ok_or_else(|| Fault::bad(format!("Invalid detach keys provided: {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_to_leave_are_found_and_others_pass() {
        let keys = detach_keys("").unwrap();
        assert_eq!(keys, [16, 17]);
        assert_eq!(detach_keys("ctrl-],a").unwrap(), [29, b'a']);
        assert!(detach_keys("ctrl-xx").is_err());
        let mut watch = Keys::new(&keys);
        assert_eq!(watch.pass(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(watch.pass(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(watch.pass(b"\x10"), (Vec::new(), false));
        assert_eq!(watch.pass(b"\x11rest"), (Vec::new(), true));
        let mut never = Keys::new(&[]);
        assert_eq!(never.pass(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
