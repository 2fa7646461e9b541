//! The conditions of a pod that are the node's to set.

use k8s_openapi::api::core::v1::{ContainerStatus as ApiContainerStatus, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use node_api::SandboxState;

use super::StatusInputs;
use crate::plan::{newest_sandbox, rounds};
use crate::pod::{PodExt, Role, whole_seconds};

const OWN: [&str; 8] = [
    "AllContainersRestarting",
    "PodResizePending",
    "PodResizeInProgress",
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

/// The reason of a disruption that is this node's doing.
const BY_KUBELET: &str = "TerminationByKubelet";

/// Whether this node sets this condition.
pub(super) fn is_own(condition: &PodCondition) -> bool {
    OWN.contains(&condition.type_.as_str())
        || (condition.type_ == "DisruptionTarget"
            && condition.reason.as_deref() == Some(BY_KUBELET))
}

/// Where a resize stands; a condition that is there only as long as it is true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResizeCondition {
    kind: &'static str,
    reason: Option<&'static str>,
    message: Option<String>,
    /// Of the pod's object, when it was decided.
    pub(crate) generation: Option<i64>,
}

impl ResizeCondition {
    /// The node does not have it now.
    pub(crate) fn deferred(generation: Option<i64>, message: String) -> ResizeCondition {
        ResizeCondition {
            kind: "PodResizePending",
            reason: Some("Deferred"),
            message: Some(message),
            generation,
        }
    }

    /// The node will never have it.
    pub(crate) fn infeasible(generation: Option<i64>, message: String) -> ResizeCondition {
        ResizeCondition {
            reason: Some("Infeasible"),
            ..ResizeCondition::deferred(generation, message)
        }
    }

    /// Granted, and under way.
    pub(crate) fn progress(generation: Option<i64>, fault: Option<String>) -> ResizeCondition {
        ResizeCondition {
            kind: "PodResizeInProgress",
            reason: fault.is_some().then_some("Error"),
            message: fault,
            generation,
        }
    }
}

/// Truth, reason, message.
type Finding = (bool, Option<&'static str>, Option<String>);

/// All conditions, those of others kept.
pub(super) fn all(
    inputs: &StatusInputs<'_>,
    phase: &str,
    init: &[ApiContainerStatus],
    main: &[ApiContainerStatus],
    has_ip: bool,
) -> Vec<PodCondition> {
    let sandbox = newest_sandbox(inputs.sandboxes);
    let sandbox_ready = sandbox.is_some_and(|s| s.state == SandboxState::Ready) && has_ip;
    let containers_ready = containers_ready(inputs, phase, init, main);
    let old = inputs.old;
    let resizes = inputs.resizes.iter().map(|resize| PodCondition {
        observed_generation: resize.generation,
        ..condition(
            inputs,
            resize.kind,
            (true, resize.reason, resize.message.clone()),
        )
    });
    let mut conditions: Vec<_> = resizes.collect();
    if inputs.ready_to_start {
        conditions.push(condition(
            inputs,
            "PodReadyToStartContainers",
            (sandbox_ready, None, None),
        ));
    }
    conditions.extend([
        condition(inputs, "Initialized", initialized(inputs, phase, init)),
        condition(inputs, "Ready", ready(inputs, old, &containers_ready)),
        condition(inputs, "ContainersReady", containers_ready),
        condition(inputs, "PodScheduled", (true, None, None)),
    ]);
    if rounds::possible(inputs.pod) {
        let finding = restarting(inputs, phase);
        conditions.push(condition(inputs, "AllContainersRestarting", finding));
    }
    let foreign = old.conditions.iter().flatten();
    let verdict = inputs.ending.and_then(|ending| ending.verdict.as_ref());
    let disrupted = verdict.and_then(|(reason, message)| match reason.as_str() {
        super::EVICTED | crate::shutdown::TERMINATED => Some(message.clone()),
        super::PREEMPTED => {
            Some("Pod was preempted by Kubelet to accommodate a critical pod.".to_owned())
        }
        _ => None,
    });
    if let Some(message) = disrupted {
        let finding = (true, Some(BY_KUBELET), Some(message));
        conditions.push(condition(inputs, "DisruptionTarget", finding));
    }
    conditions.extend(foreign.filter(|c| !is_own(c)).cloned());
    conditions
}

fn condition(inputs: &StatusInputs<'_>, kind: &str, finding: Finding) -> PodCondition {
    let (truth, reason, message) = finding;
    let status = if truth { "True" } else { "False" };
    let old = inputs
        .old
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == kind);
    let since = old.filter(|old| old.status == status);
    let since = since.and_then(|old| old.last_transition_time.clone());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        message,
        observed_generation: inputs.pod.metadata.generation,
        last_transition_time: since.or(Some(Time(whole_seconds(inputs.now)))),
        ..PodCondition::default()
    }
}

