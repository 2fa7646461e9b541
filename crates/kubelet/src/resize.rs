//! In-place resize: what changed between the resources a running container has
//! and those its pod was granted, and what it takes to get there.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use meta::Quantity;
use node_api::{ContainerState, ContainerStatus, LinuxResources};
use serde_json::{Value, json};

use crate::config::Config;
use crate::plan::newest_container;
use crate::pod::{PodExt, Role};
use crate::resources::{self, Qos};
use crate::swap;

/// What a running container was given.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Given {
    pub(crate) own: ResourceRequirements,
    /// The pod's at that time: its limits count for containers that have none.
    pub(crate) whole: Option<ResourceRequirements>,
}

impl Given {
    /// What a container of a pod is given now.
    pub(crate) fn of(pod: &Pod, container: &Container) -> Given {
        Given {
            own: container.resources.clone().unwrap_or_default(),
            whole: pod.spec().resources.clone(),
        }
    }

    fn effective(&self) -> ResourceRequirements {
        resources::effective(&self.own, self.whole.as_ref())
    }
}

/// What running containers were given, by their names.
pub(crate) type ByContainer = HashMap<String, Given>;

/// What it takes to give a running container other resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Nothing,
    /// Its cgroup is written.
    Update,
    /// Its `resizePolicy` wants a new start.
    Restart,
}

/// Compares what a container should have to what it has.
pub(crate) fn change(pod: &Pod, container: &Container, has: &Given) -> Change {
    let (wanted, has) = (Given::of(pod, container).effective(), has.effective());
    let mut change = Change::Nothing;
    for name in ["cpu", "memory"] {
        if figures(&wanted, name) == figures(&has, name) {
            continue;
        }
        let policies = container.resize_policy.iter().flatten();
        let mut policies = policies.filter(|policy| policy.resource_name == name);
        if policies.any(|policy| policy.restart_policy == "RestartContainer") {
            return Change::Restart;
        }
        change = Change::Update;
    }
    change
}

/// Why other resources cannot be had at all: a part of the swap is as large as it was at the start;
/// managers that give whole processors and memory of
/// their own to guaranteed containers do so once.
pub(crate) fn infeasible(wished: &Pod, has: &Pod, config: &Config) -> Option<String> {
    if swap::hinders_resize(wished, has, config) {
        return Some("In-place resize of containers with swap is not supported.".to_owned());
    }
    if resources::qos(wished) != Qos::Guaranteed {
        return None;
    }
    let cpus = config.placement.cpus.exclusive;
    let memory = config.placement.memory.exclusive;
    let managers = [
        ("cpu", "CPU Manager policy \"static\"", cpus),
        ("memory", "Memory Manager policy \"Static\"", memory),
    ];
    let differs = |resource: &str| {
        wished.all_containers().iter().any(|(role, container)| {
            let of = |container: &Container| {
                let own = container.resources.clone().unwrap_or_default();
                figures(&own, resource).0
            };
            let known = has.container(&container.name);
            *role != Role::Ephemeral && known.is_some_and(|(_, known)| of(&known) != of(container))
        })
    };
    let mut found = managers
        .iter()
        .filter(|(resource, _, exclusive)| *exclusive && differs(resource));
    let (_, manager, _) = found.next()?;
    Some(format!(
        "Resize is infeasible for Guaranteed Pods alongside {manager}"
    ))
}

/// Request and limit, in thousandths.
fn figures(resources: &ResourceRequirements, name: &str) -> (i128, i128) {
    let read = |map: &Option<BTreeMap<String, _>>| {
        let quantity: Option<&ApiQuantity> = map.as_ref().and_then(|map| map.get(name));
        let quantity = quantity.and_then(|quantity| Quantity::parse(&quantity.0).ok());
        quantity.map_or(0, |quantity| i128::from(quantity.milli()))
    };
    (read(&resources.requests), read(&resources.limits))
}

/// Whether two versions of a pod ask for the same resources.
pub(crate) fn same(one: &Pod, other: &Pod) -> bool {
    let of = |pod: &Pod| -> Vec<(String, ResourceRequirements)> {
        let all = pod.all_containers().into_iter();
        all.map(|(_, c)| (c.name.clone(), c.resources.clone().unwrap_or_default()))
            .collect()
    };
    one.spec().resources == other.spec().resources && of(one) == of(other)
}

