//! One message of D-Bus: its header, its body, and the descriptors that travel with it.

use std::os::fd::OwnedFd;

use crate::value::{Malformed, Reader, Value, align};

/// What comes before the header's fields: kind, lengths, serial, and the length of the fields.
pub(crate) const PREFIX: usize = 16;
/// A longer message is taken for nonsense; the protocol would allow 128 MiB.
const LENGTH_LIMIT: usize = 4 << 20;
/// Version of the protocol.
const VERSION: u8 = 1;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Call,
    Reply,
    Error,
    Signal,
}

/// A message; empty texts are not sent.
#[derive(Debug)]
pub struct Message {
    pub kind: Kind,
    pub serial: u32,
    /// Of the call that is answered.
    pub reply_to: u32,
    pub path: String,
    pub interface: String,
    pub member: String,
    /// Name of an error.
    pub error: String,
    pub destination: String,
    pub sender: String,
    pub body: Vec<Value>,
    pub fds: Vec<OwnedFd>,
    /// How many descriptors it says to have.
    pub(crate) fd_count: usize,
}

impl Message {
    fn new(kind: Kind) -> Message {
        Message {
            kind,
            serial: 0,
            reply_to: 0,
            path: String::new(),
            interface: String::new(),
            member: String::new(),
            error: String::new(),
            destination: String::new(),
            sender: String::new(),
            body: Vec::new(),
            fds: Vec::new(),
            fd_count: 0,
        }
    }

    /// Calls a method.
    pub fn call(
        destination: &str,
        path: &str,
        interface: &str,
        member: &str,
        body: Vec<Value>,
    ) -> Message {
        Message {
            path: path.to_owned(),
            interface: interface.to_owned(),
            member: member.to_owned(),
            destination: destination.to_owned(),
            body,
            ..Message::new(Kind::Call)
        }
    }

    /// Says that something happened.
    pub fn signal(path: &str, interface: &str, member: &str, body: Vec<Value>) -> Message {
        Message {
            kind: Kind::Signal,
            ..Message::call("", path, interface, member, body)
        }
    }

    /// Answers this call.
    pub fn reply(&self, body: Vec<Value>) -> Message {
        Message {
            reply_to: self.serial,
            destination: self.sender.clone(),
            body,
            ..Message::new(Kind::Reply)
        }
    }

    /// Whether it is this signal.
    pub fn is_signal(&self, interface: &str, member: &str) -> bool {
        self.kind == Kind::Signal && self.interface == interface && self.member == member
    }

    pub(crate) fn encode(&self, serial: u32) -> Vec<u8> {
        let mut body = Vec::new();
        self.body.iter().for_each(|value| value.write(&mut body));
        let kind = match self.kind {
            Kind::Call => 1,
            Kind::Reply => 2,
            Kind::Error => 3,
            Kind::Signal => 4,
        };
        let mut out = vec![b'l', kind, 0, VERSION];
        Value::U32(u32::try_from(body.len()).unwrap_or(u32::MAX)).write(&mut out);
        Value::U32(serial).write(&mut out);
        Value::Array("(yv)".to_owned(), self.fields()).write(&mut out);
        align(&mut out, 8);
        out.append(&mut body);
        out
    }

    fn fields(&self) -> Vec<Value> {
        let mut fields = Vec::new();
        let mut add = |code: u8, value: Value| {
            let value = Value::Variant(Box::new(value));
            fields.push(Value::Struct(vec![Value::Byte(code), value]));
        };
        if !self.path.is_empty() {
            add(1, Value::Path(self.path.clone()));
        }
        let texts = [
            (2, &self.interface),
            (3, &self.member),
            (4, &self.error),
            (6, &self.destination),
            (7, &self.sender),
        ];
        for (code, text) in texts {
            if !text.is_empty() {
                add(code, Value::text(text));
            }
        }
        if self.reply_to != 0 {
            add(5, Value::U32(self.reply_to));
        }
        if !self.body.is_empty() {
            let signature = self.body.iter().map(Value::signature).collect();
            add(8, Value::Signature(signature));
        }
        if !self.fds.is_empty() {
            let count = u32::try_from(self.fds.len()).unwrap_or(u32::MAX);
            add(9, Value::U32(count));
        }
        fields
    }