fn initialized(inputs: &StatusInputs<'_>, phase: &str, init: &[ApiContainerStatus]) -> Finding {
    if phase == "Succeeded" {
        return (true, Some("PodCompleted"), None);
    }
    let roles = inputs.pod.all_containers();
    let done = |status: &&ApiContainerStatus| {
        let role = roles
            .iter()
            .find(|(_, c)| c.name == status.name)
            .map(|(role, _)| *role);
        match role {
            Some(Role::Sidecar) => status.started == Some(true),
            _ => super::state(status).1 == Some(0) || status.ready,
        }
    };
    let undone: Vec<&str> = init
        .iter()
        .filter(|s| !done(s))
        .map(|s| s.name.as_str())
        .collect();
    // A pod that starts all its containers anew stays what it has been.
    let mut known = inputs.old.conditions.iter().flatten();
    let was = known.any(|c| c.type_ == "Initialized" && c.status == "True");
    if undone.is_empty() || (was && rounds::pending(inputs.pod, inputs.containers)) {
        return (true, None, None);
    }
    let message = format!("containers with incomplete status: [{}]", undone.join(" "));
    (false, Some("ContainersNotInitialized"), Some(message))
}

fn containers_ready(
    inputs: &StatusInputs<'_>,
    phase: &str,
    init: &[ApiContainerStatus],
    main: &[ApiContainerStatus],
) -> Finding {
    match phase {
        "Succeeded" => return (false, Some("PodCompleted"), None),
        "Failed" => return (false, Some("PodFailed"), None),
        _ => {}
    }
    let roles = inputs.pod.all_containers();
    let is_sidecar = |status: &&ApiContainerStatus| {
        roles
            .iter()
            .any(|(role, c)| *role == Role::Sidecar && c.name == status.name)
    };
    let counted = init.iter().filter(is_sidecar).chain(main);
    let unready: Vec<&str> = counted
        .filter(|s| !s.ready)
        .map(|s| s.name.as_str())
        .collect();
    if unready.is_empty() {
        return (true, None, None);
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    (false, Some("ContainersNotReady"), Some(message))
}

fn restarting(inputs: &StatusInputs<'_>, phase: &str) -> Finding {
    match phase {
        "Succeeded" => return (false, Some("PodCompleted"), None),
        "Failed" => return (false, Some("PodFailed"), None),
        _ => {}
    }
    if !rounds::pending(inputs.pod, inputs.containers) {
        return (false, None, None);
    }
    let message = "container exited with restart policy rule".to_owned();
    (true, Some("RestartAllContainersStarted"), Some(message))
}

fn ready(inputs: &StatusInputs<'_>, old: &PodStatus, containers: &Finding) -> Finding {
    if !containers.0 {
        return containers.clone();
    }
    // Others write these; the newest read of the object has them.
    let known = inputs.pod.status().conditions.iter().flatten();
    let known: Vec<_> = known.chain(old.conditions.iter().flatten()).collect();
    let mut missing = Vec::new();
    for gate in inputs.pod.spec().readiness_gates.iter().flatten() {
        let kind = &gate.condition_type;
        match known.iter().find(|condition| condition.type_ == *kind) {
            None => missing.push(format!(
                "corresponding condition of pod readiness gate {kind:?} does not exist."
            )),
            Some(condition) if condition.status != "True" => missing.push(format!(
                "the status of pod readiness gate {kind:?} is not \"True\", but {}",
                condition.status
            )),
            Some(_) => {}
        }
    }
    match missing.is_empty() {
        true => (true, None, None),
        false => (
            false,
            Some("ReadinessGatesNotReady"),
            Some(missing.join(", ")),
        ),
    }
}

/// The conditions that are not this node's.
pub(crate) fn foreign_conditions(status: &PodStatus) -> Vec<PodCondition> {
    let all = status.conditions.iter().flatten();
    all.filter(|condition| !is_own(condition))
        .cloned()
        .collect()
}

/// A list with its foreign conditions replaced.
pub(crate) fn with_foreign(
    conditions: Option<Vec<PodCondition>>,
    foreign: &[PodCondition],
) -> Option<Vec<PodCondition>> {
    let own = conditions.into_iter().flatten().filter(is_own);
    let all: Vec<_> = own.chain(foreign.iter().cloned()).collect();
    (!all.is_empty()).then_some(all)
}
