//! `RestartAllContainers`: when a container ends with a code that one of its
//! rules names so, all containers of the pod are started anew, init containers
//! included. The runtime remembers which start belongs to which round, so that
//! a restart of ours changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod};
use node_api::{ContainerState, ContainerStatus};

use super::{Action, Kill, Plan, Scene, is_alive};
use crate::labels;
use crate::pod::{PodExt, Role};

const ACTION: &str = "RestartAllContainers";
/// The least time between two rounds: a pod that asks again at once must not keep the node busy.
const PAUSE: Duration = Duration::from_secs(1);

/// The first rule of a container that a code fulfils.
pub(crate) fn rule(container: &Container, exit_code: i32) -> Option<&ContainerRestartRule> {
    let mut rules = container.restart_policy_rules.iter().flatten();
    rules.find(|rule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
            listed == (codes.operator == "In")
        })
    })
}

/// Whether any rule of a pod may start all containers anew.
pub(crate) fn possible(pod: &Pod) -> bool {
    let all = pod.all_containers().into_iter();
    let mut rules = all.flat_map(|(_, c)| c.restart_policy_rules.iter().flatten());
    rules.any(|rule| rule.action == ACTION)
}

/// The round a container was started in.
pub(crate) fn of(status: &ContainerStatus) -> u32 {
    let noted = status.config.annotations.get(labels::ROUND);
    noted.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn asks(pod: &Pod, status: &ContainerStatus) -> bool {
    status.state == ContainerState::Exited
        && pod.container(&status.config.name).is_some_and(|(role, c)| {
            role != Role::Ephemeral
                && rule(&c, status.exit_code).is_some_and(|rule| rule.action == ACTION)
        })
}

/// The round the pod is in; higher by one as soon as a container of the newest asks for it.
pub(crate) fn current(pod: &Pod, containers: &BTreeMap<String, ContainerStatus>) -> u32 {
    let all = containers.values();
    let next = |status| of(status) + u32::from(asks(pod, status));
    all.map(next).max().unwrap_or(0)
}

/// Whether a container that ran is still to be started in the round the pod is in.
pub(crate) fn pending(pod: &Pod, containers: &BTreeMap<String, ContainerStatus>) -> bool {
    let round = current(pod, containers);
    round > 0
        && pod.all_containers().into_iter().any(|(_, container)| {
            super::newest_container(containers, &container.name)
                .is_some_and(|status| of(status) < round)
        })
}

/// Whether a container is of an earlier round than the pod.
pub(crate) fn is_past(
    pod: &Pod,
    containers: &BTreeMap<String, ContainerStatus>,
    status: &ContainerStatus,
) -> bool {
    of(status) < current(pod, containers)
}

/// Ends what is left of earlier rounds. Returns whether the new one may begin.
pub(super) fn clear(scene: &Scene<'_>, round: u32, plan: &mut Plan) -> bool {
    let past = |status: &&ContainerStatus| {
        let known = scene.pod.container(&status.config.name);
        of(status) < round && known.is_some_and(|(role, _)| role != Role::Ephemeral)
    };
    let alive: Vec<_> = scene
        .containers
        .values()
        .filter(|status| is_alive(status) && past(status))
        .collect();
    for status in &alive {
        if !scene.busy.killing.contains_key(&status.id) {
            plan.actions.push(Action::Kill(Kill {
                id: status.id.clone(),
                name: status.config.name.clone(),
                message: Some("killing".to_owned()),
                deadline: scene.now,
            }));
        }
    }
    let asked = scene.containers.values().filter(|s| asks(scene.pod, s));
    let asked = asked.map(|status| scene.ended_at(status)).max();
    let wait = asked.filter(|at| scene.now < *at + PAUSE);
    let begun = scene.containers.values().any(|status| of(status) == round);
    if let Some(at) = wait.filter(|_| !begun) {
        plan.wake(at + PAUSE);
        return false;
    }
    alive.is_empty()
}
