//! Pods end before the machine does.

use std::time::Duration;

use kubelet::ShutdownPeriod;
use serde_json::json;

use crate::rig::{IMAGE, NODE, Rig, condition, wait};

#[tokio::test]
async fn pods_end_by_priority_and_no_new_ones_come() {
    let mut rig = Rig::new().await;
    let period = |priority, seconds| ShutdownPeriod { priority, seconds };
    let mut config = rig.config();
    config.shutdown.periods = vec![period(0, 3), period(1_000, 60)];
    let shutdown = config.shutdown.clone();
    rig.restart_with(config).await;
    for (name, priority) in [("high", 1_000), ("low", 0)] {
        let containers = json!([{"name": name, "image": IMAGE}]);
        rig.create(
            name,
            json!({"priority": priority, "containers": containers}),
        );
        rig.wait_phase(name, "Running").await;
    }
    rig.runtime.forget_calls();
    shutdown.begun.raise();
    let ended = tokio::time::timeout(Duration::from_secs(60), shutdown.ended.raised());
    ended.await.unwrap();
    // The API knows by now; each had the lesser of its own time and its group's.
    for name in ["high", "low"] {
        let pod = rig.pod(name);
        let status = &pod["status"];
        assert_eq!(status["phase"], "Failed");
        assert_eq!(status["reason"], "Terminated");
        let message = "Pod was terminated in response to imminent node shutdown.";
        assert_eq!(status["message"], message);
        assert_eq!(condition(&pod, "DisruptionTarget"), "True");
    }
    let calls = rig.runtime.calls();
    let place = |call: &str| calls.iter().position(|known| known == call).unwrap();
    assert!(place("stop low 3") < place("stop high 5"), "{calls:?}");
    let node = wait("not ready", || {
        let node = rig.api.get(&format!("/api/v1/nodes/{NODE}"))?;
        (condition(&node, "Ready") == "False").then_some(node)
    })
    .await;
    let conditions = node["status"]["conditions"].as_array().unwrap();
    let ready = conditions
        .iter()
        .find(|one| one["type"] == "Ready")
        .unwrap();
    assert_eq!(ready["reason"], "KubeletNotReady");
    assert_eq!(ready["message"], "node is shutting down");
    rig.create("late", json!({}));
    let late = rig.wait_phase("late", "Failed").await;
    assert_eq!(late["status"]["reason"], "NodeShutdown");
    let message = "Pod was rejected: Pod was rejected as the node is shutting down.";
    assert_eq!(late["status"]["message"], message);
}
