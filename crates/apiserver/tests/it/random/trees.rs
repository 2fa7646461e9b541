//! Random trees: objects of the schema's kinds, schemas of custom resources, expressions.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use schema::{Shape, Type};
use serde_json::{Map, Value, json};

/// Texts that some field or other reads as more than text.
const TEXTS: &[&str] = &[
    "",
    "x",
    "y",
    "default",
    "a.example.com",
    "example.com/a",
    "10.0.0.0/8",
    "10.0.0.1",
    "fd00::/64",
    "1Gi",
    "-5m",
    "25%",
    "*/5 * * * *",
    "2024-01-01T00:00:00Z",
    "1h",
    "metadata.name",
    "{.spec.a[0]}",
    "$(A)",
    "../..",
    "/",
    "Always",
    "Exists",
    "In",
    "TCP",
    "\u{0}\u{1F6A2}",
    "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
];

const NUMBERS: &[i64] = &[
    0,
    1,
    2,
    3,
    -1,
    80,
    65_536,
    4_000_000_000,
    i64::MAX,
    i64::MIN,
];

/// Deepest tree that is made.
const DEPTH_MAX: usize = 9;

pub(crate) fn one<'a>(random: &mut StdRng, of: &[&'a str]) -> &'a str {
    of.choose(random).copied().unwrap_or_default()
}

pub(crate) fn text(random: &mut StdRng) -> String {
    one(random, TEXTS).to_owned()
}

fn number(random: &mut StdRng) -> i64 {
    NUMBERS.choose(random).copied().unwrap_or_default()
}

/// Something that fits nowhere in particular.
pub(crate) fn odd(random: &mut StdRng) -> Value {
    match random.random_range(0..9) {
        0 => Value::Null,
        1 => json!([]),
        2 => json!({}),
        3 => json!([null, {}, [], "x"]),
        4 => json!(1.5e300),
        5 => json!(true),
        6 => number(random).into(),
        _ => text(random).into(),
    }
}

/// An object of a type. Fields that must be there are; of others, more near the root.
pub(crate) fn structure(random: &mut StdRng, ty: &Type, depth: usize) -> Value {
    let mut tree = Map::new();
    for field in &ty.fields {
        let chance = if depth < 2 { 0.5 } else { 0.2 };
        if depth > DEPTH_MAX || !(field.required || random.random_bool(chance)) {
            continue;
        }
        let value = match field.enumeration.choose(random) {
            Some(allowed) => Value::from(&**allowed),
            None => value(random, &field.shape, depth + 1),
        };
        tree.insert(field.json.to_string(), value);
    }
    Value::Object(tree)
}

fn value(random: &mut StdRng, shape: &Shape, depth: usize) -> Value {
    match shape {
        Shape::Bool => random.random_bool(0.5).into(),
        Shape::Int32 | Shape::Int64 => match random.random_bool(0.8) {
            true => random.random_range(0..4).into(),
            false => number(random).into(),
        },
        Shape::Double => random.random::<f64>().into(),
        Shape::Bytes => one(random, &["", "Yg==", "!"]).into(),
        Shape::IntOrString if random.random_bool(0.5) => number(random).into(),
        Shape::Quantity => one(random, &["1", "1Gi", "500m", "-1", "1e400", "x"]).into(),
        Shape::Time | Shape::MicroTime => one(
            random,
            &[
                "2024-01-01T00:00:00Z",
                "2024-01-01T00:00:00.000001Z",
                "9999-12-31T23:59:59Z",
                "now",
            ],
        )
        .into(),
        Shape::Duration => one(random, &["1h", "1m30s", "-1ns", "x"]).into(),
        Shape::Text | Shape::IntOrString => text(random).into(),
        Shape::Json | Shape::Raw | Shape::FieldsV1 => odd(random),
        Shape::Struct(ty) => structure(random, ty.get(), depth),
        Shape::List(item, _) => {
            let count = random.random_range(0..3);
            (0..count).map(|_| value(random, item, depth + 1)).collect()
        }
        Shape::Map(item, _) => {
            let count = random.random_range(0..3);
            let entries = (0..count).map(|_| (text(random), value(random, item, depth + 1)));
            Value::Object(entries.collect())
        }
        Shape::OneOf(shapes) => match shapes.choose(random) {
            Some(shape) => value(random, shape, depth),
            None => odd(random),
        },
    }
}

