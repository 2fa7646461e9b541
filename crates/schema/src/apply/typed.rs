//! What the schema says of ownership: which paths a tree has, what differs between two trees,
//! how a configuration merges into a tree, and how paths are taken out of it.

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
    fn entry(self, key: &str) -> (Atom<'a>, bool) {
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
    fn always_writes(self, key: &str) -> bool {
        let presence = match self {
            Atom::Struct(ty) => ty.field(key).map(|field| field.presence),
            _ => None,
        };
        matches!(presence, Some(Presence::Always | Presence::Nullable))
    }

    /// Whether upstream's encoder never writes it as an empty map.
    fn writes_any(self) -> bool {
        let always =
            |field: &Field| matches!(field.presence, Presence::Always | Presence::Nullable);
        matches!(self, Atom::Struct(ty) if ty.fields.iter().any(always))
    }

    fn item(self) -> Atom<'a> {
        match self {
            Atom::Keyed(_, item) => atom(item),
            _ => Atom::Leaf,
        }
    }

    /// Deduced atoms settle on what the values are.
    fn settle(self, values: [Option<&Value>; 2]) -> Atom<'a> {
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
fn steps<'a>(atom: Atom<'a>, list: Option<&'a Value>) -> Vec<(Element<'a>, &'a Value)> {
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

/// Paths by what became of them.
#[derive(Debug, Default)]
pub(super) struct Difference<'a> {
    pub(super) removed: Set<'a>,
    pub(super) modified: Set<'a>,
    pub(super) added: Set<'a>,
}

/// What happened at one place, and below it.
#[derive(Default)]
struct Change<'a> {
    removed: bool,
    modified: bool,
    added: bool,
    below: Difference<'a>,
}

impl<'a> Difference<'a> {
    fn push(&mut self, element: Element<'a>, change: Change<'a>) {
        let Change {
            removed,
            modified,
            added,
            below,
        } = change;
        self.removed.push(element.clone(), removed, below.removed);
        self.modified
            .push(element.clone(), modified, below.modified);
        self.added.push(element, added, below.added);
    }

    fn sort(&mut self) {
        self.removed.sort();
        self.modified.sort();
        self.added.sort();
    }

    /// Leaves out paths and all that is below them.
    pub(super) fn without(self, ignored: &Set<'_>) -> Difference<'a> {
        match ignored.is_empty() {
            true => self,
            false => Difference {
                removed: self.removed.without(ignored),
                modified: self.modified.without(ignored),
                added: self.added.without(ignored),
            },
        }
    }
}

/// Which of two trees have been through upstream's encoder: there, what is always written and not
/// set is present as `null`, while our trees leave it out.
#[derive(Clone, Copy)]
pub(super) struct Encoded {
    pub(super) old: bool,
    pub(super) new: bool,
}

/// What differs between two trees of one type.
pub(super) fn compare<'a>(
    ty: &'a Type,
    old: &'a Value,
    new: &'a Value,
    encoded: Encoded,
) -> Difference<'a> {
    compare_at(Atom::Struct(ty), Some(old), Some(new), encoded).below
}

fn compare_at<'a>(
    atom: Atom<'a>,
    old: Option<&'a Value>,
    new: Option<&'a Value>,
    encoded: Encoded,
) -> Change<'a> {
    let mut change = Change::default();
    if old == new {
        return change;
    }
    let blank = |value: Option<&Value>| match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(_) => false,
    };
    let atom = atom.settle([old, new]);
    if matches!(atom, Atom::Leaf) || (blank(old) && blank(new)) {
        change.added = old.is_none();
        change.removed = new.is_none();
        change.modified = old.is_some() && new.is_some();
        return change;
    }
    match atom {
        Atom::Set | Atom::Keyed(..) => compare_items(atom, old, new, encoded, &mut change.below),
        _ => compare_entries(atom, old, new, encoded, &mut change.below),
    }
    change.added = old.is_none();
    change.removed = new.is_none();
    change
}

fn compare_entries<'a>(
    atom: Atom<'a>,
    old: Option<&'a Value>,
    new: Option<&'a Value>,
    encoded: Encoded,
    below: &mut Difference<'a>,
) {
    let old = old.and_then(Value::as_object);
    let new = new.and_then(Value::as_object);
    // What an encoder would have written although it is not set.
    let unset = |tree: Option<&Map<String, Value>>, encoded: bool, key: &str| {
        let written = encoded && tree.is_some() && atom.always_writes(key);
        written.then_some(&Value::Null)
    };
    let mut compare_key = |key: &'a str, old: Option<&'a Value>, new: Option<&'a Value>| {
        below.push(
            Element::Field(key),
            compare_at(atom.entry(key).0, old, new, encoded),
        );
    };
    for (key, value) in old.into_iter().flatten() {
        let other = new.and_then(|new| new.get(key));
        compare_key(
            key,
            Some(value),
            other.or_else(|| unset(new, encoded.new, key)),
        );
    }
    let mut fresh = false;
    for (key, value) in new.into_iter().flatten() {
        if !old.is_some_and(|old| old.contains_key(key)) {
            fresh = true;
            compare_key(key, unset(old, encoded.old, key), Some(value));
        }
    }
    if fresh {
        below.sort();
    }
}

