//! Validation's view of a tree: a value together with its path, and the checks
//! that many kinds share.

use std::ops::Deref;

use meta::{FaultKind, Faults, Quantity};
use serde_json::Value;

use crate::metadata::IMMUTABLE;
use crate::path::Path;
use crate::table::plain;
use crate::tree::Tree;

/// What upstream says of numbers below zero.
pub(crate) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// A value and where it stands, such as `spec.containers[0]`. Reads like the value itself.
#[derive(Clone)]
pub(crate) struct Spot<'tree> {
    pub value: &'tree Value,
    pub path: Path,
}

impl Deref for Spot<'_> {
    type Target = Value;

    fn deref(&self) -> &Value {
        self.value
    }
}

impl<'tree> Spot<'tree> {
    /// The place `path` of an object.
    pub(crate) fn new(object: &'tree Value, path: &str) -> Spot<'tree> {
        Spot {
            value: object.at(path),
            path: path.into(),
        }
    }

    /// The path of a field of this value.
    pub(crate) fn path(&self, field: &str) -> Path {
        self.path.field(field)
    }

    /// The path of a map's entry, such as `limits[cpu]`.
    pub(crate) fn entry_path(&self, key: &str) -> Path {
        self.path.entry(key)
    }

    /// A field, which may be null.
    pub(crate) fn child(&self, field: &str) -> Spot<'tree> {
        Spot {
            value: self.value.at(field),
            path: self.path(field),
        }
    }

    /// A field that is there.
    pub(crate) fn some(&self, field: &str) -> Option<Spot<'tree>> {
        let value = self.value.at(field);
        (!value.is_null()).then(|| Spot {
            value,
            path: self.path(field),
        })
    }

    /// The items of a list.
    pub(crate) fn items(&self, field: &str) -> impl Iterator<Item = Spot<'tree>> + use<'tree> {
        let list = self.value.list(field);
        // Most lists are absent.
        let path = match list.is_empty() {
            true => Path::from(""),
            false => self.path(field),
        };
        let items = list.iter().enumerate();
        items.map(move |(index, value)| Spot {
            value,
            path: path.item(index),
        })
    }
}

/// One fault for each broken rule.
pub(crate) fn rules(
    faults: &mut Faults,
    path: impl Into<String>,
    value: impl Into<Value>,
    broken: Vec<String>,
) {
    if broken.is_empty() {
        return;
    }
    let (path, value) = (path.into(), value.into());
    for rule in broken {
        faults.invalid(path.clone(), value.clone(), rule);
    }
}

/// The text must be there and satisfy a rule.
pub(crate) fn named(
    spot: &Spot<'_>,
    field: &str,
    rule: fn(&str) -> Vec<String>,
    faults: &mut Faults,
) {
    match spot.text(field) {
        "" => faults.required(spot.path(field), ""),
        text => {
            let broken = rule(text);
            if !broken.is_empty() {
                rules(faults, spot.path(field), text, broken);
            }
        }
    }
}

/// The text, when there is one, must satisfy a rule.
pub(crate) fn maybe_named(
    spot: &Spot<'_>,
    field: &str,
    rule: fn(&str) -> Vec<String>,
    faults: &mut Faults,
) {
    if !spot.text(field).is_empty() {
        named(spot, field, rule, faults);
    }
}

/// The text, when it is there and even when empty, must satisfy a rule.
pub(crate) fn present_named(
    spot: &Spot<'_>,
    field: &str,
    rule: fn(&str) -> Vec<String>,
    faults: &mut Faults,
) {
    if spot.has(field) {
        let text = spot.text(field);
        rules(faults, spot.path(field), text, rule(text));
    }
}

/// The text must be there.
pub(crate) fn required(spot: &Spot<'_>, field: &str, faults: &mut Faults) {
    if spot.text(field).is_empty() {
        faults.required(spot.path(field), "");
    }
}

/// The text must be one of a few; when empty it is asked for.
pub(crate) fn one_of(spot: &Spot<'_>, field: &str, words: &[&str], faults: &mut Faults) {
    match spot.text(field) {
        "" => faults.required(spot.path(field), ""),
        _ => maybe_one_of(spot, field, words, faults),
    }
}

