//! The status of a pod as the API shows it: a pure function of the pod, what
//! the runtime has, and what probes found.

mod conditions;
mod containers;
mod totals;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerStatus as ApiContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use node_api::{ContainerStatus, LinuxResources, PodSandboxStatus, SandboxState};

pub(crate) use conditions::{ResizeCondition, foreign_conditions, with_foreign};

use crate::plan::{Ending, Health, newest_sandbox, outcome};
use crate::pod::{PodExt, Role, whole_seconds};
use crate::resize::ByContainer;
use crate::resources::qos;

/// The reason of pods that had to go for the node's sake.
pub(crate) const EVICTED: &str = "Evicted";
/// The reason of pods that had to make room for more important ones.
pub(crate) const PREEMPTED: &str = "Preempting";

/// Why a container waits: reason and message.
pub(crate) type Waiting = (String, String);

/// All a status depends on.
pub(crate) struct StatusInputs<'a> {
    pub(crate) pod: &'a Pod,
    /// The name of the runtime.
    pub(crate) runtime: &'a str,
    /// The status as written or read last.
    pub(crate) old: &'a PodStatus,
    pub(crate) sandboxes: &'a BTreeMap<String, PodSandboxStatus>,
    pub(crate) containers: &'a BTreeMap<String, ContainerStatus>,
    pub(crate) health: &'a HashMap<String, Health>,
    /// Why containers (by name) are not running.
    pub(crate) waiting: &'a HashMap<String, Waiting>,
    /// Messages containers left when they ended (by id).
    pub(crate) messages: &'a HashMap<String, String>,
    /// Resources of the running containers.
    pub(crate) actuated: &'a ByContainer,
    /// What the pod as a whole was limited to after its start.
    pub(crate) whole: Option<&'a LinuxResources>,
    /// Where a resize stands.
    pub(crate) resizes: &'a [ResizeCondition],
    pub(crate) ending: Option<&'a Ending>,
    pub(crate) host_ips: &'a [IpAddr],
    /// Whether `PodReadyToStartContainers` is told.
    pub(crate) ready_to_start: bool,
    pub(crate) now: Timestamp,
}

/// Builds the status.
pub(crate) fn pod_status(inputs: &StatusInputs<'_>) -> PodStatus {
    let (pod, old) = (inputs.pod, inputs.old);
    let main = containers::statuses(inputs, |role| role == Role::Main);
    let init = containers::statuses(inputs, |role| role != Role::Main);
    let ephemeral = containers::ephemeral(inputs);
    let phase = phase(inputs, &init, &main);
    let (reason, message) = match inputs.ending.and_then(|ending| ending.verdict.clone()) {
        Some((reason, message)) => (Some(reason), Some(message)),
        None => (old.reason.clone(), old.message.clone()),
    };
    let host_ips: Vec<String> = inputs.host_ips.iter().map(IpAddr::to_string).collect();
    let pod_ips = pod_ips(inputs);
    let conditions = conditions::all(inputs, phase, &init, &main, !pod_ips.is_empty());
    PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        conditions: Some(conditions),
        host_ip: host_ips.first().cloned(),
        host_ips: some(host_ips.into_iter().map(|ip| HostIP { ip }).collect()),
        pod_ip: pod_ips.first().cloned(),
        pod_ips: some(pod_ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: old
            .start_time
            .clone()
            .or(Some(Time(whole_seconds(inputs.now)))),
        container_statuses: some(main),
        init_container_statuses: some(init),
        ephemeral_container_statuses: some(ephemeral),
        qos_class: Some(
            old.qos_class
                .clone()
                .unwrap_or_else(|| qos(pod).as_str().into()),
        ),
        observed_generation: pod.metadata.generation,
        allocated_resources: Some(totals::requests(pod)).filter(|map| !map.is_empty()),
        resources: Some(totals::resources(inputs, phase)),
        ..PodStatus::default()
    }
}

fn some<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

fn pod_ips(inputs: &StatusInputs<'_>) -> Vec<String> {
    let sandbox = newest_sandbox(inputs.sandboxes);
    let ready = sandbox.filter(|sandbox| sandbox.state == SandboxState::Ready);
    let ips = match ready {
        Some(_) if inputs.pod.host_network() => inputs.host_ips.to_vec(),
        Some(sandbox) => sandbox.ips.clone(),
        None => Vec::new(),
    };
    if ips.is_empty() && inputs.ending.is_some() {
        // A pod that ended keeps the address it had.
        let old = inputs.old.pod_ips.iter().flatten();
        return old.map(|pod_ip| pod_ip.ip.clone()).collect();
    }
    ips.iter().map(IpAddr::to_string).collect()
}

