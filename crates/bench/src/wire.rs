//! The cheapest client there is: HTTP/2 over TLS as clients of Kubernetes speak it, but requests
//! are bytes that were encoded before, and of an answer nothing is read but its status and its end.
//! What a load costs to make is taken from what is measured, for both stand on the same cores.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use client::Access;
use http::{Method, Uri};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;
/// What a frame may hold unless somebody says otherwise; nobody does.
const FRAME_MAX: usize = 16_384;
const AGENT: &str = "sampan-bench/1.0";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// No compression by what went before: then a status always looks the same.
const NO_TABLE: [u8; 6] = [0, 1, 0, 0, 0, 0];
const NO_PUSH: [u8; 6] = [0, 2, 0, 0, 0, 0];
/// More than any load reads, so that no window is ever widened.
const WIDE: u32 = (1 << 31) - 1;
const WIDE_STREAMS: [u8; 6] = [0, 4, 0x7f, 0xff, 0xff, 0xff];
const USUAL_WINDOW: u32 = 65_535;

/// A request, but for the number of its stream.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    headers: Vec<u8>,
    body: Vec<u8>,
}

impl Packed {
    pub(crate) fn new(
        access: &Access,
        method: &Method,
        path: &str,
        media_type: Option<&str>,
        body: &[u8],
    ) -> Result<Packed> {
        anyhow::ensure!(body.len() <= FRAME_MAX, "a body does not fit one frame");
        let uri: Uri = access.server.parse()?;
        let authority = uri.authority().context("the server has no address")?;
        let mut headers = Vec::with_capacity(path.len() + 128);
        // Numbers are those of HPACK's static table.
        match *method {
            Method::GET => headers.push(0x82),
            Method::POST => headers.push(0x83),
            _ => literal(&mut headers, 2, method.as_str()),
        }
        headers.push(0x87);
        literal(&mut headers, 4, path);
        literal(&mut headers, 1, authority.as_str());
        literal(&mut headers, 19, "application/json");
        literal(&mut headers, 58, AGENT);
        if let Some(media_type) = media_type {
            literal(&mut headers, 31, media_type);
            literal(&mut headers, 28, &body.len().to_string());
        }
        let body = body.to_vec();
        Ok(Packed { headers, body })
    }

    fn write(&self, out: &mut Vec<u8>, stream: u32) {
        let end = match self.body.is_empty() {
            true => END_STREAM,
            false => 0,
        };
        frame(out, HEADERS, END_HEADERS | end, stream, &self.headers);
        if !self.body.is_empty() {
            frame(out, DATA, END_STREAM, stream, &self.body);
        }
    }
}

/// A header that no table remembers, its name by number.
fn literal(out: &mut Vec<u8>, name: usize, value: &str) {
    integer(out, 4, name);
    integer(out, 7, value.len());
    out.extend_from_slice(value.as_bytes());
}

fn integer(out: &mut Vec<u8>, bits: u32, mut value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        return out.push(value as u8);
    }
    out.push(most as u8);
    value -= most;
    while value >= 128 {
        out.push((value % 128) as u8 | 128);
        value /= 128;
    }
    out.push(value as u8);
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Whether a block of headers begins with a status that is a success.
fn is_success(mut block: &[u8]) -> bool {
    // The table may be said to be of no size first.
    while block.first() == Some(&0x20) {
        block = &block[1..];
    }
    // 200 and 204 have numbers; of the others the name has one, seven even.
    match block {
        [0x88 | 0x89, ..] => true,
        [0x08..=0x0e | 0x18..=0x1e | 0x48..=0x4e, value @ ..] => {
            // 201, plain or by Huffman's code.
            value.starts_with(b"\x03201") || value.starts_with(&[0x82, 0x10, 0x03])
        }
        _ => false,
    }
}

/// A frame's head.
#[derive(Clone, Copy)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// One connection.
pub(crate) struct Line {
    stream: TlsStream<TcpStream>,
    /// What was received; what is behind `from` has not been looked at.
    received: Vec<u8>,
    from: usize,
    out: Vec<u8>,
    next: u32,
}

