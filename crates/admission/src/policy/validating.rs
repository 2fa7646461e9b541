//! Evaluation of validating policies.

use std::collections::BTreeMap;

use cel::{Budget, Value};
use meta::status::Cause;
use meta::{Object, Reason, Status};
use serde_json::json;

use super::compile::{Binding, Policy, Rules, Validation};
use super::evaluate::{conditions, invocations, namespace_of, run, run_named};
use super::scene::{Scene, request_json};
use super::{Hook, Policies};
use crate::plugin::{Lookup, Request};

/// Messages that expressions make may be this long.
const MAX_MESSAGE: usize = 5 * 1024;
/// Values of audit annotations are cut here.
const MAX_ANNOTATION: usize = 10 * 1024;
const FAILURE_KEY: &str = "validation.policy.admission.k8s.io/validation_failure";

/// One rule that does not hold.
struct Denial {
    message: String,
    reason: String,
}

/// Lets all policies judge; the first denial that a binding enforces is the answer.
pub(super) fn judge(
    policies: &Policies,
    hooks: &[Hook],
    request: &Request<'_>,
    object: Option<&Object>,
    lookup: &dyn Lookup,
) -> Result<(), Status> {
    let found = invocations(hooks, request, object, lookup);
    if found.is_empty() {
        return Ok(());
    }
    let rights = policies.rights(request);
    let namespace = namespace_of(request, lookup);
    let mut denied: Option<Status> = None;
    let mut annotations = BTreeMap::<String, Vec<String>>::new();
    for invocation in found {
        let invocation = match invocation {
            Ok(invocation) => invocation,
            Err(unready) => {
                if unready.policy.fails {
                    let denial = Denial {
                        message: unready.message,
                        reason: String::new(),
                    };
                    denied.get_or_insert_with(|| {
                        refusal(request, object, unready.policy, unready.binding, &denial)
                    });
                }
                continue;
            }
        };
        let (policy, binding) = (invocation.policy, invocation.binding);
        let json = request_json(request, &invocation.version);
        let param = invocation.param.as_deref();
        let objects = (object, request.old);
        let scene = Scene::new(policy, objects, &json, namespace.as_deref(), param, &rights);
        for (index, denial) in verdict(policy, &scene, &mut annotations) {
            for action in &binding.actions {
                match action.as_str() {
                    "Deny" => {
                        denied.get_or_insert_with(|| refusal(request, object, policy, Some(binding), &denial));
                    }
                    "Warn" => request.notes.warn(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                        policy.name, binding.name, denial.message
                    )),
                    _ => request.notes.annotate(FAILURE_KEY, &failure(index, policy, binding, &denial)),
                }
            }
        }
    }
    for (key, values) in annotations {
        request.notes.annotate(&key, &values.join(", "));
    }
    denied.map_or(Ok(()), Err)
}

fn failure(index: usize, policy: &Policy, binding: &Binding, denial: &Denial) -> String {
    let value = json!([{
        "message": denial.message, "policy": policy.name, "binding": binding.name,
        "expressionIndex": index, "validationActions": binding.actions,
    }]);
    value.to_string()
}

/// The rules of one policy that do not hold, each with its place in the list.
fn verdict(
    policy: &Policy,
    scene: &Scene<'_>,
    annotations: &mut BTreeMap<String, Vec<String>>,
) -> Vec<(usize, Denial)> {
    let failed = |message: String| match policy.fails {
        true => Some(Denial {
            message,
            reason: String::new(),
        }),
        false => None,
    };
    match conditions(policy, scene) {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(error) => {
            return failed(error)
                .into_iter()
                .map(|denial| (0, denial))
                .collect();
        }
    }
    let Rules::Validate {
        validations,
        annotations: wanted,
    } = &policy.rules
    else {
        return Vec::new();
    };
    let mut budget = Budget::new();
    let mut denials = Vec::new();
    for (index, validation) in validations.iter().enumerate() {
        let denial = match run_named(
            &validation.expression,
            &validation.program,
            scene,
            &mut budget,
        ) {
            Ok(value) if value.as_bool() == Some(true) => None,
            Ok(_) => Some(denial(validation, scene, &mut budget)),
            Err(error) => failed(error),
        };
        denials.extend(denial.map(|denial| (index, denial)));
    }
    for (key, program) in wanted {
        match run(program, scene, &mut budget) {
            Ok(Value::String(text)) if !text.trim().is_empty() => {
                let mut text = text.trim().to_owned();
                let cut = (0..=MAX_ANNOTATION.min(text.len()))
                    .rev()
                    .find(|at| text.is_char_boundary(*at));
                text.truncate(cut.unwrap_or(0));
                let values = annotations
                    .entry(format!("{}/{key}", policy.name))
                    .or_default();
                if !values.contains(&text) {
                    values.push(text);
                }
            }
            Ok(_) => {}
            Err(error) => denials.extend(failed(error).map(|denial| (0, denial))),
        }
    }
    denials
}

/// What a rule that does not hold says: its message expression, its message, or itself.
fn denial(validation: &Validation, scene: &Scene<'_>, budget: &mut Budget) -> Denial {
    let computed = validation.message_expression.as_ref().and_then(|program| {
        let value = run(program, scene, budget).ok()?;
        let text = value.as_str()?.trim();
        (!text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n'))
            .then(|| text.to_owned())
    });
    let written = Some(&validation.message).filter(|message| !message.is_empty());
    let message = computed.or_else(|| written.cloned());
    Denial {
        message: message.unwrap_or_else(|| format!("failed expression: {}", validation.expression)),
        reason: validation.reason.clone(),
    }
}

fn refusal(
    request: &Request<'_>,
    object: Option<&Object>,
    policy: &Policy,
    binding: Option<&Binding>,
    denial: &Denial,
) -> Status {
    let with = binding
        .map(|binding| format!(" with binding '{}'", binding.name))
        .unwrap_or_default();
    let message = format!(
        "ValidatingAdmissionPolicy '{}'{with} denied request: {}",
        policy.name, denial.message
    );
    let mut status = request.refused(object, &message);
    status.reason = match denial.reason.as_str() {
        "Forbidden" => Reason::Forbidden,
        "Unauthorized" => Reason::Unauthorized,
        "RequestEntityTooLarge" => Reason::RequestEntityTooLarge,
        _ => Reason::Invalid,
    };
    status.code = status.reason.code();
    status.causes.push(Cause {
        reason: String::new(),
        message,
        field: String::new(),
    });
    status
}
