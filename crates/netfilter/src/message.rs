//! Netlink messages and attributes as bytes.

/// Length of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;
/// Length of `struct nlmsghdr` and `struct nfgenmsg`.
pub(crate) const FULL_HEADER: usize = HEADER + 4;

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;

const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Bytes of messages under construction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

/// Where a message or nest began, to write its length when it ends.
#[must_use]
pub(crate) struct Open(usize);

impl Writer {
    /// Starts a message with netlink and netfilter headers.
    pub(crate) fn begin(
        &mut self,
        kind: u16,
        flags: u16,
        sequence: u32,
        family: u8,
        resource: u16,
    ) -> Open {
        let open = Open(self.0.len());
        self.0.extend_from_slice(&[0; 4]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(&flags.to_ne_bytes());
        self.0.extend_from_slice(&sequence.to_ne_bytes());
        self.0.extend_from_slice(&[0; 4]);
        self.0.extend_from_slice(&[family, 0]);
        self.0.extend_from_slice(&resource.to_be_bytes());
        open
    }

    /// Ends a message.
    pub(crate) fn end(&mut self, open: Open) {
        let length = (self.0.len() - open.0) as u32;
        self.0[open.0..open.0 + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Starts a nested attribute.
    pub(crate) fn nest(&mut self, kind: u16) -> Open {
        let open = Open(self.0.len());
        self.0.extend_from_slice(&[0; 2]);
        let kind = kind | NLA_F_NESTED;
        self.0.extend_from_slice(&kind.to_ne_bytes());
        open
    }

    /// Ends a nested attribute.
    pub(crate) fn end_nest(&mut self, open: Open) {
        let length = (self.0.len() - open.0) as u16;
        self.0[open.0..open.0 + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// An attribute with these bytes.
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = (value.len() + 4) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// An attribute with a text that ends in NUL.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.bytes(kind, &bytes);
    }

    /// A 32-bit number in network order, as nf_tables wants them.
    pub(crate) fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Attributes made by someone else.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// The attributes in a stretch of bytes; stops at the first malformed one.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & NLA_TYPE_MASK;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// The first attribute of this kind.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(found, _)| *found == kind)
        .map(|(_, value)| value)
}

/// One message as it came from the kernel.
pub(crate) struct Incoming<'a> {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    /// What follows the netlink header.
    pub(crate) payload: &'a [u8],
}

/// The messages in one datagram.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = Incoming<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let word = |at: usize| -> Option<u32> {
            Some(u32::from_ne_bytes(rest.get(at..at + 4)?.try_into().ok()?))
        };
        let length = word(0)? as usize;
        let kind = (word(4)? & 0xffff) as u16;
        let sequence = word(8)?;
        let payload = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Incoming {
            kind,
            sequence,
            payload,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_survive_the_trip_and_padding() {
        let mut writer = Writer::default();
        let open = writer.begin(7, NLM_F_REQUEST, 3, 2, 0);
        writer.text(1, "four");
        let nest = writer.nest(2);
        writer.number(5, 9);
        writer.end_nest(nest);
        writer.end(open);
        let message = messages(&writer.0).next().unwrap();
        assert_eq!((message.kind, message.sequence), (7, 3));
        let body = &message.payload[4..];
        assert_eq!(attribute(body, 1), Some(&b"four\0"[..]));
        let inner = attribute(body, 2).unwrap();
        assert_eq!(attribute(inner, 5), Some(&[0, 0, 0, 9][..]));
    }

    #[test]
    fn a_lying_length_ends_the_walk() {
        assert_eq!(attributes(&[200, 0, 1, 0, 5]).count(), 0);
        assert_eq!(messages(&[255; 16]).count(), 0);
    }
}
