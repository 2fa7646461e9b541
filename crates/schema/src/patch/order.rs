//! The order of merged lists: items of the patch in the patch's order, items that only the server
//! has where they stood among the others.

use serde_json::Value;

/// Where the item with the same key (without a key: the same value) is.
pub(super) fn index_of(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    match key {
        None => list.iter().position(|other| other == item),
        Some(key) => {
            let value = item.get(key)?;
            list.iter().position(|other| other.get(key) == Some(value))
        }
    }
}

/// Orders `merged`: `wanted` is the order of the patch, `server` that of the live list.
pub(super) fn normalize(
    merged: Vec<Value>,
    wanted: &[Value],
    server: &[Value],
    key: Option<&str>,
) -> Vec<Value> {
    let (patched, kept): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|item| index_of(wanted, item, key).is_some());
    let patched = sorted(patched, wanted, key);
    let kept = sorted(kept, server, key);
    interleave(kept, patched, server, key)
}

fn sorted(items: Vec<Value>, by: &[Value], key: Option<&str>) -> Vec<Value> {
    let mut placed: Vec<(usize, Value)> = items
        .into_iter()
        .map(|item| (index_of(by, &item, key).unwrap_or(usize::MAX), item))
        .collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, item)| item).collect()
}

/// Puts each kept item before the first patched item that stood behind it on the server.
fn interleave(
    kept: Vec<Value>,
    patched: Vec<Value>,
    server: &[Value],
    key: Option<&str>,
) -> Vec<Value> {
    let place = |item: &Value| index_of(server, item, key);
    let mut out = Vec::with_capacity(kept.len() + patched.len());
    let mut kept = kept.into_iter().map(|item| (place(&item), item)).peekable();
    for item in patched {
        let behind = place(&item);
        let before = |kept: &(Option<usize>, Value)| matches!((kept.0, behind), (Some(one), Some(two)) if one < two);
        while let Some((_, item)) = kept.next_if(before) {
            out.push(item);
        }
        out.push(item);
    }
    out.extend(kept.map(|(_, item)| item));
    out
}

/// The server's order once a patch deleted items: new ones count as standing at its end, as many as
/// were deleted. (Upstream's lists are changed in place, and its tests pin that down.)
pub(super) fn settle(server: &mut Vec<Value>, merged: &[Value], key: Option<&str>) {
    let room = server.len();
    server.retain(|item| index_of(merged, item, key).is_some());
    let new = merged
        .iter()
        .filter(|item| index_of(server, item, key).is_none())
        .take(room - server.len());
    let new: Vec<Value> = new.cloned().collect();
    server.extend(new);
}

/// Whether the items of a patch stand in the order that it asks for.
pub(super) fn agrees(patched: &[Value], wanted: &[Value], key: Option<&str>) -> Result<(), String> {
    let plain = patched.iter().filter(|item| item.get("$patch").is_none());
    let mut rest = 0;
    for item in plain {
        match wanted
            .get(rest..)
            .and_then(|rest| index_of(rest, item, key))
        {
            Some(place) => rest += place + 1,
            None => {
                let list = |items: &[Value]| Value::Array(items.to_vec()).to_string();
                return Err(format!(
                    "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                    list(patched),
                    list(wanted)
                ));
            }
        }
    }
    Ok(())
}
