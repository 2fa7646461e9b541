//! What is wrong with the machine, told as events and conditions of the node.

use std::sync::Arc;

use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use problems::{Finding, State, Truth};
use tokio::sync::mpsc;

use crate::events::{Kind, node_reference};
use crate::shared::Shared;

/// Findings that wait to be told.
const FINDINGS_MAX: usize = 64;

/// Watches and tells; ends when there is nothing to watch.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let (sender, mut findings) = mpsc::channel(FINDINGS_MAX);
    let watching = problems::watch(shared.config.problems.clone(), sender);
    let telling = async {
        while let Some(finding) = findings.recv().await {
            tell(&shared, finding);
        }
    };
    tokio::join!(watching, telling);
}

fn tell(shared: &Shared, finding: Finding) {
    let about = node_reference(&shared.config.node_name);
    let recorder = &shared.recorder;
    match finding {
        Finding::Event { reason, message } => {
            recorder.tell(about, Kind::Warning, &reason, message);
        }
        Finding::Condition { kind, state } => {
            let before = shared.problems.borrow().get(&kind).cloned();
            if before.is_some_and(|before| before.truth != state.truth) {
                let (truth, reason) = (word(state.truth), &state.reason);
                let message = format!(
                    "Node condition {kind} is now: {truth}, reason: {reason}, message: {:?}",
                    state.message
                );
                let severity = match state.truth {
                    Truth::False => Kind::Normal,
                    Truth::True | Truth::Unknown => Kind::Warning,
                };
                recorder.tell(about, severity, reason, message);
            }
            shared.problems.send_modify(|known| {
                known.insert(kind, state);
            });
        }
    }
}

fn word(truth: Truth) -> &'static str {
    match truth {
        Truth::False => "False",
        Truth::True => "True",
        Truth::Unknown => "Unknown",
    }
}

/// The conditions; each keeps the time at which it changed.
pub(crate) fn conditions(
    shared: &Shared,
    known: &[&NodeCondition],
    now: &Time,
) -> Vec<NodeCondition> {
    let problems = shared.problems.borrow();
    let condition = |(kind, state): (&String, &State)| {
        let status = word(state.truth);
        let same = known
            .iter()
            .find(|c| c.type_ == *kind && c.status == status);
        let since = same.and_then(|same| same.last_transition_time.clone());
        NodeCondition {
            type_: kind.clone(),
            status: status.to_owned(),
            reason: Some(state.reason.clone()),
            message: Some(state.message.clone()),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: since.or_else(|| Some(now.clone())),
        }
    };
    problems.iter().map(condition).collect()
}
