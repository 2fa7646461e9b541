//! What each pod of the node was granted, so that no grant goes beyond what the
//! node has; and who waits for more, the most important first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::Pod;
use meta::Quantity;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::node_cgroups::Asked;
use crate::pod::{HostPort, PodExt};
use crate::resources::{self, Qos};

/// What a pod asks of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) milli_cpu: i64,
    pub(crate) memory_bytes: i64,
    pub(crate) disk_bytes: i64,
}

/// A resource: its name, and how an amount of it is read.
type Resource = (&'static str, fn(&Amounts) -> i64, fn(Quantity) -> i64);

const RESOURCES: [Resource; 3] = [
    ("cpu", |amounts| amounts.milli_cpu, Quantity::milli),
    ("memory", |amounts| amounts.memory_bytes, Quantity::value),
    (
        "ephemeral-storage",
        |amounts| amounts.disk_bytes,
        Quantity::value,
    ),
];

impl Amounts {
    /// How much there is of a resource by its name; a pod is one of `pods`.
    pub(crate) fn of(&self, name: &str) -> i64 {
        let known = RESOURCES.iter().find(|(known, ..)| *known == name);
        known.map_or(1, |(_, read, _)| read(self))
    }
}

/// A wish the node cannot grant now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
)]
pub(crate) struct Shortage {
    pub(crate) resource: String,
    requested: i64,
    used: i64,
    capacity: i64,
}

impl Shortage {
    /// How much others would have to give up.
    pub(crate) fn missing(&self) -> i64 {
        self.requested - (self.capacity - self.used)
    }
}

/// Why a pod gets nothing: all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Denial {
    pub(crate) shortages: Vec<Shortage>,
    /// A host port is another's.
    pub(crate) ports: bool,
}

/// All grants of the node, by the uids of pods.
#[derive(Debug, Default)]
pub(crate) struct Allocations {
    table: Mutex<Table>,
    changed: watch::Sender<()>,
}

#[derive(Clone, Debug)]
struct Grant {
    amounts: Amounts,
    qos: Qos,
    /// Bytes by resource.
    huge_pages: BTreeMap<String, i64>,
    ports: Vec<HostPort>,
}

/// A pod that waits for more.
#[derive(Debug)]
struct Wish {
    amounts: Amounts,
    priority: i32,
    guaranteed: bool,
    /// In the order in which they came.
    number: u64,
}

#[derive(Debug, Default)]
struct Table {
    granted: HashMap<String, Grant>,
    waiting: HashMap<String, Wish>,
    wishes: u64,
}

impl Table {
    fn denial(
        &self,
        uid: &str,
        wish: &Grant,
        allocatable: &BTreeMap<String, Quantity>,
    ) -> Option<Denial> {
        let others = self.granted.iter().filter(|(known, _)| *known != uid);
        let others: Vec<&Grant> = others.map(|(_, grant)| grant).collect();
        let had = self.granted.get(uid);
        let mut denial = Denial::default();
        let mut compare = |resource: &str, requested, before, used: i64, capacity| {
            // What is not asked for, or asked for no more than before, needs no room.
            if requested > before && used.saturating_add(requested) > capacity {
                denial.shortages.push(Shortage {
                    resource: resource.to_owned(),
                    requested,
                    used,
                    capacity,
                });
            }
        };
        let left = |name: &str, read: fn(Quantity) -> i64| {
            allocatable.get(name).copied().map_or(i64::MAX, read)
        };
        let pods = i64::try_from(others.len()).unwrap_or(i64::MAX);
        let counted = i64::from(had.is_some());
        compare("pods", 1, counted, pods, left("pods", Quantity::value));
        for (name, read, value) in RESOURCES {
            let used = others.iter().map(|grant| read(&grant.amounts)).sum();
            let before = had.map_or(0, |grant| read(&grant.amounts));
            compare(name, read(&wish.amounts), before, used, left(name, value));
        }
        for (name, requested) in &wish.huge_pages {
            let of = |grant: &Grant| grant.huge_pages.get(name).copied().unwrap_or(0);
            let used = others.iter().map(|grant| of(grant)).sum();
            // Pages of a size that the node lacks are none.
            let capacity = allocatable.get(name).map_or(0, |pages| pages.value());
            compare(name, *requested, had.map_or(0, of), used, capacity);
        }
        denial.ports = had.is_none()
            && others
                .iter()
                .flat_map(|grant| &grant.ports)
                .any(|taken| wish.ports.iter().any(|port| port.clashes(taken)));
        (denial != Denial::default()).then_some(denial)
    }
}

