//! One connection: streams come and go, one task moves the frames.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::SpdyError;
use crate::frame::{Cause, Encoder, Frame, FrameReader};
use crate::header::Headers;
use crate::stream::{Life, Stream, StreamReader, StreamWriter};

/// Streams at one time.
const STREAMS_MAX: usize = 1_024;
/// Streams that the peer opened and nobody looked at.
const OFFERS_MAX: usize = 64;
/// Frames on their way to a slow peer.
const FRAMES_MAX: usize = 64;
/// Pieces of data, each at most 32 KiB, that wait for the reader of a stream.
const PIECES_MAX: usize = 32;
/// What a peer takes of a stream before it says anything.
const INITIAL_WINDOW: i64 = 64 << 10;
/// What is written to the transport at once.
const WRITE_BYTES: usize = 64 << 10;

/// Which side of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

struct Entry {
    /// `None` once the peer has finished.
    inbound: Option<mpsc::Sender<Bytes>>,
    life: Weak<Life>,
    /// Waits for the answer to our opening.
    opened: Option<oneshot::Sender<()>>,
}

/// Frames that must not wait for room: at most one of each per stream.
#[derive(Default)]
struct Urgent {
    resets: Vec<(u32, Cause)>,
    credits: HashMap<u32, u32>,
}

/// What the session, its streams and the moving task share.
pub(crate) struct Shared {
    role: Role,
    streams: Mutex<HashMap<u32, Entry>>,
    next_id: AtomicU32,
    urgent: Mutex<Urgent>,
    pressing: Notify,
    /// Whether the peer counts windows.
    counting: AtomicBool,
    initial_window: AtomicI64,
}

impl Shared {
    pub(crate) fn counts_windows(&self) -> bool {
        self.counting.load(Ordering::Acquire)
    }

    /// Tells the peer that so much more of a stream was read.
    pub(crate) fn credit(&self, id: u32, count: u32) {
        let mut urgent = self.urgent.lock();
        for id in [0, id] {
            let sum = urgent.credits.entry(id).or_default();
            *sum = sum.saturating_add(count);
        }
        drop(urgent);
        self.pressing.notify_one();
    }

    /// Both halves of a stream are gone.
    pub(crate) fn forget(&self, id: u32, torn: bool) {
        let known = self.streams.lock().remove(&id).is_some();
        if torn && known {
            self.reset(id, Cause::Cancel);
        }
    }

    fn reset(&self, id: u32, cause: Cause) {
        self.urgent.lock().resets.push((id, cause));
        self.pressing.notify_one();
    }

    /// Enters a stream into the books.
    fn enter(
        self: &Arc<Shared>,
        id: u32,
        opened: Option<oneshot::Sender<()>>,
    ) -> (Arc<Life>, mpsc::Receiver<Bytes>) {
        let (inbound, pieces) = mpsc::channel(PIECES_MAX);
        let window = self.initial_window.load(Ordering::Acquire);
        let life = Arc::new(Life::new(id, Arc::clone(self), window));
        let entry = Entry {
            inbound: Some(inbound),
            life: Arc::downgrade(&life),
            opened,
        };
        self.streams.lock().insert(id, entry);
        (life, pieces)
    }

    /// Ends a stream, or all of them, as the peer's reset does.
    fn tear(&self, id: Option<u32>) {
        let mut streams = self.streams.lock();
        let torn: Vec<Entry> = match id {
            Some(id) => streams.remove(&id).into_iter().collect(),
            None => streams.drain().map(|(_, entry)| entry).collect(),
        };
        drop(streams);
        for entry in torn {
            let life = entry.life.upgrade();
            if let Some(life) = &life {
                life.reset.store(true, Ordering::Release);
                life.writable.wake();
            }
        }
    }
}

/// A handle on a connection. Clones share it.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
    frames: mpsc::Sender<Frame>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("role", &self.shared.role)
            .finish_non_exhaustive()
    }
}

/// Streams that the peer opens.
#[derive(Debug)]
pub struct Incoming(mpsc::Receiver<Offer>);

impl Incoming {
    /// The next one; `None` when the connection ended.
    pub async fn next(&mut self) -> Option<Offer> {
        self.0.recv().await
    }
}

/// A stream that the peer wants; dropping it refuses.
pub struct Offer {
    headers: Headers,
    life: Arc<Life>,
    pieces: mpsc::Receiver<Bytes>,
    frames: mpsc::Sender<Frame>,
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Offer").field(&self.headers).finish()
    }
}

impl Offer {
    /// What the peer says of it.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Takes it.
    pub async fn accept(self) -> Result<Stream, SpdyError> {
        let id = self.life.id;
        let reply = Frame::SynReply { id, fin: false };
        let sent = self.frames.send(reply).await;
        sent.map_err(|_| SpdyError::Closed)?;
        Ok(stream(self.headers, self.life, self.pieces, self.frames))
    }
}

fn stream(
    headers: Headers,
    life: Arc<Life>,
    pieces: mpsc::Receiver<Bytes>,
    frames: mpsc::Sender<Frame>,
) -> Stream {
    Stream {
        id: life.id,
        headers,
        reader: StreamReader::new(Arc::clone(&life), pieces),
        writer: StreamWriter::new(life, frames),
    }
}

