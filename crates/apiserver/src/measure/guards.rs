//! What is counted about the conditions of webhooks and about acting as somebody else.

use std::time::Duration;

use base::metrics::{Counters, Histograms};

use super::GUARD;

const CONDITIONS: [f64; 7] = [0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25];
const OF_CONDITIONS: [&str; 4] = ["kind", "name", "operation", "type"];
const OF_ATTEMPTS: [&str; 2] = ["decision", "mode"];

static CONDITION_ERRORS: Counters = Counters::new(
    "apiserver_admission_match_condition_evaluation_errors_total",
    "[ALPHA] Admission match condition evaluation errors count, identified by name of resource \
     containing the match condition and broken out for each kind containing matchConditions \
     (webhook or policy), operation and admission type (validate or admit).",
    &OF_CONDITIONS,
);
static CONDITION_EXCLUSIONS: Counters = Counters::new(
    "apiserver_admission_match_condition_exclusions_total",
    "[ALPHA] Admission match condition evaluation exclusions count, identified by name of \
     resource containing the match condition and broken out for each kind containing \
     matchConditions (webhook or policy), operation and admission type (validate or admit).",
    &OF_CONDITIONS,
);
static CONDITION_TIME: Histograms = Histograms::new(
    "apiserver_admission_match_condition_evaluation_seconds",
    "[ALPHA] Admission match condition evaluation time in seconds, identified by name and broken \
     out for each kind containing matchConditions (webhook or policy), operation and type \
     (validate or admit).",
    &OF_CONDITIONS,
    &CONDITIONS,
);
static ATTEMPTS: Counters = Counters::new(
    "apiserver_impersonation_attempts_total",
    "[ALPHA] Total number of impersonation attempts split by mode and decision.",
    &OF_ATTEMPTS,
);
static ATTEMPT_TIME: Histograms = Histograms::new(
    "apiserver_impersonation_attempts_duration_seconds",
    "[ALPHA] Latency of impersonation attempts in seconds split by mode and decision.",
    &OF_ATTEMPTS,
    &GUARD,
);
static CHECKS: Counters = Counters::new(
    "apiserver_impersonation_authorization_attempts_total",
    "[ALPHA] Total number of authorization checks made by the impersonation handler split by mode \
     and decision.",
    &OF_ATTEMPTS,
);
static CHECK_TIME: Histograms = Histograms::new(
    "apiserver_impersonation_authorization_attempts_duration_seconds",
    "[ALPHA] Latency of authorization checks made by the impersonation handler in seconds split by \
     mode and decision.",
    &OF_ATTEMPTS,
    &GUARD,
);

/// The conditions of a webhook were looked at: `failures` of them could not be said, and the
/// webhook is not asked where it `is_excluded`.
pub(crate) fn conditions(
    (name, mutating): (&str, bool),
    operation: &str,
    (failures, is_excluded): (usize, bool),
    took: Duration,
) {
    let step = if mutating { "admit" } else { "validate" };
    let labels = ["webhook", name, operation, step];
    CONDITION_TIME.observe_time(&labels, took);
    if failures > 0 {
        CONDITION_ERRORS.add(&labels, failures as u64);
    }
    if is_excluded {
        CONDITION_EXCLUSIONS.add(&labels, 1);
    }
}

/// Somebody asked to act as somebody else; `mode` is the way that allowed it.
pub(crate) fn impersonated(mode: Option<&str>, took: Duration) {
    let labels = match mode {
        Some(mode) => ["allowed", mode],
        None => ["denied", ""],
    };
    ATTEMPTS.add(&labels, 1);
    ATTEMPT_TIME.observe_time(&labels, took);
}

/// One right was asked for on the way there.
pub(crate) fn impersonation_check(mode: &str, is_allowed: bool, took: Duration) {
    let labels = [if is_allowed { "allowed" } else { "denied" }, mode];
    CHECKS.add(&labels, 1);
    CHECK_TIME.observe_time(&labels, took);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_count_under_upstreams_names() {
        let took = Duration::from_millis(2);
        conditions(("a.example.com", true), "CREATE", (2, true), took);
        impersonated(Some("tested"), took);
        impersonation_check("tested", false, took);
        let page = base::metrics::page();
        let name = "apiserver_admission_match_condition";
        let labels = "kind=\"webhook\",name=\"a.example.com\",operation=\"CREATE\",type=\"admit\"";
        for line in [
            format!("{name}_evaluation_errors_total{{{labels}}} 2"),
            format!("{name}_exclusions_total{{{labels}}} 1"),
            format!("{name}_evaluation_seconds_bucket{{{labels},le=\"0.005\"}} 1"),
            "apiserver_impersonation_attempts_total{decision=\"allowed\",mode=\"tested\"} 1".into(),
            "apiserver_impersonation_authorization_attempts_total{decision=\"denied\",\
             mode=\"tested\"} 1"
                .into(),
        ] {
            assert!(page.lines().any(|own| own == line), "{line}\n{page}");
        }
    }
}
