//! What both kinds of policies do before their own rules: matching, parameters, conditions.

use std::sync::Arc;

use cel::{Budget, EvalError, Value};
use meta::{Names, Object, Status};

use super::Hook;
use super::compile::{Binding, Compiled, Policy};
use super::matching::{Meanings, Objects};
use super::params::{self, Param};
use super::scene::Scene;
use super::subject::Subject;

/// What match conditions may cost: a quarter of what all else may.
const CONDITIONS_BUDGET: u64 = 2_500_000;

/// A policy to evaluate.
pub(super) struct Invocation<'h> {
    pub(super) policy: &'h Policy,
    pub(super) binding: &'h Binding,
    /// The resource as which the policy means the write.
    pub(super) names: Arc<Names>,
    pub(super) param: Param,
}

/// What could not even be begun.
pub(super) struct Unready<'h> {
    pub(super) policy: &'h Policy,
    pub(super) binding: Option<&'h Binding>,
    pub(super) message: String,
}

/// All policies to evaluate for a write, each in the order of upstream.
pub(super) fn invocations<'h>(
    hooks: &'h [Hook],
    subject: &Subject<'_>,
    objects: Objects<'_>,
) -> Vec<Result<Invocation<'h>, Unready<'h>>> {
    let mut all = Vec::new();
    let mut meanings = Meanings::new(subject);
    for hook in hooks {
        let policy = &*hook.policy;
        let unready = |binding: Option<&'h Binding>, error: String| {
            let part = if binding.is_some() {
                "binding"
            } else {
                "policy"
            };
            Err(Unready {
                policy,
                binding,
                message: format!("failed to configure {part}: {error}"),
            })
        };
        let names = match policy.constraints.concerns(&mut meanings, objects) {
            Ok(Some(names)) => names,
            Ok(None) => continue,
            Err(error) => {
                all.push(unready(None, error));
                continue;
            }
        };
        for binding in &hook.bindings {
            let concerned = match &binding.resources {
                Some(resources) => resources
                    .concerns(&mut meanings, objects)
                    .map(|found| found.is_some()),
                None => Ok(true),
            };
            let params = match concerned {
                Ok(false) => continue,
                Ok(true) => params::collect(policy, binding, subject),
                Err(error) => Err(error),
            };
            match params {
                Ok(params) => all.extend(params.into_iter().map(|param| {
                    Ok(Invocation {
                        policy,
                        binding,
                        names: Arc::clone(&names),
                        param,
                    })
                })),
                Err(error) => all.push(unready(Some(binding), error)),
            }
        }
    }
    all
}

/// Whether the policy's conditions let it be asked; an error if that cannot be said and matters.
pub(super) fn conditions(policy: &Policy, scene: &Scene<'_>) -> Result<bool, String> {
    let mut budget = Budget::of(CONDITIONS_BUDGET);
    let mut errors = Vec::new();
    for (source, program) in &policy.conditions {
        match run(source, program, scene, &mut budget) {
            Ok(value) if value.as_bool() == Some(false) => return Ok(false),
            Ok(_) => {}
            Err(Failure::Rule(error)) => errors.push(error),
            Err(Failure::Budget(error)) => {
                errors = vec![error];
                break;
            }
        }
    }
    match (errors.is_empty(), policy.fails) {
        (true, _) => Ok(true),
        (false, false) => Ok(false),
        (false, true) if errors.len() == 1 => Err(errors.remove(0)),
        (false, true) => Err(format!("[{}]", errors.join(", "))),
    }
}

/// Evaluates an expression; the error names it as upstream does.
pub(super) fn run<'a>(
    source: &str,
    program: &Compiled,
    scene: &Scene<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, Failure> {
    let program = program
        .as_ref()
        .map_err(|error| Failure::Rule(format!("compilation error: {error}")))?;
    program
        .evaluate(scene, budget)
        .map_err(|error| match error {
            EvalError::Budget => Failure::Budget(error.to_string()),
            error => Failure::Rule(format!("expression '{source}' resulted in error: {error}")),
        })
}

/// Why an expression has no value.
pub(super) enum Failure {
    /// It is this expression's own fault.
    Rule(String),
    /// Nothing more can be evaluated.
    Budget(String),
}

impl Failure {
    pub(super) fn text(self) -> String {
        match self {
            Failure::Rule(text) | Failure::Budget(text) => text,
        }
    }
}

/// The namespace of a write, as rules see it.
pub(super) fn namespace_of(subject: &Subject<'_>) -> Result<Option<Arc<Object>>, Status> {
    if subject.namespace.is_empty() || subject.is_namespaces() {
        return Ok(None);
    }
    let namespace = subject.lookup.get("namespaces", "", subject.namespace);
    let missing = || {
        let names = Names::cluster("", "v1", "Namespace", "namespaces");
        Status::not_found(&names, subject.namespace)
    };
    namespace.ok_or_else(missing).map(Some)
}
