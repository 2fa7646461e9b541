//! `additionalPrinterColumns`.

use jiff::Timestamp;
use kinds::{Cells, Column};
use serde_json::Value;

/// What the built-in kinds say of the same fields.
fn metadata_doc(field: &str) -> String {
    let ty = schema::named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let field = ty.and_then(|ty| ty.field(field));
    field.map(|field| field.doc.to_string()).unwrap_or_default()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or("")
}

/// The columns of one version.
pub(crate) struct Columns(Vec<(Column, Vec<Step>)>);

/// A path such as `.spec.size`, read once.
#[derive(Clone, Debug)]
pub(crate) struct JsonPath(Vec<Step>);

impl JsonPath {
    pub(crate) fn read(path: &str) -> JsonPath {
        JsonPath(steps(path))
    }

    /// The first thing that the path names.
    pub(crate) fn first<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        find(object, &self.0).into_iter().next()
    }
}

/// One step of a path such as `.status.conditions[?(@.type=="Ready")].status`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(usize),
    All,
    Where(String, String),
}

impl Columns {
    /// Those of the definition, or the age.
    pub(crate) fn of(version: &Value) -> Columns {
        let list = version
            .get("additionalPrinterColumns")
            .and_then(Value::as_array);
        let mut columns: Vec<(Column, Vec<Step>)> =
            list.into_iter().flatten().map(column).collect();
        if list.is_none_or(Vec::is_empty) {
            let age = Column {
                name: "Age".into(),
                kind: "date".into(),
                format: String::new(),
                description: metadata_doc("creationTimestamp"),
                priority: 0,
            };
            columns.push((age, steps(".metadata.creationTimestamp")));
        }
        Columns(columns)
    }

    pub(crate) fn definitions(&self) -> Vec<Column> {
        let name = Column {
            name: "Name".into(),
            kind: "string".into(),
            format: "name".into(),
            description: metadata_doc("name"),
            priority: 0,
        };
        let own = self.0.iter().map(|(column, _)| column.clone());
        std::iter::once(name).chain(own).collect()
    }

    pub(crate) fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let mut cells = vec![text(object, "/metadata/name").into()];
        for (column, steps) in &self.0 {
            cells.push(cell(&column.kind, &find(object, steps), now));
        }
        cells
    }
}

fn column(definition: &Value) -> (Column, Vec<Step>) {
    let priority = definition.get("priority").and_then(Value::as_i64);
    let path = text(definition, "/jsonPath");
    let description = match text(definition, "/description") {
        "" => format!("Custom resource definition column (in JSONPath format): {path}"),
        own => own.into(),
    };
    let column = Column {
        name: text(definition, "/name").into(),
        kind: text(definition, "/type").into(),
        format: text(definition, "/format").into(),
        description,
        priority: priority.and_then(|own| own.try_into().ok()).unwrap_or(0),
    };
    (column, steps(path))
}

/// A path finds several things only by accident: the first counts.
fn cell(kind: &str, found: &[&Value], now: Timestamp) -> Value {
    match (kind, found.first()) {
        (_, None) => Value::Null,
        ("string", Some(Value::String(text))) => text.as_str().into(),
        ("string", Some(other)) => other.to_string().into(),
        ("integer", Some(Value::Number(number))) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number
                .as_f64()
                .map_or(Value::Null, |float| (float as i64).into()),
        },
        ("number", Some(number @ Value::Number(_))) => (*number).clone(),
        ("boolean", Some(Value::Bool(set))) => (*set).into(),
        ("date", Some(Value::String(at))) => meta::time::age(at, now).into(),
        _ => Value::Null,
    }
}

/// Reads a path; what is not understood finds nothing.
fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path.trim_start_matches('$');
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let Some((inside, after)) = inner.split_once(']') else {
                break;
            };
            steps.push(bracket(inside));
            rest = after;
            continue;
        }
        rest = rest.trim_start_matches('.');
        let mut name = String::new();
        let mut signs = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, sign)) = signs.next() {
            match sign {
                '.' | '[' => {
                    end = at;
                    break;
                }
                '\\' => name.extend(signs.next().map(|(_, sign)| sign)),
                sign => name.push(sign),
            }
        }
        if name.is_empty() {
            break;
        }
        steps.push(Step::Field(name));
        rest = &rest[end..];
    }
    steps
}

fn bracket(inside: &str) -> Step {
    if inside == "*" {
        return Step::All;
    }
    if let Ok(index) = inside.parse() {
        return Step::Index(index);
    }
    let condition = inside
        .strip_prefix("?(@.")
        .and_then(|rest| rest.strip_suffix(')'));
    match condition.and_then(|condition| condition.split_once("==")) {
        Some((field, value)) => {
            let value = value.trim().trim_matches(['"', '\'']);
            Step::Where(field.trim().to_owned(), value.to_owned())
        }
        None => Step::Field(inside.trim_matches(['"', '\'']).to_owned()),
    }
}

fn find<'a>(object: &'a Value, steps: &[Step]) -> Vec<&'a Value> {
    let mut here = vec![object];
    for step in steps {
        here = here
            .into_iter()
            .flat_map(|value| take(value, step))
            .collect();
    }
    here.retain(|value| !value.is_null());
    here
}

fn take<'a>(value: &'a Value, step: &Step) -> Vec<&'a Value> {
    let items = || value.as_array().into_iter().flatten();
    match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Index(index) => value.get(index).into_iter().collect(),
        Step::All => items().collect(),
        Step::Where(field, wanted) => items()
            .filter(|item| item.get(field).is_some_and(|own| own == wanted))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_what_they_name() {
        let object = json!({"spec": {"size": 3, "a.b": "x"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other"}]}});
        let check = |path: &str, expect: &[Value]| {
            let found: Vec<Value> = find(&object, &steps(path)).into_iter().cloned().collect();
            assert_eq!(found, expect, "{path}");
        };
        check(".spec.size", &[json!(3)]);
        check(".spec['a.b']", &[json!("x")]);
        check(".spec.a\\.b", &[json!("x")]);
        check(
            r#".status.conditions[?(@.type=="Ready")].status"#,
            &[json!("True")],
        );
        check(".status.conditions[1].type", &[json!("Other")]);
        check(
            ".status.conditions[*].type",
            &[json!("Ready"), json!("Other")],
        );
        check(".nothing[0].here", &[]);
    }
}
