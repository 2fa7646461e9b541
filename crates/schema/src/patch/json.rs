//! JSON patch (RFC 6902), with upstream's words for what does not apply.

use json_patch::jsonptr::PointerBuf;
use json_patch::{PatchOperation, patch_unsafe};
use serde_json::Value;

use super::{MAX_OPERATIONS, PatchError};

/// Bytes that all copies of one patch may add.
const MAX_COPIED: usize = 3 << 20;

/// Carries out all operations of a patch, or none.
pub fn json_patch(tree: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let malformed = |error: String| PatchError::Malformed(error);
    let parsed = crate::parse_json(patch).map_err(|error| malformed(error.to_string()))?;
    let count = parsed.tree.as_array().map_or(0, Vec::len);
    if count > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(count));
    }
    let mut patched = tree.clone();
    let mut copied = 0;
    for operation in parsed.tree.as_array().into_iter().flatten() {
        let operation = &operation_of(operation)?;
        // Upstream takes what is absent for null.
        if let PatchOperation::Test(test) = operation
            && test.value.is_null()
            && patched.pointer(test.path.as_str()).is_none()
            && patched.pointer(parent(&test.path)).is_some()
        {
            continue;
        }
        copied += bounded(&patched, operation)?;
        if copied > MAX_COPIED {
            return Err(PatchError::Unprocessable(format!(
                "Unable to complete the copy, the accumulated size increase of copy operation is \
                 {copied}, exceeding the limit {MAX_COPIED}"
            )));
        }
        // As upstream has it, a map gives null for what it does not have.
        let operation = &lenient(&patched, operation);
        if patch_unsafe(&mut patched, std::slice::from_ref(operation)).is_err() {
            return Err(PatchError::Unprocessable(word(&patched, operation)));
        }
    }
    Ok(patched)
}

/// Reads one operation. Those that are none are found when it is their turn.
fn operation_of(tree: &Value) -> Result<PatchOperation, PatchError> {
    let field = |name: &str, wanted: &str| match tree.get(name) {
        None | Some(Value::Null | Value::String(_)) => Ok(()),
        Some(other) => {
            let found = match other {
                Value::Bool(_) => "bool",
                Value::Number(_) => "number",
                Value::Array(_) => "array",
                _ => "object",
            };
            Err(PatchError::Malformed(format!(
                "error decoding patch: json: cannot unmarshal {found} into Go struct field \
                 jsonPatchOp.{name} of type {wanted}"
            )))
        }
    };
    for name in ["op", "path", "from"] {
        field(name, "string")?;
    }
    let mut whole = tree.clone();
    if let Some(map) = whole.as_object_mut() {
        map.entry("value").or_insert(Value::Null);
    }
    serde_json::from_value(whole).map_err(|error| PatchError::Unprocessable(error.to_string()))
}

/// The operation that has the same outcome where upstream does not mind what is absent.
fn lenient(tree: &Value, operation: &PatchOperation) -> PatchOperation {
    let holder_is_map =
        |path: &PointerBuf| tree.pointer(parent(path)).is_some_and(Value::is_object);
    let absent = |path: &PointerBuf| tree.pointer(path.as_str()).is_none();
    let add = |path: &PointerBuf, value: Value| {
        let path = path.clone();
        PatchOperation::Add(json_patch::AddOperation { path, value })
    };
    match operation {
        PatchOperation::Replace(step) if absent(&step.path) && holder_is_map(&step.path) => {
            add(&step.path, step.value.clone())
        }
        PatchOperation::Copy(step) if absent(&step.from) && holder_is_map(&step.from) => {
            add(&step.path, Value::Null)
        }
        other => other.clone(),
    }
}