impl Session {
    /// Opens a stream, and waits until the peer takes it.
    pub async fn open(&self, headers: Headers) -> Result<Stream, SpdyError> {
        let permit = self.frames.reserve().await;
        let permit = permit.map_err(|_| SpdyError::Closed)?;
        if self.shared.streams.lock().len() >= STREAMS_MAX {
            return Err(SpdyError::TooManyStreams);
        }
        // Nothing awaits between the number and the queue: numbers go out in order.
        let (sender, opened) = oneshot::channel();
        let id = self.shared.next_id.fetch_add(2, Ordering::AcqRel);
        let (life, pieces) = self.shared.enter(id, Some(sender));
        permit.send(Frame::SynStream {
            id,
            headers: headers.clone(),
            fin: false,
            unidirectional: false,
        });
        opened.await.map_err(|_| SpdyError::Reset)?;
        Ok(stream(headers, life, pieces, self.frames.clone()))
    }

    /// Says goodbye; what was written before still goes out, what the peer sends is still read.
    pub async fn close(&self) {
        let last_good = 0;
        // A peer that left already needs no goodbye.
        drop(self.frames.send(Frame::GoAway { last_good }).await);
    }
}

/// A session over a transport, the streams that the peer opens, and the work to be driven: it
/// ends when the peer left, or with the first fault.
pub fn start<T>(
    transport: T,
    role: Role,
) -> (
    Session,
    Incoming,
    impl Future<Output = Result<(), SpdyError>> + Send,
)
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let shared = Arc::new(Shared {
        role,
        streams: Mutex::default(),
        next_id: AtomicU32::new(if role == Role::Client { 1 } else { 2 }),
        urgent: Mutex::default(),
        pressing: Notify::new(),
        counting: AtomicBool::new(false),
        initial_window: AtomicI64::new(INITIAL_WINDOW),
    });
    let (frames, outgoing) = mpsc::channel(FRAMES_MAX);
    let (offers, incoming) = mpsc::channel(OFFERS_MAX);
    let session = Session {
        shared: Arc::clone(&shared),
        frames: frames.clone(),
    };
    let work = async move {
        let (reader, writer) = tokio::io::split(transport);
        let mut input = Input {
            shared: Arc::clone(&shared),
            frames,
            offers,
            last_id: 0,
        };
        let moved = tokio::select! {
            read = input.run(reader) => read,
            fault = write(&shared, writer, outgoing) => Err(fault),
        };
        shared.tear(None);
        moved
    };
    (session, Incoming(incoming), work)
}

/// Writes frames; returns only what went wrong.
async fn write(
    shared: &Shared,
    mut writer: impl AsyncWrite + Unpin,
    mut outgoing: mpsc::Receiver<Frame>,
) -> SpdyError {
    let mut encoder = match Encoder::new() {
        Ok(encoder) => encoder,
        Err(error) => return error,
    };
    let mut buffer = BytesMut::with_capacity(WRITE_BYTES);
    let mut leaving = false;
    loop {
        if leaving {
            // What is left to do is to read.
            std::future::pending::<()>().await;
        }
        let mut next = tokio::select! {
            frame = outgoing.recv() => frame,
            () = shared.pressing.notified() => outgoing.try_recv().ok(),
        };
        let urgent = std::mem::take(&mut *shared.urgent.lock());
        // A reset must not overtake what was said of its stream before.
        let mut before_resets = match urgent.resets.is_empty() {
            true => 0,
            false => outgoing.len(),
        };
        while let Some(frame) = next {
            leaving |= matches!(frame, Frame::GoAway { .. });
            if let Err(error) = encoder.encode(&frame, &mut buffer) {
                return error;
            }
            let more = buffer.len() < WRITE_BYTES || before_resets > 0;
            before_resets = before_resets.saturating_sub(1);
            next = match more && !leaving {
                true => outgoing.try_recv().ok(),
                false => None,
            };
        }
        let credits = urgent.credits.into_iter();
        let credits = credits.map(|(id, delta)| Frame::WindowUpdate { id, delta });
        let resets = urgent.resets.into_iter().map(|(id, cause)| Frame::Reset {
            id,
            cause: cause as u32,
        });
        for frame in credits.chain(resets) {
            if let Err(error) = encoder.encode(&frame, &mut buffer) {
                return error;
            }
        }
        let written = async {
            writer.write_all(&buffer).await?;
            writer.flush().await
        };
        if let Err(error) = written.await {
            return error.into();
        }
        buffer.clear();
        if leaving {
            // Whoever still writes learns that nobody carries it.
            outgoing.close();
            if let Err(error) = writer.shutdown().await {
                return error.into();
            }
        }
    }
}

/// Takes the peer's frames.
struct Input {
    shared: Arc<Shared>,
    frames: mpsc::Sender<Frame>,
    offers: mpsc::Sender<Offer>,
    /// The last stream that the peer opened.
    last_id: u32,
}

