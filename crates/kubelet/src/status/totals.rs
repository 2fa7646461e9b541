//! Resources of the pod as a whole: what it was granted, and what it has.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use meta::Quantity;

use super::StatusInputs;
use crate::plan::newest_sandbox;
use crate::pod::{PodExt, Role};
use crate::resources::{milli_of_quota, milli_of_shares};

type Map = BTreeMap<String, ApiQuantity>;

/// Below these the kernel's numbers say nothing: what was asked for is shown.
const SHARES_MIN: i64 = 2;
const QUOTA_MILLI_MIN: i64 = 10;

/// What the pod may count on: the sum of its containers' requests, or its own.
pub(super) fn requests(pod: &Pod) -> Map {
    let own = |r: &ResourceRequirements| r.requests.clone();
    let mut all = total(pod, own, true);
    all.extend(whole(pod).and_then(own).unwrap_or_default());
    all
}

fn limits(pod: &Pod) -> Map {
    let own = |r: &ResourceRequirements| r.limits.clone();
    let mut all = total(pod, own, false);
    all.extend(whole(pod).and_then(own).unwrap_or_default());
    all
}

fn whole(pod: &Pod) -> Option<&ResourceRequirements> {
    pod.spec().resources.as_ref()
}

/// What the pod has: while it runs, processor and memory are as the kernel was told.
pub(super) fn resources(inputs: &StatusInputs<'_>, phase: &str) -> ResourceRequirements {
    let pod = inputs.pod;
    if phase != "Running" {
        return ResourceRequirements {
            requests: Some(requests(pod)).filter(|map| !map.is_empty()),
            limits: Some(limits(pod)).filter(|map| !map.is_empty()),
            ..whole(pod).cloned().unwrap_or_default()
        };
    }
    let mut resources = whole(pod).cloned().unwrap_or_default();
    let asked = requests(pod);
    let mut requests = resources.requests.take().unwrap_or_default();
    let mut limits = resources.limits.take().unwrap_or_default();
    if let Some(memory) = asked.get("memory") {
        let known = requests.entry("memory".to_owned());
        known.or_insert_with(|| memory.clone());
    }
    let sandbox = newest_sandbox(inputs.sandboxes);
    let made = sandbox.and_then(|sandbox| sandbox.config.resources.as_ref());
    if let Some(has) = inputs.whole.or(made) {
        let milli = |map: &Map| map.get("cpu").map_or(0, |q| read(q).milli());
        let cpu = milli_of_shares(has.cpu_shares);
        if cpu > SHARES_MIN || milli(&requests) > SHARES_MIN {
            requests.insert("cpu".to_owned(), shown(Quantity::from_milli(cpu)));
        }
        if has.cpu_quota > 0 {
            let cpu = milli_of_quota(has);
            if cpu > QUOTA_MILLI_MIN || milli(&limits) > QUOTA_MILLI_MIN {
                limits.insert("cpu".to_owned(), shown(Quantity::from_milli(cpu)));
            }
        }
        if has.memory_limit_bytes > 0 {
            let memory = Quantity::from_bytes(has.memory_limit_bytes);
            limits.insert("memory".to_owned(), shown(memory));
        }
    }
    resources.requests = Some(requests).filter(|map| !map.is_empty());
    resources.limits = Some(limits).filter(|map| !map.is_empty());
    resources
}

fn read(quantity: &ApiQuantity) -> Quantity {
    Quantity::parse(&quantity.0).unwrap_or(Quantity::ZERO)
}

fn shown(quantity: Quantity) -> ApiQuantity {
    ApiQuantity(quantity.to_string())
}

/// What a pod needs at most at one time of each resource, with what it takes beside its containers.
fn total(
    pod: &Pod,
    of: impl Fn(&ResourceRequirements) -> Option<Map>,
    overhead_alone: bool,
) -> Map {
    let map = |container: &Container| container.resources.as_ref().and_then(&of);
    let all: Vec<(Role, Map)> = pod
        .all_containers()
        .into_iter()
        .map(|(role, container)| (role, map(container).unwrap_or_default()))
        .collect();
    let overhead = pod.spec().overhead.clone().unwrap_or_default();
    let mut names: BTreeSet<&String> = all.iter().flat_map(|(_, map)| map.keys()).collect();
    if overhead_alone {
        names.extend(overhead.keys());
    }
    let sum = |name: &String| {
        let (mut running, mut peak, mut sidecars) = (None, None, None);
        for (role, map) in &all {
            let amount = map.get(name).map(read);
            match role {
                Role::Main => running = plus(running, amount),
                Role::Sidecar => sidecars = plus(sidecars, amount),
                Role::Init => peak = peak.max(plus(sidecars, amount)),
                Role::Ephemeral => {}
            }
        }
        let most = plus(running, sidecars).max(peak);
        plus(most, overhead.get(name).map(read)).unwrap_or(Quantity::ZERO)
    };
    let sums = names
        .into_iter()
        .map(|name| (name.clone(), shown(sum(name))));
    sums.collect()
}

fn plus(one: Option<Quantity>, other: Option<Quantity>) -> Option<Quantity> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one + other),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn containers_add_up_and_the_pods_own_counts_first() {
        let mut pod: Pod = serde_json::from_value(json!({"spec": {
            "overhead": {"memory": "1Mi"},
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "10m"}}},
                {"name": "init", "resources": {"requests": {"memory": "50Mi", "cpu": "5m"}}}],
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "100m", "memory": "20Mi"}, "limits": {"cpu": "1"}}},
                {"name": "b", "resources": {"requests": {"cpu": "50m", "memory": "10Mi"}}}]}}))
        .unwrap();
        let shown = |map: Map| serde_json::to_value(map).unwrap();
        assert_eq!(
            shown(requests(&pod)),
            json!({"cpu": "160m", "memory": "51Mi"})
        );
        assert_eq!(shown(limits(&pod)), json!({"cpu": "1"}));
        pod.spec.as_mut().unwrap().resources =
            serde_json::from_value(json!({"requests": {"cpu": "2"}, "limits": {"memory": "1Gi"}}))
                .unwrap();
        assert_eq!(shown(requests(&pod)), json!({"cpu": "2", "memory": "51Mi"}));
        assert_eq!(shown(limits(&pod)), json!({"cpu": "1", "memory": "1Gi"}));
    }
}
