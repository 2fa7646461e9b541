//! Small ways into JSON trees.

use serde_json::{Map, Value};

/// The entries of a list field; none when it is absent or no list.
pub(crate) fn list<'a>(tree: &'a Value, field: &str) -> std::slice::Iter<'a, Value> {
    let list = tree.get(field).and_then(Value::as_array);
    list.map_or(&[][..], Vec::as_slice).iter()
}

/// The same for changing; the entries of an absent list are none, and none is made.
pub(crate) fn list_mut<'a>(tree: &'a mut Value, field: &str) -> std::slice::IterMut<'a, Value> {
    let list = tree.get_mut(field).and_then(Value::as_array_mut);
    list.map_or(&mut [][..], Vec::as_mut_slice).iter_mut()
}

/// Adds to a list field, made when it is absent or no list.
pub(crate) fn push(tree: &mut Map<String, Value>, field: &str, entry: Value) {
    match tree.get_mut(field) {
        Some(Value::Array(list)) => list.push(entry),
        _ => {
            tree.insert(field.into(), Value::Array(vec![entry]));
        }
    }
}

/// The text of a field, or the empty string.
pub(crate) fn text<'a>(tree: &'a Value, field: &str) -> &'a str {
    tree.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The specification, or null.
pub(crate) fn spec(object: &meta::Object) -> &Value {
    object.fields().get("spec").unwrap_or(&Value::Null)
}
