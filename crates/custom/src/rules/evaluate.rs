//! Asking the rules of an object.

use std::sync::Arc;

use cel::{Bindings, Budget, EvalError, Program, Value as Cel};
use meta::{Fault, FaultKind, Faults};
use serde_json::Value;

use super::{Rule, Rules};
use crate::path::Path;

/// Greatest length of what a `messageExpression` says, in bytes.
const MESSAGE_BYTES_MAX: usize = 5 << 10;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// The rules' faults on one object; they share one budget.
pub(crate) struct Run<'a> {
    faults: &'a mut Faults,
    budget: Budget,
    /// Nothing more is asked.
    ended: bool,
}

/// What stood in the place of a value before, as far as that can be told.
#[derive(Clone, Copy)]
enum Before<'a> {
    /// There is no old object.
    Nothing,
    /// This did.
    Here(&'a Value),
    /// It cannot be told; the nearest value around of which it can, new and old.
    Around(&'a Value, &'a Value),
}

impl<'a> Before<'a> {
    /// Whether a value, or what is around it, is as it was: what was wrong before may stay.
    fn is_same(self, value: &Value) -> bool {
        match self {
            Before::Nothing => false,
            Before::Here(old) => old == value,
            Before::Around(value, old) => value == old,
        }
    }

    fn below(self, value: &'a Value, old: Option<&'a Value>) -> Before<'a> {
        match (self, old) {
            (Before::Here(_), Some(old)) => Before::Here(old),
            (Before::Here(around), None) => Before::Around(value, around),
            (before, _) => before,
        }
    }
}

impl<'a> Run<'a> {
    /// Asks all rules of a new object, or of a changed one.
    pub(crate) fn all(rules: &Rules, object: &Value, old: Option<&Value>, faults: &'a mut Faults) {
        let mut run = Run {
            faults,
            budget: Budget::new(),
            ended: false,
        };
        let before = old.map_or(Before::Nothing, Before::Here);
        run.node(rules, object, old, before, &Path::Root);
    }

    /// The same, but what does not hold is never excused because it did not hold before.
    pub(crate) fn strictly(
        rules: &Rules,
        object: &Value,
        old: Option<&Value>,
        faults: &'a mut Faults,
    ) {
        let mut run = Run {
            faults,
            budget: Budget::new(),
            ended: false,
        };
        run.node(rules, object, old, Before::Nothing, &Path::Root);
    }

