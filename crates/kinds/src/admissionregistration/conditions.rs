//! `matchConditions`: expressions that narrow down what a webhook or policy is about.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use cel::{AdmissionVariables, Env, Type, admission_env};
use meta::{Faults, naming};

use crate::spot::{Spot, rules};
use crate::tree::Tree;

const CONDITIONS_MAX: usize = 64;

/// What conditions of webhooks, and of policies without parameters, may speak of.
static ENV: LazyLock<Env> = LazyLock::new(|| env(false));
/// The same with parameters.
static WITH_PARAMS: LazyLock<Env> = LazyLock::new(|| env(true));

fn env(params: bool) -> Env {
    admission_env(AdmissionVariables {
        params,
        authorizer: true,
        patches: false,
    })
}

/// Faults in the conditions of a webhook.
pub(crate) fn match_conditions(hook: &Spot<'_>, faults: &mut Faults) {
    validate(hook, &ENV, faults);
}

/// Faults in the conditions of a policy.
pub(crate) fn policy_conditions(spec: &Spot<'_>, faults: &mut Faults) {
    let env = match spec.has("paramKind") {
        true => &WITH_PARAMS,
        false => &ENV,
    };
    validate(spec, env, faults);
}

fn validate(hook: &Spot<'_>, env: &Env, faults: &mut Faults) {
    let count = hook.count("matchConditions");
    if count > CONDITIONS_MAX {
        faults.too_many(hook.path("matchConditions"), count, CONDITIONS_MAX);
    }
    let mut names = BTreeSet::new();
    for condition in hook.items("matchConditions") {
        let expression = condition.text("expression").trim();
        let path = condition.path("expression");
        if expression.is_empty() {
            faults.required(path, "");
        } else if let Err(error) = env.compile_to(expression, &[Type::Bool]) {
            faults.invalid(path, expression, error);
        }
        let name = condition.text("name");
        if name.is_empty() {
            faults.required(condition.path("name"), "");
            continue;
        }
        let broken = naming::qualified_name(name);
        rules(faults, condition.path("name"), name, broken);
        if !names.insert(name.to_owned()) {
            faults.duplicate(condition.path("name"), name);
        }
    }
}
