//! Types, texts, numbers and enumerations.

use meta::FaultKind;
use serde_json::{Number, Value};

use super::{Checker, IN, Outcome};
use crate::formats::Format;
use crate::path::Path;
use crate::structural::Structural;

/// Below this a float tells every integer apart.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// The names that upstream has for the type and format of a value.
fn kind_of(value: &Value) -> (&'static str, &'static str) {
    match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::String(_) => ("string", ""),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
        Value::Number(number) if number.is_i64() => ("integer", "int64"),
        Value::Number(_) => ("number", "float64"),
    }
}

pub(super) fn kind(
    checker: &Checker<'_>,
    schema: &Structural,
    value: &Value,
    path: &Path<'_>,
    outcome: &mut Outcome,
) {
    let types: &[&str] = match (schema.int_or_string, schema.kind.as_str()) {
        (true, _) => &["integer", "string"],
        (false, "") => &[],
        (false, kind) => &[kind],
    };
    let format = schema.format.as_str();
    if types.is_empty() && format.is_empty() {
        return;
    }
    outcome.matches += 1;
    let mut refuse = |wanted: &str, found: &str| {
        let text = format!("{path} {IN} must be of type {wanted}: {found:?}");
        let fault = checker.fault(path, FaultKind::TypeInvalid, found.into(), text);
        outcome.faults.push(fault);
    };
    if value.is_null() {
        if !types.is_empty() && !schema.nullable {
            refuse(&types.join(","), "null");
        }
        return;
    }
    let (own, own_format) = kind_of(value);
    let whole = value
        .as_f64()
        .is_some_and(|float| float.fract() == 0.0 && float.abs() < EXACT_MAX);
    let fits = types.contains(&own)
        || (own == "number" && whole && types.contains(&"integer"))
        || (own == "integer" && types.contains(&"number"));
    let textual = value.is_string() || value.is_array();
    if !textual && !format.is_empty() && !fits && own_format != format {
        return refuse(format, own_format);
    }
    let numeric = types.contains(&"number") || types.contains(&"integer");
    if !numeric && !format.is_empty() && textual {
        return;
    }
    if !fits {
        refuse(&types.join(","), own);
    }
}

pub(super) fn text(
    checker: &Checker<'_>,
    schema: &Structural,
    text: &str,
    path: &Path<'_>,
    outcome: &mut Outcome,
) {
    let checks = &schema.checks;
    let length = text.chars().count() as i64;
    let invalid = |rule: String| {
        let rule = format!("{path} {IN} {rule}");
        checker.fault(path, FaultKind::Invalid, text.into(), rule)
    };
    // Only the first of these is told.
    let fault = if let Some(most) = checks.max_length.filter(|most| length > *most) {
        let bytes = if most == 1 { "byte" } else { "bytes" };
        let rule = match most {
            ..0 => "value is too long".to_owned(),
            _ => format!("may not be more than {most} {bytes}"),
        };
        Some(checker.fault(path, FaultKind::TooLong, Value::Null, rule))
    } else if let Some(least) = checks.min_length.filter(|least| (length as u64) < *least) {
        Some(invalid(format!("should be at least {least} chars long")))
    } else {
        let pattern = checks.pattern.as_ref();
        let missed = pattern.filter(|pattern| !pattern.matches(text));
        missed.map(|pattern| invalid(format!("should match '{}'", pattern.text)))
    };
    outcome.faults.extend(fault);
    outcome.matches += 1;
    let format = schema.format.as_str();
    if !format.is_empty() && Format::is_known("", format) {
        if !Format::accepts(format, text) {
            let rule = format!("{path} {IN} must be of type {format}: {text:?}");
            let fault = checker.fault(path, FaultKind::TypeInvalid, text.into(), rule);
            outcome.faults.push(fault);
        }
        outcome.matches += 1;
    }
}

/// A bound in the words of Go: without a fraction when it has none.
fn go_number(number: f64) -> String {
    match number.fract() == 0.0 && number.abs() < 1e21 {
        true => format!("{number:.0}"),
        false => format!("{number}"),
    }
}

pub(super) fn number(
    checker: &Checker<'_>,
    schema: &Structural,
    own: &Number,
    path: &Path<'_>,
    outcome: &mut Outcome,
) {
    let checks = &schema.checks;
    let given = own.as_f64().unwrap_or(0.0);
    if !schema.int_or_string {
        let fits = in_range(&schema.kind, &schema.format, own, given);
        if !fits {
            let format = match schema.format.as_str() {
                "" => "(default format)".to_owned(),
                format => format!("with format {format}"),
            };
            let kind = &schema.kind;
            let rule = format!("Checked value must be of type {kind} {format} in {path}");
            outcome.faults.push(checker.loose(rule));
        }
    }
    let mut refuse = |rule: String| {
        let rule = format!("{path} {IN} {rule}");
        let value = Value::Number(own.clone());
        let fault = checker.fault(path, FaultKind::Invalid, value, rule);
        outcome.faults.push(fault);
    };
    if let Some(unit) = checks.multiple_of {
        let parts = given / unit;
        if unit <= 0.0 {
            refuse(format!(
                "factor MultipleOf declared for {path} must be positive: {unit}"
            ));
        } else if (parts - parts.round()).abs() > 1e-9 {
            refuse(format!("should be a multiple of {}", go_number(unit)));
        }
    }
    if let Some(most) = checks.maximum {
        match checks.exclusive_maximum {
            true if given >= most => refuse(format!("should be less than {}", go_number(most))),
            false if given > most => {
                let most = go_number(most);
                refuse(format!("should be less than or equal to {most}"));
            }
            _ => {}
        }
    }
    if let Some(least) = checks.minimum {
        match checks.exclusive_minimum {
            true if given <= least => {
                refuse(format!("should be greater than {}", go_number(least)));
            }
            false if given < least => {
                let least = go_number(least);
                refuse(format!("should be greater than or equal to {least}"));
            }
            _ => {}
        }
    }
    outcome.matches += 1;
}

/// Whether the schema's type and format have room for a number.
fn in_range(kind: &str, format: &str, own: &Number, given: f64) -> bool {
    match (kind, format) {
        ("integer", "int32") => {
            given.fract() == 0.0 && given >= f64::from(i32::MIN) && given <= f64::from(i32::MAX)
        }
        ("integer", _) => own.is_i64() || (given.fract() == 0.0 && given.abs() < 9.3e18),
        ("number", "float") => given.abs() <= f64::from(f32::MAX),
        _ => true,
    }
}

pub(super) fn enumeration(
    checker: &Checker<'_>,
    schema: &Structural,
    value: &Value,
    path: &Path<'_>,
    outcome: &mut Outcome,
) {
    let allowed = &schema.checks.enumeration;
    let same = |one: &Value| match (one, value) {
        (Value::Null, _) => false,
        (Value::Number(one), Value::Number(own)) => one == own || one.as_f64() == own.as_f64(),
        (one, own) => one == own,
    };
    if allowed.is_empty() || allowed.iter().any(same) {
        return;
    }
    let word = |one: &Value| match one {
        Value::String(text) => format!("{text:?}"),
        other => format!("{:?}", other.to_string()),
    };
    let words: Vec<String> = allowed.iter().map(word).collect();
    let rule = format!("supported values: {}", words.join(", "));
    let fault = checker.fault(path, FaultKind::NotSupported, value.clone(), rule);
    outcome.faults.push(fault);
}
