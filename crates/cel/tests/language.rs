//! What the language means: each line is an expression that must be true.

use cel::{Bindings, Budget, Decl, Env, Type, Value};
use serde_json::{Value as Json, json};

fn object() -> Json {
    json!({
        "name": "web", "count": 3, "ratio": 0.5, "flag": true, "nothing": null,
        "labels": {"app": "web", "tier": "front"}, "ports": [80, 443, 8080],
        "items": [{"name": "a", "size": 1}, {"name": "b", "size": 2}],
    })
}

fn env() -> Env {
    Env::new()
        .declare("object", Type::Dyn)
        .declare("variables.total", Type::Int)
}

fn evaluate(source: &str) -> Result<Json, String> {
    let program = env().compile(source).map_err(|errors| errors.to_string())?;
    let object = object();
    let variables = Bindings::new()
        .bind("object", Value::untyped(&object))
        .bind("variables.total", Value::Int(7));
    let value = program
        .evaluate(&variables, &mut Budget::new())
        .map_err(|error| error.to_string())?;
    Ok(value.to_json().unwrap_or(Json::Null))
}

#[test]
fn expressions_that_hold() {
    let lines = include_str!("language.txt").lines().map(str::trim);
    let cases = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let wrong: Vec<_> = cases
        .map(|line| (line, evaluate(line)))
        .filter(|(_, result)| *result != Ok(Json::Bool(true)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn faults_while_evaluating() {
    for line in include_str!("faults.txt").lines().map(str::trim) {
        if let Some((source, message)) = line.split_once(" => ") {
            assert_eq!(evaluate(source), Err(message.to_owned()), "{source}");
        }
    }
}

#[test]
fn faults_while_compiling() {
    for line in include_str!("refused.txt").lines().map(str::trim) {
        if let Some((source, message)) = line.split_once(" => ") {
            let errors = env().compile(source).expect_err(source);
            let found: Vec<String> = errors
                .0
                .iter()
                .map(|error| format!("{}: {}", error.column, error.message))
                .collect();
            assert_eq!(found.join("; "), message, "{source}");
        }
    }
}

#[test]
fn typed_objects() {
    let schema = json!({"type": "object", "properties": {
        "replicas": {"type": "integer"}, "ratio": {"type": "number"}, "namespace": {"type": "string"},
        "at": {"type": "string", "format": "date-time"}, "every": {"type": "string", "format": "duration"},
        "port": {"x-kubernetes-int-or-string": true}, "a-b.c/d__e": {"type": "string"},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    }});
    let decl = Decl::of_schema(&schema, false).unwrap();
    let env = Env::new().declare("self", decl.clone());
    let object = json!({
        "replicas": 3, "ratio": 1, "namespace": "n", "at": "2024-01-01T00:00:00Z", "every": "1h", "port": "http",
        "a-b.c/d__e": "odd", "tags": ["b", "a"], "labels": {"x": "y"},
    });
    for source in [
        "self.replicas == 3 && self.ratio == 1.0 && self.__namespace__ == 'n'",
        "self.at.getFullYear() == 2024 && self.every == duration('60m') && self.port == 'http'",
        "self.a__dash__b__dot__c__slash__d__underscores__e == 'odd'",
        "self.tags == ['a', 'b'] && self.tags + ['a', 'c'] == ['b', 'a', 'c']",
        "self.labels.x == 'y' && self.labels.all(k, self.labels[k] == 'y') && !has(self.labels.z)",
    ] {
        let program = env.compile(source).unwrap();
        assert_eq!(program.result_type(), &Type::Bool);
        let variables = Bindings::new().bind("self", Value::typed(&object, &decl));
        let result = program.evaluate(&variables, &mut Budget::new());
        assert_eq!(
            result.map(|value| value.as_bool()),
            Ok(Some(true)),
            "{source}"
        );
    }
    let errors = env.compile("self.replica > 1").unwrap_err();
    let text = "ERROR: <input>:1:5: undefined field 'replica'\n | self.replica > 1\n | ....^";
    assert_eq!(errors.to_string(), text);
}

#[test]
fn estimated_costs() {
    let cost = |schema: Json, source: &str| {
        let env = Env::new().declare("self", Decl::of_schema(&schema, false).unwrap());
        env.compile(source).unwrap().estimated_cost()
    };
    let numbers = json!({"type": "array", "items": {"type": "integer"}});
    let few = json!({"type": "array", "maxItems": 10, "items": {"type": "integer"}});
    let texts =
        json!({"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 10}});
    let object = json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}});
    // A loop's turn: two for the condition, one for the accumulator, the body; one for the result.
    assert_eq!(
        cost(few.clone(), "self.all(x, x == x)"),
        1 + 10 * (2 + 1 + 2) + 1
    );
    assert_eq!(
        cost(texts, "self.all(x, x.startsWith('abc'))"),
        1 + 10 * (2 + 1 + 1 + 1) + 1
    );
    assert_eq!(cost(object.clone(), "self.a > 5"), 2 + 1);
    assert_eq!(
        cost(object, "has(self.b) && self.b.contains('x')"),
        1 + 2 + 314_573
    );
    // 1572863 numbers fit a request.
    assert_eq!(
        cost(numbers.clone(), "self.all(x, true)"),
        1 + 1_572_863 * 3 + 1
    );
    assert!(
        cost(numbers.clone(), "self.all(x, self.all(y, x == y))")
            > cel::STATIC_ESTIMATED_COST_LIMIT
    );
    assert!(cost(few, "self.all(x, self.all(y, x == y))") < cel::STATIC_ESTIMATED_COST_LIMIT);
}