impl Line {
    pub(crate) async fn open(access: &Access) -> Result<Line> {
        let uri: Uri = access.server.parse()?;
        let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16());
        let tcp = TcpStream::connect((host, port.unwrap_or(443))).await?;
        tcp.set_nodelay(true)?;
        let mut config = client::remote::tls_config(access)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from(host.to_owned())?;
        let connector = TlsConnector::from(Arc::new(config));
        let mut line = Line {
            stream: connector.connect(name, tcp).await?,
            received: Vec::with_capacity(4 * FRAME_MAX),
            from: 0,
            out: Vec::new(),
            next: 1,
        };
        line.out.extend_from_slice(PREFACE);
        let settings = [NO_TABLE, NO_PUSH, WIDE_STREAMS].concat();
        frame(&mut line.out, SETTINGS, 0, 0, &settings);
        let wide = (WIDE - USUAL_WINDOW).to_be_bytes();
        frame(&mut line.out, WINDOW, 0, 0, &wide);
        line.flush().await?;
        Ok(line)
    }

    /// Sends a request; its answer comes to the stream returned.
    fn begin(&mut self, request: &Packed) -> u32 {
        let stream = self.next;
        self.next += 2;
        request.write(&mut self.out, stream);
        stream
    }

    async fn flush(&mut self) -> Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.stream.write_all(&self.out).await?;
        self.stream.flush().await?;
        self.out.clear();
        Ok(())
    }

    /// Sends a request and reads its answer to the end.
    pub(crate) async fn ask(&mut self, request: &Packed) -> Result<()> {
        let stream = self.begin(request);
        self.flush().await?;
        let mut refused = None;
        loop {
            let head = self.frame().await?;
            let payload = self.payload(head);
            if head.stream != stream {
                continue;
            }
            match (head.kind, &mut refused) {
                (HEADERS, _) if !is_success(payload) => refused = Some(Vec::new()),
                (DATA, Some(text)) => text.extend_from_slice(payload),
                _ => {}
            }
            if matches!(head.kind, DATA | HEADERS) && head.flags & END_STREAM != 0 {
                break;
            }
        }
        match refused {
            None => Ok(()),
            Some(text) => bail!("refused: {}", String::from_utf8_lossy(&text)),
        }
    }

    /// Sends a request so many times at once, and waits for the heads of the answers.
    pub(crate) async fn watch(&mut self, request: &Packed, times: usize) -> Result<()> {
        for _ in 0..times {
            self.begin(request);
        }
        self.flush().await?;
        let mut begun = 0;
        while begun < times {
            let head = self.frame().await?;
            if head.kind == HEADERS {
                anyhow::ensure!(is_success(self.payload(head)), "a watch was refused");
                begun += 1;
            }
        }
        Ok(())
    }

    /// How many lines came, on whichever stream, after waiting for some.
    pub(crate) async fn lines(&mut self) -> Result<usize> {
        let mut lines = 0;
        loop {
            while let Some(head) = self.received_frame()? {
                if head.kind == DATA {
                    anyhow::ensure!(head.flags & END_STREAM == 0, "a watch ended");
                    let payload = self.payload(head).iter();
                    lines += payload.filter(|byte| **byte == b'\n').count();
                }
            }
            self.flush().await?;
            if lines > 0 {
                return Ok(lines);
            }
            self.read().await?;
        }
    }

    /// The next frame that is about a stream.
    async fn frame(&mut self) -> Result<Head> {
        loop {
            if let Some(head) = self.received_frame()? {
                return Ok(head);
            }
            self.flush().await?;
            self.read().await?;
        }
    }

    /// The same of what is here already; what frames ask for is ready to be sent then.
    fn received_frame(&mut self) -> Result<Option<Head>> {
        loop {
            let rest = &self.received[self.from..];
            let head = head_of(rest).filter(|head| rest.len() >= HEAD + head.length);
            let Some(head) = head else {
                return Ok(None);
            };
            self.from += HEAD + head.length;
            match head.kind {
                SETTINGS if head.flags & ACK == 0 => frame(&mut self.out, SETTINGS, ACK, 0, &[]),
                PING if head.flags & ACK == 0 => {
                    let payload = &self.received[self.from - head.length..self.from];
                    frame(&mut self.out, PING, ACK, 0, payload);
                }
                RESET | GO_AWAY => bail!("the server ended a stream or the connection"),
                DATA | HEADERS => return Ok(Some(head)),
                _ => {}
            }
        }
    }

    /// Of the frame that was returned last.
    fn payload(&self, head: Head) -> &[u8] {
        &self.received[self.from - head.length..self.from]
    }

    async fn read(&mut self) -> Result<()> {
        if self.from == self.received.len() {
            self.received.clear();
            self.from = 0;
        } else if self.from >= 2 * FRAME_MAX {
            self.received.drain(..self.from);
            self.from = 0;
        }
        let read = self.stream.read_buf(&mut self.received).await?;
        anyhow::ensure!(read > 0, "the server closed the connection");
        Ok(())
    }
}

fn head_of(bytes: &[u8]) -> Option<Head> {
    let head: &[u8; HEAD] = bytes.first_chunk()?;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some(Head {
        length: u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize,
        kind: head[3],
        flags: head[4],
        stream: stream & WIDE,
    })
}

/// Runs a load on a thread of its own, with nobody else on it.
pub(crate) async fn apart<T, F>(work: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
{
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(work())
    };
    tokio::task::spawn_blocking(run).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_encoded_as_hpack_has_them() {
        let encoded = |bits, value| {
            let mut out = Vec::new();
            integer(&mut out, bits, value);
            out
        };
        assert_eq!(encoded(5, 10), [10]);
        assert_eq!(encoded(5, 1337), [31, 154, 10]);
        assert_eq!(encoded(4, 31), [15, 16]);
    }

    #[test]
    fn a_success_is_told_from_a_refusal() {
        assert!(is_success(&[0x88, 0x76]));
        assert!(is_success(&[0x20, 0x08, 3, b'2', b'0', b'1']));
        assert!(is_success(&[0x4e, 0x82, 0x10, 0x03, 0x5f]));
        // 404 and 409.
        assert!(!is_success(&[0x8d]));
        assert!(!is_success(&[0x08, 3, b'4', b'0', b'9']));
    }
}
