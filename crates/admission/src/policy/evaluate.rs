//! What both kinds of policies do before their own rules: matching, parameters, conditions.

use std::sync::Arc;

use cel::{Budget, EvalError, Value};
use meta::Object;

use super::compile::{Binding, Compiled, Policy};
use super::params::{self, Param};
use super::scene::Scene;
use super::{Hook, Policies};
use crate::plugin::{Lookup, Request};

/// What match conditions may cost: a quarter of what all else may.
const CONDITIONS_BUDGET: u64 = 2_500_000;

/// A policy to evaluate.
pub(super) struct Invocation<'h> {
    pub(super) policy: &'h Policy,
    pub(super) binding: &'h Binding,
    /// The version in which the policy means the write.
    pub(super) version: String,
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
    request: &Request<'_>,
    object: Option<&Object>,
    lookup: &dyn Lookup,
) -> Vec<Result<Invocation<'h>, Unready<'h>>> {
    let mut all = Vec::new();
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
        let version = match policy.constraints.concerns(request, object, lookup) {
            Ok(Some(version)) => version,
            Ok(None) => continue,
            Err(error) => {
                all.push(unready(None, error));
                continue;
            }
        };
        for binding in &hook.bindings {
            let concerned = match &binding.resources {
                Some(resources) => resources
                    .concerns(request, object, lookup)
                    .map(|found| found.is_some()),
                None => Ok(true),
            };
            let params = match concerned {
                Ok(false) => continue,
                Ok(true) => params::collect(policy, binding, request, lookup),
                Err(error) => Err(error),
            };
            match params {
                Ok(params) => all.extend(params.into_iter().map(|param| {
                    Ok(Invocation {
                        policy,
                        binding,
                        version: version.clone(),
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
    for (_, program) in &policy.conditions {
        match run(program, scene, &mut budget) {
            Ok(value) if value.as_bool() == Some(false) => return Ok(false),
            Ok(_) => {}
            Err(error) => errors.push(error),
        }
    }
    match (errors.is_empty(), policy.fails) {
        (true, _) => Ok(true),
        (false, false) => Ok(false),
        (false, true) if errors.len() == 1 => Err(errors.remove(0)),
        (false, true) => Err(format!("[{}]", errors.join(", "))),
    }
}

/// Evaluates; the error without the expression's text.
pub(super) fn run<'a>(
    program: &Compiled,
    scene: &Scene<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, String> {
    match program {
        Ok(program) => program
            .evaluate(scene, budget)
            .map_err(|error| error.to_string()),
        Err(error) => Err(format!("compilation error: {error}")),
    }
}

/// Evaluates an expression; the error names it as upstream does.
pub(super) fn run_named<'a>(
    source: &str,
    program: &Compiled,
    scene: &Scene<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, String> {
    match program {
        Ok(program) => program
            .evaluate(scene, budget)
            .map_err(|error| match error {
                EvalError::Budget => error.to_string(),
                error => format!("expression '{source}' resulted in error: {error}"),
            }),
        Err(error) => Err(format!("compilation error: {error}")),
    }
}

/// The namespace of a write, as expressions see it.
pub(super) fn namespace_of(request: &Request<'_>, lookup: &dyn Lookup) -> Option<Arc<Object>> {
    let inside = !request.namespace.is_empty() && !request.resource_is("namespaces");
    inside
        .then(|| lookup.get("namespaces", "", request.namespace))
        .flatten()
}

impl Policies {
    pub(super) fn rights(&self, request: &Request<'_>) -> Arc<super::scene::Rights> {
        super::scene::Rights::new(&self.authorizer, request)
    }
}
