//! `x-kubernetes-validations`: rules of a schema in the expression language.

mod evaluate;

use std::collections::BTreeMap;

use cel::{Decl, Env, Program, Type};
use serde_json::Value;

pub(crate) use evaluate::Run;

/// The rules of a schema and of all that is below it.
#[derive(Debug)]
pub(crate) struct Rules {
    own: Vec<Rule>,
    decl: Decl,
    /// `object`, `string` and so on.
    kind: String,
    /// Whether parts can be told apart in the old and the new object.
    correlates: bool,
    list_keys: Option<Vec<String>>,
    properties: BTreeMap<String, Rules>,
    values: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
}

/// One rule, compiled.
#[derive(Debug)]
pub(crate) struct Rule {
    /// The expression, trimmed.
    source: String,
    message: String,
    reason: String,
    /// Where the fault is, below the value; empty for the value itself.
    field: String,
    optional_old: bool,
    pub(crate) compiled: Compiled,
}

/// What became of the expressions of a rule.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) program: Result<Program, String>,
    pub(crate) message: Option<Result<Program, String>>,
    pub(crate) uses_old: bool,
}

/// Whether any node of a schema has rules.
pub(crate) fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.iter().any(|(name, below)| {
            let rules = name == "x-kubernetes-validations";
            (rules && below.as_array().is_some_and(|list| !list.is_empty())) || has_rules(below)
        }),
        Value::Array(list) => list.iter().any(has_rules),
        _ => false,
    }
}

fn word<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or("")
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    let list = value.get(field).and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default()
}

/// The type that expressions see; whole objects always have their names.
pub(crate) fn declaration(schema: &Value, is_root: bool) -> Option<Decl> {
    let embedded = schema.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true));
    Decl::of_schema(schema, is_root || embedded)
}

/// Compiles the expressions of a rule on values of a type.
pub(crate) fn compile(rule: &Value, decl: &Decl) -> Compiled {
    let optional = rule.get("optionalOldSelf") == Some(&Value::Bool(true));
    let old: Decl = match optional {
        true => Type::optional(decl.ty.clone()).into(),
        false => decl.clone(),
    };
    let env = Env::new()
        .declare("self", decl.clone())
        .declare("oldSelf", old);
    let program = match env.compile(word(rule, "rule")) {
        Ok(program) if program.result_type() == &Type::Bool => Ok(program),
        Ok(_) => Err("cel expression must evaluate to a bool".to_owned()),
        Err(faults) => Err(format!("compilation failed: {faults}")),
    };
    let source = word(rule, "messageExpression");
    let message = (!source.is_empty() && program.is_ok()).then(|| match env.compile(source) {
        Ok(program) if program.result_type() == &Type::String => Ok(program),
        Ok(_) => Err("messageExpression must evaluate to a string".to_owned()),
        Err(faults) => Err(format!("messageExpression compilation failed: {faults}")),
    });
    let uses_old = program.as_ref().is_ok_and(|program| {
        let mut variables = program.variables().iter();
        variables.any(|name| &**name == "oldSelf")
    });
    Compiled {
        program,
        message,
        uses_old,
    }
}

impl Rules {
    /// The rules of a root schema; `None` when there are none.
    pub(crate) fn read(schema: &Value) -> Option<Rules> {
        node(schema, true)
    }

    /// The rules of a part of a schema.
    pub(crate) fn of_part(schema: &Value) -> Option<Rules> {
        node(schema, false)
    }
}

fn node(schema: &Value, is_root: bool) -> Option<Rules> {
    if !has_rules(schema) {
        return None;
    }
    // What has no type has no rules either, and nothing below it has.
    let decl = declaration(schema, is_root)?;
    let own = list(schema, "x-kubernetes-validations").iter();
    let own = own.filter(|rule| !word(rule, "rule").trim().is_empty());
    let properties = schema.get("properties").and_then(Value::as_object);
    let below = |field: &str| {
        let below = schema.get(field).filter(|below| below.is_object());
        below.and_then(|below| node(below, false)).map(Box::new)
    };
    let keys = list(schema, "x-kubernetes-list-map-keys").iter();
    let keys = keys.filter_map(Value::as_str).map(str::to_owned);
    Some(Rules {
        own: own.map(|rule| Rule::new(rule, &decl)).collect(),
        kind: word(schema, "type").to_owned(),
        correlates: word(schema, "x-kubernetes-map-type") != "atomic",
        list_keys: (word(schema, "x-kubernetes-list-type") == "map").then(|| keys.collect()),
        properties: properties
            .into_iter()
            .flatten()
            .filter_map(|(name, below)| Some((name.clone(), node(below, false)?)))
            .collect(),
        values: below("additionalProperties"),
        items: below("items"),
        decl,
    })
}

impl Rule {
    fn new(rule: &Value, decl: &Decl) -> Rule {
        let field = word(rule, "fieldPath").trim().trim_start_matches('.');
        Rule {
            source: word(rule, "rule").trim().to_owned(),
            message: word(rule, "message").trim().to_owned(),
            reason: word(rule, "reason").to_owned(),
            field: field.replace("['", "[").replace("']", "]"),
            optional_old: rule.get("optionalOldSelf") == Some(&Value::Bool(true)),
            compiled: compile(rule, decl),
        }
    }

    /// What names the rule in messages about it.
    fn name(&self) -> &str {
        match self.message.as_str() {
            "" => &self.source,
            message => message,
        }
    }

    /// What is said when the rule does not hold.
    fn verdict(&self) -> String {
        match self.message.as_str() {
            "" => format!("failed rule: {}", self.source),
            message => message.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
