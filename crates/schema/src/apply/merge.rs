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
        return replace(live, applied);
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
        (_, live, applied) => replace(live, applied),
    }
}

/// Most of what is applied is there already.
fn replace(live: &mut Value, applied: &Value) {
    if live != applied {
        live.clone_from(applied);
    }
}

/// Where an item of the merged list comes from.
enum Origin {
    /// Said by nobody now.
    Live(usize),
    /// Said for the first time, or a key that the live list has twice.
    Applied(usize),
    Both {
        live: usize,
        applied: usize,
    },
}

fn merge_items(atom: Atom<'_>, mut live: Vec<Value>, applied: &[Value]) -> Vec<Value> {
    let order = order(atom, &live, applied);
    let take = |origin| match origin {
        // No live item is taken twice.
        Origin::Live(at) => live[at].take(),
        Origin::Applied(at) => applied[at].clone(),
        Origin::Both {
            live: at,
            applied: index,
        } => {
            let mut item = live[at].take();
            merge(atom.item(), &mut item, &applied[index]);
            item
        }
    };
    order.into_iter().map(take).collect()
}

/// Items of both sides in upstream's order: applied items in the order of the configuration,
/// live items where they stood among them.
fn order(atom: Atom<'_>, live: &[Value], applied: &[Value]) -> Vec<Origin> {
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
            (Some((live, _)), None) => Origin::Both {
                live,
                applied: index,
            },
            _ => Origin::Applied(index),
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
                out.push(Origin::Live(l));
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
