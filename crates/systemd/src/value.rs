//! Values as D-Bus marshals them.

/// Arrays and variants inside each other; more is refused.
const DEPTH_LIMIT: usize = 32;

/// Bytes that are no message, or not of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed D-Bus message: {0}")]
pub struct Malformed(pub &'static str);

/// One value of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    Text(String),
    Path(String),
    Signature(String),
    /// Number of a descriptor that travels with the message.
    Handle(u32),
    /// Signature of its elements, and these.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    /// One of a dictionary's, which is an array of them.
    Entry(Box<(Value, Value)>),
    Variant(Box<Value>),
}

impl Value {
    /// A text.
    pub fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    /// An array of texts.
    pub fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Value {
        Value::Array("s".to_owned(), texts.into_iter().map(Value::text).collect())
    }

    /// An array of bytes.
    pub fn bytes(bytes: &[u8]) -> Value {
        let bytes = bytes.iter().copied().map(Value::Byte).collect();
        Value::Array("y".to_owned(), bytes)
    }

    /// The text of a text, path or signature, in variants too.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) | Value::Path(text) | Value::Signature(text) => Some(text),
            Value::Variant(inner) => inner.as_text(),
            _ => None,
        }
    }

    /// An unsigned number, in variants too.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::Byte(n) => Some((*n).into()),
            Value::U16(n) => Some((*n).into()),
            Value::U32(n) | Value::Handle(n) => Some((*n).into()),
            Value::U64(n) => Some(*n),
            Value::Variant(inner) => inner.as_u64(),
            _ => None,
        }
    }

    /// A truth value, in variants too.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(is) => Some(*is),
            Value::Variant(inner) => inner.as_bool(),
            _ => None,
        }
    }

    /// Its type in D-Bus' letters.
    pub fn signature(&self) -> String {
        let letter = match self {
            Value::Byte(_) => "y",
            Value::Bool(_) => "b",
            Value::I16(_) => "n",
            Value::U16(_) => "q",
            Value::I32(_) => "i",
            Value::U32(_) => "u",
            Value::I64(_) => "x",
            Value::U64(_) => "t",
            Value::Double(_) => "d",
            Value::Text(_) => "s",
            Value::Path(_) => "o",
            Value::Signature(_) => "g",
            Value::Handle(_) => "h",
            Value::Variant(_) => "v",
            Value::Array(element, _) => return format!("a{element}"),
            Value::Struct(fields) => {
                let inner: String = fields.iter().map(Value::signature).collect();
                return format!("({inner})");
            }
            Value::Entry(pair) => {
                return format!("{{{}{}}}", pair.0.signature(), pair.1.signature());
            }
        };
        letter.to_owned()
    }

    /// Appends it; `out` begins where alignment counts from.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Byte(n) => out.push(*n),
            Value::Bool(is) => put(out, &u32::from(*is).to_le_bytes()),
            Value::I16(n) => put(out, &n.to_le_bytes()),
            Value::U16(n) => put(out, &n.to_le_bytes()),
            Value::I32(n) => put(out, &n.to_le_bytes()),
            Value::U32(n) | Value::Handle(n) => put(out, &n.to_le_bytes()),
            Value::I64(n) => put(out, &n.to_le_bytes()),
            Value::U64(n) => put(out, &n.to_le_bytes()),
            Value::Double(n) => put(out, &n.to_le_bytes()),
            Value::Text(text) | Value::Path(text) => {
                put(out, &length(text.len()));
                out.extend_from_slice(text.as_bytes());
                out.push(0);
            }
            Value::Signature(text) => write_signature(out, text),
            Value::Array(element, values) => write_array(out, element, values),
            Value::Struct(fields) => {
                align(out, 8);
                fields.iter().for_each(|field| field.write(out));
            }
            Value::Entry(pair) => {
                align(out, 8);
                pair.0.write(out);
                pair.1.write(out);
            }
            Value::Variant(inner) => {
                write_signature(out, &inner.signature());
                inner.write(out);
            }
        }
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    align(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn length(length: usize) -> [u8; 4] {
    // What we send is far from the protocol's own limit.
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

fn write_signature(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

fn write_array(out: &mut Vec<u8>, element: &str, values: &[Value]) {
    put(out, &[0; 4]);
    let place = out.len() - 4;
    align(out, alignment(element));
    let start = out.len();
    values.iter().for_each(|value| value.write(out));
    let written = length(out.len() - start);
    out[place..place + 4].copy_from_slice(&written);
}

/// Fills up with zeros.
pub(crate) fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 4,
    }
}

/// The first complete type of a signature, and what follows it.
pub(crate) fn first_type(signature: &str) -> Result<(&str, &str), Malformed> {
    let bytes = signature.as_bytes();
    let mut depth = 0_usize;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'(' | b'{' => depth += 1,
            b')' | b'}' => depth = depth.checked_sub(1).ok_or(Malformed("signature"))?,
            b'a' => continue,
            b'y' | b'b' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b's' | b'o' | b'g'
            | b'h' | b'v' => {}
            _ => return Err(Malformed("signature")),
        }
        if depth == 0 {
            return Ok(signature.split_at(at + 1));
        }
    }
    Err(Malformed("signature"))
}

