//! Memory that is kept for those who asked for it, and before which limit others are slowed down.
//! Version 2 only.

use k8s_openapi::api::core::v1::{Container, Pod};
use meta::Quantity;
use node_api::LinuxResources;

use crate::config::Config;
use crate::resources::{self, Qos};

/// Never taken away.
pub(crate) const MIN: &str = "memory.min";
/// Taken away only where nothing else is left.
pub(crate) const LOW: &str = "memory.low";
/// Who has more is slowed down, and gives memory back.
const HIGH: &str = "memory.high";
/// The kernel rounds down further where its pages are larger.
const PAGE: i64 = 4096;

/// The feature gate `MemoryQoS` with its settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryQos {
    /// Where containers are slowed down: a part of the way from request to limit.
    pub throttling: f64,
    /// `TieredReservation`: what guaranteed pods ask for is kept for them, and that of burstable
    /// ones as long as possible.
    pub tiered: bool,
}

/// Under which name memory is kept for the pods of a class.
fn kept_as(pod: &Pod) -> &'static str {
    match resources::qos(pod) {
        Qos::Guaranteed => MIN,
        Qos::Burstable | Qos::BestEffort => LOW,
    }
}

/// What is in force, where the machine has it.
pub(crate) fn in_force(config: &Config) -> Option<MemoryQos> {
    config.memory_qos.filter(|_| config.cgroups.unified)
}

/// Sets what a container keeps, and where it is slowed down.
pub(crate) fn of_container(
    limits: &mut LinuxResources,
    pod: &Pod,
    container: &Container,
    config: &Config,
    memory_capacity: i64,
) {
    let Some(settings) = in_force(config) else {
        return;
    };
    let own = container.resources.as_ref();
    let read = |limits| resources::amount(own, limits, "memory").map_or(0, Quantity::value);
    let (request, limit) = (read(false), read(true));
    let mut set = |file: &str, bytes: i64| {
        limits.unified.insert(file.to_owned(), bytes.to_string());
    };
    match settings.tiered && request > 0 {
        true => set(kept_as(pod), request),
        false => {
            set(MIN, 0);
            set(LOW, 0);
        }
    }
    if request == limit {
        return;
    }
    let most = match limit {
        0 => {
            let reserved = config.reserved.get("memory").map_or(0, |kept| kept.value());
            (memory_capacity - reserved).max(0)
        }
        limit => limit,
    };
    let way = (most - request) as f64 * settings.throttling;
    let high = (request as f64 + way).floor() as i64 / PAGE * PAGE;
    if most > 0 && high > request {
        set(HIGH, high);
    }
}

/// Sets what a pod keeps as a whole.
pub(crate) fn of_pod(limits: &mut LinuxResources, pod: &Pod, config: &Config) {
    let request = resources::requests(pod).memory_bytes;
    if in_force(config).is_some_and(|settings| settings.tiered) && request > 0 {
        let file = kept_as(pod).to_owned();
        limits.unified.insert(file, request.to_string());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::CgroupFacts;
    use crate::pod::PodExt;

    fn config(tiered: bool) -> Config {
        let mut config = Config::new("n", [127, 0, 0, 1].into(), "/r".into(), "/l".into());
        config.cgroups = CgroupFacts {
            unified: true,
            ..CgroupFacts::default()
        };
        config.memory_qos = Some(MemoryQos {
            throttling: 0.9,
            tiered,
        });
        let kept = Quantity::from_bytes(1 << 30);
        config.reserved.insert("memory".to_owned(), kept);
        config
    }

    fn pod(resources: Value) -> Pod {
        serde_json::from_value(
            json!({"spec": {"containers": [{"name": "a", "resources": resources}]}}),
        )
        .unwrap()
    }

    fn files(resources: Value, config: &Config) -> Value {
        let pod = pod(resources);
        let own = resources::of_container(&pod, &pod.spec().containers[0], config, 5 << 30);
        let of_memory = |file: &str| [MIN, LOW, HIGH].contains(&file);
        let own = own.unified.into_iter().filter(|(file, _)| of_memory(file));
        Value::from_iter(own)
    }

    #[test]
    fn containers_are_slowed_down_before_their_limit() {
        let some = json!({"requests": {"memory": "1000Mi"}, "limits": {"memory": "2000Mi"}});
        let high = (1900_i64 << 20).to_string();
        assert_eq!(
            files(some.clone(), &config(false)),
            json!({"memory.min": "0", "memory.low": "0", "memory.high": high})
        );
        let low = (1000_i64 << 20).to_string();
        assert_eq!(
            files(some.clone(), &config(true)),
            json!({"memory.low": low, "memory.high": high})
        );
        // Without a limit it is what the node has for pods.
        let open = json!({"requests": {"memory": "1000Mi"}});
        let most = files(open, &config(true))["memory.high"].clone();
        assert_eq!(most, "3970326528");
        assert_eq!(files(json!({}), &config(true)).get("memory.high"), None);
        let all = json!({"cpu": "1", "memory": "1000Mi"});
        let guaranteed = json!({"requests": all, "limits": all});
        assert_eq!(files(guaranteed, &config(true)), json!({"memory.min": low}));
        let mut old = config(true);
        old.cgroups.unified = false;
        assert_eq!(files(some, &old), json!({}));
    }

    #[test]
    fn pods_keep_what_they_asked_for() {
        let of = |tiered: bool, resources: Value| {
            json!(resources::of_pod(&pod(resources), &config(tiered)).unified)
        };
        let some = json!({"requests": {"memory": "1Ki"}});
        assert_eq!(of(true, some.clone()), json!({"memory.low": "1024"}));
        assert_eq!(of(false, some), json!({}));
        let all = json!({"cpu": "1", "memory": "1Ki"});
        let guaranteed = json!({"requests": all, "limits": all});
        assert_eq!(of(true, guaranteed), json!({"memory.min": "1024"}));
        assert_eq!(of(true, json!({})), json!({}));
    }
}
