//! Faults of an object as it was sent: lists and maps without anything in them mean nothing and are
//! not kept, but where a fault shows a value, it shows them.

use meta::{Fault, Faults};
use serde_json::Value;

use crate::chain::Call;

/// What `judge` finds in the object. What it says is of the object with its empty lists and maps,
/// as long as it finds the same there.
pub(super) fn faults(call: &Call, object: &Value, judge: impl Fn(&Value) -> Faults) -> Faults {
    let faults = judge(object);
    if faults.is_empty() {
        return faults;
    }
    let empty = call.take_empty();
    if empty.is_empty() {
        return faults;
    }
    let mut sent = object.clone();
    let shown = empty
        .into_iter()
        .filter(|(pointer, _)| !is_selectors(pointer));
    shown.for_each(|one| put_back(&mut sent, one));
    let shown = judge(&sent);
    match is_alike(&faults, &shown) {
        true => shown,
        false => faults,
    }
}

/// Whether the same is wrong, however it is worded.
fn is_alike(faults: &Faults, others: &Faults) -> bool {
    let which = |fault: &Fault| (fault.field.clone(), fault.kind);
    faults.0.len() == others.0.len() && faults.0.iter().map(which).eq(others.0.iter().map(which))
}

/// Whether this is a part of a label selector, which is shown as the API has it: without what is
/// empty. Those of nodes are not.
fn is_selectors(pointer: &str) -> bool {
    let of_nodes = ["/nodeSelectorTerms/", "/preference/"];
    let part = pointer.ends_with("/matchLabels") || pointer.contains("/matchExpressions");
    part && !of_nodes.iter().any(|own| pointer.contains(own))
}

/// Puts an empty value where it stood, unless something has come to stand there.
fn put_back(object: &mut Value, (pointer, empty): (String, Value)) {
    let Some((parent, field)) = pointer.rsplit_once('/') else {
        return;
    };
    let parent = object.pointer_mut(parent).and_then(Value::as_object_mut);
    let Some(parent) = parent else { return };
    let field = field.replace("~1", "/").replace("~0", "~");
    if parent.get(&field).is_none_or(Value::is_null) {
        parent.insert(field, empty);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_empty_is_put_back_where_nothing_stands() {
        let mut object = json!({"a": {"b": null, "c": [1]}, "l": [{}]});
        for (pointer, empty) in [
            ("/a/b", json!([])),
            ("/a/c", json!([])),
            ("/a/d~1e", json!({})),
            ("/l/0/m", json!([])),
            ("/l/1/m", json!([])),
            ("/z/m", json!([])),
        ] {
            put_back(&mut object, (pointer.to_owned(), empty));
        }
        let wanted = json!({"a": {"b": [], "c": [1], "d/e": {}}, "l": [{"m": []}]});
        assert_eq!(object, wanted);
    }

    #[test]
    fn label_selectors_show_nothing_empty() {
        for (pointer, expected) in [
            ("/spec/selector/matchLabels", true),
            ("/spec/selector/matchExpressions", true),
            ("/spec/selector/matchExpressions/0/values", true),
            (
                "/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions",
                false,
            ),
            ("/spec/template/metadata/labels", false),
        ] {
            assert_eq!(is_selectors(pointer), expected, "{pointer}");
        }
    }

    #[test]
    fn other_faults_are_no_better_words() {
        let fault = |field: &str| {
            let mut faults = Faults::new();
            faults.required(field, "");
            faults
        };
        assert!(is_alike(&fault("a"), &fault("a")));
        assert!(!is_alike(&fault("a"), &fault("b")));
        assert!(!is_alike(&fault("a"), &Faults::new()));
    }
}
