//! What expressions see of objects whose schema is known.

use cel::{Bindings, Budget, Decl, Env, Value};
use serde_json::{Value as Json, json};

fn holds(schema: &Json, object: &Json, source: &str) -> Result<bool, String> {
    let decl = Decl::of_schema(schema, false).ok_or("no type")?;
    let env = Env::new().declare("self", decl.clone());
    let program = env.compile(source).map_err(|errors| errors.to_string())?;
    let variables = Bindings::new().bind("self", Value::typed(object, &decl));
    let value = program
        .evaluate(&variables, &mut Budget::new())
        .map_err(|error| error.to_string())?;
    Ok(value.as_bool() == Some(true))
}

fn check(properties: Json, object: Json, sources: &[&str]) {
    let schema = json!({"type": "object", "properties": properties});
    for source in sources {
        assert_eq!(holds(&schema, &object, source), Ok(true), "{source}");
    }
}

#[test]
fn null_is_as_good_as_absent() {
    check(
        json!({"a": {"type": "string", "nullable": true}, "b": {"x-kubernetes-int-or-string": true,
            "nullable": true}, "c": {"type": "integer"}}),
        json!({"a": null, "b": null, "c": 1}),
        &[
            "!has(self.a)",
            "!has(self.b)",
            "has(self.c)",
            "self.?a == optional.none()",
        ],
    );
}

#[test]
fn reserved_words_are_names_of_fields() {
    check(
        json!({"namespace": {"type": "string"}, "if": {"type": "integer"}}),
        json!({"namespace": "x", "if": 1}),
        &[
            "self.namespace == 'x' && self.if == 1",
            "self.__namespace__ == 'x' && has(self.__if__)",
        ],
    );
}

#[test]
fn lists_with_keys_are_equal_in_any_order() {
    let item = json!({"type": "object", "properties":
        {"k": {"type": "string"}, "v": {"type": "string"}}});
    let list = json!({"type": "array", "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["k"], "items": item});
    let (one, two) = (json!({"k": "a", "v": "1"}), json!({"k": "b", "v": "2"}));
    check(
        json!({"lists": {"type": "array", "items": list}, "spans": {"type": "array",
            "items": {"type": "string", "format": "duration"}}}),
        json!({"lists": [[one, two], [two, {"k": "a", "v": "3"}]], "spans": []}),
        &[
            "self.lists[0] + self.lists[1] == self.lists[1]",
            "self.lists[1] + [self.lists[0][0], self.lists[0][1]] == self.lists[0]",
            "self.lists[0] != self.lists[1]",
            "self.spans.sum() == duration('0')",
        ],
    );
}