/// Refuses operations after which the tree could not be read again, and returns how many bytes the
/// operation copies.
fn bounded(tree: &Value, operation: &PatchOperation) -> Result<usize, PatchError> {
    let (value, copies) = match operation {
        PatchOperation::Add(add) => (Some(&add.value), false),
        PatchOperation::Replace(replace) => (Some(&replace.value), false),
        // What moves up or sideways cannot get too deep, and need not be measured.
        PatchOperation::Move(step) if step.path.count() <= step.from.count() => (None, false),
        PatchOperation::Move(step) => (tree.pointer(step.from.as_str()), false),
        PatchOperation::Copy(step) => (tree.pointer(step.from.as_str()), true),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => (None, false),
    };
    let Some(value) = value else {
        return Ok(0);
    };
    if operation.path().count() + depth(value) > crate::parse::MAX_DEPTH {
        return Err(PatchError::Unprocessable("exceeded max depth".into()));
    }
    Ok(if copies { value.to_string().len() } else { 0 })
}

/// Levels of maps and lists; no more than a parsed tree has.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The pointer to what holds the target.
fn parent(path: &PointerBuf) -> &str {
    path.as_str()
        .rsplit_once('/')
        .map_or("", |(parent, _)| parent)
}

fn word(tree: &Value, operation: &PatchOperation) -> String {
    let path = operation.path();
    let last = path.as_str().rsplit('/').next().unwrap_or("");
    let holder = tree.pointer(
        path.as_str()
            .rsplit_once('/')
            .map_or("", |(parent, _)| parent),
    );
    let place = |name: &str, nonexistent: &str| match holder {
        Some(Value::Array(_)) => {
            format!(
                "error in {name} for path: '{path}': Unable to access invalid index: {last}: invalid index referenced"
            )
        }
        _ => nonexistent.to_owned(),
    };
    match operation {
        PatchOperation::Add(_) if holder.is_some_and(is_container) => place("add", ""),
        PatchOperation::Add(_) => {
            format!("add operation does not apply: doc is missing path: \"{path}\": missing value")
        }
        PatchOperation::Remove(_) if holder.is_some_and(is_container) => place(
            "remove",
            &format!(
                "error in remove for path: '{path}': Unable to remove nonexistent key: {last}: missing value"
            ),
        ),
        PatchOperation::Remove(_) => {
            format!(
                "remove operation does not apply: doc is missing path: \"{path}\": missing value"
            )
        }
        PatchOperation::Replace(_) if holder.is_some_and(is_container) => {
            format!("replace operation does not apply: doc is missing key: {path}: missing value")
        }
        PatchOperation::Replace(_) => {
            format!("replace operation does not apply: doc is missing path: {path}: missing value")
        }
        PatchOperation::Move(step) if tree.pointer(step.from.as_str()).is_some() => {
            format!(
                "move operation does not apply: doc is missing destination path: {path}: missing value"
            )
        }
        PatchOperation::Move(step) => {
            format!(
                "move operation does not apply: doc is missing from path: {}: missing value",
                step.from
            )
        }
        PatchOperation::Copy(step) if tree.pointer(step.from.as_str()).is_some() => {
            format!(
                "copy operation does not apply: doc is missing destination path: {path}: missing value"
            )
        }
        PatchOperation::Copy(step) => {
            format!(
                "copy operation does not apply: doc is missing from path: {}: missing value",
                step.from
            )
        }
        PatchOperation::Test(_) if holder.is_some_and(is_container) => {
            format!("testing value {path} failed: test failed")
        }
        PatchOperation::Test(_) => {
            format!("test operation does not apply: is missing path: {path}: missing value")
        }
    }
}

