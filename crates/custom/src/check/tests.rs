use super::*;
use serde_json::json;

fn faults(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<String> {
    let mut faults = Faults::new();
    validate(&Structural::read(schema), object, old, "", &mut faults);
    faults.0.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check(schema: Value, value: Value, expect: &[&str]) {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
        "properties": {"x": schema}}}});
    let object = json!({"spec": {"x": value}});
    assert_eq!(faults(&schema, &object, None), expect);
}

#[test]
fn types_are_named_as_upstream_names_them() {
    let integer = || json!({"type": "integer"});
    check(
        integer(),
        json!("string"),
        &["spec.x: Invalid value: \"string\": spec.x in body must be of type integer: \"string\""],
    );
    check(
        integer(),
        json!(1.5),
        &[
            "spec.x: Invalid value: \"number\": spec.x in body must be of type integer: \"number\"",
            "<nil>: Invalid value: \"\": Checked value must be of type integer (default format) in spec.x",
        ],
    );
    check(integer(), json!(2.0), &[]);
    check(json!({"type": "number"}), json!(2), &[]);
    check(
        json!({"type": "string"}),
        Value::Null,
        &["spec.x: Invalid value: \"null\": spec.x in body must be of type string: \"null\""],
    );
    check(
        json!({"type": "string", "nullable": true}),
        Value::Null,
        &[],
    );
    let either = || json!({"x-kubernetes-int-or-string": true});
    check(either(), json!("a"), &[]);
    check(
        either(),
        json!(true),
        &[
            "spec.x: Invalid value: \"boolean\": spec.x in body must be of type integer,string: \"boolean\"",
        ],
    );
    check(
        json!({"type": "integer", "format": "int32"}),
        json!(3_000_000_000_i64),
        &[
            "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in spec.x",
        ],
    );
}

#[test]
fn values_are_held_to_their_rules() {
    check(
        json!({"type": "integer", "minimum": 1}),
        json!(0),
        &["spec.x: Invalid value: 0: spec.x in body should be greater than or equal to 1"],
    );
    check(
        json!({"type": "integer", "maximum": 10, "exclusiveMaximum": true, "multipleOf": 3}),
        json!(10),
        &[
            "spec.x: Invalid value: 10: spec.x in body should be a multiple of 3",
            "spec.x: Invalid value: 10: spec.x in body should be less than 10",
        ],
    );
    check(
        json!({"type": "string", "enum": ["a", "b"]}),
        json!("c"),
        &["spec.x: Unsupported value: \"c\": supported values: \"a\", \"b\""],
    );
    check(
        json!({"type": "string", "pattern": "^x+$", "maxLength": 2}),
        json!("y"),
        &["spec.x: Invalid value: \"y\": spec.x in body should match '^x+$'"],
    );
    check(
        json!({"type": "string", "maxLength": 2}),
        json!("abc"),
        &["spec.x: Too long: may not be more than 2 bytes"],
    );
    check(
        json!({"type": "string", "format": "date"}),
        json!("x"),
        &["spec.x: Invalid value: \"x\": spec.x in body must be of type date: \"x\""],
    );
    check(
        json!({"type": "array", "minItems": 2, "items": {"type": "string"}}),
        json!([1]),
        &[
            "spec.x[0]: Invalid value: \"integer\": spec.x[0] in body must be of type string: \"integer\"",
            "spec.x: Invalid value: 1: spec.x in body should have at least 2 items",
        ],
    );
    check(
        json!({"type": "object", "maxProperties": 1, "required": ["c"]}),
        json!({"a": 1, "b": 2}),
        &[
            "spec.x: Too many: 2: must have at most 1 item",
            "spec.x.c: Required value",
        ],
    );
}

#[test]
fn alternatives_are_told_of_by_the_best() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"},
        "b": {"type": "string"}}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
    check(schema.clone(), json!({"a": ""}), &[]);
    check(
        schema.clone(),
        json!({}),
        &[
            "<nil>: Invalid value: \"\": \"spec.x\" must validate one and only one schema (oneOf). Found none valid",
            "spec.x.a: Required value",
        ],
    );
    check(
        schema,
        json!({"a": "", "b": ""}),
        &[
            "<nil>: Invalid value: \"\": \"spec.x\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ],
    );
    check(
        json!({"type": "integer", "anyOf": [{"minimum": 5}, {"maximum": 1}]}),
        json!(3),
        &[
            "<nil>: Invalid value: \"\": \"spec.x\" must validate at least one schema (anyOf)",
            "spec.x: Invalid value: 3: spec.x in body should be greater than or equal to 5",
        ],
    );
    check(
        json!({"type": "integer", "not": {"enum": [3]}}),
        json!(3),
        &["<nil>: Invalid value: \"\": \"spec.x\" must not validate the schema (not)"],
    );
}

#[test]
fn what_was_wrong_before_may_stay() {
    let item = json!({"type": "object", "properties": {"k": {"type": "string"},
        "v": {"type": "integer", "maximum": 1}}});
    let schema = json!({"type": "object", "properties": {
        "n": {"type": "integer", "maximum": 1}, "m": {"type": "integer"},
        "list": {"type": "array", "items": item, "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k"]},
        "bare": {"type": "array", "items": {"type": "integer", "maximum": 1}}}});
    let old = json!({"n": 5, "m": 1, "list": [{"k": "a", "v": 5}], "bare": [5]});
    let new =
        json!({"n": 5, "m": 2, "list": [{"k": "b", "v": 1}, {"k": "a", "v": 5}], "bare": [5]});
    assert_eq!(faults(&schema, &new, Some(&old)), [""; 0]);
    let worse = json!({"n": 6, "m": 2, "list": [{"k": "a", "v": 6}], "bare": [5, 1]});
    let found = faults(&schema, &worse, Some(&old));
    let fields: Vec<&str> = found
        .iter()
        .filter_map(|one| one.split(": ").next())
        .collect();
    assert_eq!(fields, ["bare[0]", "list[0].v", "n"]);
    assert_eq!(faults(&schema, &new, None).len(), 3);
}

#[test]
fn a_status_is_checked_on_its_own() {
    let schema = Structural::read(&json!({"type": "object", "required": ["a"],
        "properties": {"b": {"type": "integer"}}}));
    let mut found = Faults::new();
    validate(&schema, &json!({"b": "x"}), None, "status", &mut found);
    assert_eq!(
        found.summary(),
        "[status.b: Invalid value: \"string\": b in body must be of type integer: \"string\", \
         status.a: Required value]"
    );
}