/// Puts something odd at a random place of a tree, or takes the place away.
pub(crate) fn mutate(random: &mut StdRng, tree: &mut Value) {
    let stop = random.random_bool(0.2);
    match tree {
        Value::Object(map) if !stop && !map.is_empty() => {
            let keys: Vec<String> = map.keys().cloned().collect();
            let Some(key) = keys.choose(random) else {
                return;
            };
            if random.random_bool(0.1) {
                map.remove(key);
            } else if let Some(value) = map.get_mut(key) {
                mutate(random, value);
            }
        }
        Value::Array(list) if !stop && !list.is_empty() => {
            let at = random.random_range(0..list.len());
            if random.random_bool(0.2) {
                list.push(list[at].clone());
            }
            mutate(random, &mut list[at]);
        }
        other => *other = odd(random),
    }
}

/// A JSON patch against any object.
pub(crate) fn operations(random: &mut StdRng) -> Value {
    let paths = [
        "",
        "/",
        "/metadata",
        "/metadata/labels",
        "/metadata/labels/a",
        "/metadata/name",
        "/spec",
        "/spec/containers/0",
        "/spec/containers/-",
        "/spec/template/spec/containers/9",
        "/spec/ports/0/port",
        "/spec/rules/-1",
        "/data/a~1b",
        "/status",
        "~2",
    ];
    let count = random.random_range(0..4);
    (0..count)
        .map(|_| {
            let op = one(
                random,
                &["add", "remove", "replace", "move", "copy", "test", "x"],
            );
            json!({"op": op, "path": one(random, &paths), "from": one(random, &paths),
                "value": odd(random)})
        })
        .collect()
}

/// What rules of custom resources read.
pub(crate) const IN_RULES: &[&str] = &["self", "self.a", "self.b", "oldSelf", "self.spec.a"];

/// What admission policies read.
pub(crate) const IN_POLICIES: &[&str] = &[
    "object",
    "object.metadata.name",
    "object.data",
    "object.data.a",
    "oldObject",
    "request.name",
    "request.userInfo",
    "namespaceObject.metadata",
    "params",
    "variables.v",
];

const LITERALS: &[&str] = &[
    "1",
    "-9223372036854775807",
    "0u",
    "1.5",
    "'text'",
    "'\u{e9}'",
    "null",
    "[1, 'a']",
    "{'a': 1}",
    "true",
    "duration('1h')",
    "quantity('1Gi')",
    "cidr('::/0')",
    "ip('10.0.0.1')",
    "optional.none()",
    "timestamp('2024-01-01T00:00:00Z')",
    "x",
    "(",
];

/// An expression of any type over some variables. Types are hidden behind `dyn`, so that most
/// compile and fail, if they do, where they are evaluated.
pub(crate) fn expression(random: &mut StdRng, of: &[&str], depth: usize) -> String {
    if depth == 0 || random.random_bool(0.3) {
        let literals = LITERALS.len() - if random.random_bool(0.9) { 2 } else { 0 };
        let from = if random.random_bool(0.6) {
            of
        } else {
            &LITERALS[..literals]
        };
        return format!("dyn({})", one(random, from));
    }
    let a = expression(random, of, depth - 1);
    let b = expression(random, of, depth - 1);
    match random.random_range(0..8) {
        0 => format!("dyn({a} {} {b})", one(random, &["+", "-", "*", "/", "%"])),
        1 => format!("dyn(size({a}))"),
        2 => format!("({} ? {a} : {b})", condition(random, of, depth - 1)),
        3 => format!(
            "dyn({a}.{}(e, e == {b}))",
            one(random, &["map", "filter", "exists"])
        ),
        4 => format!(
            "dyn(string({a}).{}('[a-z', 1))",
            one(random, &["split", "indexOf"])
        ),
        5 => format!("dyn(string({a}).replace(string({b}), 'x'))"),
        6 => format!("dyn('%d %s'.format([{a}, {b}]))"),
        _ => format!("dyn({a}[?0].orValue({b}))"),
    }
}

