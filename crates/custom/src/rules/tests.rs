use meta::Faults;
use serde_json::{Value, json};

use super::{Rules, Run};

fn faults(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<String> {
    let mut faults = Faults::new();
    if let Some(rules) = Rules::read(schema) {
        Run::all(&rules, object, old, &mut faults);
    }
    faults.0.iter().map(ToString::to_string).collect()
}

fn spec(node: Value) -> Value {
    json!({"type": "object", "properties": {"spec": node}})
}

fn number(rules: Value) -> Value {
    spec(json!({"type": "object", "properties": {
        "n": {"type": "integer", "x-kubernetes-validations": rules}, "m": {"type": "integer"}}}))
}

#[test]
fn rules_that_do_not_hold_are_told_of() {
    let schema = spec(json!({"type": "object", "x-kubernetes-validations": [
            {"rule": "self.x + self.y > 0"},
            {"rule": "self.x < 5", "message": "too many", "fieldPath": ".x"},
            {"rule": "self.y < 5", "messageExpression": "'y is ' + string(self.y)",
                "reason": "FieldValueForbidden"}],
        "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}}));
    let check = |x: i64, y: i64| faults(&schema, &json!({"spec": {"x": x, "y": y}}), None);
    assert_eq!(check(1, 0), [""; 0]);
    assert_eq!(
        check(0, 0),
        ["spec: Invalid value: failed rule: self.x + self.y > 0"]
    );
    assert_eq!(
        check(5, 6),
        ["spec.x: Invalid value: too many", "spec: Forbidden: y is 6"]
    );
}

#[test]
fn rules_about_changes_need_an_old_value() {
    let schema = number(json!([{"rule": "self > oldSelf"}]));
    let object = |n: i64| json!({"spec": {"n": n}});
    assert_eq!(faults(&schema, &object(1), None), [""; 0]);
    assert_eq!(faults(&schema, &object(2), Some(&object(1))), [""; 0]);
    assert_eq!(
        faults(&schema, &object(1), Some(&object(1))),
        ["spec.n: Invalid value: 1: failed rule: self > oldSelf"]
    );
    let optional = number(json!([{"rule": "oldSelf.hasValue() || self > 3",
        "optionalOldSelf": true}]));
    assert_eq!(faults(&optional, &object(1), None).len(), 1);
    assert_eq!(faults(&optional, &object(1), Some(&object(2))), [""; 0]);
}

#[test]
fn what_did_not_change_is_excused() {
    let schema = number(json!([{"rule": "self == 1"}]));
    let old = json!({"spec": {"n": 5, "m": 1}});
    let new = json!({"spec": {"n": 5, "m": 2}});
    assert_eq!(faults(&schema, &new, Some(&old)), [""; 0]);
    let worse = json!({"spec": {"n": 6, "m": 2}});
    assert_eq!(faults(&schema, &worse, Some(&old)).len(), 1);
    let items = spec(json!({"type": "array", "items": {"type": "string",
        "x-kubernetes-validations": [{"rule": "self != 'foo'"}]}}));
    let old = json!({"spec": ["foo"]});
    assert_eq!(faults(&items, &old, Some(&old)), [""; 0]);
    let longer = json!({"spec": ["foo", "bar"]});
    assert_eq!(
        faults(&items, &longer, Some(&old)),
        ["spec[0]: Invalid value: \"foo\": failed rule: self != 'foo'"]
    );
}

#[test]
fn items_of_maps_are_known_by_their_keys() {
    let schema = spec(json!({"type": "array", "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "properties": {
            "k": {"type": "string"}, "v": {"type": "integer",
                "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}}}}));
    let old = json!({"spec": [{"k": "a", "v": 5}, {"k": "b", "v": 1}]});
    let new = json!({"spec": [{"k": "b", "v": 2}, {"k": "a", "v": 4}, {"k": "c", "v": 0}]});
    assert_eq!(
        faults(&schema, &new, Some(&old)),
        ["spec[1].v: Invalid value: 4: failed rule: self >= oldSelf"]
    );
}

#[test]
fn dear_rules_end_the_asking() {
    let schema = spec(
        json!({"type": "object", "properties": {"list": {"type": "array",
        "maxItems": 725, "items": {"type": "integer"}}}, "x-kubernetes-validations": [
        {"rule": "self.list.all(x, self.list.all(y, y == x))"}, {"rule": "false"}]}),
    );
    let list = vec![20; 725];
    let found = faults(&schema, &json!({"spec": {"list": list}}), None);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("call cost exceeds limit"), "{found:?}");
}