fn compare_items<'a>(
    atom: Atom<'a>,
    old: Option<&'a Value>,
    new: Option<&'a Value>,
    encoded: Encoded,
    below: &mut Difference<'a>,
) {
    let (mut left, mut right) = (steps(atom, old), steps(atom, new));
    // Stable, so that equal steps stay in the order of the list.
    left.sort_by(|one, two| one.0.cmp(&two.0));
    right.sort_by(|one, two| one.0.cmp(&two.0));
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    loop {
        let element = match (left.peek(), right.peek()) {
            (Some((one, _)), Some((two, _))) => one.min(two).clone(),
            (Some((one, _)), None) | (None, Some((one, _))) => one.clone(),
            (None, None) => return,
        };
        let take =
            |items: &mut std::iter::Peekable<std::vec::IntoIter<(Element<'a>, &'a Value)>>| {
                let mut taken = Vec::with_capacity(1);
                while let Some((_, item)) = items.next_if(|(next, _)| *next == element) {
                    taken.push(item);
                }
                taken
            };
        let (olds, news) = (take(&mut left), take(&mut right));
        let inner = atom.item();
        let change = match (olds.as_slice(), news.as_slice()) {
            ([] | [_], [] | [_]) => {
                compare_at(inner, olds.first().copied(), news.first().copied(), encoded)
            }
            // Keys that occur twice are compared as one value.
            ([_, _, ..], [_, _, ..]) => Change {
                modified: olds != news,
                ..Change::default()
            },
            ([_, _, ..], rest) => {
                let change = rest
                    .first()
                    .map(|new| compare_at(inner, None, Some(new), encoded));
                Change {
                    removed: true,
                    ..change.unwrap_or_default()
                }
            }
            (rest, _) => {
                let change = rest
                    .first()
                    .map(|old| compare_at(inner, Some(old), None, encoded));
                Change {
                    added: true,
                    ..change.unwrap_or_default()
                }
            }
        };
        below.push(element, change);
    }
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

/// Merges a configuration into a tree.
pub(super) fn merge(atom: Atom<'_>, live: &mut Value, applied: &Value) {
    let blank = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    let settled = atom.settle([Some(live), Some(applied)]);
    let bare = blank(live) && !(live.is_object() && settled.writes_any());
    if matches!(settled, Atom::Leaf) || (bare && blank(applied)) {
        live.clone_from(applied);
        return;
    }
    match (settled, &mut *live, applied) {
        // Nothing said about what is owned part by part: all parts stay.
        (_, _, Value::Null) => {}
        (Atom::Set | Atom::Keyed(..), Value::Array(items), Value::Array(applied)) => {
            *items = merge_items(atom, std::mem::take(items), applied);
        }
        (
            Atom::Struct(_) | Atom::Map(_) | Atom::Deduced,
            Value::Object(map),
            Value::Object(applied),
        ) => {
            for (key, value) in applied {
                match map.get_mut(key) {
                    Some(live) => merge(atom.entry(key).0, live, value),
                    None => {
                        map.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (_, live, applied) => live.clone_from(applied),
    }
}

/// Items of both sides in upstream's order: applied items in the order of the configuration,
/// live items where they stood among them.
fn merge_items(atom: Atom<'_>, live: Vec<Value>, applied: &[Value]) -> Vec<Value> {
    let left: Vec<Option<Element<'_>>> = live.iter().map(|item| step(atom, item)).collect();
    let right: Vec<Option<Element<'_>>> = applied.iter().map(|item| step(atom, item)).collect();
    let in_right = |element: &Option<Element<'_>>| right.contains(element);
    let merged = |index: usize| {
        let mut places = left
            .iter()
            .enumerate()
            .filter(|(_, element)| **element == right[index]);
        // Of items with one key twice none is the one to merge with.
        match (places.next(), places.next()) {
            (Some((place, _)), None) => {
                let mut item = live[place].clone();
                merge(atom.item(), &mut item, &applied[index]);
                item
            }
            _ => applied[index].clone(),
        }
    };
    let mut shared = right.iter().filter(|element| left.contains(element));
    let mut next_shared = shared.next();
    let mut out = Vec::with_capacity(live.len().max(applied.len()));
    let (mut l, mut r) = (0, 0);
    while l < live.len() || r < applied.len() {
        if l < live.len() && r < applied.len() {
            if left[l] == right[r] {
                out.push(merged(r));
                (l, r) = (l + 1, r + 1);
                next_shared = shared.next();
                continue;
            }
            if in_right(&left[l]) && next_shared.is_some_and(|next| *next != left[l]) {
                // It comes later, in the configuration's order.
                l += 1;
                continue;
            }
        }
        if l < live.len() {
            if !in_right(&left[l]) {
                out.push(live[l].clone());
                l += 1;
                continue;
            }
            if right[..r].contains(&left[l]) {
                l += 1;
            }
        }
        if r < applied.len() {
            if next_shared.is_some_and(|next| *next == right[r]) {
                next_shared = shared.next();
            }
            out.push(merged(r));
            r += 1;
        }
    }
    out
}
