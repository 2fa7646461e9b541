//! The built-in table: text made at build time, read type by type at first use.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use serde_json::Value;

use crate::protobuf::encode::Layout;
use crate::types::{
    Field, Heads, Kind, ListKind, MapKind, PatchStrategy, Presence, Shape, Text, Type, TypeRef,
};

/// One line per type (`T`) and per field (`F`), columns between tabs; `build/table.rs` writes it.
static TABLE: &str = include_str!(concat!(env!("OUT_DIR"), "/table.txt"));
/// All documentation, cut by the offsets in the table. Its pages are read only when asked for.
static DOCS: &str = include_str!(concat!(env!("OUT_DIR"), "/docs.txt"));

/// Where one built-in type stands in the table.
pub struct Slot {
    name: &'static str,
    lines: &'static str,
    ty: OnceLock<Type>,
    layout: OnceLock<Layout>,
}

impl Slot {
    /// The type's full name.
    pub fn name(&self) -> &str {
        self.name
    }

    /// In which order its fields stand in protobuf, worked out at the first call.
    pub(crate) fn layout(&'static self) -> &'static Layout {
        self.layout.get_or_init(|| Layout::of(self.get()))
    }

    /// The type, read at the first call.
    pub fn get(&'static self) -> &'static Type {
        self.ty.get_or_init(|| read_type(self.name, self.lines))
    }
}

struct Table {
    slots: Vec<Slot>,
    by_name: HashMap<&'static str, usize>,
    by_kind: HashMap<(&'static str, &'static str, &'static str), usize>,
}

static ALL: LazyLock<Table> = LazyLock::new(read_table);

/// The type at the root of a built-in kind; `group` is empty for the core group.
pub fn builtin(group: &str, version: &str, kind: &str) -> Option<&'static Type> {
    let all = &*ALL;
    let index = all.by_kind.get(&(group, version, kind))?;
    all.slots.get(*index).map(Slot::get)
}

/// A built-in type by its full name, such as `io.k8s.api.core.v1.PodSpec`.
pub fn named(name: &str) -> Option<&'static Type> {
    slot(name).map(Slot::get)
}

/// A reference to a built-in type.
pub fn reference(name: &str) -> Option<TypeRef> {
    slot(name).map(TypeRef::Builtin)
}

/// Full names of all built-in types.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.slots.iter().map(|slot| slot.name)
}

fn slot(name: &str) -> Option<&'static Slot> {
    let all = &*ALL;
    all.by_name
        .get(name)
        .and_then(|index| all.slots.get(*index))
}

fn read_table() -> Table {
    let mut table = Table {
        slots: Vec::new(),
        by_name: HashMap::new(),
        by_kind: HashMap::new(),
    };
    for lines in TABLE
        .split("\nT\t")
        .map(|lines| lines.trim_start_matches("T\t"))
    {
        let head = lines.lines().next().unwrap_or("");
        let mut columns = head.split('\t');
        let name = columns.next().unwrap_or("");
        let index = table.slots.len();
        for kind in columns.nth(2).unwrap_or("").split(' ') {
            if let Some(kind) = split_kind(kind) {
                table.by_kind.insert(kind, index);
            }
        }
        table.by_name.insert(name, index);
        table.slots.push(Slot {
            name,
            lines,
            ty: OnceLock::new(),
            layout: OnceLock::new(),
        });
    }
    table
}

/// `group/version/kind`.
fn split_kind(text: &'static str) -> Option<(&'static str, &'static str, &'static str)> {
    let (group, rest) = text.split_once('/')?;
    let (version, kind) = rest.split_once('/')?;
    Some((group, version, kind))
}

