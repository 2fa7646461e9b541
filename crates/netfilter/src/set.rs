//! Named sets and maps, and what is in them.

use std::net::Ipv4Addr;

use crate::message::Writer;
use crate::rule::Verdict;

/// Data types as `nft list` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Ipv4Address,
    Protocol,
    Port,
    /// A 32-bit number in the machine's order.
    Mark,
}

impl Type {
    fn code(self) -> u32 {
        match self {
            Type::Ipv4Address => 7,
            Type::Protocol => 12,
            Type::Port => 13,
            Type::Mark => 19,
        }
    }

    fn describe(types: &[Type]) -> u32 {
        let join = |code, part: &Type| (code << 6) | part.code();
        types.iter().fold(0, join)
    }
}

/// Every part of a concatenation fills one 32-bit register.
const PART: u32 = 4;

/// What a set, a map or a verdict map is made of.
#[derive(Clone, Debug)]
pub struct SetSpec<'a> {
    pub name: &'a str,
    pub key: &'a [Type],
    pub value: SetValue<'a>,
    /// Rules may add elements, which expire; at most this many.
    pub dynamic: Option<u32>,
}

/// What a key leads to.
#[derive(Clone, Copy, Debug)]
pub enum SetValue<'a> {
    Nothing,
    Verdict,
    Data(&'a [Type]),
}

impl<'a> SetSpec<'a> {
    /// A plain set.
    pub fn set(name: &'a str, key: &'a [Type]) -> SetSpec<'a> {
        SetSpec {
            name,
            key,
            value: SetValue::Nothing,
            dynamic: None,
        }
    }

    /// A map to data.
    pub fn map(name: &'a str, key: &'a [Type], data: &'a [Type]) -> SetSpec<'a> {
        SetSpec {
            value: SetValue::Data(data),
            ..SetSpec::set(name, key)
        }
    }

    /// A map to verdicts.
    pub fn verdicts(name: &'a str, key: &'a [Type]) -> SetSpec<'a> {
        SetSpec {
            value: SetValue::Verdict,
            ..SetSpec::set(name, key)
        }
    }

    /// Lets rules add up to `size` elements that expire.
    pub fn dynamic(self, size: u32) -> SetSpec<'a> {
        SetSpec {
            dynamic: Some(size),
            ..self
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer, id: u32) {
        const MAP: u32 = 0x8;
        const TIMEOUT: u32 = 0x10;
        const EVALUATED: u32 = 0x20;
        const VERDICT_TYPE: u32 = 0xffff_ff00;
        let mut flags = 0;
        if !matches!(self.value, SetValue::Nothing) {
            flags |= MAP;
        }
        if self.dynamic.is_some() {
            flags |= TIMEOUT | EVALUATED;
        }
        writer.text(2, self.name);
        writer.number(3, flags);
        writer.number(4, Type::describe(self.key));
        writer.number(5, PART * self.key.len() as u32);
        match self.value {
            SetValue::Nothing => {}
            SetValue::Verdict => {
                writer.number(6, VERDICT_TYPE);
                writer.number(7, 0);
            }
            SetValue::Data(types) => {
                writer.number(6, Type::describe(types));
                writer.number(7, PART * types.len() as u32);
            }
        }
        if let Some(size) = self.dynamic {
            let nest = writer.nest(9);
            writer.number(1, size);
            writer.end_nest(nest);
        }
        writer.number(10, id);
    }
}

/// A concatenation of addresses, protocols, ports and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Value {
    bytes: [u8; Value::LIMIT],
    length: u8,
}

impl Value {
    const LIMIT: usize = 16;

    /// Without any part.
    pub fn new() -> Value {
        Value::default()
    }

    /// With one more address.
    pub fn address(self, address: Ipv4Addr) -> Value {
        self.part(address.octets())
    }

    /// With one more protocol number.
    pub fn protocol(self, protocol: u8) -> Value {
        self.part([protocol, 0, 0, 0])
    }

    /// With one more port.
    pub fn port(self, port: u16) -> Value {
        let [high, low] = port.to_be_bytes();
        self.part([high, low, 0, 0])
    }

    /// With one more number.
    pub fn mark(self, number: u32) -> Value {
        self.part(number.to_ne_bytes())
    }

    /// What came from the kernel; `None` when it is longer than any of ours.
    pub fn from_bytes(bytes: &[u8]) -> Option<Value> {
        let mut value = Value::new();
        value.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        value.length = bytes.len() as u8;
        Some(value)
    }

    /// The bytes as they lie in registers.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    fn part(mut self, part: [u8; 4]) -> Value {
        let at = usize::from(self.length);
        assert!(at < Value::LIMIT, "a value has at most four parts");
        self.bytes[at..at + 4].copy_from_slice(&part);
        self.length += 4;
        self
    }
}

/// One element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Element {
    Key(Value),
    Verdict(Value, Verdict),
    Data(Value, Value),
}

impl Element {
    /// What it is found by.
    pub fn key(&self) -> &Value {
        match self {
            Element::Key(key) | Element::Verdict(key, _) | Element::Data(key, _) => key,
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer, with_value: bool) {
        let element = writer.nest(1);
        let nest = writer.nest(1);
        writer.bytes(1, self.key().as_bytes());
        writer.end_nest(nest);
        match self {
            Element::Verdict(_, verdict) if with_value => {
                let nest = writer.nest(2);
                verdict.write(writer);
                writer.end_nest(nest);
            }
            Element::Data(_, data) if with_value => {
                let nest = writer.nest(2);
                writer.bytes(1, data.as_bytes());
                writer.end_nest(nest);
            }
            _ => {}
        }
        writer.end_nest(element);
    }
}
