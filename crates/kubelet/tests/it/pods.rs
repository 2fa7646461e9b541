//! Lives of pods, from assignment to removal.

use serde_json::json;

use crate::rig::{NODE, Rig, condition, pod_path, wait};

#[tokio::test]
async fn an_assigned_pod_runs() {
    let rig = Rig::new().await;
    rig.create("web", json!({}));
    let pod = rig.wait_phase("web", "Running").await;
    assert_eq!(condition(&pod, "Ready"), "True");
    assert_eq!(condition(&pod, "Initialized"), "True");
    assert_eq!(pod["status"]["podIP"], "10.42.0.1");
    assert_eq!(pod["status"]["hostIP"], "192.0.2.1");
    assert_eq!(pod["status"]["qosClass"], "BestEffort");
    let main = &pod["status"]["containerStatuses"][0];
    assert_eq!(main["ready"], true);
    assert_eq!(main["restartCount"], 0);
    assert!(
        main["containerID"]
            .as_str()
            .unwrap()
            .starts_with("sampan://c")
    );
    assert!(main["state"]["running"]["startedAt"].is_string(), "{main}");
    wait("events", || {
        let started = rig.api.events_of("Started");
        (started == ["Container started"]).then_some(())
    })
    .await;
    let node = rig.api.get(&format!("/api/v1/nodes/{NODE}")).unwrap();
    assert_eq!(condition(&node, "Ready"), "True");
    assert!(
        node["status"]["nodeInfo"]["kubeletVersion"]
            .as_str()
            .unwrap()
            .starts_with("v1.36")
    );
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NODE}");
    wait("lease", || rig.api.get(&lease)).await;
}

#[tokio::test]
async fn a_deleted_pod_ends_and_leaves_nothing() {
    let rig = Rig::new().await;
    rig.create("web", json!({}));
    rig.wait_phase("web", "Running").await;
    rig.delete("web", 5);
    wait("object removed", || {
        rig.api.get(&pod_path("web")).is_none().then_some(())
    })
    .await;
    wait("sandbox removed", || {
        (rig.runtime.sandbox_count() == 0).then_some(())
    })
    .await;
    let calls = rig.runtime.calls();
    let stop = calls.iter().position(|call| call == "stop main 5").unwrap();
    let sandbox = calls
        .iter()
        .position(|call| call == "stop sandbox")
        .unwrap();
    assert!(stop < sandbox, "{calls:?}");
    assert_eq!(rig.api.events_of("Killing"), ["Stopping container main"]);
    let left = std::fs::read_dir(rig.folder.path().join("kubelet/pods"))
        .unwrap()
        .count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_restart_of_the_kubelet_disturbs_nothing() {
    let mut rig = Rig::new().await;
    rig.create("web", json!({}));
    rig.wait_phase("web", "Running").await;
    let before = rig.runtime.running("main").unwrap();
    rig.runtime.forget_calls();
    rig.restart_kubelet().await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(rig.runtime.calls(), Vec::<String>::new());
    // It is watched as before: when it ends, it is started again.
    rig.runtime.end(&before.id, 1);
    let pod = rig
        .wait_pod("web", "restarted", |pod| {
            pod["status"]["containerStatuses"][0]["restartCount"] == 1
        })
        .await;
    let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(last["exitCode"], 1);
}
