//! What evaluation costs, in upstream's units, and the budgets it is charged to.

use crate::error::EvalError;
use crate::value::Value;

/// What one evaluation may cost.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// What all evaluations for one object may cost together.
pub const RUNTIME_COST_BUDGET: u64 = 10_000_000;
/// What one rule of a custom resource may be estimated to cost.
pub const STATIC_ESTIMATED_COST_LIMIT: u64 = 10_000_000;
/// What all rules of a custom resource may be estimated to cost together.
pub const STATIC_ESTIMATED_CRD_COST_LIMIT: u64 = 100_000_000;

pub(crate) const LIST_CREATE: u64 = 10;
pub(crate) const MAP_CREATE: u64 = 30;
pub(crate) const STRUCT_CREATE: u64 = 40;
pub(crate) const STRING_FACTOR: f64 = 0.1;
pub(crate) const REGEX_FACTOR: f64 = 0.25;
/// An authorization check is dear: an expression can afford two.
pub(crate) const CHECK: u64 = 350_000;
/// How long the expression behind a named format is taken to be.
pub(crate) const FORMAT_REGEX: u64 = 64;
/// A selector's parsing: one requirement per two characters, at the price of what it allocates.
const SELECTOR_REQUIREMENT: f64 = 0.5;

/// What several evaluations may still cost together.
#[derive(Debug, Clone)]
pub struct Budget {
    remaining: u64,
}

impl Budget {
    /// A budget of [`RUNTIME_COST_BUDGET`].
    pub fn new() -> Budget {
        Budget::of(RUNTIME_COST_BUDGET)
    }

    /// A budget of one's own.
    pub fn of(cost: u64) -> Budget {
        Budget { remaining: cost }
    }

    /// What is left.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Takes the cost of one evaluation off.
    pub(crate) fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        match self.remaining.checked_sub(cost) {
            Some(remaining) => {
                self.remaining = remaining;
                Ok(())
            }
            None => {
                self.remaining = 0;
                Err(EvalError::Budget)
            }
        }
    }
}

impl Default for Budget {
    fn default() -> Budget {
        Budget::new()
    }
}

/// How the cost of a call follows from its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallCost {
    One,
    Check,
    Selector,
    /// The sizes of the list and, for lists of text, of its items.
    ListTraversal,
    /// The first argument is read so many times.
    Traversal(u64),
    ResultTraversal,
    Regex,
    Product,
    Smaller,
    Sum,
    Membership,
    ContainsIp,
    ContainsCidr,
    Format,
}

impl CallCost {
    pub(crate) fn of(function: &str) -> CallCost {
        match function {
            "check" => CallCost::Check,
            "fieldSelector" | "labelSelector" => CallCost::Selector,
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
                CallCost::ListTraversal
            }
            "url"
            | "lowerAscii"
            | "upperAscii"
            | "substring"
            | "trim"
            | "jsonpatch.escapeKey"
            | "cidr"
            | "isIP"
            | "isCIDR"
            | "ip"
            | "quantity"
            | "isQuantity"
            | "semver"
            | "isSemver"
            | "startsWith"
            | "endsWith"
            | "strings.quote"
            | "format"
            | "bytes"
            | "string" => CallCost::Traversal(1),
            "replace" | "split" | "ip.isCanonical" => CallCost::Traversal(2),
            // What these read or write grows with the list.
            "sort" | "@sortByAssociatedKeys" | "reverse" | "distinct" | "flatten" | "slice" => {
                CallCost::ListTraversal
            }
            "join" => CallCost::ResultTraversal,
            "lists.range" => CallCost::ResultTraversal,
            "find" | "findAll" | "matches" => CallCost::Regex,
            "contains" | "sets.contains" | "sets.intersects" | "sets.equivalent" => {
                CallCost::Product
            }
            "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" => CallCost::Smaller,
            "_+_" => CallCost::Sum,
            "@in" => CallCost::Membership,
            "containsIP" => CallCost::ContainsIp,
            "containsCIDR" => CallCost::ContainsCidr,
            "validate" => CallCost::Format,
            _ => CallCost::One,
        }
    }

    pub(crate) fn charge(self, args: &[Value<'_>], result: &Value<'_>) -> u64 {
        let arg = |index: usize| args.get(index).map_or(1, size);
        match self {
            CallCost::One => 1,
            CallCost::Check => CHECK,
            CallCost::Selector => selector(arg(1)),
            CallCost::ListTraversal => args.first().map_or(1, traversal),
            CallCost::Traversal(times) => match args.first() {
                Some(Value::String(_) | Value::Bytes(_)) => scaled(arg(0) * times, STRING_FACTOR),
                _ => 1,
            },
            CallCost::ResultTraversal => scaled(size(result) * 2, STRING_FACTOR),
            CallCost::Regex => scaled(arg(0) + 1, STRING_FACTOR) * scaled(arg(1), REGEX_FACTOR),
            CallCost::Product => match args.first() {
                Some(Value::String(_)) => {
                    scaled(arg(0), STRING_FACTOR) * scaled(arg(1), STRING_FACTOR)
                }
                _ => arg(0).saturating_mul(arg(1)),
            },
            CallCost::Smaller => match (args.first(), args.get(1)) {
                (Some(Value::Opaque(_)), _) => 1,
                (Some(one), Some(two)) => scaled(size(one).min(size(two)), STRING_FACTOR),
                _ => 1,
            },
            CallCost::Sum => match args.first() {
                Some(Value::String(_) | Value::Bytes(_)) => scaled(arg(0) + arg(1), STRING_FACTOR),
                _ => 1,
            },
            CallCost::Membership => match args.get(1) {
                Some(list @ (Value::List(_) | Value::JsonList(_))) => size(list),
                _ => 1,
            },
            CallCost::ContainsIp => scaled(arg(0) * 2, STRING_FACTOR) + parsed(args.get(1)),
            CallCost::ContainsCidr => {
                scaled(arg(0) * 2, STRING_FACTOR)
                    + scaled(arg(0), STRING_FACTOR)
                    + 1
                    + parsed(args.get(1))
            }
            CallCost::Format => {
                scaled(arg(1) + 1, STRING_FACTOR) * scaled(FORMAT_REGEX, REGEX_FACTOR)
            }
        }
    }
}

/// What reading an argument costs that is given as text.
fn parsed(arg: Option<&Value<'_>>) -> u64 {
    match arg {
        Some(text @ Value::String(_)) => scaled(size(text), STRING_FACTOR),
        _ => 0,
    }
}

pub(crate) fn scaled(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

pub(crate) fn selector(length: u64) -> u64 {
    let requirements = scaled(length, SELECTOR_REQUIREMENT);
    // The list itself, parsing, and what each requirement allocates.
    LIST_CREATE + scaled(length, STRING_FACTOR) + requirements * (STRUCT_CREATE + LIST_CREATE)
}

fn size(value: &Value<'_>) -> u64 {
    match value {
        Value::Optional(Some(value)) => size(value),
        // An address is as long as its bytes.
        Value::Opaque(opaque) => opaque.size(),
        value => value.size().map_or(1, |size| size as u64),
    }
}

fn traversal(value: &Value<'_>) -> u64 {
    match value {
        Value::String(_) | Value::Bytes(_) => scaled(size(value), STRING_FACTOR),
        Value::List(_) | Value::JsonList(_) => {
            let items = value.items().unwrap_or_default();
            items.iter().map(|item| traversal(item).max(1)).sum()
        }
        _ => 1,
    }
}
