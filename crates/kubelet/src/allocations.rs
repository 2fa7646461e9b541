//! What each pod of the node was granted, so that no grant goes beyond what the
//! node has; and who waits for more.

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::api::core::v1::Pod;
use meta::Quantity;
use parking_lot::Mutex;

use crate::resources;

/// Processor and memory a pod asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) milli_cpu: i64,
    pub(crate) memory_bytes: i64,
}

/// A wish the node cannot grant now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
)]
pub(crate) struct Shortage {
    pub(crate) resource: &'static str,
    requested: i64,
    used: i64,
    capacity: i64,
}

/// All grants of the node, by the uids of pods.
#[derive(Debug, Default)]
pub(crate) struct Allocations {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    granted: HashMap<String, Amounts>,
    waiting: HashSet<String>,
}

impl Allocations {
    /// Grants what a pod asks for, instead of what it had, if the node has it.
    pub(crate) fn grant(
        &self,
        uid: &str,
        pod: &Pod,
        allocatable: &BTreeMap<String, Quantity>,
    ) -> Result<(), Shortage> {
        let wish = resources::requests(pod);
        let mut table = self.table.lock();
        let others = table.granted.iter().filter(|(known, _)| *known != uid);
        let mut used = Amounts::default();
        let mut pods = 0;
        for (_, amounts) in others {
            used.milli_cpu += amounts.milli_cpu;
            used.memory_bytes += amounts.memory_bytes;
            pods += 1;
        }
        let had = table.granted.get(uid).copied().unwrap_or_default();
        let left = |name: &str, read: fn(Quantity) -> i64| {
            allocatable.get(name).copied().map_or(i64::MAX, read)
        };
        // What is not asked for, or asked for no more than before, needs no room.
        for (resource, requested, before, used, capacity) in [
            ("pods", 1, 0, pods, left("pods", Quantity::value)),
            (
                "cpu",
                wish.milli_cpu,
                had.milli_cpu,
                used.milli_cpu,
                left("cpu", Quantity::milli),
            ),
            (
                "memory",
                wish.memory_bytes,
                had.memory_bytes,
                used.memory_bytes,
                left("memory", Quantity::value),
            ),
        ] {
            if requested > before && used.saturating_add(requested) > capacity {
                return Err(Shortage {
                    resource,
                    requested,
                    used,
                    capacity,
                });
            }
        }
        table.granted.insert(uid.to_owned(), wish);
        table.waiting.remove(uid);
        Ok(())
    }

    /// Notes what a pod has already, whether or not there is room for it.
    pub(crate) fn note(&self, uid: &str, pod: &Pod) {
        let has = resources::requests(pod);
        self.table.lock().granted.insert(uid.to_owned(), has);
    }

    /// A pod that will ask again when others need less.
    pub(crate) fn wait(&self, uid: &str) {
        self.table.lock().waiting.insert(uid.to_owned());
    }

    /// A pod does not need anything any more.
    pub(crate) fn release(&self, uid: &str) {
        let mut table = self.table.lock();
        table.granted.remove(uid);
        table.waiting.remove(uid);
    }

    /// The pods that wait for room.
    pub(crate) fn waiting(&self) -> Vec<String> {
        self.table.lock().waiting.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(cpu: &str) -> Pod {
        serde_json::from_value(json!({"spec": {"containers": [
            {"name": "a", "resources": {"requests": {"cpu": cpu}}}]}}))
        .unwrap()
    }

    #[test]
    fn grants_stay_within_the_node() {
        let node = BTreeMap::from([("cpu".to_owned(), Quantity::from_milli(1_000))]);
        let all = Allocations::default();
        all.grant("a", &pod("600m"), &node).unwrap();
        let shortage = all.grant("b", &pod("500m"), &node).unwrap_err();
        assert_eq!(
            shortage.to_string(),
            "Node didn't have enough resource: cpu, requested: 500, used: 600, capacity: 1000"
        );
        all.wait("b");
        // One's own grant is no obstacle, and shrinking never is.
        all.grant("a", &pod("1"), &node).unwrap();
        all.note("c", &pod("5"));
        all.grant("a", &pod("400m"), &node).unwrap();
        all.release("c");
        assert_eq!(all.waiting(), ["b"]);
        all.grant("b", &pod("600m"), &node).unwrap();
        assert!(all.waiting().is_empty());
    }
}
