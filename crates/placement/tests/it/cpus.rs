//! Processors and devices that have to be near each other.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base::Crew;
use placement::*;

use crate::plugin::{Plugin, device};

const RESOURCE: &str = "example.com/card";

/// Two nodes of four cores with one thread each.
fn machine() -> Machine {
    let cpu = |id: usize| {
        let found = Cpu {
            core: id,
            socket: id / 4,
            node: id / 4,
            cache: id / 4,
        };
        (id, found)
    };
    Machine {
        cpus: (0..8).map(cpu).collect(),
        nodes: (0..2).map(|id| (id, Node::default())).collect(),
    }
}

fn config(folder: &Path, policy: Policy, scope: Scope) -> Config {
    Config {
        machine: machine(),
        cpus: CpuConfig {
            exclusive: true,
            reserved_count: 1,
            ..CpuConfig::default()
        },
        policy,
        scope,
        ..Config::below(folder)
    }
}

fn open(config: &Config, crew: &Crew) -> Result<Arc<Placement>, OpenError> {
    Placement::open(config, Arc::new(Vec::new), Arc::new(|_: &str| {}), crew)
}

fn pod(uid: &str, cpus: i64, cards: i64) -> PodWish {
    let container = ContainerWish {
        name: "main".into(),
        role: Role::Main,
        milli_cpus: cpus * 1_000,
        memory: BTreeMap::new(),
        extended: [(RESOURCE.to_owned(), cards)].into(),
    };
    PodWish {
        uid: uid.into(),
        guaranteed: true,
        pod_level: false,
        containers: vec![container],
    }
}

async fn with_cards(placement: &Placement, folder: &Path) -> Plugin {
    let devices = vec![
        device("near", "Healthy", Some(0)),
        device("far", "Healthy", Some(1)),
    ];
    let mut changes = placement.changes();
    let plugin = Plugin::start_with(&folder.join("device-plugins"), RESOURCE, devices).await;
    while placement.amounts()[RESOURCE].allocatable < 2 {
        changes.changed().await.unwrap();
    }
    plugin
}

#[tokio::test]
async fn processors_are_beside_the_card() {
    for scope in [Scope::Container, Scope::Pod] {
        let folder = tempfile::tempdir().unwrap();
        let crew = Crew::new();
        let config = config(folder.path(), Policy::SingleNumaNode, scope);
        let placement = open(&config, &crew).unwrap();
        let _plugin = with_cards(&placement, folder.path()).await;
        let mut pool = placement.pool_changes();
        placement.admit(&pod("a", 4, 1)).await.unwrap();
        // Node 0 has three processors left beside the reserved one.
        assert_eq!(placement.cpus_of("a", "main").unwrap().to_string(), "4-7");
        assert_eq!(placement.held("a", "main")[0].id, "far");
        assert!(pool.has_changed().unwrap());
        pool.mark_unchanged();
        assert_eq!(placement.shared_cpus().unwrap().to_string(), "0-3");
        let refused = placement.admit(&pod("b", 4, 1)).await.unwrap_err();
        assert_eq!(refused.reason, "TopologyAffinityError");
        assert_eq!(
            refused.message,
            "Resources cannot be allocated with Topology locality"
        );
        placement.admit(&pod("c", 2, 1)).await.unwrap();
        assert_eq!(placement.cpus_of("c", "main").unwrap().to_string(), "1-2");
        placement.release("a");
        assert!(pool.has_changed().unwrap());
        assert_eq!(placement.shared_cpus().unwrap().to_string(), "0,3-7");
    }
}

#[tokio::test]
async fn best_effort_takes_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let crew = Crew::new();
    let config = config(folder.path(), Policy::BestEffort, Scope::Container);
    let placement = open(&config, &crew).unwrap();
    let _plugin = with_cards(&placement, folder.path()).await;
    placement.admit(&pod("a", 6, 1)).await.unwrap();
    assert_eq!(placement.cpus_of("a", "main").unwrap().len(), 6);
    let refused = placement.admit(&pod("b", 2, 0)).await.unwrap_err();
    assert_eq!(refused.reason, "UnexpectedAdmissionError");
    // Another process has the same idea of who has what, and stops where it cannot.
    crew.stop().raise();
    crew.finished().await.unwrap();
    let crew = Crew::new();
    let again = open(&config, &crew).unwrap();
    assert_eq!(again.cpus_of("a", "main"), placement.cpus_of("a", "main"));
    let mut none = config.clone();
    none.cpus = CpuConfig::default();
    let refused = open(&none, &crew).err().unwrap().to_string();
    assert!(
        refused.contains("delete the CPU manager checkpoint file"),
        "{refused}"
    );
}
