//! Who may have pages of memory written to swap, and how many.

use k8s_openapi::api::core::v1::{Container, Pod};
use meta::Quantity;
use node_api::LinuxResources;

use crate::config::Config;
use crate::pod::PodExt;
use crate::resources::{self, Qos};

/// The file of version 2 that limits swap alone.
const SWAP_FILE: &str = "memory.swap.max";

/// Whether a container has a part of the machine's swap. Version 1 limits swap only together with
/// memory, which does not serve for that: nobody has swap there, as upstream's.
pub(crate) fn is_swappable(pod: &Pod, container: &Container, config: &Config) -> bool {
    let facts = &config.cgroups;
    if !config.limited_swap || !facts.limits_swap || !facts.unified || pod.is_critical() {
        return false;
    }
    let (request, limit) = memory(container);
    resources::qos(pod) == Qos::Burstable && request != limit
}

/// A container's own request and limit in bytes.
fn memory(container: &Container) -> (i64, i64) {
    let own = container.resources.as_ref();
    let read = |limits| resources::amount(own, limits, "memory").map_or(0, Quantity::value);
    (read(false), read(true))
}

/// Sets what a container may have of the swap.
pub(crate) fn limit(
    limits: &mut LinuxResources,
    pod: &Pod,
    container: &Container,
    config: &Config,
    memory_capacity: i64,
) {
    let facts = &config.cgroups;
    if !facts.limits_swap {
        return;
    }
    if !facts.unified {
        // Memory and swap together are no more than memory.
        limits.memory_swap_limit_bytes = limits.memory_limit_bytes;
        return;
    }
    let part = match is_swappable(pod, container, config) {
        true => part(memory(container).0, memory_capacity, facts.swap_bytes),
        false => 0,
    };
    limits
        .unified
        .insert(SWAP_FILE.to_owned(), part.to_string());
}

/// As much of the swap as a request is of the memory.
fn part(request: i64, memory: i64, swap: i64) -> i64 {
    if memory <= 0 || request > memory {
        return 0;
    }
    let part = i128::from(request) * i128::from(swap) / i128::from(memory);
    i64::try_from(part).unwrap_or(0)
}

/// What a container may have of the swap, where that is said.
pub(crate) fn limit_of(limits: &LinuxResources) -> Option<u64> {
    if let Some(text) = limits.unified.get(SWAP_FILE) {
        return text.parse().ok();
    }
    let sum = Some(limits.memory_swap_limit_bytes).filter(|sum| *sum > 0)?;
    u64::try_from(sum - limits.memory_limit_bytes).ok()
}

/// The limit as it is written: on version 1 of memory and swap together.
pub(crate) fn written(limits: &LinuxResources) -> i64 {
    let file = limits.unified.get(SWAP_FILE);
    let own = file.and_then(|text| text.parse().ok());
    own.unwrap_or(limits.memory_swap_limit_bytes)
}

/// Whether a container's memory cannot be changed while it runs, for its part of the swap would change.
pub(crate) fn hinders_resize(wished: &Pod, has: &Pod, config: &Config) -> bool {
    wished.all_containers().iter().any(|(_, container)| {
        let Some((_, known)) = has.container(&container.name) else {
            return false;
        };
        let policies = known.resize_policy.iter().flatten();
        let mut of_memory = policies.filter(|policy| policy.resource_name == "memory");
        let restarts = of_memory.any(|policy| policy.restart_policy == "RestartContainer");
        memory(container).0 != memory(&known).0
            && !restarts
            && (is_swappable(wished, container, config) || is_swappable(has, &known, config))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::CgroupFacts;

    fn config(unified: bool, limited: bool) -> Config {
        let mut config = Config::new("n", [127, 0, 0, 1].into(), "/r".into(), "/l".into());
        config.limited_swap = limited;
        config.cgroups = CgroupFacts {
            unified,
            limits_swap: true,
            swap_bytes: 2 << 30,
        };
        config
    }

    fn pod(resources: Value, more: Value) -> Pod {
        let mut spec = json!({"containers": [{"name": "a", "resources": resources}]});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    fn limits(pod: &Pod, config: &Config) -> LinuxResources {
        resources::of_container(pod, &pod.spec().containers[0], config, 8 << 30)
    }

    #[test]
    fn burstable_containers_have_their_part() {
        let of = |resources: Value, more: Value| {
            limits(&pod(resources, more), &config(true, true)).unified[SWAP_FILE].clone()
        };
        let some = json!({"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}});
        assert_eq!(of(some.clone(), json!({})), (256 << 20).to_string());
        let open = json!({"requests": {"memory": "3Gi"}});
        assert_eq!(of(open, json!({})), (768 << 20).to_string());
        for (resources, more) in [
            (json!({}), json!({})),
            (json!({"requests": {"cpu": "1"}}), json!({})),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}),
                json!({}),
            ),
            (
                json!({"requests": {"memory": "1Gi"}, "limits": {"memory": "1024Mi"}}),
                json!({}),
            ),
            (json!({"requests": {"memory": "9Gi"}}), json!({})),
            (some.clone(), json!({"priority": 2_000_000_000})),
        ] {
            assert_eq!(of(resources.clone(), more), "0", "{resources}");
        }
        let off = limits(&pod(some, json!({})), &config(true, false));
        assert_eq!(off.unified[SWAP_FILE], "0");
    }

    #[test]
    fn version_1_has_no_swap() {
        let some = json!({"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}});
        let pod = pod(some, json!({}));
        let own = limits(&pod, &config(false, true));
        assert_eq!(own.memory_swap_limit_bytes, 2 << 30);
        assert!(own.unified.is_empty());
        assert_eq!(limit_of(&own), Some(0));
        let mut blind = config(true, true);
        blind.cgroups.limits_swap = false;
        let own = limits(&pod, &blind);
        assert_eq!(own.memory_swap_limit_bytes, 0);
        assert!(!own.unified.contains_key(SWAP_FILE));
        assert_eq!(limit_of(&own), None);
        // A pod must not take from its containers what they have.
        assert_eq!(resources::of_pod(&pod, &blind).memory_swap_limit_bytes, -1);
        let old = resources::of_pod(&pod, &config(false, true));
        assert_eq!(old.memory_swap_limit_bytes, 0);
    }

    #[test]
    fn memory_of_who_has_swap_stays() {
        let with = |memory: &str, policy: &str| -> Pod {
            serde_json::from_value(json!({"spec": {"containers": [{"name": "a",
                "resources": {"requests": {"memory": memory}},
                "resizePolicy": [{"resourceName": "memory", "restartPolicy": policy}]}]}}))
            .unwrap()
        };
        let (plain, more) = (with("1Gi", "NotRequired"), with("2Gi", "NotRequired"));
        assert!(hinders_resize(&more, &plain, &config(true, true)));
        assert!(!hinders_resize(&plain, &plain, &config(true, true)));
        assert!(!hinders_resize(&more, &plain, &config(true, false)));
        assert!(!hinders_resize(&more, &plain, &config(false, true)));
        let restarting = with("1Gi", "RestartContainer");
        assert!(!hinders_resize(&more, &restarting, &config(true, true)));
    }
}
