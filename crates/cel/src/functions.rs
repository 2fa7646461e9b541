//! The table of functions: names, signatures, implementations, and what a call costs.

mod authorizer;
mod conversion;
mod format;
mod list;
mod named_format;
mod network;
mod operator;
mod optional;
mod quantity;
pub(crate) mod regexp;
mod semver;
mod set;
mod standard;
mod string;
mod url;

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::cost::CallCost;
use crate::error::EvalError;
use crate::types::{self, Type};
use crate::value::Value;

pub use named_format::NamedFormat;
pub(crate) use operator::{compare, equal, lookup};

/// What a call gives.
pub(crate) type Outcome<'a> = Result<Value<'a>, EvalError>;

/// How a function is computed; it looks at the values it gets, as checked types may be dyn.
pub(crate) type Native = for<'a> fn(&[Value<'a>]) -> Outcome<'a>;

/// One line of a library's table. An overload reads `arg arg -> result`, or `target . arg -> result` for a member.
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) call: Native,
    pub(crate) overloads: &'static [&'static str],
}

pub(crate) struct Overload {
    pub(crate) member: bool,
    pub(crate) args: Vec<Type>,
    pub(crate) result: Type,
}

pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) call: Native,
    pub(crate) cost: CallCost,
    pub(crate) overloads: Vec<Overload>,
}

const LIBRARIES: &[&[Spec]] = &[
    operator::TABLE,
    standard::TABLE,
    conversion::TABLE,
    string::TABLE,
    list::TABLE,
    set::TABLE,
    optional::TABLE,
    regexp::TABLE,
    authorizer::TABLE,
    named_format::TABLE,
    network::TABLE,
    quantity::TABLE,
    semver::TABLE,
    url::TABLE,
];

static FUNCTIONS: LazyLock<HashMap<&'static str, Function>> = LazyLock::new(|| {
    let mut functions: HashMap<&'static str, Function> = HashMap::new();
    for spec in LIBRARIES.iter().copied().flatten() {
        functions.insert(
            spec.name,
            Function {
                name: spec.name,
                call: spec.call,
                cost: CallCost::of(spec.name),
                overloads: spec.overloads.iter().map(|text| overload(text)).collect(),
            },
        );
    }
    functions
});

fn overload(text: &'static str) -> Overload {
    let (args, result) = text.split_once("->").unwrap_or((text, "dyn"));
    let member = args.split_whitespace().nth(1) == Some(".");
    let args = args
        .split_whitespace()
        .filter(|word| *word != ".")
        .map(types::parse)
        .collect();
    Overload {
        member,
        args,
        result: types::parse(result.trim()),
    }
}

pub(crate) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.get(name)
}

/// For functions that the evaluator computes itself, because they do not evaluate all their arguments.
pub(crate) fn lazy<'a>(_: &[Value<'a>]) -> Outcome<'a> {
    Err(EvalError::no_such_overload())
}

/// The message of a call whose values no overload takes.
pub(crate) fn no_overload<'a>() -> Outcome<'a> {
    Err(EvalError::no_such_overload())
}

pub(crate) fn fault<'a>(message: impl Into<std::sync::Arc<str>>) -> Outcome<'a> {
    Err(EvalError::fault(message))
}

/// A key as messages show it.
pub(crate) fn text_of(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::String(text) => text.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => conversion::format_double(*value),
        Value::Bool(value) => value.to_string(),
        _ => return None,
    })
}

/// The order of two values that have one.
fn ordered<'a>(args: &[Value<'a>], then: fn(std::cmp::Ordering) -> Value<'a>) -> Outcome<'a> {
    match args {
        [one, two] => compare(one, two).map_or_else(no_overload, |order| Ok(then(order))),
        _ => no_overload(),
    }
}