/// Columns: name, documentation, flags, kinds.
fn read_type(name: &'static str, lines: &'static str) -> Type {
    let mut lines = lines.lines();
    let head: Vec<&'static str> = lines.next().unwrap_or("").split('\t').collect();
    let column = |index: usize| head.get(index).copied().unwrap_or("");
    let kind = |(group, version, kind): (&'static str, &'static str, &'static str)| Kind {
        group: Text::Borrowed(group),
        version: Text::Borrowed(version),
        kind: Text::Borrowed(kind),
    };
    Type {
        name: Text::Borrowed(name),
        doc: doc(column(1)),
        atomic: column(2).contains('a'),
        keep_unknown: false,
        heads: Heads::default(),
        kinds: column(3)
            .split(' ')
            .filter_map(split_kind)
            .map(kind)
            .collect(),
        fields: lines.map(read_field).collect(),
    }
}

/// Columns: `F`, name, tag, shape, flags, merge key, default, enumeration, documentation.
fn read_field(line: &'static str) -> Field {
    let columns: Vec<&'static str> = line.split('\t').collect();
    let column = |index: usize| columns.get(index).copied().unwrap_or("");
    let (within, tag) = column(2).rsplit_once('.').unwrap_or(("", column(2)));
    let flags = column(4);
    let words = |text: &'static str| text.split_terminator('|');
    Field {
        json: Text::Borrowed(column(1)),
        tag: tag.parse().unwrap_or(0),
        within: within
            .split('.')
            .filter_map(|tag| tag.parse().ok())
            .collect(),
        shape: read_shape(&mut column(3)),
        required: flags.contains('r'),
        presence: match flags {
            _ if flags.contains('p') => Presence::Pointer,
            _ if flags.contains('w') => Presence::Always,
            _ if flags.contains('n') => Presence::Nullable,
            _ => Presence::OmitEmpty,
        },
        patch: PatchStrategy {
            merge: flags.contains('m'),
            retain_keys: flags.contains('k'),
            replace: flags.contains('R'),
        },
        patch_merge_key: Some(column(5))
            .filter(|key| !key.is_empty())
            .map(Text::Borrowed),
        default: serde_json::from_str::<Value>(column(6)).ok(),
        enumeration: words(column(7)).map(Text::Borrowed).collect(),
        doc: doc(column(8)),
    }
}

/// `start+length` in [`DOCS`].
fn doc(place: &str) -> Text {
    let cut = place.split_once('+').and_then(|(start, length)| {
        let start: usize = start.parse().ok()?;
        DOCS.get(start..start + length.parse::<usize>().ok()?)
    });
    Text::Borrowed(cut.unwrap_or(""))
}

/// A prefix code: one letter, then what belongs to it. Anything else reads as [`Shape::Json`].
fn read_shape(text: &mut &'static str) -> Shape {
    let Some(code) = text.chars().next() else {
        return Shape::Json;
    };
    *text = &text[code.len_utf8()..];
    match code {
        'b' => Shape::Bool,
        'i' => Shape::Int32,
        'l' => Shape::Int64,
        'd' => Shape::Double,
        's' => Shape::Text,
        'y' => Shape::Bytes,
        'x' => Shape::IntOrString,
        'q' => Shape::Quantity,
        't' => Shape::Time,
        'u' => Shape::MicroTime,
        'D' => Shape::Duration,
        'r' => Shape::Raw,
        'f' => Shape::FieldsV1,
        '@' => match reference(until(text, ';')) {
            Some(reference) => Shape::Struct(reference),
            None => Shape::Raw,
        },
        '[' => {
            let kind = match until(text, ']') {
                "a" => ListKind::Atomic,
                "s" => ListKind::Set,
                keys => ListKind::Map {
                    keys: keys.split(',').skip(1).map(Text::Borrowed).collect(),
                },
            };
            Shape::List(Box::new(read_shape(text)), kind)
        }
        '{' => {
            let kind = match until(text, '}') {
                "a" => MapKind::Atomic,
                _ => MapKind::Granular,
            };
            Shape::Map(Box::new(read_shape(text)), kind)
        }
        '?' => Shape::OneOf(Box::new([read_shape(text), read_shape(text)])),
        _ => Shape::Json,
    }
}

fn until(text: &mut &'static str, end: char) -> &'static str {
    let (part, rest) = text.split_once(end).unwrap_or((text, ""));
    *text = rest;
    part
}