/// The value, when there is one, must be one of a few words.
pub(crate) fn maybe_one_of(spot: &Spot<'_>, field: &str, words: &[&str], faults: &mut Faults) {
    let value = spot.at(field);
    if !value.is_null() && !words.contains(&value.as_str().unwrap_or("")) {
        unsupported(faults, spot.path(field), value.clone(), words);
    }
}

/// The same of a field that may be empty where it is given.
pub(crate) fn one_given(spot: &Spot<'_>, field: &str, words: &[&str], faults: &mut Faults) {
    match spot.has(field) {
        true => maybe_one_of(spot, field, words, faults),
        false => faults.required(spot.path(field), ""),
    }
}

/// The value is none of `words`; upstream's order of them is part of its message.
pub(crate) fn unsupported(
    faults: &mut Faults,
    path: impl Into<String>,
    value: impl Into<Value>,
    words: &[&str],
) {
    let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    let detail = format!("supported values: {}", quoted.join(", "));
    faults.add(path, FaultKind::NotSupported, value.into(), detail);
}

/// The same of a value that is shown in upstream's notation.
pub(crate) fn unsupported_shown(
    faults: &mut Faults,
    spot: &Spot<'_>,
    shape: &crate::go::Shape,
    words: &[&str],
) {
    let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    let detail = format!("supported values: {}", quoted.join(", "));
    let shown = crate::go::shown(spot.value, shape);
    faults.add_shown(spot.path.clone(), FaultKind::NotSupported, shown, detail);
}

/// The value breaks a rule, and is shown in upstream's notation.
pub(crate) fn invalid_shown(
    faults: &mut Faults,
    spot: &Spot<'_>,
    shape: &crate::go::Shape,
    rule: &str,
) {
    let shown = crate::go::shown(spot.value, shape);
    faults.add_shown(spot.path.clone(), FaultKind::Invalid, shown, rule);
}

/// The number, when there is one, must not be below zero.
pub(crate) fn not_negative(spot: &Spot<'_>, field: &str, faults: &mut Faults) {
    if spot.int(field) < 0 {
        faults.invalid(spot.path(field), spot.int(field), NOT_NEGATIVE);
    }
}

/// The field may not differ from what it was.
pub(crate) fn immutable(new: &Spot<'_>, old: &Value, field: &str, faults: &mut Faults) {
    if same(new.at(field), old.at(field)) {
        return;
    }
    if field == "selector" {
        let shown = crate::go::shown(new.at(field), &crate::go::LABEL_SELECTOR);
        return faults.add_shown(new.path(field), FaultKind::Invalid, shown, IMMUTABLE);
    }
    faults.invalid(new.path(field), new.at(field).clone(), IMMUTABLE);
}

/// The same of a field that is shown in upstream's notation.
pub(crate) fn immutable_shown(
    new: &Spot<'_>,
    old: &Value,
    field: &str,
    shape: &crate::go::Shape,
    faults: &mut Faults,
) {
    let value = new.at(field);
    if !crate::go::equal(value, old.at(field), shape) {
        let shown = crate::go::shown(value, shape);
        faults.add_shown(new.path(field), FaultKind::Invalid, shown, IMMUTABLE);
    }
}

/// A list that upstream always shows is null when nothing is in it.
pub(crate) fn null_if_empty(object: &mut Value, parent: &str, list: &str) {
    let Some(parent) = object.at_mut(parent).filter(|parent| parent.is_object()) else {
        return;
    };
    if parent.count(list) == 0 {
        parent[list] = Value::Null;
    }
}

/// Whether two values mean the same: absent, null and empty are one, and quantities
/// and numbers are compared by what they are.
pub(crate) fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let null = Value::Null;
            let covered = |left: &serde_json::Map<String, Value>,
                           right: &serde_json::Map<String, Value>| {
                left.iter()
                    .all(|(key, value)| same(value, right.get(key).unwrap_or(&null)))
            };
            covered(one, other)
                && other
                    .iter()
                    .all(|(key, value)| one.contains_key(key) || is_empty(value))
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        _ => one == other || (is_empty(one) && is_empty(other)),
    }
}

/// Null, or without anything in it.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        _ => false,
    }
}

