//! What upstream says of a patch after which an object cannot be read.

use meta::{FaultKind, Faults, Reason, Status};
use serde_json::Value;

/// 422 about no object in particular.
pub(super) fn refused(shown: &str, why: &str) -> Status {
    let mut faults = Faults::new();
    let shown = format!("{shown:?}");
    faults.add_shown("patch", FaultKind::Invalid, shown, why);
    let text = format!(" \"\" is invalid: {}", faults.summary());
    let mut status = Status::new(Reason::Invalid, text);
    status.causes = faults.causes();
    status
}

/// A tree as Go prints maps, lists and numbers.
pub(super) fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_text).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let mut pairs: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{key}:{}", go_text(value)))
                .collect();
            pairs.sort_unstable();
            format!("map[{}]", pairs.join(" "))
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// Strategic merge patches are read by another reader than JSON, with words of its own.
pub(super) fn reworded(why: &str) -> String {
    let Some(rest) = why.strip_prefix("json: cannot unmarshal ") else {
        return why.to_owned();
    };
    let found = rest.split(' ').next().unwrap_or("");
    let wanted = rest.rsplit_once(" of type ").map_or("", |(_, ty)| ty);
    let is_fraction = rest
        .split(' ')
        .nth(1)
        .is_some_and(|number| number.contains('.'));
    let found = match found {
        "number" if is_fraction => "float64",
        "number" => "int64",
        "array" => "slice",
        "object" => "map",
        other => other,
    };
    if wanted.starts_with("[]") {
        return format!("cannot restore slice from {found}");
    }
    if wanted.starts_with("map[") {
        return format!("cannot restore map from {found}");
    }
    if matches!(wanted, "string" | "bool" | "int32" | "int64") {
        // What Go could convert at all.
        return match (found, wanted) {
            ("int64", "string") | ("int64" | "float64", "int32" | "int64") => {
                format!("cannot convert {found} to {wanted}")
            }
            _ => format!("unrecognized type: {wanted}"),
        };
    }
    format!("cannot restore struct from: {found}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn patches_are_shown_as_go_prints_them() {
        let patch = json!({"spec": {"b": [1, null, true], "a": "x"}});
        assert_eq!(go_text(&patch), "map[spec:map[a:x b:[1 <nil> true]]]");
        let status = refused("map[metadata:x]", "cannot restore struct from: string");
        assert_eq!(
            status.message,
            " \"\" is invalid: patch: Invalid value: \"map[metadata:x]\": cannot restore struct \
             from: string"
        );
    }

    #[test]
    fn readers_have_words_of_their_own() {
        for (json, own) in [
            (
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of \
                 type string",
                "cannot convert int64 to string",
            ),
            (
                "json: cannot unmarshal string into Go struct field ScaleSpec.spec.replicas of \
                 type int32",
                "unrecognized type: int32",
            ),
            (
                "json: cannot unmarshal string into Go struct field Pod.metadata of type \
                 v1.ObjectMeta",
                "cannot restore struct from: string",
            ),
        ] {
            assert_eq!(reworded(json), own);
        }
    }
}
