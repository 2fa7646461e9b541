//! What a schema asks of values, with upstream's words. A change may leave alone what was wrong
//! before: faults of parts that did not change count for nothing.

mod values;

use meta::{Fault, FaultKind, Faults};
use serde_json::{Map, Value, json};

use crate::path::Path;
use crate::structural::{Additional, Structural};

/// What upstream calls the place that values come from.
const IN: &str = "in body";

/// Faults of a new object, or of a changed one where `old` is given. `at` is where the object
/// stands in a greater one, such as `status`.
pub(crate) fn validate(
    schema: &Structural,
    object: &Value,
    old: Option<&Value>,
    at: &str,
    faults: &mut Faults,
) {
    let checker = Checker { at };
    let outcome = checker.node(schema, object, &Path::Root, old);
    faults.0.extend(outcome.faults);
}

/// What came of checking one value.
#[derive(Default)]
struct Outcome {
    faults: Vec<Fault>,
    /// How many rules were looked at: of several alternatives, the one that fits best is told of.
    matches: usize,
}

impl Outcome {
    fn merge(&mut self, other: Outcome) {
        self.faults.extend(other.faults);
        self.matches += other.matches;
    }

    fn is_valid(&self) -> bool {
        self.faults.is_empty()
    }
}

struct Checker<'a> {
    at: &'a str,
}