impl Input {
    async fn run(&mut self, reader: impl AsyncRead + Unpin) -> Result<(), SpdyError> {
        let mut reader = FrameReader::new(BufReader::new(reader));
        while let Some(frame) = reader.next().await? {
            match frame {
                Frame::SynStream {
                    id,
                    headers,
                    fin,
                    unidirectional,
                } => self.opened(id, headers, fin, unidirectional).await?,
                Frame::SynReply { id, fin } => {
                    self.answered(id);
                    self.finished(id, fin);
                }
                Frame::Headers { id, fin } => self.finished(id, fin),
                Frame::Data { id, bytes, fin } => {
                    self.data(id, bytes).await;
                    self.finished(id, fin);
                }
                Frame::Reset { id, .. } => self.shared.tear(Some(id)),
                Frame::WindowUpdate { id, delta } => self.widen(id, delta),
                Frame::Settings { initial_window } => self.settle(initial_window),
                Frame::Ping(id) => self.pinged(id).await?,
                // The peer opens no more streams; those that are open go on until it leaves.
                Frame::GoAway { .. } | Frame::Unknown => {}
            }
        }
        Ok(())
    }

    async fn opened(
        &mut self,
        id: u32,
        headers: Headers,
        fin: bool,
        unidirectional: bool,
    ) -> Result<(), SpdyError> {
        let odd = id % 2 == 1;
        if id == 0 || odd != (self.shared.role == Role::Server) || id <= self.last_id {
            return self.refuse(id, Cause::ProtocolError).await;
        }
        self.last_id = id;
        if self.shared.urgent.lock().resets.len() > STREAMS_MAX {
            return Err(SpdyError::Protocol("refusals are not read"));
        }
        if self.shared.streams.lock().len() >= STREAMS_MAX {
            return self.refuse(id, Cause::RefusedStream).await;
        }
        let (life, pieces) = self.shared.enter(id, None);
        if unidirectional {
            life.local_done.store(true, Ordering::Release);
        }
        let offer = Offer {
            headers,
            life,
            pieces,
            frames: self.frames.clone(),
        };
        self.finished(id, fin);
        // Nobody takes streams: the offer is dropped, and that refuses it.
        drop(self.offers.send(offer).await);
        Ok(())
    }

    async fn refuse(&self, id: u32, cause: Cause) -> Result<(), SpdyError> {
        let cause = cause as u32;
        let sent = self.frames.send(Frame::Reset { id, cause }).await;
        sent.map_err(|_| SpdyError::Closed)
    }

    fn answered(&self, id: u32) {
        let mut streams = self.shared.streams.lock();
        if let Some(opened) = streams.get_mut(&id).and_then(|entry| entry.opened.take()) {
            // Whoever opened it may have left.
            opened.send(()).unwrap_or_default();
        }
    }

    fn finished(&self, id: u32, fin: bool) {
        if !fin {
            return;
        }
        let mut streams = self.shared.streams.lock();
        if let Some(entry) = streams.get_mut(&id) {
            let life = entry.life.upgrade();
            if let Some(life) = &life {
                life.remote_done.store(true, Ordering::Release);
            }
            entry.inbound = None;
            // The last hold on a stream takes the lock.
            drop(streams);
            drop(life);
        }
    }

    async fn data(&self, id: u32, bytes: Bytes) {
        let count = bytes.len() as u32;
        let queue = {
            let streams = self.shared.streams.lock();
            streams.get(&id).and_then(|entry| entry.inbound.clone())
        };
        let taken = match queue {
            Some(queue) if count > 0 => queue.send(bytes).await.is_ok(),
            Some(_) => true,
            None => false,
        };
        if !taken && count > 0 {
            // Nobody reads it, but it counts.
            self.shared.credit(id, count);
        }
    }

    fn widen(&self, id: u32, delta: u32) {
        self.shared.counting.store(true, Ordering::Release);
        let streams = self.shared.streams.lock();
        let life = streams.get(&id).and_then(|entry| entry.life.upgrade());
        drop(streams);
        if let Some(life) = life {
            life.window.fetch_add(i64::from(delta), Ordering::AcqRel);
            life.writable.wake();
        }
    }

    fn settle(&self, initial_window: Option<u32>) {
        let Some(window) = initial_window.map(i64::from) else {
            return;
        };
        self.shared.counting.store(true, Ordering::Release);
        let before = self.shared.initial_window.swap(window, Ordering::AcqRel);
        let streams = self.shared.streams.lock();
        let lives: Vec<Arc<Life>> = streams
            .values()
            .filter_map(|entry| entry.life.upgrade())
            .collect();
        drop(streams);
        for life in lives {
            life.window.fetch_add(window - before, Ordering::AcqRel);
            life.writable.wake();
        }
    }

    /// Echoes the peer's pings; we send none.
    async fn pinged(&self, id: u32) -> Result<(), SpdyError> {
        let theirs = (id % 2 == 1) == (self.shared.role == Role::Server);
        match theirs {
            true => {
                let sent = self.frames.send(Frame::Ping(id)).await;
                sent.map_err(|_| SpdyError::Closed)
            }
            false => Ok(()),
        }
    }
}