/// A pod with other resources: those of `from`.
pub(crate) fn with_resources_of(pod: &Pod, from: &Pod) -> Pod {
    let all = from.all_containers().into_iter();
    let known: ByContainer = all
        .map(|(_, container)| (container.name.clone(), Given::of(from, container)))
        .collect();
    let mut pod = with_resources(pod, &known);
    if let Some(spec) = pod.spec.as_mut() {
        spec.resources = from.spec().resources.clone();
    }
    pod
}

/// A pod whose containers have the given resources.
pub(crate) fn with_resources(pod: &Pod, known: &ByContainer) -> Pod {
    let mut pod = pod.clone();
    if let Some(spec) = pod.spec.as_mut() {
        let inits = spec.init_containers.iter_mut().flatten();
        for container in inits.chain(&mut spec.containers) {
            if let Some(given) = known.get(&container.name) {
                container.resources = Some(given.own.clone());
            }
        }
    }
    pod
}

/// What the API knows of the resources of a whole pod that was granted them.
pub(crate) fn granted_whole(pod: &Pod) -> Option<ResourceRequirements> {
    let mut whole = pod.spec().resources.clone()?;
    let Some(known) = pod.status().resources.as_ref() else {
        return Some(whole);
    };
    // Status tells more than was asked for: sums of what containers have.
    let restore = |asked: &mut Option<BTreeMap<String, _>>, known: &Option<BTreeMap<String, _>>| {
        for (name, amount) in asked.iter_mut().flatten() {
            if let Some(granted) = known.as_ref().and_then(|known| known.get(name)) {
                *amount = ApiQuantity::clone(granted);
            }
        }
    };
    restore(&mut whole.limits, &known.limits);
    restore(&mut whole.requests, &known.requests);
    Some(whole)
}

/// What the API knows of the resources of containers that run: what is left of earlier decisions
/// after a restart of ours.
pub(crate) fn remembered(pod: &Pod, running: &BTreeMap<String, ContainerStatus>) -> ByContainer {
    let status = pod.status();
    let all = status.container_statuses.iter().flatten();
    let all = all.chain(status.init_container_statuses.iter().flatten());
    let same_life = |name: &str, id: Option<&str>| {
        let id = id.and_then(|id| id.split("://").nth(1));
        newest_container(running, name).is_some_and(|known| Some(known.id.as_str()) == id)
    };
    all.filter(|status| same_life(&status.name, status.container_id.as_deref()))
        .filter_map(|status| {
            let given = Given {
                own: status.resources.clone()?,
                whole: granted_whole(pod),
            };
            Some((status.name.clone(), given))
        })
        .collect()
}

/// One container to be given other limits.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Update {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) resources: LinuxResources,
    /// As the pod's object has them.
    pub(crate) granted: Given,
    /// The memory limit becomes smaller, or there was none.
    pub(crate) shrinks: bool,
}

/// The running containers whose cgroups must be written; those that lose memory first.
pub(crate) fn updates(
    pod: &Pod,
    containers: &BTreeMap<String, ContainerStatus>,
    actuated: &ByContainer,
    config: &Config,
    memory_capacity: i64,
) -> Vec<Update> {
    let mut updates = Vec::new();
    for (_, container) in pod.all_containers() {
        let status = newest_container(containers, &container.name);
        let running = status.filter(|status| status.state == ContainerState::Running);
        let (Some(status), Some(has)) = (running, actuated.get(&container.name)) else {
            continue;
        };
        if change(pod, container, has) != Change::Update {
            continue;
        }
        let granted = Given::of(pod, container);
        let limit = |given: &Given| figures(&given.effective(), "memory").1;
        let (before, after) = (limit(has), limit(&granted));
        updates.push(Update {
            id: status.id.clone(),
            name: container.name.clone(),
            resources: resources::of_container(pod, container, config, memory_capacity),
            granted,
            shrinks: after != 0 && (before == 0 || after < before),
        });
    }
    updates.sort_by_key(|update| !update.shrinks);
    updates
}

/// Whether all running containers have what they should.
pub(crate) fn settled(
    pod: &Pod,
    containers: &BTreeMap<String, ContainerStatus>,
    actuated: &ByContainer,
) -> bool {
    pod.all_containers().into_iter().all(|(_, container)| {
        let status = newest_container(containers, &container.name);
        let running = status.is_some_and(|status| status.state == ContainerState::Running);
        let has = actuated.get(&container.name);
        !running || has.is_none_or(|has| change(pod, container, has) == Change::Nothing)
    })
}