fn phase(
    inputs: &StatusInputs<'_>,
    init: &[ApiContainerStatus],
    main: &[ApiContainerStatus],
) -> &'static str {
    // A pod that ended never lives again.
    match inputs.old.phase.as_deref() {
        Some("Failed") => return "Failed",
        Some("Succeeded") => return "Succeeded",
        _ => {}
    }
    let running = |status: &ApiContainerStatus| state(status).0;
    let any_alive = init.iter().chain(main).any(running);
    if let Some(ending) = inputs.ending
        && !any_alive
    {
        if ending.verdict.is_some() {
            return "Failed";
        }
        if let Some(phase) = outcome(inputs.pod, inputs.containers) {
            return phase;
        }
        // Ended from outside: by what its containers made of it; never started counts as failed.
        let all_well = !main.is_empty() && main.iter().all(|status| state(status).1 == Some(0));
        return if all_well { "Succeeded" } else { "Failed" };
    }
    if let Some(phase) = outcome(inputs.pod, inputs.containers)
        && !any_alive
    {
        return phase;
    }
    let ever_ran = |status: &ApiContainerStatus| {
        let last = status
            .last_state
            .as_ref()
            .and_then(|state| state.terminated.as_ref());
        running(status) || state(status).1.is_some() || last.is_some()
    };
    match !main.is_empty() && main.iter().all(ever_ran) {
        true => "Running",
        false => "Pending",
    }
}

/// Whether it runs, and its exit code if it ended.
fn state(status: &ApiContainerStatus) -> (bool, Option<i32>) {
    let state = status.state.as_ref();
    let running = state.is_some_and(|state| state.running.is_some());
    let code = state
        .and_then(|state| state.terminated.as_ref())
        .map(|t| t.exit_code);
    (running, code)
}

/// Whether two statuses differ in something worth writing.
pub(crate) fn differs(old: &PodStatus, new: &PodStatus) -> bool {
    let own = |conditions: &Option<Vec<PodCondition>>| -> Vec<PodCondition> {
        let all = conditions.iter().flatten();
        let mut own: Vec<_> = all.filter(|c| conditions::is_own(c)).cloned().collect();
        own.sort_by(|a, b| a.type_.cmp(&b.type_));
        own
    };
    if own(&old.conditions) != own(&new.conditions) {
        return true;
    }
    let plain = |status: &PodStatus| PodStatus {
        conditions: None,
        // Not ours: kept by whoever wrote them.
        nominated_node_name: None,
        resize: None,
        resource_claim_statuses: None,
        ..status.clone()
    };
    plain(old) != plain(new)
}

/// Names the reasons and messages that conditions had and have no more: what a patch does not name
/// stays.
fn take_away(old: &serde_json::Value, conditions: &mut [serde_json::Value]) {
    let known = old["conditions"].as_array();
    for condition in conditions {
        let mut known = known.into_iter().flatten();
        let Some(before) = known.find(|known| known["type"] == condition["type"]) else {
            continue;
        };
        for field in ["reason", "message"] {
            if before.get(field).is_some() && condition.get(field).is_none() {
                condition[field] = serde_json::Value::Null;
            }
        }
    }
}

/// The strategic merge patch that brings the API's status to `new`.
pub(crate) fn patch(uid: &str, old: &PodStatus, new: &PodStatus) -> serde_json::Value {
    let tree = |status: &PodStatus| serde_json::to_value(status).unwrap_or_default();
    let (old_tree, mut tree) = (tree(old), tree(new));
    const OWNED: [&str; 12] = [
        "resources",
        "allocatedResources",
        "phase",
        "reason",
        "message",
        "podIP",
        "podIPs",
        "hostIP",
        "hostIPs",
        "containerStatuses",
        "initContainerStatuses",
        "ephemeralContainerStatuses",
    ];
    for field in OWNED {
        if old_tree.get(field).is_some() && tree.get(field).is_none() {
            tree[field] = serde_json::Value::Null;
        }
    }
    // podIPs merge by address: without this, an address that changed would stay beside the new.
    if old.pod_ips != new.pod_ips
        && let Some(ips) = tree.get_mut("podIPs").and_then(|ips| ips.as_array_mut())
        && old.pod_ips.is_some()
    {
        ips.insert(0, serde_json::json!({"$patch": "replace"}));
    }
    // Conditions merge by type: those of others are left alone by not being named.
    if let Some(conditions) = tree.get_mut("conditions").and_then(|c| c.as_array_mut()) {
        let own = new.conditions.iter().flatten();
        let own: Vec<&str> = own
            .filter(|condition| conditions::is_own(condition))
            .map(|condition| condition.type_.as_str())
            .collect();
        conditions.retain(|c| c["type"].as_str().is_some_and(|kind| own.contains(&kind)));
        take_away(&old_tree, conditions);
        let kept = |kind: &str| {
            let mut all = new.conditions.iter().flatten();
            all.any(|condition| condition.type_ == kind)
        };
        let old = old.conditions.iter().flatten();
        let lost = old.filter(|c| conditions::is_own(c) && !kept(&c.type_));
        conditions.extend(
            lost.map(|condition| serde_json::json!({"$patch": "delete", "type": condition.type_})),
        );
    }
    serde_json::json!({"metadata": {"uid": uid}, "status": tree})
}

#[cfg(test)]
mod tests;
