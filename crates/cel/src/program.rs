//! A compiled expression: immutable, to be kept and evaluated from many threads.

use std::sync::Arc;

use crate::check::{self, Checked};
use crate::cost::{Budget, PER_CALL_LIMIT};
use crate::env::Env;
use crate::error::EvalError;
use crate::eval::Frame;
use crate::parse;
use crate::plan::{self, Node};
use crate::source::CompileErrors;
use crate::types::Type;
use crate::value::Value;

/// A compiled expression.
#[derive(Debug)]
pub struct Program {
    pub(crate) root: Node,
    pub(crate) slots: usize,
    result: Type,
    names: Vec<Arc<str>>,
    estimate: u64,
}

/// Gives variables their values; asked only for those that are looked at.
pub trait Resolver<'a> {
    /// The value of a variable; `None` if there is no such variable now.
    fn resolve(&self, name: &str, budget: &mut Budget) -> Option<Result<Value<'a>, EvalError>>;
}

/// Variables whose values are there already.
#[derive(Debug, Clone, Default)]
pub struct Bindings<'a> {
    values: Vec<(&'a str, Value<'a>)>,
}

impl<'a> Bindings<'a> {
    /// No variables.
    pub fn new() -> Bindings<'a> {
        Bindings::default()
    }

    /// Sets a variable.
    #[must_use]
    pub fn bind(mut self, name: &'a str, value: impl Into<Value<'a>>) -> Bindings<'a> {
        self.values.push((name, value.into()));
        self
    }
}

impl<'a> Resolver<'a> for Bindings<'a> {
    fn resolve(&self, name: &str, _: &mut Budget) -> Option<Result<Value<'a>, EvalError>> {
        self.values
            .iter()
            .rev()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| Ok(value.clone()))
    }
}

impl Program {
    pub(crate) fn compile(env: &Env, source: &str) -> Result<Program, CompileErrors> {
        let (expr, nodes) = parse::parse(source)?;
        let checked: Checked = check::check(env, source, &expr, nodes)?;
        crate::literals::check(source, &expr)?;
        let estimate = crate::estimate::estimate(env, &expr, &checked).max;
        let result = checked.types[expr.id].clone();
        let (root, slots, names) = plan::plan(&expr, &checked);
        Ok(Program {
            root,
            slots,
            result,
            names,
            estimate,
        })
    }

    /// The type of the expression's value.
    pub fn result_type(&self) -> &Type {
        &self.result
    }

    /// The variables that the expression mentions, each once.
    pub fn variables(&self) -> &[Arc<str>] {
        &self.names
    }

    /// The most that evaluation may cost, as estimated from declared sizes; `u64::MAX` if nothing bounds it.
    pub fn estimated_cost(&self) -> u64 {
        self.estimate
    }

    /// Evaluates. The cost is taken from `budget`; one evaluation may not cost more than [`PER_CALL_LIMIT`].
    pub fn evaluate<'a>(
        &self,
        variables: &dyn Resolver<'a>,
        budget: &mut Budget,
    ) -> Result<Value<'a>, EvalError> {
        let mut frame = Frame::new(self, variables, budget, PER_CALL_LIMIT);
        let result = frame.eval(&self.root);
        let cost = frame.cost();
        // What does not fit the budget is an error even if the expression came to an end.
        budget.charge(cost)?;
        result
    }
}
