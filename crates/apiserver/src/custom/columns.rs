//! `additionalPrinterColumns`.

use jiff::Timestamp;
use kinds::{Cells, Column};
use serde_json::Value;

use crate::verbs::write::text;

/// The columns of one version.
pub(super) struct Columns(Vec<(Column, Vec<Step>)>);

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
    pub(super) fn of(version: &Value) -> Columns {
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
                description: "Time since the object was created.".into(),
                priority: 0,
            };
            columns.push((age, steps(".metadata.creationTimestamp")));
        }
        Columns(columns)
    }

    pub(super) fn definitions(&self) -> Vec<Column> {
        let name = Column {
            name: "Name".into(),
            kind: "string".into(),
            format: "name".into(),
            description: "The name, unique among objects of its kind and namespace.".into(),
            priority: 0,
        };
        let own = self.0.iter().map(|(column, _)| column.clone());
        std::iter::once(name).chain(own).collect()
    }

    pub(super) fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        let mut cells = vec![text(object, "/metadata/name").into()];
        for (column, steps) in &self.0 {
            cells.push(cell(&column.kind, &find(object, steps), now));
        }
        cells
    }
}

fn column(definition: &Value) -> (Column, Vec<Step>) {
    let priority = definition
        .get("priority")
        .and_then(Value::as_i64)
        .unwrap_or(0);
    let column = Column {
        name: text(definition, "/name").into(),
        kind: text(definition, "/type").into(),
        format: text(definition, "/format").into(),
        description: text(definition, "/description").into(),
        priority: i32::try_from(priority).unwrap_or(0),
    };
    (column, steps(text(definition, "/jsonPath")))
}

fn cell(kind: &str, found: &[&Value], now: Timestamp) -> Value {
    let Some(first) = found.first() else {
        return Value::Null;
    };
    match (kind, first) {
        ("date", Value::String(at)) => meta::time::age(at, now).into(),
        ("string", Value::String(text)) if found.len() == 1 => text.as_str().into(),
        ("string", _) => {
            let plain = |value: &&Value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            found.iter().map(plain).collect::<Vec<_>>().join(",").into()
        }
        (_, first) => (*first).clone(),
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
