//! The status of each container.

use k8s_openapi::api::core::v1::{
    Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus as ApiContainerStatus, ContainerUser,
    LinuxContainerUser, ResourceRequirements, VolumeMount, VolumeMountStatus,
};
use node_api::{ContainerState, ContainerStatus};

use super::StatusInputs;
use crate::plan::{restarts, rounds};
use crate::pod::{PodExt, Role, api_time};

impl StatusInputs<'_> {
    /// A container's id as the API has it: which runtime's it is comes first.
    fn id_of(&self, status: &ContainerStatus) -> String {
        format!("{}://{}", self.runtime, status.id)
    }
}

/// Statuses of the containers whose role `wanted` accepts, in the order of the spec.
pub(super) fn statuses(
    inputs: &StatusInputs<'_>,
    wanted: impl Fn(Role) -> bool,
) -> Vec<ApiContainerStatus> {
    let all = inputs.pod.all_containers().into_iter();
    all.filter(|(role, _)| wanted(*role))
        .map(|(role, container)| status_of(inputs, role, container))
        .collect()
}

/// Statuses of the ephemeral containers.
pub(super) fn ephemeral(inputs: &StatusInputs<'_>) -> Vec<ApiContainerStatus> {
    let all = inputs.pod.ephemeral_containers().into_iter();
    all.map(|container| ApiContainerStatus {
        started: None,
        ready: false,
        ..status_of(inputs, Role::Ephemeral, &container)
    })
    .collect()
}

fn status_of(inputs: &StatusInputs<'_>, role: Role, container: &Container) -> ApiContainerStatus {
    let named = inputs
        .containers
        .values()
        .filter(|c| c.config.name == container.name);
    let mut runs: Vec<&ContainerStatus> = named.collect();
    runs.sort_by_key(|c| std::cmp::Reverse((c.config.attempt, c.created_at)));
    let Some(newest) = runs.first() else {
        return never_created(inputs, role, container);
    };
    let waiting = inputs.waiting.get(&container.name);
    let past = role != Role::Ephemeral
        && inputs.ending.is_none()
        && rounds::is_past(inputs.pod, inputs.containers, newest);
    let previous = || {
        let ended = runs
            .iter()
            .skip(1)
            .find(|c| c.state == ContainerState::Exited);
        ended.map(|c| terminated(inputs, c))
    };
    let (state, last_state) = match newest.state {
        ContainerState::Running => (running(newest), previous()),
        ContainerState::Exited if past => {
            let message = "The container is removed because RestartAllContainers in place";
            let state = waits("RestartingAllContainers", message);
            (state, Some(terminated(inputs, newest)))
        }
        ContainerState::Exited => {
            let again = inputs.ending.is_none()
                && restarts(inputs.pod, role, container, newest.exit_code)
                && !(role == Role::Init && newest.exit_code == 0);
            match waiting.filter(|_| again) {
                Some((reason, message)) => {
                    (waits(reason, message), Some(terminated(inputs, newest)))
                }
                None => (terminated(inputs, newest), previous()),
            }
        }
        ContainerState::Created | ContainerState::Unknown => {
            let (reason, message) = waiting.cloned().unwrap_or_else(|| default_wait(inputs));
            (waits(&reason, &message), previous())
        }
    };
    let is_running = newest.state == ContainerState::Running;
    let health = inputs.health.get(&newest.id).filter(|_| is_running);
    let started = health.is_some_and(|health| health.started);
    let ready = match role {
        Role::Init => newest.state == ContainerState::Exited && newest.exit_code == 0 && !past,
        _ => started && readiness(container, health.and_then(|health| health.ready)),
    };
    ApiContainerStatus {
        name: container.name.clone(),
        image: image_of(container, newest),
        image_id: newest.image_id.clone(),
        container_id: Some(inputs.id_of(newest)),
        restart_count: i32::try_from(newest.config.attempt).unwrap_or(i32::MAX),
        ready,
        started: Some(started),
        state: Some(state),
        last_state: Some(last_state.unwrap_or_default()),
        resources: Some(resources_of(inputs, container, is_running)),
        allocated_resources: granted(container).requests,
        user: newest.user.as_ref().map(user_of),
        volume_mounts: mounts_of(container),
        ..ApiContainerStatus::default()
    }
}

fn granted(container: &Container) -> ResourceRequirements {
    container.resources.clone().unwrap_or_default()
}

/// What a running container has; what another will have.
fn resources_of(
    inputs: &StatusInputs<'_>,
    container: &Container,
    running: bool,
) -> ResourceRequirements {
    let has = inputs.actuated.get(&container.name).filter(|_| running);
    has.map_or_else(|| granted(container), |has| has.own.clone())
}

