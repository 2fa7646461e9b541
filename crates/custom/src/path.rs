//! Where in an object one is, kept on the stack and written only when there is something to say.

use std::fmt;

/// The way from the root.
#[derive(Clone, Copy)]
pub(crate) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    /// An entry of a map, written `[key]` where upstream writes it so.
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl<'a> Path<'a> {
    pub(crate) fn field(&'a self, name: &'a str) -> Path<'a> {
        Path::Field(self, name)
    }

    pub(crate) fn key(&'a self, name: &'a str) -> Path<'a> {
        Path::Key(self, name)
    }

    pub(crate) fn index(&'a self, at: usize) -> Path<'a> {
        Path::Index(self, at)
    }

    /// The path as the field of a fault; the root has no name.
    pub(crate) fn or_nil(&self) -> String {
        match self {
            Path::Root => "<nil>".into(),
            path => path.to_string(),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(up, name) => write!(f, "{up}.{name}"),
            Path::Key(up, name) => write!(f, "{up}[{name}]"),
            Path::Index(up, at) => write!(f, "{up}[{at}]"),
        }
    }
}
