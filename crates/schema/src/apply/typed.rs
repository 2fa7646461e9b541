//! What the schema says of ownership: which paths a tree has, and how paths are taken out of it.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::set::{Element, Set};
use crate::types::{Field, ListKind, MapKind, Presence, Shape, Text, Type};

/// How the value of a shape is owned.
#[derive(Clone, Copy)]
pub(super) enum Atom<'a> {
    /// As one.
    Leaf,
    /// Field by field.
    Struct(&'a Type),
    /// Entry by entry.
    Map(&'a Shape),
    /// Item by item, each known by its value.
    Set,
    /// Item by item, each known by its key fields.
    Keyed(&'a [Text], &'a Shape),
    /// By the form of the value: maps entry by entry, the rest as one.
    Deduced,
}

/// The atom of a shape.
pub(super) fn atom(shape: &Shape) -> Atom<'_> {
    match shape {
        Shape::Struct(reference) => match reference.get() {
            ty if ty.atomic => Atom::Leaf,
            ty => Atom::Struct(ty),
        },
        Shape::Map(item, MapKind::Granular) => Atom::Map(item),
        Shape::List(_, ListKind::Set) => Atom::Set,
        Shape::List(item, ListKind::Map { keys }) => Atom::Keyed(keys, item),
        _ => Atom::Leaf,
    }
}

impl<'a> Atom<'a> {
    /// The atom of a map's entry, and whether the entry is a declared field.
    pub(super) fn entry(self, key: &str) -> (Atom<'a>, bool) {
        match self {
            Atom::Struct(ty) => match ty.field(key) {
                Some(field) => (atom(&field.shape), true),
                None => (Atom::Deduced, false),
            },
            Atom::Map(item) => (atom(item), false),
            Atom::Deduced => (Atom::Deduced, false),
            _ => (Atom::Leaf, false),
        }
    }

    /// Whether upstream's encoder writes the field even when it is not set.
    pub(super) fn always_writes(self, key: &str) -> bool {
        let presence = match self {
            Atom::Struct(ty) => ty.field(key).map(|field| field.presence),
            _ => None,
        };
        matches!(presence, Some(Presence::Always | Presence::Nullable))
    }

    /// Whether upstream's encoder never writes it as an empty map.
    pub(super) fn writes_any(self) -> bool {
        let always =
            |field: &Field| matches!(field.presence, Presence::Always | Presence::Nullable);
        matches!(self, Atom::Struct(ty) if ty.fields.iter().any(always))
    }

    pub(super) fn item(self) -> Atom<'a> {
        match self {
            Atom::Keyed(_, item) => atom(item),
            _ => Atom::Leaf,
        }
    }

    /// Deduced atoms settle on what the values are.
    pub(super) fn settle(self, values: [Option<&Value>; 2]) -> Atom<'a> {
        match self {
            Atom::Deduced if !values.into_iter().flatten().any(Value::is_object) => Atom::Leaf,
            atom => atom,
        }
    }
}

/// The step to an item; `None` when the item lacks what it should be known by.
pub(super) fn step<'a>(atom: Atom<'a>, item: &'a Value) -> Option<Element<'a>> {
    match atom {
        Atom::Set => (!item.is_array() && !item.is_object() && !item.is_null())
            .then_some(Element::Value(Cow::Borrowed(item))),
        Atom::Keyed(keys, shape) => {
            let map = item.as_object()?;
            let ty = shape.as_type();
            let value = |key: &'a Text| -> Option<(Cow<'a, str>, Cow<'a, Value>)> {
                let default = || ty?.field(key)?.default.as_ref();
                let value = map.get(&**key).or_else(default)?;
                Some((Cow::Borrowed(&**key), Cow::Borrowed(value)))
            };
            let mut fields: Vec<_> = keys.iter().filter_map(value).collect();
            fields.sort_by(|one, two| one.0.cmp(&two.0));
            (!fields.is_empty()).then_some(Element::Key(fields))
        }
        _ => None,
    }
}

