//! What differs between two trees of one type.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::iter::Peekable;

use serde_json::{Map, Value};

use super::set::{Element, Set};
use super::typed::{Atom, steps};
use crate::types::{Field, Type};

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
        // Most steps are in one of the sets, if at all.
        let enter = |set: &mut Set<'a>, member, children: Set<'a>| {
            if member || !children.is_empty() {
                set.push(element.clone(), member, children);
            }
        };
        enter(&mut self.removed, removed, below.removed);
        enter(&mut self.modified, modified, below.modified);
        self.added.push(element, added, below.added);
    }

    fn sort(&mut self) {
        self.removed.sort();
        self.modified.sort();
        self.added.sort();
    }

    /// Leaves out paths and all that is below them.
    pub(super) fn without(self, ignored: &[&str]) -> Difference<'a> {
        Difference {
            removed: self.removed.without_trees(ignored),
            modified: self.modified.without_trees(ignored),
            added: self.added.without_trees(ignored),
        }
    }

    /// What is there with another value, or newly.
    pub(super) fn changed(&self) -> Cow<'_, Set<'a>> {
        match (self.modified.is_empty(), self.added.is_empty()) {
            (_, true) => Cow::Borrowed(&self.modified),
            (true, _) => Cow::Borrowed(&self.added),
            _ => Cow::Owned(self.modified.union(&self.added)),
        }
    }

    /// The same of a difference that nobody needs any more.
    pub(super) fn into_changed(self) -> Set<'a> {
        match (self.modified.is_empty(), self.added.is_empty()) {
            (_, true) => self.modified,
            (true, _) => self.added,
            _ => self.modified.union(&self.added),
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
    let atom = atom.settle([old, new]);
    let blank = |value: Option<&Value>, encoded: bool| match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(map)) => map.is_empty() && !(encoded && atom.writes_any()),
        Some(_) => false,
    };
    if matches!(atom, Atom::Leaf) || (blank(old, encoded.old) && blank(new, encoded.new)) {
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
    // What stands alone brings along all that is always written.
    let (alone, encoded_alone) = match (old, new) {
        (None, Some(new)) => (Some(new), encoded.new),
        (Some(old), None) => (Some(old), encoded.old),
        _ => (None, false),
    };
    if let (Some(alone), true, Atom::Struct(ty)) = (alone, encoded_alone, atom) {
        let unset =
            |field: &&Field| atom.always_writes(&field.json) && !alone.contains_key(&*field.json);
        for field in ty.fields.iter().filter(unset) {
            fresh = true;
            let null = |there: bool| there.then_some(&Value::Null);
            compare_key(&field.json, null(old.is_some()), null(new.is_some()));
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
        let order = match (left.peek(), right.peek()) {
            (Some((one, _)), Some((two, _))) => one.cmp(two),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let one = left.next_if(|_| order.is_le());
        let two = right.next_if(|_| order.is_ge());
        let (element, old, new) = match (one, two) {
            (Some((element, old)), two) => (element, Some(old), two.map(|(_, new)| new)),
            (None, Some((element, new))) => (element, None, Some(new)),
            (None, None) => return,
        };
        let (olds, news) = (rest(&mut left, &element), rest(&mut right, &element));
        let inner = atom.item();
        let change = match (olds.is_empty(), news.is_empty()) {
            (true, true) => compare_at(inner, old, new, encoded),
            // Keys that occur twice are compared as one value.
            (false, false) => Change {
                modified: (old, olds) != (new, news),
                ..Change::default()
            },
            (false, true) => {
                let change = new.map(|new| compare_at(inner, None, Some(new), encoded));
                Change {
                    removed: true,
                    ..change.unwrap_or_default()
                }
            }
            (true, false) => {
                let change = old.map(|old| compare_at(inner, Some(old), None, encoded));
                Change {
                    added: true,
                    ..change.unwrap_or_default()
                }
            }
        };
        below.push(element, change);
    }
}

/// The further items of one step; nearly always none.
fn rest<'a>(
    items: &mut Peekable<impl Iterator<Item = (Element<'a>, &'a Value)>>,
    element: &Element<'a>,
) -> Vec<&'a Value> {
    let mut rest = Vec::new();
    while let Some((_, item)) = items.next_if(|(next, _)| next == element) {
        rest.push(item);
    }
    rest
}
