//! Strategic merge patch: a merge patch that knows which lists are sets or maps.

use serde_json::{Map, Value};

use super::PatchError;
use super::order::{self, index_of};
use crate::types::{PatchStrategy, Shape, Type};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// Merges a patch by the type's patch strategies and the directives in it.
pub fn strategic_merge_patch(ty: &Type, tree: &Value, patch: &Value) -> Result<Value, PatchError> {
    let (Value::Object(tree), Value::Object(patch)) = (tree, patch) else {
        return Err(PatchError::Malformed("invalid JSON document".into()));
    };
    let merged = merge_map(Scope::Struct(ty), tree.clone(), patch.clone())?;
    Ok(Value::Object(merged))
}

/// What is known of the fields of a map.
#[derive(Clone, Copy)]
enum Scope<'a> {
    Struct(&'a Type),
    /// All entries hold this.
    Entries(&'a Shape),
    Unknown,
}

/// What is known of one field.
struct Rules<'a> {
    strategy: PatchStrategy,
    key: Option<&'a str>,
    /// Of the map that the field holds, or of its items.
    inner: Scope<'a>,
}

impl<'a> Scope<'a> {
    fn rules(self, field: &str) -> Rules<'a> {
        let (shape, strategy, key) = match self {
            Scope::Struct(ty) => match ty.field(field) {
                Some(field) => (
                    Some(&field.shape),
                    field.patch,
                    field.patch_merge_key.as_deref(),
                ),
                None => (None, PatchStrategy::default(), None),
            },
            Scope::Entries(shape) => (Some(shape), PatchStrategy::default(), None),
            Scope::Unknown => (None, PatchStrategy::default(), None),
        };
        let inner = match shape {
            Some(Shape::List(item, _)) => Scope::of(item),
            Some(shape) => Scope::of(shape),
            None => Scope::Unknown,
        };
        Rules {
            strategy,
            key,
            inner,
        }
    }

    fn of(shape: &'a Shape) -> Scope<'a> {
        match shape {
            Shape::Struct(ty) => Scope::Struct(ty.get()),
            Shape::Map(item, _) => Scope::Entries(item),
            _ => Scope::Unknown,
        }
    }
}

fn malformed<T>(text: String) -> Result<T, PatchError> {
    Err(PatchError::Malformed(text))
}

fn merge_map(
    scope: Scope<'_>,
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
) -> Result<Map<String, Value>, PatchError> {
    match patch.remove(PATCH) {
        None => {}
        Some(Value::String(directive)) => match directive.as_str() {
            "replace" => return Ok(without_directives(patch)),
            "delete" => return Ok(Map::new()),
            "merge" => {}
            other => return malformed(format!("unknown patch type: {other}")),
        },
        Some(other) => return malformed(format!("unknown patch type: {other}")),
    }
    if let Some(keys) = patch.remove(RETAIN_KEYS) {
        retain(&mut original, &patch, &keys)?;
    }
    reorder(scope, &mut original, &mut patch)?;
    for (key, value) in patch {
        match key.strip_prefix(DELETE_FROM) {
            Some(field) => delete_from(&mut original, field, &value)?,
            None => merge_field(scope, &mut original, key, value)?,
        }
    }
    Ok(original)
}

fn merge_field(
    scope: Scope<'_>,
    original: &mut Map<String, Value>,
    key: String,
    value: Value,
) -> Result<(), PatchError> {
    if value.is_null() {
        original.remove(&key);
        return Ok(());
    }
    let rules = scope.rules(&key);
    let merged = match (original.remove(&key), value) {
        (Some(Value::Object(_)), Value::Object(patch)) if rules.strategy.replace => {
            Value::Object(without_directives(patch))
        }
        (Some(Value::Object(original)), Value::Object(patch)) => {
            Value::Object(merge_map(rules.inner, original, patch)?)
        }
        (Some(Value::Array(original)), Value::Array(patch)) if rules.strategy.merge => {
            Value::Array(merge_list(&rules, original, patch)?)
        }
        // Only what has a counterpart can be merged or deleted.
        (_, value) => match cleaned(value) {
            Some(value) => value,
            None => return Ok(()),
        },
    };
    original.insert(key, merged);
    Ok(())
}

/// Drops the fields that the patch does not name among those to keep.
fn retain(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    keys: &Value,
) -> Result<(), PatchError> {
    let bad = || PatchError::Malformed("invalid patch format of retainKeys".into());
    let keys = keys.as_array().ok_or_else(bad)?;
    let kept = |key: &str| keys.iter().any(|kept| kept.as_str() == Some(key));
    let fine = patch
        .iter()
        .all(|(key, value)| value.is_null() || key.starts_with('$') || kept(key));
    if !fine {
        return Err(bad());
    }
    original.retain(|key, _| kept(key));
    Ok(())
}

fn delete_from(
    original: &mut Map<String, Value>,
    field: &str,
    values: &Value,
) -> Result<(), PatchError> {
    // Where there is nothing to delete from, nobody looks at what to delete.
    if !original.contains_key(field) {
        return Ok(());
    }
    let Some(values) = values.as_array() else {
        return malformed("invalid patch format of primitive list".into());
    };
    if let Some(Value::Array(list)) = original.get_mut(field) {
        list.retain(|item| !values.contains(item));
    }
    Ok(())
}

