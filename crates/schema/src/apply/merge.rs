//! How a configuration merges into a tree.

use serde_json::Value;

use super::set::Element;
use super::typed::{Atom, step};

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
