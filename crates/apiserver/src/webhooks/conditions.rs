//! `matchConditions` of webhooks: expressions about a write that must all hold.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use admission::Rights;
use cel::{AdmissionVariables, Bindings, Budget, Check, Env, Program, Type, Value, admission_env};
use meta::Status;
use serde_json::Value as Json;

use super::Asked;
use super::hook::Hook;
use super::matching::{Objects, word};
use super::review;
use crate::measure;
use crate::registry::Resource;
use crate::verbs::write::text;

/// What all conditions of one webhook may cost together, as upstream limits it.
const COST_MAX: u64 = 2_500_000;

static ENV: LazyLock<Env> = LazyLock::new(|| {
    admission_env(AdmissionVariables {
        authorizer: true,
        ..AdmissionVariables::default()
    })
});

/// One condition, compiled.
pub(super) struct Condition {
    expression: String,
    program: Result<Program, String>,
}

impl Condition {
    /// From an item of `matchConditions`.
    pub(super) fn new(tree: &Json) -> Condition {
        let expression = text(tree, "/expression").trim().to_owned();
        Condition {
            program: ENV.compile_to(&expression, &[Type::Bool]),
            expression,
        }
    }

    fn holds(&self, variables: &Bindings<'_>, budget: &mut Budget) -> Result<bool, String> {
        let program = self.program.as_ref();
        let program = program.map_err(|error| format!("compilation error: {error}"))?;
        match program.evaluate(variables, budget) {
            Ok(value) => Ok(value.as_bool() != Some(false)),
            Err(error) => Err(format!(
                "expression '{}' resulted in error: {error}",
                self.expression
            )),
        }
    }
}

/// Whether all conditions hold. One that cannot be said counts as the failure policy has it,
/// unless another does not hold.
pub(super) async fn hold(
    hook: &Hook,
    asked: &Asked<'_>,
    resource: &Resource,
    objects: Objects<'_>,
) -> Result<bool, Status> {
    if hook.conditions.is_empty() {
        return Ok(true);
    }
    let shown = async |object| match object {
        Some(object) => asked.shown(resource, object).await,
        None => Ok(Cow::Owned(Json::Null)),
    };
    let (new, old) = (shown(objects.new).await?, shown(objects.old).await?);
    let request = review::request(asked, "", resource);
    let begun = Instant::now();
    let failures = loop {
        let failures = evaluate(hook, asked, (&new, &old), &request);
        if !asked.call.find_answers(&asked.core.authorizer).await {
            break failures;
        }
    };
    let count = failures.as_ref().map_or(0, Vec::len);
    let is_excluded = failures.is_none() || (count > 0 && hook.ignore);
    let (operation, outcome) = (word(asked.operation), (count, is_excluded));
    let of = (hook.name.as_str(), hook.mutating);
    measure::conditions(of, operation, outcome, begun.elapsed());
    let Some(failures) = failures else {
        return Ok(false);
    };
    match failures.as_slice() {
        [] => Ok(true),
        _ if hook.ignore => Ok(false),
        [one] => Err(forbidden(asked, one)),
        all => Err(forbidden(asked, &format!("[{}]", all.join(", ")))),
    }
}

fn forbidden(asked: &Asked<'_>, why: &str) -> Status {
    Status::forbidden(&asked.resource.row.names, asked.name, why)
}

/// What went wrong; `None` when a condition does not hold.
fn evaluate(
    hook: &Hook,
    asked: &Asked<'_>,
    (new, old): (&Json, &Json),
    request: &Json,
) -> Option<Vec<String>> {
    let rights = rights(asked);
    let request = match ENV.declared("request") {
        Some(declared) => Value::typed(request, declared),
        None => Value::untyped(request),
    };
    let variables = Bindings::new()
        .bind("object", Value::untyped(new))
        .bind("oldObject", Value::untyped(old))
        .bind("request", request)
        .bind("namespaceObject", Value::Null)
        .bind("authorizer", Value::authorizer(Arc::clone(&rights) as _))
        .bind(
            "authorizer.requestResource",
            Value::request_resource(Arc::clone(&rights) as _, rights.asked().clone()),
        );
    let mut budget = Budget::of(COST_MAX);
    let mut failures = Vec::new();
    for condition in &hook.conditions {
        match condition.holds(&variables, &mut budget) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => failures.push(error),
        }
    }
    Some(failures)
}

fn rights(asked: &Asked<'_>) -> Arc<Rights> {
    let names = &asked.resource.row.names;
    let check = Check {
        group: names.group.clone(),
        resource: names.plural.clone(),
        subresource: asked.subresource.to_owned(),
        namespace: asked.namespace.to_owned(),
        name: asked.name.to_owned(),
        ..Check::default()
    };
    let answers = asked.call.answers.clone();
    Rights::of(&asked.core.authorizer, &asked.call.user, check, answers)
}
