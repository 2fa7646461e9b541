//! Expressions of a schema must compile, and must not cost too much on the greatest object.

use cel::{STATIC_ESTIMATED_COST_LIMIT as RULE_MAX, STATIC_ESTIMATED_CRD_COST_LIMIT as TOTAL_MAX};
use meta::{FaultKind, Faults};
use serde_json::Value;

use super::{list, structure, text};
use crate::rules::{Compiled, compile, declaration, has_rules};

/// How many rules are named when all together cost too much.
const NAMED_MAX: usize = 4;

/// Faults of the rules of a schema that is sound otherwise. In one that has been accepted before,
/// a single rule may cost what it costs.
pub(super) fn validate(schema: &Value, path: &str, is_known: bool, faults: &mut Faults) {
    if !has_rules(schema) {
        return;
    }
    let mut check = Check {
        faults,
        is_known,
        total: 0,
        dear: Vec::new(),
    };
    let place = Place {
        path: path.to_owned(),
        times: Some(1),
        no_old: None,
        is_root: true,
    };
    check.walk(schema, &place);
    if check.total <= TOTAL_MAX {
        return;
    }
    let (total, mut dear) = (check.total, check.dear);
    dear.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
    for (at, _) in dear.into_iter().take(NAMED_MAX) {
        let rule = "contributed to estimated rule cost total exceeding cost limit for entire \
                    OpenAPIv3 schema";
        faults.forbidden(at, rule);
    }
    let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
    faults.forbidden(path, too_dear(what, total, TOTAL_MAX));
}

fn too_dear(what: &str, cost: u64, most: u64) -> String {
    let factor = cost as f64 / most as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding \
         maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// Where a node stands.
struct Place {
    path: String,
    /// How many values there may be; `None` when nothing limits them.
    times: Option<u64>,
    /// The part of the schema within which old and new values cannot be told apart.
    no_old: Option<String>,
    is_root: bool,
}

impl Place {
    fn below(&self, step: &str, factor: Option<u64>) -> Place {
        let times = self.times.zip(factor);
        Place {
            path: format!("{}{step}", self.path),
            times: times.map(|(times, factor)| times.saturating_mul(factor)),
            no_old: self.no_old.clone(),
            is_root: false,
        }
    }

    /// From here on nothing is known of what was before.
    fn forget(mut self, path: &str) -> Place {
        self.no_old.get_or_insert_with(|| path.to_owned());
        self
    }
}

struct Check<'a> {
    faults: &'a mut Faults,
    is_known: bool,
    total: u64,
    dear: Vec<(String, u64)>,
}

impl Check<'_> {
    fn walk(&mut self, schema: &Value, place: &Place) {
        if !has_rules(schema) {
            return;
        }
        let limit = |field: &str| schema.get(field).and_then(Value::as_u64);
        let rules = list(schema, "/x-kubernetes-validations");
        let decl = (!rules.is_empty())
            .then(|| declaration(schema, place.is_root))
            .flatten();
        if let Some(decl) = decl {
            let times = place.times.unwrap_or_else(|| decl.max_cardinality());
            for (at, rule) in rules.iter().enumerate() {
                let path = format!("{}.x-kubernetes-validations[{at}]", place.path);
                self.rule(rule, &compile(rule, &decl), times, place, &path);
            }
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, below) in properties.into_iter().flatten() {
            let mut inner = place.below(&format!(".properties[{name}]"), Some(1));
            if text(schema, "/x-kubernetes-map-type") == "atomic" {
                inner = inner.forget(&place.path);
            }
            self.walk(below, &inner);
        }
        if let Some(below) = schema.get("additionalProperties") {
            let inner = place.below(".additionalProperties", limit("maxProperties"));
            self.walk(below, &inner);
        }
        if let Some(below) = schema.get("items") {
            let mut inner = place.below(".items", limit("maxItems"));
            if text(schema, "/x-kubernetes-list-type") != "map" {
                inner = inner.forget(&place.path);
            }
            self.walk(below, &inner);
        }
    }

    fn rule(&mut self, rule: &Value, compiled: &Compiled, times: u64, place: &Place, path: &str) {
        let at = format!("{path}.rule");
        match &compiled.program {
            Err(why) => {
                let faults = &mut *self.faults;
                faults.add_shown(at.as_str(), FaultKind::Invalid, shown(rule), why.as_str());
            }
            Ok(program) => {
                let cost = program.estimated_cost().saturating_mul(times);
                if cost > RULE_MAX && !self.is_known {
                    let text = too_dear("estimated rule cost", cost, RULE_MAX);
                    self.faults.forbidden(at.as_str(), text);
                }
                self.count(&at, cost);
            }
        }
        let at_message = format!("{path}.messageExpression");
        match &compiled.message {
            None => {}
            Some(Err(why)) => {
                let faults = &mut *self.faults;
                faults.add_shown(at_message, FaultKind::Invalid, shown(rule), why.as_str());
            }
            Some(Ok(program)) => {
                let cost = program.estimated_cost();
                if cost > RULE_MAX && !self.is_known {
                    let text = too_dear("estimated messageExpression cost", cost, RULE_MAX);
                    self.faults.forbidden(at_message.as_str(), text);
                }
                self.count(&at_message, cost);
            }
        }
        match (
            compiled.uses_old,
            &place.no_old,
            rule.get("optionalOldSelf"),
        ) {
            (true, Some(within), _) => {
                let text = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within \
                     {within}"
                );
                self.faults.invalid(at, super::text(rule, "/rule"), text);
            }
            (false, _, Some(optional)) => {
                let text = "may not be set if oldSelf is not used in rule";
                let at = format!("{path}.optionalOldSelf");
                self.faults.invalid(at, optional.clone(), text);
            }
            _ => {}
        }
    }

    fn count(&mut self, at: &str, cost: u64) {
        self.total = self.total.saturating_add(cost);
        if cost >= TOTAL_MAX / 100 {
            self.dear.push((at.to_owned(), cost));
        }
    }
}

/// A rule as upstream shows it in faults.
fn shown(rule: &Value) -> String {
    let own = |field: &str| rule.get(field).cloned();
    let word = |field: &str| own(field).unwrap_or_else(|| "".into());
    structure(&[
        ("Rule", word("rule")),
        ("Message", word("message")),
        ("MessageExpression", word("messageExpression")),
        ("Reason", own("reason").unwrap_or_default()),
        ("FieldPath", word("fieldPath")),
        (
            "OptionalOldSelf",
            own("optionalOldSelf").unwrap_or_default(),
        ),
    ])
}