fn is_container(value: &Value) -> bool {
    value.is_object() || value.is_array()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(operations: Value) -> Result<Value, PatchError> {
        json_patch(
            &json!({"a": {"b": 1}, "l": [1, 2]}),
            operations.to_string().as_bytes(),
        )
    }

    #[test]
    fn operations_are_carried_out_in_order() {
        let operations = json!([
            {"op": "test", "path": "/a/b", "value": 1},
            {"op": "test", "path": "/a/x", "value": null},
            {"op": "add", "path": "/l/-", "value": 3},
            {"op": "move", "from": "/a/b", "path": "/c"},
            {"op": "replace", "path": "/l/0", "value": 9},
            {"op": "copy", "from": "/c", "path": "/d"},
            {"op": "remove", "path": "/l/1"},
        ]);
        assert_eq!(
            patched(operations).unwrap(),
            json!({"a": {}, "l": [9, 3], "c": 1, "d": 1})
        );
    }

    #[test]
    fn maps_do_not_mind_what_they_lack() {
        let operations = json!([
            {"op": "replace", "path": "/a/x", "value": 1},
            {"op": "copy", "from": "/a/y", "path": "/z"},
            {"op": "add", "path": "/n"},
        ]);
        assert_eq!(
            patched(operations).unwrap(),
            json!({"a": {"b": 1, "x": 1}, "l": [1, 2], "z": null, "n": null})
        );
    }

    #[test]
    fn what_does_not_apply_is_worded_as_upstream_words_it() {
        let fault = |operation: Value| match patched(json!([operation])) {
            Err(PatchError::Unprocessable(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            fault(json!({"op": "test", "path": "/a/b", "value": 2})),
            "testing value /a/b failed: test failed"
        );
        assert_eq!(
            fault(json!({"op": "add", "path": "/x/y", "value": 1})),
            "add operation does not apply: doc is missing path: \"/x/y\": missing value"
        );
        assert_eq!(
            fault(json!({"op": "remove", "path": "/a/x"})),
            "error in remove for path: '/a/x': Unable to remove nonexistent key: x: missing value"
        );
        assert_eq!(
            fault(json!({"op": "remove", "path": "/l/7"})),
            "error in remove for path: '/l/7': Unable to access invalid index: 7: invalid index referenced"
        );
        assert_eq!(
            fault(json!({"op": "move", "from": "/x", "path": "/y"})),
            "move operation does not apply: doc is missing from path: /x: missing value"
        );
    }

    #[test]
    fn trees_cannot_be_made_huge_or_deep() {
        let copies = vec![json!({"op": "copy", "from": "", "path": "/a/c"}); 100];
        let fault = patched(copies.into()).unwrap_err().to_string();
        assert!(
            fault.contains("exceeding the limit") || fault == "exceeded max depth",
            "{fault}"
        );
        let text = "x".repeat(MAX_COPIED / 2);
        let copies = json!([
            {"op": "add", "path": "/t", "value": text},
            {"op": "copy", "from": "/t", "path": "/u"},
            {"op": "copy", "from": "/t", "path": "/v"},
        ]);
        assert!(
            patched(copies)
                .unwrap_err()
                .to_string()
                .contains("exceeding the limit")
        );
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!({"a": deep});
        }
        let twice = json!([
            {"op": "add", "path": "/a", "value": deep},
            {"op": "add", "path": format!("{}/b", "/a".repeat(100)), "value": deep},
        ]);
        assert_eq!(
            patched(twice),
            Err(PatchError::Unprocessable("exceeded max depth".into()))
        );
    }

    #[test]
    fn patches_that_are_none_are_malformed() {
        assert!(matches!(
            json_patch(&json!({}), b"{"),
            Err(PatchError::Malformed(_))
        ));
        assert!(matches!(
            patched(json!([{"op": "jump", "path": "/a"}])),
            Err(PatchError::Unprocessable(_))
        ));
        assert!(matches!(
            patched(json!([{"op": "add", "path": 5}])),
            Err(PatchError::Malformed(_))
        ));
        let many = vec![json!({"op": "test", "path": "/a/b", "value": 1}); MAX_OPERATIONS + 1];
        assert_eq!(
            patched(many.into()),
            Err(PatchError::TooLarge(MAX_OPERATIONS + 1))
        );
    }
}