/// Carries out the `$setElementOrder/` directives, with the lists that they order.
fn reorder(
    scope: Scope<'_>,
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<(), PatchError> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|key| key.starts_with(SET_ORDER))
        .cloned()
        .collect();
    for directive in directives {
        let field = directive.trim_start_matches(SET_ORDER).to_owned();
        let Some(Value::Array(wanted)) = patch.remove(&directive) else {
            return malformed(format!("expected a list in {directive}"));
        };
        let list = |value: Option<Value>| match value {
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(Value::Null) | None => Ok(None),
            Some(_) => malformed(format!("expected a list in {field}")),
        };
        // `null` removes the list: nothing is left to order.
        if patch.get(&field).is_some_and(Value::is_null) {
            continue;
        }
        let rules = scope.rules(&field);
        let patched = list(patch.remove(&field))?;
        if let Some(patched) = &patched {
            order::agrees(patched, &wanted, rules.key).map_err(PatchError::Malformed)?;
        }
        let live = list(original.get(&field).cloned())?;
        let deleted = patch.remove(&format!("{DELETE_FROM}{field}"));
        let mut server = live.clone().unwrap_or_default();
        let merged = match (live, patched) {
            (Some(live), None) => live,
            (None, Some(patched)) => cleaned_list(patched),
            (Some(live), Some(patched)) if rules.strategy.merge => {
                merge_list(&rules, live, patched)?
            }
            (Some(_), Some(patched)) => cleaned_list(patched),
            (None, None) => continue,
        };
        order::settle(&mut server, &merged, rules.key);
        let ordered = order::normalize(merged, &wanted, &server, rules.key);
        original.insert(field.clone(), Value::Array(ordered));
        if let Some(deleted) = deleted {
            delete_from(original, &field, &deleted)?;
        }
    }
    Ok(())
}

fn merge_list(
    rules: &Rules<'_>,
    original: Vec<Value>,
    patch: Vec<Value>,
) -> Result<Vec<Value>, PatchError> {
    let Some(first) = patch.first().or(original.first()) else {
        return Ok(original);
    };
    if !first.is_object() {
        let server = original.clone();
        let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
        for item in original.into_iter().chain(patch.iter().cloned()) {
            if !merged.contains(&item) {
                merged.push(item);
            }
        }
        return Ok(order::normalize(merged, &patch, &server, None));
    }
    let Some(key) = rules.key else {
        return malformed("cannot merge lists without merge key".into());
    };
    merge_items(rules.inner, key, original, patch)
}

fn merge_items(
    scope: Scope<'_>,
    key: &str,
    mut original: Vec<Value>,
    patch: Vec<Value>,
) -> Result<Vec<Value>, PatchError> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        let Some(directive) = item.get(PATCH) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let value = key_of(&item, key)?.clone();
                original.retain(|item| item.get(key) != Some(&value));
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return malformed("merging lists cannot yet be specified in the patch".into());
            }
            _ => return malformed(format!("unknown patch type: {directive}")),
        }
    }
    if replace {
        return Ok(cleaned_list(plain));
    }
    let server = original.clone();
    let mut merged = original;
    for item in &plain {
        key_of(item, key)?;
        match index_of(&merged, item, Some(key)) {
            Some(place) => {
                if let (Value::Object(live), Value::Object(item)) =
                    (merged[place].take(), item.clone())
                {
                    merged[place] = Value::Object(merge_map(scope, live, item)?);
                }
            }
            None => merged.extend(cleaned(item.clone())),
        }
    }
    Ok(order::normalize(merged, &plain, &server, Some(key)))
}

fn key_of<'a>(item: &'a Value, key: &str) -> Result<&'a Value, PatchError> {
    let missing = || {
        PatchError::Malformed(format!(
            "map: {item} does not contain declared merge key: {key}"
        ))
    };
    item.get(key).ok_or_else(missing)
}

/// What is new, without directives and nulls; `None` when it says to delete itself.
fn cleaned(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.get(PATCH).and_then(Value::as_str) == Some("delete") => None,
        Value::Object(map) => Some(Value::Object(without_directives(map))),
        Value::Array(items) => Some(Value::Array(cleaned_list(items))),
        value => Some(value),
    }
}

fn cleaned_list(items: Vec<Value>) -> Vec<Value> {
    let replaces = |item: &Value| {
        item.get(PATCH).and_then(Value::as_str) == Some("replace")
            && item.as_object().is_some_and(|map| map.len() == 1)
    };
    items
        .into_iter()
        .filter(|item| !replaces(item))
        .filter_map(cleaned)
        .collect()
}

fn without_directives(map: Map<String, Value>) -> Map<String, Value> {
    let directive = |key: &str| {
        key == PATCH
            || key == RETAIN_KEYS
            || key.starts_with(DELETE_FROM)
            || key.starts_with(SET_ORDER)
    };
    let entries = map
        .into_iter()
        .filter(|(key, value)| !directive(key) && !value.is_null());
    entries
        .filter_map(|(key, value)| Some((key, cleaned(value)?)))
        .collect()
}

#[cfg(test)]
#[path = "strategic_test.rs"]
mod tests;
