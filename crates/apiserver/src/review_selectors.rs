//! The selectors of access reviews: what is wrong with them, and which parts nobody understands.

use meta::{Faults, FieldSelector, LabelSelector, naming};
use serde_json::Value;

use crate::verbs::write::text;

/// Faults in the requirements of a `labelSelector` or `fieldSelector`. Operators that this server
/// does not know are fine: newer clients may use them.
pub(crate) fn validate(kind: &str, list: Option<&Vec<Value>>, path: &str, faults: &mut Faults) {
    for (index, requirement) in list.into_iter().flatten().enumerate() {
        let path = format!("{path}.requirements[{index}]");
        let values = requirement.get("values").and_then(Value::as_array);
        let values = values.map_or(&[][..], Vec::as_slice);
        let key = text(requirement, "/key");
        if kind == "fieldSelector" && key.is_empty() {
            faults.required(format!("{path}.key"), "must be specified");
        }
        match text(requirement, "/operator") {
            "In" | "NotIn" if values.is_empty() => {
                let rule = "must be specified when `operator` is 'In' or 'NotIn'";
                faults.required(format!("{path}.values"), rule);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let rule = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                faults.forbidden(format!("{path}.values"), rule);
            }
            _ => {}
        }
        if kind == "fieldSelector" {
            continue;
        }
        for rule in naming::qualified_name(key) {
            faults.invalid(format!("{path}.key"), key, rule);
        }
        for (at, value) in values.iter().enumerate() {
            let value = value.as_str().unwrap_or("");
            for rule in naming::label_value(value) {
                faults.invalid(format!("{path}.values[{at}]"), value, rule);
            }
        }
    }
}

/// What the answer says of selectors that narrow nothing because nobody understands them.
pub(crate) fn evaluation_error(review: &Value) -> String {
    let mut errors = Vec::new();
    for kind in ["fieldSelector", "labelSelector"] {
        let Some(selector) = review.pointer(&format!("/spec/resourceAttributes/{kind}")) else {
            continue;
        };
        let ignored = match ignored(kind, selector) {
            Ignored::Nothing => continue,
            Ignored::Some => "partially ignored",
            Ignored::All => "ignored",
        };
        errors.push(format!(
            "spec.resourceAttributes.{kind} {ignored} due to parse error"
        ));
    }
    errors.join("; ")
}

enum Ignored {
    Nothing,
    Some,
    All,
}

fn ignored(kind: &str, selector: &Value) -> Ignored {
    let raw = text(selector, "/rawSelector");
    if !raw.is_empty() {
        let sound = match kind {
            "fieldSelector" => FieldSelector::parse(raw).is_ok(),
            _ => LabelSelector::parse(raw).is_ok(),
        };
        return if sound {
            Ignored::Nothing
        } else {
            Ignored::All
        };
    }
    let list = selector.get("requirements").and_then(Value::as_array);
    let list = list.map_or(&[][..], Vec::as_slice);
    let understood = list.iter().filter(|own| understands(kind, own)).count();
    match understood {
        all if all == list.len() => Ignored::Nothing,
        0 => Ignored::All,
        _ => Ignored::Some,
    }
}

fn understands(kind: &str, requirement: &Value) -> bool {
    let values = requirement.get("values").and_then(Value::as_array);
    match (kind, text(requirement, "/operator")) {
        ("fieldSelector", "In" | "NotIn") => values.is_some_and(|values| values.len() == 1),
        ("fieldSelector", _) => false,
        (_, operator) => matches!(operator, "In" | "NotIn" | "Exists" | "DoesNotExist"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requirements_are_checked_but_unknown_operators_are_not() {
        let list = json!([{"key": "", "operator": "In", "values": ["-x"]},
            {"key": "a", "operator": "Exists", "values": ["b"]},
            {"key": "a", "operator": "Like"}, {"key": "a", "operator": "NotIn"}]);
        let mut faults = Faults::new();
        validate("labelSelector", list.as_array(), "l", &mut faults);
        let fields: Vec<_> = faults.0.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "l.requirements[0].key",
                "l.requirements[0].key",
                "l.requirements[0].values[0]",
                "l.requirements[1].values",
                "l.requirements[3].values"
            ]
        );
    }

    #[test]
    fn answers_say_what_was_ignored() {
        let check = |kind: &str, selector: Value, expect: &str| {
            let review = json!({"spec": {"resourceAttributes": {kind: selector}}});
            assert_eq!(evaluation_error(&review), expect);
        };
        check("fieldSelector", json!({"rawSelector": "a=b"}), "");
        let all = "spec.resourceAttributes.fieldSelector ignored due to parse error";
        check("fieldSelector", json!({"rawSelector": "a"}), all);
        let some = "spec.resourceAttributes.labelSelector partially ignored due to parse error";
        let list = json!([{"key": "a", "operator": "In", "values": ["b"]},
            {"key": "a", "operator": "Like"}]);
        check("labelSelector", json!({"requirements": list}), some);
    }
}