/// A quantity's value, when it reads as one.
pub(crate) fn amount(value: &Value) -> Option<Quantity> {
    Quantity::parse(&plain(value)).ok()
}

/// Faults in a `metav1.LabelSelector`.
pub(crate) fn label_selector(selector: &Spot<'_>, faults: &mut Faults) {
    use meta::naming;
    let labels = selector.child("matchLabels");
    crate::metadata::validate_labels(labels.value, &labels.path, faults);
    for expression in selector.items("matchExpressions") {
        let count = expression.count("values");
        match expression.text("operator") {
            "In" | "NotIn" if count == 0 => faults.required(
                expression.path("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            ),
            "Exists" | "DoesNotExist" if count > 0 => faults.forbidden(
                expression.path("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => faults.invalid(
                expression.path("operator"),
                other,
                "not a valid selector operator",
            ),
        }
        let key = expression.text("key");
        rules(
            faults,
            expression.path("key"),
            key,
            naming::qualified_name(key),
        );
        for value in expression.items("values") {
            let text = value.as_str().unwrap_or("");
            rules(faults, value.path.clone(), text, naming::label_value(text));
        }
    }
}

/// Whether the labels at hand satisfy the selector; broken selectors select nothing.
pub(crate) fn selects(selector: &Value, labels: &Value) -> bool {
    let Ok(selector) = meta::LabelSelector::from_value(selector) else {
        return false;
    };
    selector.matches(|key| labels.get(key).and_then(Value::as_str))
}

/// A count or a percentage, as budgets and rollouts have: whole and not negative.
pub(crate) fn count_or_percent(spot: &Spot<'_>, field: &str, faults: &mut Faults) {
    match spot.at(field) {
        Value::String(text) => {
            rules(
                faults,
                spot.path(field),
                text.as_str(),
                meta::naming::percent(text),
            );
        }
        Value::Number(_) => not_negative(spot, field, faults),
        _ => {}
    }
}

/// The number of per cent of a percentage.
pub(crate) fn percentage(value: &Value) -> Option<i64> {
    value.as_str()?.strip_suffix('%')?.parse().ok()
}

/// More than all is nothing one could do without.
pub(crate) fn at_most_all(spot: &Spot<'_>, field: &str, faults: &mut Faults) {
    if percentage(spot.at(field)).is_some_and(|percent| percent > 100) {
        let value = spot.at(field).clone();
        faults.invalid(spot.path(field), value, "must not be greater than 100%");
    }
}

/// Faults in a list of `metav1.Condition`.
pub(crate) fn conditions(holder: &Spot<'_>, faults: &mut Faults) {
    const REASON_MAX: usize = 1024;
    const MESSAGE_MAX: usize = 32 * 1024;
    let mut seen = std::collections::BTreeSet::new();
    for condition in holder.items("conditions") {
        let kind = condition.text("type");
        if !seen.insert(kind.to_owned()) {
            faults.duplicate(condition.path("type"), kind);
        }
        let broken = meta::naming::qualified_name(kind);
        rules(faults, condition.path("type"), kind, broken);
        let words = ["False", "True", "Unknown"];
        if !words.contains(&condition.text("status")) {
            let status = condition.text("status");
            unsupported(faults, condition.path("status"), status, &words);
        }
        let generation = condition.int("observedGeneration");
        if generation < 0 {
            let rule = "must be greater than or equal to zero";
            faults.invalid(condition.path("observedGeneration"), generation, rule);
        }
        required(&condition, "lastTransitionTime", faults);
        let reason = condition.text("reason");
        if reason.is_empty() {
            faults.required(condition.path("reason"), "");
        } else if !is_reason(reason) {
            let rule = "a condition reason must start with alphabetic character, optionally \
                        followed by a string of alphanumeric characters or '_,:', and must end \
                        with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or \
                        'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for \
                        validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";
            faults.invalid(condition.path("reason"), reason, rule);
        }
        for (field, most) in [("reason", REASON_MAX), ("message", MESSAGE_MAX)] {
            if condition.text(field).len() > most {
                faults.too_long(condition.path(field), most);
            }
        }
    }
}

fn is_reason(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| word(byte) || b",:".contains(&byte))
        && text.bytes().next_back().is_some_and(word)
}
