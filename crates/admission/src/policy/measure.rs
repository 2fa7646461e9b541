//! What is counted of policies, under upstream's names and in its buckets.

use std::time::Duration;

use base::metrics::{Counters, Histograms};

use super::compile::{Binding, Policy};

const TIME: [f64; 5] = [0.000_000_5, 0.001, 0.01, 0.1, 1.0];
const VALIDATED: [&str; 4] = [
    "policy",
    "policy_binding",
    "error_type",
    "enforcement_action",
];
const MUTATED: [&str; 3] = ["policy", "policy_binding", "error_type"];

static VALIDATIONS: Counters = Counters::new(
    "apiserver_validating_admission_policy_check_total",
    "[BETA] Validation admission policy check total, labeled by policy and further identified by \
     binding and enforcement action taken.",
    &VALIDATED,
);
static VALIDATION_TIME: Histograms = Histograms::new(
    "apiserver_validating_admission_policy_check_duration_seconds",
    "[BETA] Validation admission latency for individual validation expressions in seconds, \
     labeled by policy and further including binding and enforcement action taken.",
    &VALIDATED,
    &TIME,
);
static MUTATIONS: Counters = Counters::new(
    "apiserver_mutating_admission_policy_check_total",
    "[ALPHA] Mutation admission policy check total, labeled by policy and further identified by \
     binding.",
    &MUTATED,
);
static MUTATION_TIME: Histograms = Histograms::new(
    "apiserver_mutating_admission_policy_check_duration_seconds",
    "[ALPHA] Mutation admission latency for individual mutation expressions in seconds, labeled \
     by policy and binding.",
    &MUTATED,
    &TIME,
);

/// How an expression ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has been judged, for or against.
    Judged,
    DoesNotCompile,
    OverBudget,
    Failed,
}

impl Outcome {
    /// Reads it from what went wrong.
    pub(super) fn of_error(message: &str) -> Outcome {
        if message.starts_with("compilation") {
            Outcome::DoesNotCompile
        } else if message.contains("running out of cost budget") {
            Outcome::OverBudget
        } else {
            Outcome::Failed
        }
    }

    fn word(self) -> &'static str {
        match self {
            Outcome::Judged => "no_error",
            Outcome::DoesNotCompile => "compile_error",
            Outcome::OverBudget => "out_of_budget",
            Outcome::Failed => "invalid_error",
        }
    }
}

/// Counts a rule that does not hold or failed, and what was done about it.
pub(super) fn validated(
    policy: &Policy,
    binding: &Binding,
    outcome: Outcome,
    action: &str,
    elapsed: Duration,
) {
    let labels = [policy.name.as_str(), &binding.name, outcome.word(), action];
    VALIDATIONS.add(&labels, 1);
    VALIDATION_TIME.observe_time(&labels, elapsed);
}

/// Counts a mutation that was tried.
pub(super) fn mutated(policy: &Policy, binding: &Binding, outcome: Outcome, elapsed: Duration) {
    let labels = [policy.name.as_str(), &binding.name, outcome.word()];
    MUTATIONS.add(&labels, 1);
    MUTATION_TIME.observe_time(&labels, elapsed);
}
