//! No text and no expression may make the crate panic, and none may run for ever.

use cel::{AdmissionVariables, Bindings, Budget, Type, Value, admission_env};
use proptest::prelude::*;
use serde_json::json;

/// Pieces that expressions are made of, right and wrong.
fn piece() -> impl Strategy<Value = String> {
    let pieces = [
        "object",
        "object.a",
        "object.list",
        "object['a']",
        "x",
        "1",
        "-1",
        "0u",
        "1.5",
        "'text'",
        "b'b'",
        "null",
        "true",
        "[1, 2]",
        "[]",
        "{}",
        "{'a': 1}",
        "duration('1h')",
        "timestamp('2024-01-01T00:00:00Z')",
        "quantity('1')",
        "9223372036854775807",
        "cidr('10.0.0.0/8')",
        "url('https://a')",
        "optional.none()",
        "type(1)",
        "'%s %d %x %e'",
        "semver('1.0.0')",
        "request.name",
        "Object{a: 1}",
        "int",
        "(",
        ")",
        "&&",
        "?",
        "\u{e9}",
        "'\\x'",
    ];
    proptest::sample::select(pieces.to_vec()).prop_map(str::to_owned)
}

fn expression() -> impl Strategy<Value = String> {
    piece().prop_recursive(5, 40, 3, |inner| {
        let operators = [
            "+", "-", "*", "/", "%", "==", "!=", "<", ">=", "&&", "||", "in",
        ];
        let functions = [
            "size",
            "indexOf",
            "lastIndexOf",
            "substring",
            "split",
            "replace",
            "charAt",
            "format",
            "join",
            "max",
            "sum",
            "slice",
            "sort",
            "flatten",
            "value",
            "orValue",
            "containsIP",
            "add",
            "compareTo",
            "matches",
            "findAll",
            "getHours",
            "first",
            "contains",
            "reverse",
            "distinct",
            "isSorted",
            "masked",
            "getQuery",
        ];
        let macros = ["all", "exists", "map", "filter", "exists_one", "optMap"];
        prop_oneof![
            (
                inner.clone(),
                proptest::sample::select(operators.to_vec()),
                inner.clone()
            )
                .prop_map(|(one, operator, two)| format!("{one} {operator} {two}")),
            (
                inner.clone(),
                proptest::sample::select(functions.to_vec()),
                proptest::collection::vec(inner.clone(), 0..3)
            )
                .prop_map(|(target, function, args)| format!(
                    "dyn({target}).{function}({})",
                    args.join(", ")
                )),
            (
                inner.clone(),
                proptest::sample::select(macros.to_vec()),
                inner.clone()
            )
                .prop_map(|(range, function, body)| format!("{range}.{function}(x, {body})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a}) ? {b} : {c}")),
            inner.prop_map(|one| format!("[{one}][0].?b")),
        ]
    })
}

fn run(source: &str) {
    let variables = AdmissionVariables {
        params: true,
        authorizer: true,
        patches: true,
    };
    let env = admission_env(variables).declare("x", Type::Dyn);
    let Ok(program) = env.compile(source) else {
        return;
    };
    let object = json!({"a": "text", "list": [1, "b", {"c": null}], "n": 1.5});
    let bindings = Bindings::new()
        .bind("object", Value::untyped(&object))
        .bind("x", Value::untyped(&object));
    if let Ok(value) = program.evaluate(&bindings, &mut Budget::of(100_000)) {
        let _ = value.to_json();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_expression_panics(source in expression()) {
        run(&source);
    }

    #[test]
    fn no_text_panics(source in "[a-z0-9 .,'\"()\\[\\]{}?:+*/%!<>=&|\\\\\u{e9}_-]{0,40}") {
        run(&source);
    }
}

#[test]
fn depth_is_limited() {
    for deep in ["(", "[", "!(", "-(", "a.b(", "{'a': "] {
        let source = deep.repeat(5_000);
        assert!(
            admission_env(AdmissionVariables::default())
                .compile(&source)
                .is_err()
        );
    }
    let nested = format!("{}1{}", "[".repeat(90), "]".repeat(90));
    run(&nested);
    run(&format!("object{}", ".a".repeat(90)));
    run(&format!("1{}", " + 1".repeat(90)));
    run(&format!("true{}", " && true".repeat(5_000)));
    assert!(
        admission_env(AdmissionVariables::default())
            .compile(&format!("1{}", " + 1".repeat(5_000)))
            .is_err()
    );
}
