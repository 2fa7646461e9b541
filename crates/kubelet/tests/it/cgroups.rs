//! What containers, pods and all of them together may have of the machine.

use kubelet::CgroupFacts;
use serde_json::json;

use crate::rig::{IMAGE, NODE, Rig, condition, pod_path, wait};

/// A machine with version 2 and swap.
fn unified(rig: &Rig) -> kubelet::Config {
    let mut config = rig.config();
    config.cgroups = CgroupFacts {
        unified: true,
        limits_swap: true,
        swap_bytes: 1 << 40,
    };
    config
}

#[tokio::test]
async fn burstable_containers_have_swap() {
    let mut rig = Rig::new().await;
    let mut config = unified(&rig);
    config.limited_swap = true;
    rig.restart_with(config).await;
    let asking =
        |memory: &str| json!({"requests": {"memory": memory}, "limits": {"memory": "1Gi"}});
    let burstable = json!({"containers": [
        {"name": "main", "image": IMAGE, "resources": asking("64Mi"),
            "resizePolicy": [{"resourceName": "memory", "restartPolicy": "NotRequired"}]},
        {"name": "plain", "image": IMAGE, "resources": asking("1Gi")}]});
    rig.create("web", burstable);
    rig.wait_phase("web", "Running").await;
    let file = |container: &str| {
        let running = rig.runtime.running(container).unwrap();
        running.config.resources.unified["memory.swap.max"].parse::<i128>()
    };
    let node = rig.api.get(&format!("/api/v1/nodes/{NODE}")).unwrap();
    assert_eq!(node["status"]["nodeInfo"]["swap"]["capacity"], 1_i64 << 40);
    let memory = node["status"]["capacity"]["memory"].as_str().unwrap();
    let kibibytes: i128 = memory.trim_end_matches("Ki").parse().unwrap();
    let part = (64 << 20) * (1 << 40) / (kibibytes << 10);
    assert_eq!(file("main").unwrap(), part);
    assert_eq!(file("plain").unwrap(), 0);
    let main = rig.runtime.running("main").unwrap();
    let whole = rig.runtime.sandbox_of(&main).config.resources.unwrap();
    assert_eq!(whole.memory_swap_limit_bytes, -1);
    // A part of the swap is as large as it was at the start.
    let mut pod = rig.pod("web");
    pod["metadata"]["generation"] = 2.into();
    pod["spec"]["containers"][0]["resources"] = asking("128Mi");
    rig.api.put(&pod_path("web"), pod);
    let pod = rig
        .wait_pod("web", "stays", |pod| {
            condition(pod, "PodResizePending") == "True"
        })
        .await;
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let pending = conditions.iter().find(|c| c["type"] == "PodResizePending");
    assert_eq!(
        pending.unwrap()["message"],
        "In-place resize of containers with swap is not supported."
    );
    assert_eq!(file("main").unwrap(), part);
}
