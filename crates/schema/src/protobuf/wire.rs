//! Protobuf's wire format.

use super::ProtobufError;

/// One field's content.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

impl Field<'_> {
    pub(crate) fn wire(&self) -> u8 {
        match self {
            Field::Varint(_) => 0,
            Field::Fixed64(_) => 1,
            Field::Bytes(_) => 2,
            Field::Fixed32 => 5,
        }
    }
}

/// Reads fields one after the other.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// The next tag and its content; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Field<'a>)>, ProtobufError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).map_err(|_| ProtobufError::Truncated)?;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length =
                    usize::try_from(self.varint()?).map_err(|_| ProtobufError::Truncated)?;
                Field::Bytes(self.take(length)?)
            }
            5 => self.array::<4>().map(|_| Field::Fixed32)?,
            wire => {
                let wire = u8::try_from(wire).unwrap_or(u8::MAX);
                return Err(ProtobufError::WireType {
                    wire,
                    field: tag.to_string(),
                });
            }
        };
        Ok(Some((tag, field)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0;
        for (index, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(ProtobufError::Truncated)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        let (head, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(ProtobufError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtobufError> {
        self.take(N)?
            .try_into()
            .map_err(|_| ProtobufError::Truncated)
    }
}

/// Writes fields one after the other.
#[derive(Default)]
pub(crate) struct Writer {
    out: Vec<u8>,
}

impl Writer {
    pub(crate) fn finish(self) -> Vec<u8> {
        self.out
    }

    pub(crate) fn int(&mut self, tag: u32, value: i64) {
        self.key(tag, 0);
        // Negative numbers take ten bytes, as int32 and int64 have it.
        self.varint(value.cast_unsigned());
    }

    pub(crate) fn double(&mut self, tag: u32, value: f64) {
        self.key(tag, 1);
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        self.key(tag, 2);
        self.varint(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// The tag and length of bytes that are written elsewhere.
    pub(crate) fn length(&mut self, tag: u32, length: usize) {
        self.key(tag, 2);
        self.varint(length as u64);
    }

    /// Fields that were written elsewhere.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub(crate) fn message(&mut self, tag: u32, write: impl FnOnce(&mut Writer)) {
        self.key(tag, 2);
        // Most messages are short: their length takes the one byte that is left for it.
        let at = self.out.len();
        self.out.push(0);
        write(self);
        let mut length = self.out.len() - at - 1;
        if length < 0x80 {
            self.out[at] = length as u8;
            return;
        }
        let mut bytes = Vec::with_capacity(5);
        while length >= 0x80 {
            bytes.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        self.out.splice(at..=at, bytes);
    }

    fn key(&mut self, tag: u32, wire: u64) {
        self.varint(u64::from(tag) << 3 | wire);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }
}