/// Reads values off bytes that begin where alignment counts from.
pub(crate) struct Reader<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
    pub(crate) big_endian: bool,
    depth: usize,
}

macro_rules! number {
    ($reader:expr, $kind:ty) => {{
        let bytes = $reader.aligned(size_of::<$kind>())?;
        let mut array = [0; size_of::<$kind>()];
        array.copy_from_slice(bytes);
        match $reader.big_endian {
            true => <$kind>::from_be_bytes(array),
            false => <$kind>::from_le_bytes(array),
        }
    }};
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], big_endian: bool) -> Reader<'a> {
        Reader {
            bytes,
            at: 0,
            big_endian,
            depth: 0,
        }
    }

    pub(crate) fn skip_to(&mut self, alignment: usize) {
        self.at = self.at.next_multiple_of(alignment);
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(count).ok_or(Malformed("length"))?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed("too short"))?;
        self.at = end;
        Ok(taken)
    }

    fn aligned(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        self.skip_to(count);
        self.take(count)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(number!(self, u32))
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.u32()?).map_err(|_| Malformed("length"))
    }

    fn text(&mut self, length: usize) -> Result<String, Malformed> {
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed("text is not UTF-8"))?;
        match self.take(1)? {
            [0] => Ok(text.to_owned()),
            _ => Err(Malformed("text without its end")),
        }
    }

    fn signature(&mut self) -> Result<String, Malformed> {
        let length = self.take(1)?.first().copied().unwrap_or(0);
        self.text(length.into())
    }

    /// One value for each type of the signature.
    pub(crate) fn values(&mut self, mut signature: &str) -> Result<Vec<Value>, Malformed> {
        let mut values = Vec::new();
        while !signature.is_empty() {
            let (first, rest) = first_type(signature)?;
            values.push(self.value(first)?);
            signature = rest;
        }
        Ok(values)
    }

    /// One value of a complete type.
    pub(crate) fn value(&mut self, kind: &str) -> Result<Value, Malformed> {
        self.depth += 1;
        if self.depth > DEPTH_LIMIT {
            return Err(Malformed("nested too deeply"));
        }
        let value = self.value_inside(kind);
        self.depth -= 1;
        value
    }

    fn value_inside(&mut self, kind: &str) -> Result<Value, Malformed> {
        let inner = || {
            kind.get(1..kind.len() - 1)
                .filter(|inner| !inner.is_empty())
                .ok_or(Malformed("signature"))
        };
        Ok(match kind.as_bytes().first() {
            Some(b'y') => Value::Byte(number!(self, u8)),
            Some(b'b') => Value::Bool(self.u32()? != 0),
            Some(b'n') => Value::I16(number!(self, i16)),
            Some(b'q') => Value::U16(number!(self, u16)),
            Some(b'i') => Value::I32(number!(self, i32)),
            Some(b'u') => Value::U32(self.u32()?),
            Some(b'x') => Value::I64(number!(self, i64)),
            Some(b't') => Value::U64(number!(self, u64)),
            Some(b'd') => Value::Double(number!(self, f64)),
            Some(b'h') => Value::Handle(self.u32()?),
            Some(b's') => {
                let length = self.length()?;
                Value::Text(self.text(length)?)
            }
            Some(b'o') => {
                let length = self.length()?;
                Value::Path(self.text(length)?)
            }
            Some(b'g') => Value::Signature(self.signature()?),
            Some(b'v') => {
                let signature = self.signature()?;
                match first_type(&signature)? {
                    (one, "") => Value::Variant(Box::new(self.value(one)?)),
                    _ => return Err(Malformed("variant of several values")),
                }
            }
            Some(b'(') => {
                self.skip_to(8);
                Value::Struct(self.values(inner()?)?)
            }
            Some(b'{') => {
                self.skip_to(8);
                let mut pair = self.values(inner()?)?.into_iter();
                match (pair.next(), pair.next(), pair.next()) {
                    (Some(key), Some(value), None) => Value::Entry(Box::new((key, value))),
                    _ => return Err(Malformed("dictionary")),
                }
            }
            Some(b'a') => self.array(&kind[1..])?,
            _ => return Err(Malformed("signature")),
        })
    }

    fn array(&mut self, element: &str) -> Result<Value, Malformed> {
        let length = self.length()?;
        self.skip_to(alignment(element));
        let end = self.at.checked_add(length).ok_or(Malformed("length"))?;
        if end > self.bytes.len() {
            return Err(Malformed("too short"));
        }
        let mut values = Vec::new();
        while self.at < end {
            let before = self.at;
            values.push(self.value(element)?);
            if self.at == before {
                return Err(Malformed("element without size"));
            }
        }
        match self.at == end {
            true => Ok(Value::Array(element.to_owned(), values)),
            false => Err(Malformed("array")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_went() {
        let values = vec![
            Value::Byte(7),
            Value::text("kubepods.slice"),
            Value::Bool(true),
            Value::Array(
                "(sv)".to_owned(),
                vec![
                    Value::Struct(vec![
                        Value::text("PIDs"),
                        Value::Variant(Box::new(Value::Array(
                            "u".to_owned(),
                            vec![Value::U32(1), Value::U32(2)],
                        ))),
                    ]),
                    Value::Struct(vec![
                        Value::text("MemoryMax"),
                        Value::Variant(Box::new(Value::U64(u64::MAX))),
                    ]),
                ],
            ),
            Value::Array("(sa(sv))".to_owned(), Vec::new()),
            Value::Array(
                "{sv}".to_owned(),
                vec![Value::Entry(Box::new((
                    Value::text("k"),
                    Value::Variant(Box::new(Value::bytes(&[3, 0, 1]))),
                )))],
            ),
            Value::Path("/a".to_owned()),
            Value::I64(-5),
            Value::Double(0.5),
            Value::I16(-2),
            Value::Signature("a{sv}".to_owned()),
        ];
        let signature: String = values.iter().map(Value::signature).collect();
        assert_eq!(signature, "ysba(sv)a(sa(sv))a{sv}oxdng");
        let mut bytes = Vec::new();
        values.iter().for_each(|value| value.write(&mut bytes));
        let mut reader = Reader::new(&bytes, false);
        assert_eq!(reader.values(&signature).unwrap(), values);
        assert_eq!(reader.at, bytes.len());
    }

    #[test]
    fn hostile_bytes_are_refused() {
        let read = |bytes: &[u8], signature: &str| {
            Reader::new(bytes, false).values(signature).unwrap_err()
        };
        read(&[0xff, 0xff, 0xff, 0xff, 0], "s");
        read(&[8, 0, 0, 0, 1], "ay");
        read(&[1, 0, 0, 0, b'x', b'y'], "s");
        read(&[0; 16], "(");
        read(&[0; 16], "z");
        read(&[0; 16], "()");
        // A variant in a variant, and so on.
        let nested: Vec<u8> = [1, b'v', 0].repeat(100);
        assert_eq!(read(&nested, "v"), Malformed("nested too deeply"));
    }
}