fn wish_of(pod: &Pod) -> Grant {
    Grant {
        amounts: resources::requests(pod),
        qos: resources::qos(pod),
        huge_pages: resources::huge_pages_of(pod),
        ports: pod.host_ports(),
    }
}

impl Allocations {
    /// Grants what a pod asks for, instead of what it had, if the node has it.
    pub(crate) fn grant(
        &self,
        uid: &str,
        pod: &Pod,
        allocatable: &BTreeMap<String, Quantity>,
    ) -> Result<(), Denial> {
        let wish = wish_of(pod);
        let mut table = self.table.lock();
        match table.denial(uid, &wish, allocatable) {
            Some(denial) => Err(denial),
            None => {
                table.granted.insert(uid.to_owned(), wish);
                table.waiting.remove(uid);
                self.changed.send_replace(());
                Ok(())
            }
        }
    }

    /// Why a pod would get nothing.
    pub(crate) fn denial(
        &self,
        uid: &str,
        pod: &Pod,
        allocatable: &BTreeMap<String, Quantity>,
    ) -> Option<Denial> {
        self.table.lock().denial(uid, &wish_of(pod), allocatable)
    }

    /// Notes what a pod has already, whether or not there is room for it.
    pub(crate) fn note(&self, uid: &str, pod: &Pod) {
        let has = wish_of(pod);
        self.table.lock().granted.insert(uid.to_owned(), has);
        self.changed.send_replace(());
    }

    /// Tells when grants change.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What pods were granted, by their class.
    pub(crate) fn asked(&self) -> Asked {
        let table = self.table.lock();
        let mut asked = Asked::default();
        for grant in table.granted.values() {
            let amounts = &grant.amounts;
            match grant.qos {
                Qos::Guaranteed => asked.guaranteed_memory += amounts.memory_bytes,
                Qos::Burstable => {
                    asked.burstable_milli_cpu += amounts.milli_cpu;
                    asked.burstable_memory += amounts.memory_bytes;
                }
                Qos::BestEffort => {}
            }
        }
        asked
    }

    /// Whether a pod has anything of the node.
    pub(crate) fn holds(&self, uid: &str) -> bool {
        self.table.lock().granted.contains_key(uid)
    }

    /// A pod that wants more than there is will get it when others need less.
    pub(crate) fn wait(&self, uid: &str, pod: &Pod) {
        let mut table = self.table.lock();
        table.wishes += 1;
        let number = table.waiting.get(uid).map(|known| known.number);
        let wish = Wish {
            amounts: resources::requests(pod),
            priority: pod.spec().priority.unwrap_or(0),
            guaranteed: resources::qos(pod) == Qos::Guaranteed,
            number: number.unwrap_or(table.wishes),
        };
        table.waiting.insert(uid.to_owned(), wish);
    }

    /// A pod does not want more than it has.
    pub(crate) fn wait_no_more(&self, uid: &str) {
        self.table.lock().waiting.remove(uid);
    }

    /// A pod does not need anything any more.
    pub(crate) fn release(&self, uid: &str) {
        let mut table = self.table.lock();
        table.granted.remove(uid);
        table.waiting.remove(uid);
        self.changed.send_replace(());
    }