/// The larger of two limits of a pod: what it has on its way from one to the other.
pub(crate) fn widest(one: &LinuxResources, other: &LinuxResources) -> LinuxResources {
    LinuxResources {
        cpu_shares: one.cpu_shares.max(other.cpu_shares),
        cpu_quota: one.cpu_quota.max(other.cpu_quota),
        memory_limit_bytes: one.memory_limit_bytes.max(other.memory_limit_bytes),
        ..other.clone()
    }
}

/// The message of an event about a resize: what happened, and to what.
pub(crate) fn message(what: &str, pod: &Pod, error: Option<&str>) -> String {
    let list = |containers: &[Container]| -> Vec<Value> {
        let all = containers.iter();
        all.map(|c| json!({"name": c.name, "resources": c.resources.clone().unwrap_or_default()}))
            .collect()
    };
    let mut summary = serde_json::Map::new();
    if !pod.init_containers().is_empty() {
        summary.insert("initContainers".into(), list(pod.init_containers()).into());
    }
    summary.insert("containers".into(), list(&pod.spec().containers).into());
    summary.insert("generation".into(), pod.metadata.generation.into());
    if let Some(error) = error {
        summary.insert("error".into(), error.into());
    }
    format!("{what}: {}", Value::from(summary))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(resources: Value, policy: &str) -> Container {
        serde_json::from_value(
            json!({"name": "a", "resources": resources, "resizePolicy": [
            {"resourceName": "cpu", "restartPolicy": "NotRequired"},
            {"resourceName": "memory", "restartPolicy": policy}]}),
        )
        .unwrap()
    }

    fn resources(value: Value) -> ResourceRequirements {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn policies_say_what_a_change_takes() {
        let has = Given {
            own: resources(json!({"requests": {"cpu": "20m", "memory": "35Mi"}})),
            whole: None,
        };
        for (wanted, policy, expected) in [
            (
                json!({"requests": {"cpu": "0.02", "memory": "35Mi"}}),
                "RestartContainer",
                Change::Nothing,
            ),
            (
                json!({"requests": {"cpu": "25m", "memory": "35Mi"}}),
                "RestartContainer",
                Change::Update,
            ),
            (
                json!({"requests": {"cpu": "20m", "memory": "36Mi"}}),
                "RestartContainer",
                Change::Restart,
            ),
            (
                json!({"requests": {"cpu": "20m", "memory": "36Mi"}}),
                "NotRequired",
                Change::Update,
            ),
            (
                json!({"requests": {"cpu": "20m", "memory": "35Mi"}, "limits": {"cpu": "1"}}),
                "NotRequired",
                Change::Update,
            ),
        ] {
            let container = container(wanted.clone(), policy);
            assert_eq!(
                change(&Pod::default(), &container, &has),
                expected,
                "{wanted}"
            );
        }
    }

    #[test]
    fn a_pods_limits_count_for_containers_without() {
        let pod = |memory: &str| -> Pod {
            serde_json::from_value(json!({"spec": {"resources": {"limits": {"memory": memory}},
                "containers": [container(json!({}), "RestartContainer"),
                    container(json!({"limits": {"memory": "1Mi"}}), "RestartContainer")]}}))
            .unwrap()
        };
        let (before, after) = (pod("20Mi"), pod("30Mi"));
        let changes: Vec<Change> = (0..2)
            .map(|index| {
                let given = Given::of(&before, &before.spec().containers[index]);
                change(&after, &after.spec().containers[index], &given)
            })
            .collect();
        assert_eq!(changes, [Change::Restart, Change::Nothing]);
    }

    #[test]
    fn pods_keep_what_they_were_granted() {
        let pod = |cpu: &str| -> Pod {
            serde_json::from_value(
                json!({"metadata": {"generation": 2}, "spec": {"containers": [
                {"name": "a", "resources": {"requests": {"cpu": cpu}}}]}}),
            )
            .unwrap()
        };
        let (granted, wished) = (pod("1"), pod("2"));
        assert!(!same(&granted, &wished));
        assert!(same(&granted, &with_resources_of(&wished, &granted)));
        assert_eq!(
            message("Pod resize started", &wished, None),
            r#"Pod resize started: {"containers":[{"name":"a","resources":{"requests":{"cpu":"2"}}}],"generation":2}"#
        );
    }
}
