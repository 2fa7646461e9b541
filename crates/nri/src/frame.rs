//! The form of what goes over a plugin's socket: ttrpc messages, in frames that say which of two
//! connections they belong to. Pure.
//!
//! ```text
//!   frame    connection u32 | length u32 | that many bytes of the connection's stream
//!   message  length u32 | stream u32 | kind u8 | flags u8 | that many bytes
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The connection on which the plugin serves.
pub(crate) const PLUGIN: u32 = 1;
/// The connection on which we serve.
pub(crate) const RUNTIME: u32 = 2;
pub(crate) const REQUEST: u8 = 1;
pub(crate) const RESPONSE: u8 = 2;
/// The caller sends nothing more in this stream.
pub(crate) const REMOTE_CLOSED: u8 = 1;

/// Bytes of one message; ttrpc's own limit.
pub(crate) const MESSAGE_MAX: usize = 4 << 20;
const FRAME_HEADER: usize = 8;
const MESSAGE_HEADER: usize = 10;
/// Go's plugins read the beginning of a message into a buffer of this size, and a frame at once.
const FIRST_FRAME_MAX: usize = 4096;

/// Why a peer is not listened to any longer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("a frame of {0} bytes")]
    Frame(usize),
    #[error("a message of {0} bytes")]
    Message(usize),
}

/// One ttrpc message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) stream: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) payload: Bytes,
}

impl Message {
    /// As it goes over the socket; `None` where it is too long.
    pub(crate) fn encode(&self, connection: u32) -> Option<Bytes> {
        let length = self.payload.len();
        if length > MESSAGE_MAX {
            return None;
        }
        let mut message = BytesMut::with_capacity(MESSAGE_HEADER + length);
        message.put_u32(u32::try_from(length).ok()?);
        message.put_u32(self.stream);
        message.put_u8(self.kind);
        message.put_u8(self.flags);
        message.put_slice(&self.payload);
        let mut framed = BytesMut::with_capacity(message.len() + 2 * FRAME_HEADER);
        let first = message.split_to(message.len().min(FIRST_FRAME_MAX));
        for part in [first, message] {
            if !part.is_empty() {
                framed.put_u32(connection);
                framed.put_u32(u32::try_from(part.len()).ok()?);
                framed.put_slice(&part);
            }
        }
        Some(framed.freeze())
    }
}

/// Takes frames and messages apart, however they are cut.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// Not yet looked at.
    pub(crate) read: BytesMut,
    plugin: BytesMut,
    runtime: BytesMut,
    /// The connection of the frame that is being read, and what of it is still to come.
    frame: Option<(u32, usize)>,
}

impl Decoder {
    /// The next message, with its connection; `None` until more is read.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Message)>, Malformed> {
        loop {
            for (connection, line) in [(PLUGIN, &mut self.plugin), (RUNTIME, &mut self.runtime)] {
                if let Some(message) = take_message(line)? {
                    return Ok(Some((connection, message)));
                }
            }
            if !self.take_part()? {
                return Ok(None);
            }
        }
    }

    /// Moves what there is of one frame to its connection; tells whether there was any.
    fn take_part(&mut self) -> Result<bool, Malformed> {
        let (connection, left) = match self.frame {
            Some(frame) => frame,
            None if self.read.len() < FRAME_HEADER => return Ok(false),
            None => {
                let connection = self.read.get_u32();
                let length = self.read.get_u32() as usize;
                if length > MESSAGE_MAX + MESSAGE_HEADER {
                    return Err(Malformed::Frame(length));
                }
                (connection, length)
            }
        };
        let part = self.read.split_to(left.min(self.read.len()));
        match connection {
            PLUGIN => self.plugin.extend_from_slice(&part),
            RUNTIME => self.runtime.extend_from_slice(&part),
            // Kept for later versions.
            _ => {}
        }
        let left = left - part.len();
        self.frame = (left > 0).then_some((connection, left));
        Ok(left == 0 || !part.is_empty())
    }
}

fn take_message(line: &mut BytesMut) -> Result<Option<Message>, Malformed> {
    let Some(mut header) = line.get(..MESSAGE_HEADER) else {
        return Ok(None);
    };
    let length = header.get_u32() as usize;
    if length > MESSAGE_MAX {
        return Err(Malformed::Message(length));
    }
    if line.len() < MESSAGE_HEADER + length {
        return Ok(None);
    }
    let (stream, kind, flags) = (header.get_u32(), header.get_u8(), header.get_u8());
    line.advance(MESSAGE_HEADER);
    Ok(Some(Message {
        stream,
        kind,
        flags,
        payload: line.split_to(length).freeze(),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(stream: u32, payload: Vec<u8>) -> Message {
        Message {
            stream,
            kind: REQUEST,
            flags: REMOTE_CLOSED,
            payload: payload.into(),
        }
    }

    fn all(decoder: &mut Decoder) -> Result<Vec<(u32, Message)>, Malformed> {
        std::iter::from_fn(|| decoder.next().transpose()).collect()
    }

    #[test]
    fn a_small_message_is_one_frame() {
        let bytes = message(3, vec![7, 8]).encode(PLUGIN).unwrap();
        let expected = [0, 0, 0, 1, 0, 0, 0, 12, 0, 0, 0, 2, 0, 0, 0, 3, 1, 1, 7, 8];
        assert_eq!(bytes.as_ref(), expected);
    }

    #[test]
    fn what_is_too_long_is_neither_sent_nor_awaited() {
        assert!(
            message(1, vec![0; MESSAGE_MAX + 1])
                .encode(PLUGIN)
                .is_none()
        );
        let mut decoder = Decoder::default();
        decoder.read.put_slice(&[0, 0, 0, 1, 0xff, 0, 0, 0]);
        assert_eq!(decoder.next(), Err(Malformed::Frame(0xff00_0000)));
        let mut decoder = Decoder::default();
        decoder.read.put_slice(&[0, 0, 0, 1, 0, 0, 0, 10]);
        decoder.read.put_slice(&[0, 0x80, 0, 0, 0, 0, 0, 1, 1, 0]);
        assert_eq!(decoder.next(), Err(Malformed::Message(0x80_0000)));
    }

    proptest! {
        #[test]
        fn messages_come_back_however_they_are_cut(
            sent in prop::collection::vec((1..=2_u32, any::<u32>(), 0..9000_usize), 0..6),
            cut in 1..5000_usize,
        ) {
            let sent: Vec<_> = sent
                .into_iter()
                .map(|(connection, stream, size)| (connection, message(stream, vec![9; size])))
                .collect();
            let mut bytes = Vec::new();
            for (connection, message) in &sent {
                bytes.extend(message.encode(*connection).unwrap());
            }
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            for part in bytes.chunks(cut) {
                decoder.read.put_slice(part);
                got.extend(all(&mut decoder).unwrap());
            }
            prop_assert_eq!(got, sent);
        }

        #[test]
        fn no_bytes_are_too_strange(parts in prop::collection::vec(
            prop::collection::vec(prop_oneof![Just(0), Just(1), Just(2), any::<u8>()], 0..64), 0..16),
        ) {
            let mut decoder = Decoder::default();
            for part in parts {
                decoder.read.put_slice(&part);
                if all(&mut decoder).is_err() {
                    break;
                }
            }
            let kept = decoder.read.len() + decoder.plugin.len() + decoder.runtime.len();
            prop_assert!(kept <= 16 * 64);
        }
    }
}
