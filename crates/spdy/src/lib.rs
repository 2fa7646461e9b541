//! SPDY/3.1 as Kubernetes' streams use it after an HTTP upgrade: many byte streams in both
//! directions over one connection.
//!
//! ```text
//!   Session::open ──SYN_STREAM──►            one task drives a connection:
//!   Incoming::next ◄─SYN_STREAM──              reader ─► a bounded queue per stream
//!   StreamReader ◄──── DATA ────               writer ◄─ one bounded queue of frames
//!   StreamWriter ───── DATA ────►
//! ```
//!
//! Clients in the field do no flow control, so windows bind us only once the peer shows that it
//! counts them; what nobody reads holds up the connection when the stream's queue is full.

mod frame;
mod header;
mod session;
mod stream;

pub use header::Headers;
pub use session::{Incoming, Offer, Role, Session, start};
pub use stream::{Stream, StreamReader, StreamWriter};

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum SpdyError {
    /// The transport failed.
    #[error("cannot read or write frames")]
    Io(#[from] std::io::Error),
    /// The peer does not keep to the protocol.
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    /// The stream was refused, or ended before it was answered.
    #[error("stream reset")]
    Reset,
    /// The connection is no more.
    #[error("connection closed")]
    Closed,
    /// More streams than one connection may have.
    #[error("too many streams")]
    TooManyStreams,
}