/// An expression that is true or false.
pub(crate) fn condition(random: &mut StdRng, of: &[&str], depth: usize) -> String {
    let a = expression(random, of, depth);
    let b = expression(random, of, depth.saturating_sub(1));
    match random.random_range(0..5) {
        0 => format!("{a}.all(e, e != {b})"),
        1 => format!("!({a} in [{b}])"),
        2 => format!("string({a}).matches(string({b}))"),
        3 => format!("{a} {} {b}", one(random, &["<", ">=", "in", "&&", "||"])),
        _ => format!("{a} != {b}"),
    }
}

/// An expression that is a text.
pub(crate) fn message(random: &mut StdRng, of: &[&str]) -> String {
    format!("string({})", expression(random, of, 2))
}

/// A structural schema, mostly.
pub(crate) fn openapi(random: &mut StdRng, depth: usize) -> Value {
    let kinds = [
        "object", "object", "array", "string", "integer", "number", "boolean", "",
    ];
    let kind = if depth == 0 {
        "object"
    } else {
        one(random, &kinds)
    };
    let mut schema = json!({"type": kind});
    if kind == "object" && depth < 3 {
        if random.random_bool(0.8) {
            let mut properties = Map::new();
            for name in ["a", "b", "spec", "status"] {
                if random.random_bool(0.7) {
                    properties.insert(name.to_owned(), openapi(random, depth + 1));
                }
            }
            schema["properties"] = properties.into();
        } else {
            schema["additionalProperties"] = openapi(random, depth + 1);
        }
    }
    if kind == "array" && random.random_bool(0.9) {
        schema["items"] = openapi(random, depth + 1);
    }
    if kind.is_empty() {
        schema = json!({"x-kubernetes-int-or-string": true});
    }
    if random.random_bool(0.4) {
        let (field, value) = keyword(random, kind);
        schema[field] = value;
    }
    schema
}

/// A keyword; some fit only schemas of other types, and some values are wrong.
fn keyword(random: &mut StdRng, kind: &str) -> (&'static str, Value) {
    match (kind, random.random_range(0..8)) {
        ("string", 0) => {
            let patterns = ["^a+$", "(a|b)*", "(", "\\p{L}", "(?=a)", "a{900}{900}"];
            ("pattern", one(random, &patterns).into())
        }
        ("string", 1) => {
            let formats = ["date-time", "byte", "int32", "ipv4", "uuid", "none"];
            ("format", one(random, &formats).into())
        }
        ("string", 2) => ("maxLength", number(random).into()),
        ("string", 3) => ("default", text(random).into()),
        ("integer" | "number", 0) => ("minimum", number(random).into()),
        ("integer" | "number", 1) => ("multipleOf", json!(random.random_range(-1..4))),
        ("integer" | "number", 2) => ("default", number(random).into()),
        ("array", 0) => ("maxItems", number(random).into()),
        ("array", 1) => {
            let lists = ["set", "map", "atomic", "x"];
            ("x-kubernetes-list-type", one(random, &lists).into())
        }
        ("object", 0) => ("required", json!(["a"])),
        ("object", 1) => ("x-kubernetes-preserve-unknown-fields", json!(true)),
        ("object", 2) => ("anyOf", json!([{"required": ["a"]}, {"required": ["b"]}])),
        ("object", 3) => ("not", json!({"required": ["status"]})),
        (_, 4) => ("nullable", json!(true)),
        (_, 5) if random.random_bool(0.1) => ("default", odd(random)),
        (_, 5) => ("enum", json!([odd(random), odd(random)])),
        _ => {
            let mut rule = json!({"rule": condition(random, IN_RULES, 2)});
            if random.random_bool(0.5) {
                rule["messageExpression"] = message(random, IN_RULES).into();
            }
            ("x-kubernetes-validations", json!([rule]))
        }
    }
}