fn user_of(user: &node_api::ContainerUser) -> ContainerUser {
    ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: user.uid,
            gid: user.gid,
            supplemental_groups: (!user.supplemental_groups.is_empty())
                .then(|| user.supplemental_groups.clone()),
        }),
    }
}

fn mounts_of(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let all = container.volume_mounts.as_ref()?.iter();
    let of = |mount: &VolumeMount| {
        let read_only = mount.read_only == Some(true);
        let recursive = matches!(
            mount.recursive_read_only.as_deref(),
            Some("Enabled" | "IfPossible")
        );
        let word = if recursive { "Enabled" } else { "Disabled" };
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: read_only.then_some(true),
            recursive_read_only: read_only.then(|| word.to_owned()),
            ..VolumeMountStatus::default()
        }
    };
    Some(all.map(of).collect())
}

fn readiness(container: &Container, probed: Option<bool>) -> bool {
    probed.unwrap_or(container.readiness_probe.is_none())
}

fn image_of(container: &Container, status: &ContainerStatus) -> String {
    match status.config.user_specified_image.as_str() {
        "" => container.image.clone().unwrap_or_default(),
        image => image.to_owned(),
    }
}

/// Nothing of it is in the runtime: not created yet, or removed behind our back.
fn never_created(
    inputs: &StatusInputs<'_>,
    role: Role,
    container: &Container,
) -> ApiContainerStatus {
    let old = inputs.old.container_statuses.iter().flatten();
    let old = old.chain(inputs.old.init_container_statuses.iter().flatten());
    let old = old.chain(inputs.old.ephemeral_container_statuses.iter().flatten());
    let old = old.into_iter().find(|status| status.name == container.name);
    if let Some(old) = old.filter(|old| old.container_id.is_some()) {
        return vanished(inputs, role, old);
    }
    let waiting = inputs.waiting.get(&container.name).cloned();
    let (reason, message) = waiting.unwrap_or_else(|| default_wait(inputs));
    ApiContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: String::new(),
        started: Some(false),
        state: Some(waits(&reason, &message)),
        last_state: Some(ApiState::default()),
        volume_mounts: mounts_of(container),
        ..ApiContainerStatus::default()
    }
}

/// The API knows a container that the runtime does not know any more.
fn vanished(inputs: &StatusInputs<'_>, role: Role, old: &ApiContainerStatus) -> ApiContainerStatus {
    let mut status = old.clone();
    let state = old.state.clone().unwrap_or_default();
    if state.running.is_some() {
        let ended = ApiState {
            terminated: Some(ContainerStateTerminated {
                exit_code: 137,
                reason: Some("ContainerStatusUnknown".into()),
                message: Some(
                    "The container could not be located when the pod was terminated".into(),
                ),
                container_id: old.container_id.clone(),
                ..ContainerStateTerminated::default()
            }),
            ..ApiState::default()
        };
        status.ready = false;
        status.started = Some(false);
        match inputs.ending.is_some() || role == Role::Ephemeral {
            true => status.state = Some(ended),
            false => {
                let (reason, message) = default_wait(inputs);
                status.state = Some(waits(&reason, &message));
                status.last_state = Some(ended);
            }
        }
    }
    status
}

fn default_wait(inputs: &StatusInputs<'_>) -> (String, String) {
    let reason = match inputs.pod.init_containers().is_empty() {
        true => "ContainerCreating",
        false => "PodInitializing",
    };
    (reason.to_owned(), String::new())
}

fn waits(reason: &str, message: &str) -> ApiState {
    ApiState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
        }),
        ..ApiState::default()
    }
}

fn running(status: &ContainerStatus) -> ApiState {
    ApiState {
        running: Some(ContainerStateRunning {
            started_at: api_time(status.started_at),
        }),
        ..ApiState::default()
    }
}

fn terminated(inputs: &StatusInputs<'_>, status: &ContainerStatus) -> ApiState {
    let reason = match status.reason.as_str() {
        "" if status.exit_code == 0 => "Completed",
        "" => "Error",
        reason => reason,
    };
    let left = inputs.messages.get(&status.id).map(String::as_str);
    let message = left.unwrap_or(&status.message);
    ApiState {
        terminated: Some(ContainerStateTerminated {
            exit_code: status.exit_code,
            reason: Some(reason.to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
            started_at: api_time(status.started_at),
            finished_at: api_time(status.finished_at),
            container_id: Some(inputs.id_of(status)),
            ..ContainerStateTerminated::default()
        }),
        ..ApiState::default()
    }
}
