//! Pods with processors and memory of their own.

use kubelet::{CpuConfig, MachineTopology, MemoryConfig};
use serde_json::{Value, json};
use std::collections::BTreeMap;

use crate::rig::{IMAGE, Rig, pod_path, wait};

fn config(rig: &Rig) -> kubelet::Config {
    let mut config = rig.config();
    // A tree that tells of four processors.
    let system = rig.folder.path().join("system");
    std::fs::create_dir_all(system.join("cpu")).unwrap();
    std::fs::write(system.join("cpu/online"), "0-3\n").unwrap();
    config.placement.machine = MachineTopology::read(&system, 1 << 30);
    config.placement.cpus = CpuConfig {
        exclusive: true,
        reserved_count: 1,
        ..CpuConfig::default()
    };
    config
}

fn guaranteed(name: &str, cpus: u32) -> Value {
    let limits = json!({"cpu": cpus.to_string(), "memory": "64Mi"});
    json!({"containers": [{"name": name, "image": IMAGE, "resources": {"limits": limits}}]})
}

async fn wait_cpus(rig: &Rig, container: &str, expected: &str) {
    wait(&format!("{container} on {expected}"), || {
        let running = rig.runtime.running(container)?;
        (running.config.resources.cpuset_cpus == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn guaranteed_containers_have_processors_alone() {
    let mut rig = Rig::new().await;
    rig.restart_with(config(&rig)).await;
    rig.create("web", json!({}));
    rig.wait_phase("web", "Running").await;
    wait_cpus(&rig, "main", "0-3").await;
    rig.create("own", guaranteed("own", 2));
    rig.wait_phase("own", "Running").await;
    let own = rig.runtime.running("own").unwrap();
    assert_eq!(own.config.resources.cpuset_cpus, "1-2");
    assert_eq!(own.config.resources.cpu_quota, 0);
    let whole = rig.runtime.sandbox_of(&own).config.resources.unwrap();
    assert_eq!(whole.cpu_quota, 0);
    // Those who run already make room, at once and after a restart of ours.
    wait_cpus(&rig, "main", "0,3").await;
    rig.restart_with(config(&rig)).await;
    rig.create(
        "late",
        json!({"containers": [{"name": "late", "image": IMAGE}]}),
    );
    rig.wait_phase("late", "Running").await;
    wait_cpus(&rig, "late", "0,3").await;
    rig.delete("own", 1);
    wait("removal", || {
        rig.api.get(&pod_path("own")).is_none().then_some(())
    })
    .await;
    wait_cpus(&rig, "main", "0-3").await;
    wait_cpus(&rig, "late", "0-3").await;
}

/// Two nodes with 1 GiB each, of which 32 MiB of the first are nobody's.
fn with_memory(rig: &Rig) -> kubelet::Config {
    let mut config = rig.config();
    let system = rig.folder.path().join("nodes");
    for node in 0..2 {
        let folder = system.join(format!("node/node{node}"));
        std::fs::create_dir_all(&folder).unwrap();
        let text = format!("Node {node} MemTotal: {} kB\n", 1 << 20);
        std::fs::write(folder.join("meminfo"), text).unwrap();
        std::fs::write(folder.join("cpulist"), format!("{node}\n")).unwrap();
    }
    std::fs::write(system.join("node/online"), "0-1\n").unwrap();
    std::fs::create_dir_all(system.join("cpu")).unwrap();
    std::fs::write(system.join("cpu/online"), "0-1\n").unwrap();
    config.placement.machine = MachineTopology::read(&system, 2 << 30);
    let reserved = BTreeMap::from([("memory".to_owned(), 32 << 20)]);
    config.placement.memory = MemoryConfig {
        exclusive: true,
        reserved: BTreeMap::from([(0, reserved.clone())]),
        reserved_in_all: reserved,
    };
    config
}

#[tokio::test]
async fn guaranteed_containers_have_memory_of_nodes() {
    let mut rig = Rig::new().await;
    rig.restart_with(with_memory(&rig)).await;
    let nodes = |name: &str| {
        let running = rig.runtime.running(name).unwrap();
        running.config.resources.cpuset_mems
    };
    let wants = |name: &str, memory: &str| {
        let limits = json!({"cpu": "100m", "memory": memory});
        json!({"containers": [{"name": name, "image": IMAGE, "resources": {"limits": limits}}]})
    };
    rig.create("small", wants("small", "600Mi"));
    rig.wait_phase("small", "Running").await;
    rig.create("other", wants("other", "600Mi"));
    rig.wait_phase("other", "Running").await;
    rig.create("web", json!({}));
    rig.wait_phase("web", "Running").await;
    assert_eq!((nodes("small"), nodes("other")), ("0".into(), "1".into()));
    assert_eq!(nodes("main"), "");
    rig.create("late", wants("late", "600Mi"));
    rig.wait_phase("late", "Failed").await;
    let late = rig.api.get(&pod_path("late")).unwrap();
    assert_eq!(late["status"]["reason"], "UnexpectedAdmissionError");
    let why = "Allocate failed due to [memorymanager] failed to get the default NUMA affinity, no \
               NUMA nodes with enough memory is available, which is unexpected";
    let message = late["status"]["message"].as_str().unwrap();
    assert!(message.ends_with(why), "{message}");
    // What is given is remembered over a restart of ours.
    let state = rig.folder.path().join("kubelet/memory_manager_state");
    let state: Value = serde_json::from_slice(&std::fs::read(state).unwrap()).unwrap();
    assert_eq!(state["policyName"], "Static");
    assert_eq!(
        state["machineState"]["1"]["memoryMap"]["memory"]["reserved"],
        600 << 20
    );
}

#[tokio::test]
async fn a_guaranteed_container_keeps_its_processors() {
    let mut rig = Rig::new().await;
    let mut config = config(&rig);
    config.features.no_quota_with_exclusive_cpus = false;
    config.features.ready_to_start_condition = false;
    rig.restart_with(config).await;
    rig.create("own", guaranteed("own", 2));
    let pod = rig.wait_phase("own", "Running").await;
    assert_eq!(crate::rig::condition(&pod, "Ready"), "True");
    let unsaid = crate::rig::condition(&pod, "PodReadyToStartContainers");
    assert_eq!(unsaid, "absent");
    let own = rig.runtime.running("own").unwrap();
    let whole = rig.runtime.sandbox_of(&own).config.resources.unwrap();
    assert_eq!(whole.cpu_quota, 200_000);
    let mut pod = rig.pod("own");
    pod["metadata"]["generation"] = 2.into();
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1", "memory": "64Mi"},
        "requests": {"cpu": "1", "memory": "64Mi"}});
    rig.api.put(&pod_path("own"), pod);
    let pod = rig
        .wait_pod("own", "stays", |pod| {
            crate::rig::condition(pod, "PodResizePending") == "True"
        })
        .await;
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let pending = conditions.iter().find(|c| c["type"] == "PodResizePending");
    let pending = pending.unwrap();
    assert_eq!(pending["reason"], "Infeasible");
    assert_eq!(
        pending["message"],
        "Resize is infeasible for Guaranteed Pods alongside CPU Manager policy \"static\""
    );
}
