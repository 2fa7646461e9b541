//! Where a value stands in its object.

use std::fmt;
use std::ops::Deref;

/// Bytes that a path has room for without memory of its own; few are longer.
const INLINE: usize = 126;

/// A path such as `spec.containers[0].name`. Validation makes one for all that it looks at, and
/// tells hardly any: so they are kept on the stack.
#[derive(Clone)]
pub(crate) struct Path(Text);

#[derive(Clone)]
enum Text {
    Short { len: u8, bytes: [u8; INLINE] },
    Long(String),
}

impl Path {
    /// The path of a field below this one.
    pub(crate) fn field(&self, name: &str) -> Path {
        let mut path = self.clone();
        if !path.is_empty() {
            path.push(".");
        }
        path.push(name);
        path
    }

    /// The path of an item of the list that is here.
    pub(crate) fn item(&self, index: usize) -> Path {
        let mut path = self.clone();
        path.push("[");
        path.push_number(index);
        path.push("]");
        path
    }

    /// The path of an entry of the map that is here, such as `limits[cpu]`.
    pub(crate) fn entry(&self, key: &str) -> Path {
        let mut path = self.clone();
        path.push("[");
        path.push(key);
        path.push("]");
        path
    }

    fn push(&mut self, text: &str) {
        if let Text::Short { len, bytes } = &mut self.0 {
            let start = usize::from(*len);
            if let Some(room) = bytes.get_mut(start..start + text.len()) {
                room.copy_from_slice(text.as_bytes());
                // It fits into `INLINE`.
                *len += text.len() as u8;
                return;
            }
        }
        match &mut self.0 {
            Text::Long(long) => long.push_str(text),
            Text::Short { .. } => self.0 = Text::Long([&**self, text].concat()),
        }
    }

    fn push_number(&mut self, number: usize) {
        if number >= 10 {
            self.push_number(number / 10);
        }
        const DIGITS: &str = "0123456789";
        let digit = number % 10;
        self.push(&DIGITS[digit..=digit]);
    }
}

impl Deref for Path {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            // Whole texts were put in, so it is one.
            Text::Short { len, bytes } => {
                std::str::from_utf8(&bytes[..usize::from(*len)]).unwrap_or_default()
            }
            Text::Long(long) => long,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl From<&str> for Path {
    fn from(text: &str) -> Path {
        let (len, bytes) = (0, [0; INLINE]);
        let mut path = Path(Text::Short { len, bytes });
        path.push(text);
        path
    }
}

impl From<Path> for String {
    fn from(path: Path) -> String {
        match path.0 {
            Text::Long(long) => long,
            Text::Short { .. } => (*path).to_owned(),
        }
    }
}

impl From<&Path> for String {
    fn from(path: &Path) -> String {
        (**path).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_grow_beyond_their_room() {
        let root = Path::from("");
        let short = root.field("spec").field("containers").item(1203);
        assert_eq!(&*short.entry("a/b"), "spec.containers[1203][a/b]");
        assert_eq!(&*root.item(0), "[0]");
        let mut path = short.clone();
        let mut expected = short.to_string();
        for round in 0..INLINE {
            let name = ["é", "env"][round % 2];
            path = path.field(name).item(round);
            expected = format!("{expected}.{name}[{round}]");
            assert_eq!(&*path, expected);
        }
        assert_eq!(String::from(path), expected);
    }
}