/// Items with their steps, in their order; items without a step are left out.
pub(super) fn steps<'a>(atom: Atom<'a>, list: Option<&'a Value>) -> Vec<(Element<'a>, &'a Value)> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    items
        .filter_map(|item| Some((step(atom, item)?, item)))
        .collect()
}

/// The paths that a tree has; the flag says whether the tree itself counts.
pub(super) fn field_set<'a>(atom: Atom<'a>, value: &'a Value) -> (bool, Set<'a>) {
    let mut set = Set::new();
    match (atom.settle([Some(value), None]), value) {
        (Atom::Leaf, _) => return (true, set),
        (Atom::Set | Atom::Keyed(..), Value::Array(_)) => {
            let mut items = steps(atom, Some(value));
            items.sort_by(|one, two| one.0.cmp(&two.0));
            let mut items = items.into_iter().peekable();
            while let Some((element, item)) = items.next() {
                let mut twice = false;
                while items.next_if(|(next, _)| *next == element).is_some() {
                    twice = true;
                }
                let children = if twice {
                    Set::new()
                } else {
                    field_set(atom.item(), item).1
                };
                set.push(element, true, children);
            }
        }
        (Atom::Struct(_) | Atom::Map(_) | Atom::Deduced, Value::Object(map)) => {
            for (key, value) in map {
                let (inner, declared) = atom.entry(key);
                let (member, children) = field_set(inner, value);
                let bare = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                set.push(Element::Field(key), member || bare || !declared, children);
            }
        }
        _ => {}
    }
    (false, set)
}

/// What upstream's encoder writes for a type with nothing in it.
pub(super) fn zero(ty: &Type) -> Value {
    let always = ty
        .fields
        .iter()
        .filter(|field| matches!(field.presence, Presence::Always | Presence::Nullable));
    let fields = always.map(|field| {
        let value = match (&field.shape, field.presence) {
            (_, Presence::Nullable) => Value::Null,
            (Shape::Struct(inner), _) => zero(inner.get()),
            (Shape::Text | Shape::Duration, _) => "".into(),
            (Shape::Int32 | Shape::Int64 | Shape::IntOrString, _) => 0.into(),
            (Shape::Bool, _) => false.into(),
            (Shape::Quantity, _) => "0".into(),
            _ => Value::Null,
        };
        (field.json.to_string(), value)
    });
    Value::Object(fields.collect())
}

/// Adds the named fields on the way to each path, which sets leave out.
pub(super) fn with_named<'a>(set: &Set<'a>, atom: Atom<'_>) -> Set<'a> {
    let mut out = Set::new();
    for node in set.nodes() {
        let (inner, declared) = match &node.element {
            Element::Field(name) => atom.entry(name),
            Element::Key(_) => (atom.item(), false),
            _ => (Atom::Leaf, false),
        };
        let member = node.member || (declared && !node.children.is_empty());
        out.push(
            node.element.clone(),
            member,
            with_named(&node.children, inner),
        );
    }
    out
}

/// The tree without the paths of a set. Maps and lists that lose all they have stay, empty.
pub(super) fn remove(atom: Atom<'_>, value: &mut Value, set: &Set<'_>) {
    match (atom.settle([Some(value), None]), value) {
        (Atom::Struct(_) | Atom::Map(_) | Atom::Deduced, Value::Object(map)) => {
            map.retain(|key, value| match set.get(&Element::Field(key)) {
                Some(node) if node.member => false,
                Some(node) => {
                    remove(atom.entry(key).0, value, &node.children);
                    true
                }
                None => true,
            });
        }
        (Atom::Set | Atom::Keyed(..), Value::Array(items)) => {
            items.retain_mut(|item| {
                // The step borrows the item, which changes below.
                let found = step(atom, item).and_then(|step| set.get(&step));
                match found {
                    Some(node) if node.member => false,
                    Some(node) => {
                        remove(atom.item(), item, &node.children);
                        true
                    }
                    None => true,
                }
            });
        }
        // Owned as one: what is inside cannot be taken on its own.
        (_, value) if !set.is_empty() => *value = Value::Null,
        _ => {}
    }
}
