//! Threads side by side on one stream: what one has read, another decompresses and a third writes.
//! Few pieces are under way at a time, so that nobody gets far ahead.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

const PIECE: usize = 256 << 10;
/// Pieces that wait between two threads.
const DEPTH: usize = 4;

type Piece = io::Result<Vec<u8>>;

/// The end that pieces are put into.
pub(crate) struct Inlet(SyncSender<Piece>);

/// The end that reads them.
pub(crate) struct Outlet {
    pieces: Receiver<Piece>,
    piece: Vec<u8>,
    read: usize,
}

pub(crate) fn pipe() -> (Inlet, Outlet) {
    let (sender, pieces) = sync_channel(DEPTH);
    let outlet = Outlet {
        pieces,
        piece: Vec::new(),
        read: 0,
    };
    (Inlet(sender), outlet)
}

impl Inlet {
    /// Passes on all that a reader has, its failure included; false when nobody wants more.
    pub(crate) fn pump(&self, mut reader: impl Read) -> bool {
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = reader.by_ref().take(PIECE as u64).read_to_end(&mut piece);
            if !piece.is_empty() && self.0.send(Ok(piece)).is_err() {
                return false;
            }
            match read {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return self.fail(error),
            }
        }
    }

    /// Passes on a failure; false when nobody hears of it.
    pub(crate) fn fail(&self, error: io::Error) -> bool {
        self.0.send(Err(error)).is_ok()
    }
}

impl Outlet {
    /// Reads what is left, for whoever puts it in must come to an end.
    pub(crate) fn drain(&mut self) {
        while self.pieces.recv().is_ok() {}
    }
}

impl BufRead for Outlet {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.read == self.piece.len()
            && let Ok(piece) = self.pieces.recv()
        {
            (self.piece, self.read) = (piece?, 0);
        }
        Ok(&self.piece[self.read..])
    }

    fn consume(&mut self, amount: usize) {
        self.read = (self.read + amount).min(self.piece.len());
    }
}

impl Read for Outlet {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_failures_arrive_in_order() {
        let bytes: Vec<u8> = (0..3 * PIECE + 7).map(|index| index as u8).collect();
        let failing = io::Cursor::new(bytes.clone()).chain(Broken);
        let (inlet, mut outlet) = pipe();
        std::thread::scope(|scope| {
            let pump = scope.spawn(move || inlet.pump(failing));
            let mut read = Vec::new();
            let fault = outlet.read_to_end(&mut read).unwrap_err();
            assert_eq!(fault.kind(), io::ErrorKind::ConnectionReset);
            assert!(read == bytes);
            assert!(pump.join().unwrap());
        });
    }

    #[test]
    fn who_wants_no_more_stops_the_pump() {
        let (inlet, mut outlet) = pipe();
        let pump = std::thread::spawn(move || inlet.pump(io::repeat(7)));
        outlet.read_exact(&mut [0; 10]).unwrap();
        drop(outlet);
        assert!(!pump.join().unwrap());
    }

    /// A connection that is lost.
    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
}
