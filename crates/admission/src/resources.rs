//! Lists of resources, and what a pod asks for in sum.

use std::collections::BTreeMap;

use meta::{Object, Quantity};
use serde_json::{Value, json};

use crate::tree::{list, spec, text};

/// Amounts by resource name.
pub type Resources = BTreeMap<String, Quantity>;

/// Resources that pods may state for all their containers at once.
const POD_LEVEL: [&str; 2] = ["cpu", "memory"];

/// Reads a resource list; entries that are no quantities are left out.
pub fn read(list: Option<&Value>) -> Resources {
    let entries = list.and_then(Value::as_object);
    let quantity = |value: &Value| match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    };
    entries
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), quantity(value)?)))
        .collect()
}

/// The same as JSON.
pub fn write(resources: &Resources) -> Value {
    let text = |(name, amount): (&String, &Quantity)| (name.clone(), json!(amount.to_string()));
    Value::Object(resources.iter().map(text).collect())
}

/// `cpu=1,memory=2Gi`, as messages show it.
pub fn shown(resources: &Resources) -> String {
    let parts: Vec<String> = resources
        .iter()
        .map(|(name, amount)| format!("{name}={amount}"))
        .collect();
    parts.join(",")
}

/// Adds each amount.
pub fn add(to: &mut Resources, more: &Resources) {
    for (name, amount) in more {
        let sum = to.entry(name.clone()).or_insert(Quantity::ZERO);
        *sum = *sum + *amount;
    }
}

/// Raises each amount to at least that of `other`.
pub fn raise(to: &mut Resources, other: &Resources) {
    for (name, amount) in other {
        let greatest = to.entry(name.clone()).or_insert(*amount);
        *greatest = (*greatest).max(*amount);
    }
}

/// What of `new` goes beyond `old`; nothing is ever negative, and what is zero is left out.
pub fn growth(new: &Resources, old: &Resources) -> Resources {
    let beyond = |(name, amount): (&String, &Quantity)| {
        let before = old.get(name).copied().unwrap_or(Quantity::ZERO);
        (*amount > before).then(|| (name.clone(), *amount - before))
    };
    new.iter().filter_map(beyond).collect()
}

/// `requests` or `limits` of a container.
pub fn of_container(container: &Value, which: &str) -> Resources {
    read(
        container
            .get("resources")
            .and_then(|resources| resources.get(which)),
    )
}

/// `requests` or `limits` of a pod: the sum over its containers and sidecars, or what its init
/// containers need at their worst moment, or what the pod as a whole states; without overhead.
pub fn of_pod(pod: &Object, which: &str) -> Resources {
    let spec = spec(pod);
    let mut sum = Resources::new();
    for container in list(spec, "containers") {
        add(&mut sum, &of_container(container, which));
    }
    let (mut sidecars, mut worst) = (Resources::new(), Resources::new());
    for container in list(spec, "initContainers") {
        let mut needed = of_container(container, which);
        if text(container, "restartPolicy") == "Always" {
            add(&mut sum, &needed);
            add(&mut sidecars, &needed);
            needed = sidecars.clone();
        } else {
            add(&mut needed, &sidecars);
        }
        raise(&mut worst, &needed);
    }
    raise(&mut sum, &worst);
    let stated = of_container(spec, which);
    sum.extend(
        stated
            .into_iter()
            .filter(|(name, _)| POD_LEVEL.contains(&name.as_str())),
    );
    sum
}

/// The same with the overhead of the pod's runtime class; it adds only to limits that exist.
pub fn of_pod_with_overhead(pod: &Object, which: &str) -> Resources {
    let mut sum = of_pod(pod, which);
    let mut overhead = read(spec(pod).get("overhead"));
    if which == "limits" {
        overhead.retain(|name, _| sum.get(name).is_some_and(|amount| !amount.is_zero()));
    }
    add(&mut sum, &overhead);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(cpu: &str) -> Value {
        json!({"resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}})
    }

    fn cpu(pod: &Object) -> String {
        of_pod(pod, "requests")["cpu"].to_string()
    }

    #[test]
    fn init_containers_count_at_their_worst_moment() {
        let mut sidecar = container("300m");
        sidecar["restartPolicy"] = "Always".into();
        let pod = |init: Vec<Value>| {
            Object(
                json!({"spec": {"containers": [container("1"), container("500m")],
                "initContainers": init}}),
            )
        };
        assert_eq!(cpu(&pod(vec![])), "1500m");
        assert_eq!(cpu(&pod(vec![container("1")])), "1500m");
        assert_eq!(cpu(&pod(vec![container("2")])), "2");
        assert_eq!(cpu(&pod(vec![sidecar.clone()])), "1800m");
        assert_eq!(cpu(&pod(vec![sidecar, container("2")])), "2300m");
    }

    #[test]
    fn overhead_adds_to_limits_that_exist() {
        let pod = Object(json!({"spec": {"containers": [container("1")],
            "overhead": {"cpu": "250m", "memory": "64Mi"}}}));
        assert_eq!(
            shown(&of_pod_with_overhead(&pod, "requests")),
            "cpu=1250m,memory=64Mi"
        );
        assert_eq!(shown(&of_pod_with_overhead(&pod, "limits")), "cpu=1250m");
    }

    #[test]
    fn pods_may_state_their_own() {
        let pod = Object(json!({"spec": {"containers": [container("1")],
            "resources": {"requests": {"cpu": "3", "example.com/x": "1"}}}}));
        assert_eq!(shown(&of_pod(&pod, "requests")), "cpu=3");
    }
}
