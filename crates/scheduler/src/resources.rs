//! What a pod asks for, in numbers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use meta::Quantity;

/// CPU that a container without a request is scored with, in millicores.
const DEFAULT_MILLI_CPU: i64 = 100;
/// Memory that a container without a request is scored with, in bytes.
const DEFAULT_MEMORY: i64 = 200 << 20;

/// Amounts of resources: CPU in millicores, the rest in units or bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(BTreeMap<String, i64>);

impl Resources {
    /// Reads a list as objects have it; what does not parse counts as nothing.
    pub fn read(list: Option<&BTreeMap<String, Text>>) -> Resources {
        let entry = |(name, text): (&String, &Text)| {
            let quantity = Quantity::parse(&text.0).unwrap_or(Quantity::ZERO);
            (name.clone(), amount(name, quantity))
        };
        Resources(list.into_iter().flatten().map(entry).collect())
    }

    /// The amount of one resource.
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Sets the amount of one resource.
    pub fn set(&mut self, name: &str, amount: i64) {
        self.0.insert(name.to_owned(), amount);
    }

    /// All resources that are asked for.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// Adds another's amounts.
    pub fn add(&mut self, other: &Resources) {
        for (name, amount) in &other.0 {
            let known = self.0.entry(name.clone()).or_default();
            *known = known.saturating_add(*amount);
        }
    }

    /// Takes another's amounts away.
    pub fn subtract(&mut self, other: &Resources) {
        for (name, amount) in &other.0 {
            let known = self.0.entry(name.clone()).or_default();
            *known = known.saturating_sub(*amount);
        }
    }

    /// Raises each amount to at least the other's.
    fn raise(&mut self, other: &Resources) {
        for (name, amount) in &other.0 {
            let known = self.0.entry(name.clone()).or_default();
            *known = (*known).max(*amount);
        }
    }
}

fn amount(name: &str, quantity: Quantity) -> i64 {
    if name == "cpu" {
        quantity.milli()
    } else {
        quantity.value()
    }
}

/// What a pod asks for as a whole: the sum of containers and sidecars, or what an init container
/// needs while it runs if that is more; plus overhead (upstream's `resource.PodRequests`).
pub fn requested(pod: &Pod) -> Resources {
    sum(pod, false)
}

/// The same with upstream's assumptions for containers that ask for nothing, for scoring.
pub fn scored(pod: &Pod) -> Resources {
    sum(pod, true)
}

fn sum(pod: &Pod, assume: bool) -> Resources {
    let Some(spec) = &pod.spec else {
        return Resources::default();
    };
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&of(container, assume));
    }
    let (mut sidecars, mut peak) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let own = of(container, assume);
        if container.restart_policy.as_deref() == Some("Always") {
            total.add(&own);
            sidecars.add(&own);
            peak.raise(&sidecars);
        } else {
            let mut while_it_runs = sidecars.clone();
            while_it_runs.add(&own);
            peak.raise(&while_it_runs);
        }
    }
    total.raise(&peak);
    for (name, amount) in pod_level(spec.resources.as_ref()).0 {
        total.0.insert(name, amount);
    }
    total.add(&Resources::read(spec.overhead.as_ref()));
    total
}

fn pod_level(resources: Option<&ResourceRequirements>) -> Resources {
    Resources::read(resources.and_then(|resources| resources.requests.as_ref()))
}

fn of(container: &Container, assume: bool) -> Resources {
    let requests = container
        .resources
        .as_ref()
        .and_then(|all| all.requests.as_ref());
    let mut own = Resources::read(requests);
    if assume {
        own.0.entry("cpu".into()).or_insert(DEFAULT_MILLI_CPU);
        own.0.entry("memory".into()).or_insert(DEFAULT_MEMORY);
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn init_containers_and_sidecars_count_as_upstream() {
        let ask = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "overhead": {"cpu": "10m"},
            "initContainers": [
                {"name": "a", "resources": ask("100m")},
                {"name": "side", "restartPolicy": "Always", "resources": ask("200m")},
                {"name": "b", "resources": ask("500m")}],
            "containers": [{"name": "c", "resources": ask("300m")}, {"name": "d"}]}}))
        .unwrap();
        // Running: 300 + 200; while b runs: 200 + 500.
        assert_eq!(requested(&pod).get("cpu"), 710);
        assert_eq!(scored(&pod).get("memory"), (200 << 20) * 3);
    }
}
