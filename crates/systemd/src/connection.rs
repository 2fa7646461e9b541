//! A connection to a peer or to a bus: who we are, calls and their answers, signals.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::message::{Kind, Message};
use crate::value::{Malformed, Value};

/// How long a call may take, as in D-Bus' own libraries.
const CALL_TIMEOUT: Duration = Duration::from_secs(25);
/// Signals that nobody has asked for yet; the oldest give way.
const SIGNAL_LIMIT: usize = 256;
/// Descriptors that no message has claimed.
const FD_LIMIT: usize = 16;
/// A line of the conversation about who we are is shorter.
const LINE_LIMIT: usize = 512;
/// The bus itself.
const BUS: (&str, &str, &str) = (
    "org.freedesktop.DBus",
    "/org/freedesktop/DBus",
    "org.freedesktop.DBus",
);

/// Why the other side gave no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}: {1}")]
    Connect(PathBuf, #[source] io::Error),
    #[error("D-Bus: {0}")]
    Io(#[from] io::Error),
    #[error("D-Bus: not let in: {0}")]
    NotLetIn(String),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// What was said instead of an answer.
    #[error("{message} ({name})")]
    Remote { name: String, message: String },
    #[error("{0}: no answer in {1:?}")]
    Timeout(String, Duration),
    #[error("unit {unit}: its job ended with {result:?}")]
    Job { unit: String, result: String },
    #[error(transparent)]
    Name(#[from] crate::names::NameError),
}

impl Error {
    /// Whether the other side gave this answer, by the last part of its name.
    pub fn is_remote(&self, short: &str) -> bool {
        matches!(self, Error::Remote { name, .. } if name.rsplit('.').next() == Some(short))
    }
}

/// An object somewhere, and one of its interfaces.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Its owner's name; on a connection without a bus nobody asks.
    pub name: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
}

/// A connection. It blocks, with deadlines.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
    fds: VecDeque<OwnedFd>,
    serial: u32,
    waiting: VecDeque<Message>,
}

impl Connection {
    /// Connects to whoever listens at `path`, without a bus between.
    pub fn peer(path: &Path) -> Result<Connection, Error> {
        let stream =
            UnixStream::connect(path).map_err(|error| Error::Connect(path.to_owned(), error))?;
        let mut connection = Connection {
            stream,
            received: Vec::new(),
            fds: VecDeque::new(),
            serial: 0,
            waiting: VecDeque::new(),
        };
        connection.introduce()?;
        Ok(connection)
    }

    /// Connects to the bus at `path`.
    pub fn bus(path: &Path) -> Result<Connection, Error> {
        let mut connection = Connection::peer(path)?;
        connection.ask_bus("Hello", Vec::new())?;
        Ok(connection)
    }

    /// Calls a method of the bus itself.
    pub fn ask_bus(&mut self, member: &str, body: Vec<Value>) -> Result<Message, Error> {
        let (name, path, interface) = BUS;
        let bus = Target {
            name,
            path,
            interface,
        };
        self.call(bus, member, body)
    }

    /// Who asks by the kernel's word, and may descriptors travel.
    fn introduce(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + CALL_TIMEOUT;
        let id: String = nix::unistd::geteuid()
            .to_string()
            .bytes()
            .map(|digit| format!("{digit:02x}"))
            .collect();
        // All at once: systemd would not look at a first call that comes together with `BEGIN`.
        let words = format!("\0AUTH EXTERNAL {id}\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n");
        self.send_bytes(words.as_bytes(), &[])?;
        let answer = self.line(deadline)?;
        if !answer.starts_with("OK") {
            return Err(Error::NotLetIn(answer));
        }
        // Who does not agree sends no descriptors.
        self.line(deadline).map(drop)
    }

    fn line(&mut self, deadline: Instant) -> Result<String, Error> {
        loop {
            if let Some(end) = self.received.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.received.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.received.len() > LINE_LIMIT {
                return Err(Malformed("greeting").into());
            }
            if !self.receive(Some(deadline))? {
                let what = "greeting".to_owned();
                return Err(Error::Timeout(what, CALL_TIMEOUT));
            }
        }
    }

    /// Calls a method and waits for its answer; errors of the other side are errors here.
    pub fn call(
        &mut self,
        target: Target<'_>,
        member: &str,
        body: Vec<Value>,
    ) -> Result<Message, Error> {
        let message = Message::call(target.name, target.path, target.interface, member, body);
        let serial = self.send(&message)?;
        let deadline = Instant::now() + CALL_TIMEOUT;
        loop {
            let Some(message) = self.read(Some(deadline))? else {
                return Err(Error::Timeout(member.to_owned(), CALL_TIMEOUT));
            };
            match message.kind {
                Kind::Reply if message.reply_to == serial => return Ok(message),
                Kind::Error if message.reply_to == serial => {
                    let text = message.body.first().and_then(Value::as_text);
                    return Err(Error::Remote {
                        message: text.unwrap_or("no reason given").to_owned(),
                        name: message.error,
                    });
                }
                Kind::Signal | Kind::Call => self.keep(message),
                // Of a call that somebody stopped waiting for.
                Kind::Reply | Kind::Error => {}
            }
        }
    }

    fn keep(&mut self, message: Message) {
        if self.waiting.len() == SIGNAL_LIMIT {
            self.waiting.pop_front();
        }
        self.waiting.push_back(message);
    }

    /// The next message that is no answer; `None` when there was none until the deadline.
    pub fn next_message(&mut self, deadline: Option<Instant>) -> Result<Option<Message>, Error> {
        match self.waiting.pop_front() {
            Some(message) => Ok(Some(message)),
            None => self.read(deadline),
        }
    }

    /// Sends a message as it is, and tells its serial number.
    pub fn send(&mut self, message: &Message) -> Result<u32, Error> {
        self.serial = self.serial.wrapping_add(1).max(1);
        let bytes = message.encode(self.serial);
        let fds: Vec<BorrowedFd<'_>> = message.fds.iter().map(AsFd::as_fd).collect();
        self.send_bytes(&bytes, &fds)?;
        Ok(self.serial)
    }

    /// Something that ends every wait of this connection when it is called.
    pub fn breaker(&self) -> Result<impl Fn() + Send + Sync + use<>, Error> {
        let stream = self.stream.try_clone()?;
        Ok(move || {
            // Whose other end has gone is broken already.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        })
    }

    fn send_bytes(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        self.stream.set_write_timeout(Some(CALL_TIMEOUT))?;
        let sent = match fds.is_empty() {
            true => 0,
            false => linux::socket::send(self.stream.as_fd(), bytes, fds)?,
        };
        Ok(self.stream.write_all(&bytes[sent..])?)
    }

    fn read(&mut self, deadline: Option<Instant>) -> Result<Option<Message>, Error> {
        loop {
            if let Some(length) = Message::length(&self.received)?
                && self.received.len() >= length
            {
                let bytes: Vec<u8> = self.received.drain(..length).collect();
                let mut message = Message::decode(&bytes)?;
                let count = message.fd_count.min(self.fds.len());
                message.fds = self.fds.drain(..count).collect();
                return Ok(Some(message));
            }
            if !self.receive(deadline)? {
                return Ok(None);
            }
        }
    }

    /// False when nothing came until the deadline.
    fn receive(&mut self, deadline: Option<Instant>) -> Result<bool, Error> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        self.stream.set_read_timeout(left)?;
        let (mut buffer, mut fds) = ([0; 4096], Vec::new());
        match linux::socket::receive(self.stream.as_fd(), &mut buffer, &mut fds) {
            Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                self.fds.extend(fds);
                self.fds.truncate(FD_LIMIT);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}
