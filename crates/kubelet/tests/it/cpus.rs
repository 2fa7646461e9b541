//! Pods with processors of their own.

use kubelet::{CpuConfig, MachineTopology};
use serde_json::{Value, json};

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