    fn node(
        &mut self,
        rules: &Rules,
        value: &Value,
        old: Option<&Value>,
        before: Before<'_>,
        path: &Path<'_>,
    ) {
        if value.is_null() {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        for rule in &rules.own {
            if self.ended {
                return;
            }
            self.rule(rules, rule, value, old, before, path);
        }
        match value {
            Value::Object(map) => {
                for (name, below) in map {
                    let old_below = old.and_then(|old| old.get(name));
                    let known = rules.correlates.then_some(old_below).flatten();
                    let is_type =
                        matches!(path, Path::Root) && matches!(&**name, "apiVersion" | "kind");
                    let before = match is_type {
                        true => Before::Nothing,
                        false => before.below(value, old_below),
                    };
                    if let Some(rules) = rules.values.as_deref() {
                        self.node(rules, below, known, before, &path.key(name));
                    }
                    if let Some(rules) = rules.properties.get(name) {
                        self.node(rules, below, known, before, &path.field(name));
                    }
                }
            }
            Value::Array(items) => {
                let Some(below) = rules.items.as_deref() else {
                    return;
                };
                for (at, item) in items.iter().enumerate() {
                    let known = old.and_then(|old| counterpart(rules, item, old));
                    let before = before.below(value, known);
                    self.node(below, item, known, before, &path.index(at));
                }
            }
            _ => {}
        }
    }

    fn rule(
        &mut self,
        rules: &Rules,
        rule: &Rule,
        value: &Value,
        old: Option<&Value>,
        before: Before<'_>,
        path: &Path<'_>,
    ) {
        let program = match &rule.compiled.program {
            Ok(program) => program,
            Err(why) => return self.broken(rules, path, format!("rule compile error: {why}")),
        };
        if rule.compiled.uses_old && old.is_none() && !rule.optional_old {
            return;
        }
        let known = old.map(|old| Cel::typed(old, &rules.decl));
        let own = Bindings::new().bind("self", Cel::typed(value, &rules.decl));
        let variables = match (rule.optional_old, known) {
            (true, known) => own.bind("oldSelf", Cel::Optional(known.map(Arc::new))),
            (false, Some(known)) => own.bind("oldSelf", known),
            (false, None) => own,
        };
        match program.evaluate(&variables, &mut self.budget) {
            Ok(verdict) if verdict.as_bool() == Some(true) => {}
            Ok(_) => {
                let detail = match self.message(rules, rule, &variables, path) {
                    Some(detail) => detail,
                    None => return,
                };
                // A rule about the change itself is never excused.
                if rule.compiled.uses_old || !before.is_same(value) {
                    self.refuse(rules, rule, value, path, detail);
                }
            }
            Err(EvalError::Budget) => self.end(rules, path, OUT_OF_BUDGET.into()),
            Err(error @ EvalError::CallLimit) => {
                let name = rule.name();
                let text = format!(
                    "'{error}': no further validation rules will be run due to call cost exceeds \
                     limit for rule: {name}"
                );
                self.end(rules, path, text);
            }
            Err(error) => {
                let (error, name) = (error.to_string(), rule.name());
                let text = match error.starts_with("no such overload") {
                    true => format!(
                        "'{error}': call arguments did not match a supported operator, function \
                         or macro signature for rule: {name}"
                    ),
                    false => format!("{error} evaluating rule: {name}"),
                };
                self.broken(rules, path, text);
            }
        }
    }

    /// What is said of a rule that does not hold; `None` when saying it costs too much.
    fn message<'v>(
        &mut self,
        rules: &Rules,
        rule: &Rule,
        variables: &Bindings<'v>,
        path: &Path<'_>,
    ) -> Option<String> {
        let Some(Ok(program)) = &rule.compiled.message else {
            return Some(rule.verdict());
        };
        match self.speak(program, variables) {
            Ok(text) => {
                let text = text.trim();
                let sound = !text.is_empty()
                    && text.len() <= MESSAGE_BYTES_MAX
                    && !text.contains(['\n', '\r']);
                Some(if sound {
                    text.to_owned()
                } else {
                    rule.verdict()
                })
            }
            Err(EvalError::Fault(_)) => Some(rule.verdict()),
            Err(EvalError::Budget) => {
                let text = "messageExpression evaluation failed due to running out of cost \
                            budget, no further validation rules will be run";
                self.end(rules, path, text.into());
                None
            }
            Err(EvalError::CallLimit) => {
                let text = "no further validation rules will be run due to call cost exceeds \
                            limit for messageExpression";
                self.end(rules, path, text.into());
                None
            }
        }
    }

    fn speak<'v>(
        &mut self,
        program: &Program,
        variables: &Bindings<'v>,
    ) -> Result<String, EvalError> {
        let text = program.evaluate(variables, &mut self.budget)?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    fn end(&mut self, rules: &Rules, path: &Path<'_>, text: String) {
        self.broken(rules, path, text);
        self.ended = true;
    }

    /// A rule that cannot be asked.
    fn broken(&mut self, rules: &Rules, path: &Path<'_>, text: String) {
        self.faults
            .invalid(path.or_nil(), rules.kind.as_str(), text);
    }

    fn refuse(
        &mut self,
        rules: &Rules,
        rule: &Rule,
        value: &Value,
        path: &Path<'_>,
        detail: String,
    ) {
        let field = match (rule.field.as_str(), path) {
            ("", path) => path.or_nil(),
            (field, Path::Root) => field.to_owned(),
            (field, path) if field.starts_with('[') => format!("{path}{field}"),
            (field, path) => format!("{path}.{field}"),
        };
        // Whole objects and lists are not repeated.
        let shown = !matches!(rules.kind.as_str(), "object" | "array");
        let (kind, detail) = match rule.reason.as_str() {
            "FieldValueForbidden" => (FaultKind::Forbidden, detail),
            "FieldValueRequired" => (FaultKind::Required, detail),
            "FieldValueDuplicate" => (FaultKind::Duplicate, String::new()),
            _ if shown => (FaultKind::Invalid, detail),
            _ => (FaultKind::InvalidUnshown, detail),
        };
        self.faults.0.push(Fault {
            field,
            kind,
            value: value.clone(),
            shown: None,
            detail,
        });
    }
}

/// The old item that a new one of a map stands for.
fn counterpart<'a>(rules: &Rules, item: &Value, old: &'a Value) -> Option<&'a Value> {
    let keys = rules.list_keys.as_ref()?;
    let same = |old: &&Value| keys.iter().all(|key| item.get(key) == old.get(key));
    old.as_array()?.iter().find(same)
}