    /// Puts room aside for those who wait, the most important first, then those of guaranteed
    /// resources, then who has waited the longest. Returns all of them: they are to ask again.
    pub(crate) fn reserve(&self, allocatable: &BTreeMap<String, Quantity>) -> Vec<String> {
        let mut table = self.table.lock();
        let mut order: Vec<(String, Amounts, _)> = table
            .waiting
            .iter()
            .map(|(uid, wish)| {
                let rank = (Reverse(wish.priority), !wish.guaranteed, wish.number);
                (uid.clone(), wish.amounts, rank)
            })
            .collect();
        order.sort_by_key(|(_, _, rank)| *rank);
        for (uid, amounts, _) in &order {
            let Some(had) = table.granted.get(uid).cloned() else {
                continue;
            };
            let wish = Grant {
                amounts: *amounts,
                qos: had.qos,
                huge_pages: had.huge_pages,
                ports: had.ports,
            };
            if table.denial(uid, &wish, allocatable).is_none() {
                table.granted.insert(uid.clone(), wish);
            }
        }
        order.into_iter().map(|(uid, ..)| uid).collect()
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

    fn important(cpu: &str, priority: i32) -> Pod {
        let mut pod = pod(cpu);
        pod.spec.as_mut().unwrap().priority = Some(priority);
        pod
    }

    #[test]
    fn grants_stay_within_the_node() {
        let node = BTreeMap::from([
            ("cpu".to_owned(), Quantity::from_milli(1_000)),
            ("pods".to_owned(), Quantity::from_units(3)),
        ]);
        let all = Allocations::default();
        all.grant("a", &pod("600m"), &node).unwrap();
        let denial = all.grant("b", &pod("500m"), &node).unwrap_err();
        assert_eq!(
            denial.shortages[0].to_string(),
            "Node didn't have enough resource: cpu, requested: 500, used: 600, capacity: 1000"
        );
        assert_eq!(denial.shortages[0].missing(), 100);
        // One's own grant is no obstacle, and shrinking never is.
        all.grant("a", &pod("1"), &node).unwrap();
        all.note("c", &pod("5"));
        all.grant("a", &pod("400m"), &node).unwrap();
        all.note("d", &pod("0"));
        let denial = all.grant("e", &pod("0"), &node).unwrap_err();
        assert_eq!(denial.shortages[0].resource, "pods");
    }

    #[test]
    fn huge_pages_are_counted_by_their_size() {
        let pod = |bytes: &str| -> Pod {
            let limits = json!({"cpu": "1", "hugepages-2Mi": bytes});
            serde_json::from_value(json!({"spec": {"containers": [
                {"name": "a", "resources": {"limits": limits}}]}}))
            .unwrap()
        };
        let node = BTreeMap::from([("hugepages-2Mi".to_owned(), Quantity::from_bytes(8 << 20))]);
        let all = Allocations::default();
        all.grant("a", &pod("6Mi"), &node).unwrap();
        let denial = all.grant("b", &pod("4Mi"), &node).unwrap_err();
        assert_eq!(
            denial.shortages[0].to_string(),
            "Node didn't have enough resource: hugepages-2Mi, requested: 4194304, used: 6291456, \
             capacity: 8388608"
        );
        all.grant("b", &pod("2Mi"), &node).unwrap();
        assert!(all.grant("c", &pod("2Mi"), &BTreeMap::new()).is_err());
    }

    #[test]
    fn room_goes_to_the_most_important_who_wait() {
        let node = BTreeMap::from([("cpu".to_owned(), Quantity::from_milli(1_000))]);
        let all = Allocations::default();
        for uid in ["big", "first", "second", "vip"] {
            all.grant(uid, &pod("100m"), &node).unwrap();
        }
        all.grant("rest", &pod("600m"), &node).unwrap();
        all.wait("first", &pod("400m"));
        all.wait("second", &pod("400m"));
        all.wait("vip", &important("400m", 5));
        all.wait("big", &important("900m", 9));
        all.release("rest");
        assert_eq!(all.reserve(&node), ["big", "vip", "first", "second"]);
        let granted = |uid: &str, pod: &Pod| all.grant(uid, pod, &node).is_ok();
        // What does not fit does not hold up the others.
        assert!(!granted("big", &important("900m", 9)));
        assert!(!granted("second", &pod("400m")));
        assert!(granted("vip", &important("400m", 5)) && granted("first", &pod("400m")));
        all.wait_no_more("big");
        assert_eq!(all.reserve(&node), ["second"]);
    }

    #[test]
    fn host_ports_are_one_pods_only() {
        let asking = |ip: &str, port: i32, protocol: &str| -> Pod {
            serde_json::from_value(json!({"spec": {"containers": [{"name": "a", "ports": [
                {"containerPort": 80, "hostPort": port, "hostIP": ip, "protocol": protocol}]}]}}))
            .unwrap()
        };
        let all = Allocations::default();
        let grant = |uid: &str, pod: Pod| all.grant(uid, &pod, &BTreeMap::new());
        grant("a", asking("", 80, "TCP")).unwrap();
        grant("udp", asking("", 80, "UDP")).unwrap();
        grant("other", asking("192.0.2.1", 81, "TCP")).unwrap();
        grant("same", asking("192.0.2.2", 81, "TCP")).unwrap();
        assert!(
            grant("b", asking("192.0.2.1", 80, "TCP"))
                .unwrap_err()
                .ports
        );
        assert!(grant("c", asking("0.0.0.0", 81, "TCP")).unwrap_err().ports);
        all.release("a");
        grant("b", asking("192.0.2.1", 80, "TCP")).unwrap();
    }
}