    /// How long the message is that begins so, as soon as enough of it is there to tell.
    pub(crate) fn length(start: &[u8]) -> Result<Option<usize>, Malformed> {
        let Some(prefix) = start.get(..PREFIX) else {
            return Ok(None);
        };
        let mut reader = Reader::new(prefix, is_big_endian(prefix)?);
        reader.at = 4;
        let mut number = || usize::try_from(reader.u32()?).map_err(|_| Malformed("length"));
        let (body, _serial, fields) = (number()?, number()?, number()?);
        if body > LENGTH_LIMIT || fields > LENGTH_LIMIT {
            return Err(Malformed("too long"));
        }
        Ok(Some(PREFIX + fields.next_multiple_of(8) + body))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
        let mut reader = Reader::new(bytes, is_big_endian(bytes)?);
        let kind = match bytes.get(1) {
            Some(1) => Kind::Call,
            Some(2) => Kind::Reply,
            Some(3) => Kind::Error,
            Some(4) => Kind::Signal,
            _ => return Err(Malformed("unknown kind")),
        };
        if bytes.get(3) != Some(&VERSION) {
            return Err(Malformed("another version"));
        }
        reader.at = 8;
        let mut message = Message {
            serial: reader.u32()?,
            ..Message::new(kind)
        };
        let mut signature = String::new();
        let Value::Array(_, fields) = reader.value("a(yv)")? else {
            return Err(Malformed("header"));
        };
        for field in &fields {
            let Value::Struct(pair) = field else { continue };
            let [Value::Byte(code), value] = pair.as_slice() else {
                continue;
            };
            let text = || value.as_text().unwrap_or_default().to_owned();
            let number = || value.as_u64().unwrap_or_default();
            match code {
                1 => message.path = text(),
                2 => message.interface = text(),
                3 => message.member = text(),
                4 => message.error = text(),
                5 => message.reply_to = u32::try_from(number()).unwrap_or_default(),
                6 => message.destination = text(),
                7 => message.sender = text(),
                8 => signature = text(),
                9 => message.fd_count = usize::try_from(number()).unwrap_or_default(),
                _ => {}
            }
        }
        reader.skip_to(8);
        let body = bytes.get(reader.at..).ok_or(Malformed("too short"))?;
        let mut reader = Reader::new(body, reader.big_endian);
        message.body = reader.values(&signature)?;
        Ok(message)
    }
}

fn is_big_endian(bytes: &[u8]) -> Result<bool, Malformed> {
    match bytes.first() {
        Some(b'l') => Ok(false),
        Some(b'B') => Ok(true),
        _ => Err(Malformed("unknown byte order")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_as_it_went() {
        let body = vec![Value::text("a.scope"), Value::U32(5)];
        let message = Message::call("org.x", "/org/x", "org.x.I", "Do", body);
        let bytes = message.encode(9);
        assert_eq!(Message::length(&bytes[..PREFIX]), Ok(Some(bytes.len())));
        assert_eq!(Message::length(&bytes[..5]), Ok(None));
        let read = Message::decode(&bytes).unwrap();
        assert_eq!(
            (read.kind, read.serial, read.member.as_str()),
            (Kind::Call, 9, "Do")
        );
        assert_eq!(read.body, message.body);
        let answer = Message::decode(&read.reply(Vec::new()).encode(1)).unwrap();
        assert_eq!((answer.kind, answer.reply_to), (Kind::Reply, 9));
        for cut in 0..bytes.len() {
            assert!(Message::decode(&bytes[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_message_of_the_other_byte_order_is_read() {
        // A signal with serial 1 and body "u" 258, as a big-endian machine writes it.
        let mut bytes = vec![b'B', 4, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 7];
        bytes.extend([8, 1, b'g', 0, 1, b'u', 0, 0, 0, 0, 1, 2]);
        let read = Message::decode(&bytes).unwrap();
        assert_eq!(read.body, [Value::U32(258)]);
    }

    #[test]
    fn nonsense_is_no_message() {
        assert!(Message::length(&[b'x'; 16]).is_err());
        let mut long = vec![b'l', 1, 0, 1];
        long.extend([0xff; 12]);
        assert!(Message::length(&long).is_err());
    }
}