impl Checker<'_> {
    /// The name of a field in faults.
    fn name(&self, path: &Path<'_>) -> String {
        match (self.at, path) {
            ("", path) => path.or_nil(),
            (at, Path::Root) => at.to_owned(),
            (at, path) => format!("{at}.{path}"),
        }
    }

    fn fault(
        &self,
        path: &Path<'_>,
        kind: FaultKind,
        value: Value,
        detail: impl Into<String>,
    ) -> Fault {
        Fault {
            field: self.name(path),
            kind,
            value,
            shown: None,
            detail: detail.into(),
        }
    }

    /// A fault that names no field of its own.
    fn loose(&self, detail: String) -> Fault {
        self.fault(&Path::Root, FaultKind::Invalid, "".into(), detail)
    }

    /// One value, with the one that stood in its place.
    fn node(
        &self,
        schema: &Structural,
        value: &Value,
        path: &Path<'_>,
        old: Option<&Value>,
    ) -> Outcome {
        let mut outcome = self.whole(schema, value, path, old);
        if !outcome.is_valid() && old == Some(value) {
            outcome.faults.clear();
        }
        outcome
    }

    fn whole(
        &self,
        schema: &Structural,
        value: &Value,
        path: &Path<'_>,
        old: Option<&Value>,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        values::kind(self, schema, value, path, &mut outcome);
        if !value.is_null() {
            self.junctions(schema, value, path, old, &mut outcome);
        }
        match value {
            Value::String(text) => values::text(self, schema, text, path, &mut outcome),
            Value::Number(number) => values::number(self, schema, number, path, &mut outcome),
            Value::Array(items) => self.items(schema, items, path, old, &mut outcome),
            _ => {}
        }
        values::enumeration(self, schema, value, path, &mut outcome);
        if let Value::Object(map) = value {
            self.fields(schema, map, path, old, &mut outcome);
        }
        outcome.matches += 1;
        outcome
    }

    /// `allOf`, `anyOf`, `oneOf` and `not`.
    fn junctions(
        &self,
        schema: &Structural,
        value: &Value,
        path: &Path<'_>,
        old: Option<&Value>,
        outcome: &mut Outcome,
    ) {
        let checks = &schema.checks;
        let here = path.to_string();
        // A branch is not excused as a whole: it speaks of the same value.
        let branch = |below: &Structural| self.whole(below, value, path, old);
        if !checks.any_of.is_empty() {
            self.any_of(&checks.any_of, &branch, &here, outcome);
        }
        if !checks.one_of.is_empty() {
            self.one_of(&checks.one_of, &branch, &here, outcome);
        }
        if !checks.all_of.is_empty() {
            let mut valid = 0;
            for below in &checks.all_of {
                let result = branch(below);
                valid += usize::from(result.is_valid());
                outcome.merge(result);
            }
            if valid != checks.all_of.len() {
                let more = if valid == 0 { ". None validated" } else { "" };
                let text = format!("{here:?} must validate all the schemas (allOf){more}");
                outcome.faults.push(self.loose(text));
            }
        }
        if checks
            .not
            .as_ref()
            .is_some_and(|below| branch(below).is_valid())
        {
            let text = format!("{here:?} must not validate the schema (not)");
            outcome.faults.push(self.loose(text));
        }
        outcome.matches += 1;
    }

    fn any_of(
        &self,
        branches: &[Structural],
        branch: &dyn Fn(&Structural) -> Outcome,
        here: &str,
        outcome: &mut Outcome,
    ) {
        let mut best: Option<Outcome> = None;
        for below in branches {
            let result = branch(below);
            if result.is_valid() {
                return outcome.merge(result);
            }
            if best
                .as_ref()
                .is_none_or(|best| result.matches > best.matches)
            {
                best = Some(result);
            }
        }
        let text = format!("{here:?} must validate at least one schema (anyOf)");
        outcome.faults.push(self.loose(text));
        best.into_iter().for_each(|best| outcome.merge(best));
    }

    fn one_of(
        &self,
        branches: &[Structural],
        branch: &dyn Fn(&Structural) -> Outcome,
        here: &str,
        outcome: &mut Outcome,
    ) {
        let (mut valid, mut best): (Vec<Outcome>, Option<Outcome>) = (Vec::new(), None);
        for below in branches {
            let result = branch(below);
            if result.is_valid() {
                valid.push(result);
            } else if valid.is_empty()
                && best
                    .as_ref()
                    .is_none_or(|best| result.matches > best.matches)
            {
                best = Some(result);
            }
        }
        let found = match valid.len() {
            1 => return valid.into_iter().for_each(|one| outcome.merge(one)),
            0 => "Found none valid".to_owned(),
            more => format!("Found {more} valid alternatives"),
        };
        let text = format!("{here:?} must validate one and only one schema (oneOf). {found}");
        outcome.faults.push(self.loose(text));
        if valid.is_empty() {
            best.into_iter().for_each(|best| outcome.merge(best));
        }
    }

    fn items(
        &self,
        schema: &Structural,
        items: &[Value],
        path: &Path<'_>,
        old: Option<&Value>,
        outcome: &mut Outcome,
    ) {
        if let Some(below) = schema.items.as_deref() {
            for (at, item) in items.iter().enumerate() {
                let old = old.and_then(|old| counterpart(schema, item, old));
                outcome.merge(self.node(below, item, &path.index(at), old));
            }
        }
        let count = items.len() as u64;
        if let Some(least) = schema.checks.min_items.filter(|least| count < *least) {
            let text = format!("{path} {IN} should have at least {least} items");
            let fault = self.fault(path, FaultKind::Invalid, count.into(), text);
            outcome.faults.push(fault);
        }
        if let Some(most) = schema.checks.max_items.filter(|most| count as i64 > *most) {
            outcome.faults.push(self.too_many(path, count, most));
        }
        outcome.matches += 1;
    }

    fn too_many(&self, path: &Path<'_>, count: u64, most: i64) -> Fault {
        let items = if most == 1 { "item" } else { "items" };
        let text = format!("must have at most {most} {items}");
        self.fault(path, FaultKind::TooMany, count.into(), text)
    }

    fn fields(
        &self,
        schema: &Structural,
        map: &Map<String, Value>,
        path: &Path<'_>,
        old: Option<&Value>,
        outcome: &mut Outcome,
    ) {
        let count = map.len() as u64;
        if let Some(least) = schema.checks.min_properties.filter(|least| count < *least) {
            let text = format!("{path} {IN} should have at least {least} properties");
            let fault = self.fault(path, FaultKind::Invalid, count.into(), text);
            outcome.faults.push(fault);
        }
        if let Some(most) = schema
            .checks
            .max_properties
            .filter(|most| count as i64 > *most)
        {
            outcome.faults.push(self.too_many(path, count, most));
        }
        for (name, value) in map {
            let at = path.field(name);
            let old = old.and_then(|old| old.get(name));
            // The API version is the same in both, whatever the writer used.
            let is_type = matches!((path, name.as_str()), (Path::Root, "kind" | "apiVersion"));
            let old = old.filter(|_| !is_type);
            match (schema.properties.get(name), &schema.additional) {
                (Some(below), _) => outcome.merge(self.node(below, value, &at, old)),
                (None, Some(Additional::Schema(below))) => {
                    outcome.merge(self.node(below, value, &at, old));
                }
                (None, Some(Additional::Allows(false))) => {
                    let text = format!("{path}.{name} {IN} is a forbidden property");
                    let fault = self.fault(path, FaultKind::Invalid, json!(name), text);
                    outcome.faults.push(fault);
                }
                (None, _) => {}
            }
        }
        for name in &schema.required {
            if !map.contains_key(name) {
                let fault = self.fault(&path.field(name), FaultKind::Required, Value::Null, "");
                outcome.faults.push(fault);
            }
        }
        outcome.matches += 1;
    }
}

/// The old item that a new one stands for: only items of maps have any.
pub(crate) fn counterpart<'a>(
    schema: &Structural,
    item: &Value,
    old: &'a Value,
) -> Option<&'a Value> {
    if schema.list_type != "map" {
        return None;
    }
    let below = schema.items.as_deref();
    let default = |name: &str| below?.properties.get(name)?.default.clone();
    let key = |item: &Value, name: &str| item.get(name).cloned().or_else(|| default(name));
    let same = |old: &&Value| {
        let mut keys = schema.list_keys.iter();
        keys.all(|name| {
            let own = key(item, name);
            own.is_some() && own == key(old, name)
        })
    };
    old.as_array()?.iter().find(same)
}

#[cfg(test)]
mod tests;
