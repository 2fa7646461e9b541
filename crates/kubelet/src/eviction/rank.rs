//! Which pod has to go first, and what it is told.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use meta::Quantity;

use super::{Observation, Signal, Threshold};
use crate::pod::PodExt;
use crate::resources;

/// What a pod or a container uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) memory: i64,
    pub(crate) disk: i64,
    pub(crate) inodes: i64,
    pub(crate) processes: i64,
}

impl Usage {
    pub(crate) fn add(&mut self, other: Usage) {
        self.memory += other.memory;
        self.disk += other.disk;
        self.inodes += other.inodes;
        self.processes += other.processes;
    }
}

/// A pod that may have to go.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) pod: Arc<Pod>,
    /// Of the pod, what is shared by its containers included.
    pub(crate) usage: Usage,
    /// By container.
    pub(crate) containers: Vec<(String, Usage)>,
}

/// Puts those that go first to the front: who uses more than was asked for, then the least
/// important, then who is the farthest beyond what was asked for.
pub(crate) fn rank(signal: Signal, candidates: &mut [Candidate]) {
    candidates.sort_by_key(|candidate| {
        let pod = candidate.pod.as_ref();
        let usage = candidate.usage;
        let (used, request) = match signal {
            Signal::Memory | Signal::PodMemory => {
                (usage.memory, resources::requests(pod).memory_bytes)
            }
            Signal::NodeDisk | Signal::ImageDisk => (usage.disk, resources::disk_request(pod)),
            Signal::NodeInodes | Signal::ImageInodes => (usage.inodes, 0),
            // Nobody asks for processes: importance decides, then numbers.
            Signal::ProcessIds => (usage.processes, usage.processes),
        };
        let beyond = match signal {
            Signal::ProcessIds => used,
            _ => used - request,
        };
        let priority = pod.spec().priority.unwrap_or(0);
        (used <= request, priority, std::cmp::Reverse(beyond))
    });
}

/// What the pod's status says.
pub(crate) fn message(threshold: &Threshold, seen: Observation, candidate: &Candidate) -> String {
    let signal = threshold.signal;
    let resource = signal.resource();
    let shown = |amount: i64| match signal {
        Signal::NodeInodes | Signal::ImageInodes | Signal::ProcessIds => {
            Quantity::from_units(amount).to_string()
        }
        _ => Quantity::from_bytes(amount).to_string(),
    };
    let (wanted, available) = (
        shown(threshold.amount.of(seen.capacity)),
        shown(seen.available),
    );
    let mut text = format!(
        "The node was low on resource: {resource}. Threshold quantity: {wanted}, available: {available}. "
    );
    for (name, usage) in &candidate.containers {
        let used = match signal {
            Signal::Memory | Signal::PodMemory => usage.memory,
            Signal::NodeDisk | Signal::ImageDisk => usage.disk,
            _ => continue,
        };
        let request = candidate.pod.container(name).map_or(0, |(_, container)| {
            resources::request_of(&container, resource)
        });
        if used > request {
            text.push_str(&format!(
                "Container {name} was using {}, request is {}, has larger consumption of {resource}. ",
                shown(used),
                shown(request)
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn candidate(name: &str, priority: i32, request: &str, memory: i64) -> Candidate {
        let pod = json!({"metadata": {"name": name}, "spec": {"priority": priority, "containers": [
            {"name": "main", "resources": {"requests": {"memory": request}}}]}});
        let usage = Usage {
            memory,
            ..Usage::default()
        };
        Candidate {
            pod: Arc::new(serde_json::from_value(pod).unwrap()),
            usage,
            containers: vec![("main".into(), usage)],
        }
    }

    #[test]
    fn who_took_more_than_asked_goes_first() {
        let mut all = [
            candidate("modest", 0, "100", 90),
            candidate("important", 10, "0", 500),
            candidate("greedy", 0, "100", 300),
            candidate("large", 0, "1000", 1_100),
        ];
        rank(Signal::Memory, &mut all);
        let names: Vec<_> = all.iter().map(|candidate| candidate.pod.name()).collect();
        assert_eq!(names, ["greedy", "large", "important", "modest"]);
        let threshold = &Threshold::parse_all("memory.available<100Mi").unwrap()[0];
        let seen = Observation {
            capacity: 1 << 30,
            available: 4 << 20,
        };
        assert_eq!(
            message(threshold, seen, &all[0]),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 4Mi. \
             Container main was using 300, request is 100, has larger consumption of memory. "
        );
    }
}
