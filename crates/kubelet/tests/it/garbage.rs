//! What is dead, or belongs to nobody, is removed.

use std::collections::BTreeMap;
use std::time::Duration;

use node_api::{ContainerConfig, PodSandboxConfig, RuntimeService};
use serde_json::json;

use crate::rig::{IMAGE, Rig, wait};

#[tokio::test]
async fn one_dead_container_of_a_name_is_kept() {
    let mut rig = Rig::new().await;
    let mut config = rig.config();
    config.restart_pause_first = Duration::from_millis(1);
    config.restart_pause_max = Duration::from_millis(1);
    rig.restart_with(config).await;
    rig.runtime.set_ends("main", Some(1));
    rig.create("web", json!({"restartPolicy": "OnFailure"}));
    rig.wait_pod("web", "crashes", |pod| {
        let count = &pod["status"]["containerStatuses"][0]["restartCount"];
        count.as_i64().is_some_and(|count| count >= 3)
    })
    .await;
    rig.runtime.set_ends("main", None);
    wait("running", || rig.runtime.running("main")).await;
    wait("one dead beside it", || {
        (rig.runtime.container_count() == 2).then_some(())
    })
    .await;
    rig.wait_pod("web", "tells how the last ended", |pod| {
        let status = &pod["status"]["containerStatuses"][0];
        status["state"]["running"].is_object() && status["lastState"]["terminated"]["exitCode"] == 1
    })
    .await;
}

#[tokio::test]
async fn what_starts_for_nobodys_pod_is_removed() {
    let mut rig = Rig::new().await;
    let logs = rig.folder.path().join("logs");
    let old = logs.join("default_gone_before");
    std::fs::create_dir(&old).unwrap();
    rig.restart_kubelet().await;
    wait("first look", || (!old.exists()).then_some(())).await;
    rig.create("web", json!({}));
    rig.wait_phase("web", "Running").await;
    std::fs::create_dir(logs.join("default_gone_of-nobody")).unwrap();
    let sandbox = PodSandboxConfig {
        name: "gone".into(),
        namespace: "default".into(),
        uid: "of-nobody".into(),
        ..PodSandboxConfig::default()
    };
    let sandbox = rig.runtime.run_pod_sandbox(sandbox).await.unwrap();
    let of_pod = |key: &str, value: &str| (format!("io.kubernetes.pod.{key}"), value.to_owned());
    let container = ContainerConfig {
        name: "stray".into(),
        labels: BTreeMap::from([of_pod("uid", "of-nobody"), of_pod("name", "gone")]),
        ..ContainerConfig::default()
    };
    let id = rig.runtime.create_container(&sandbox, container);
    rig.runtime
        .start_container(&id.await.unwrap())
        .await
        .unwrap();
    wait("removed", || {
        let left = std::fs::read_dir(&logs).unwrap().count();
        (rig.runtime.sandbox_count() == 1 && left == 1).then_some(())
    })
    .await;
    assert!(rig.runtime.running_of("web").is_some());
}

/// The disk is looked at every five minutes; the clock is paused, so that they pass at once.
#[tokio::test(start_paused = true)]
async fn images_go_when_the_disk_is_too_full_but_for_those_in_use_and_pinned() {
    let mut rig = Rig::new().await;
    rig.runtime.add_image("nobodys");
    rig.runtime.pin_image("pinned");
    rig.create("web", json!({}));
    rig.wait_phase("web", "Running").await;
    let mut config = rig.config();
    // No disk is as full as that.
    config.image_gc_high_percent = 100;
    rig.restart_with(config.clone()).await;
    tokio::time::sleep(Duration::from_secs(20 * 60)).await;
    let all = ["nobodys", "pinned", IMAGE].map(str::to_owned);
    for name in &all {
        assert!(rig.runtime.image_names().contains(name), "{name}");
    }
    // And each is fuller than that.
    config.image_gc_high_percent = 0;
    config.image_gc_low_percent = 0;
    rig.restart_with(config).await;
    // What has just been seen for the first time is too young for two minutes.
    tokio::time::sleep(Duration::from_secs(20 * 60)).await;
    assert!(!rig.runtime.image_names().contains(&all[0]));
    for name in &all[1..] {
        assert!(rig.runtime.image_names().contains(name), "{name}");
    }
}

/// Room or not, what nobody used for long goes, where that is wished.
#[tokio::test(start_paused = true)]
async fn images_go_when_nobody_used_them_for_long() {
    let mut rig = Rig::new().await;
    rig.runtime.add_image("nobodys");
    rig.create("web", json!({}));
    rig.wait_phase("web", "Running").await;
    let mut config = rig.config();
    config.image_gc_high_percent = 100;
    config.image_age_max = Duration::from_secs(3600);
    rig.restart_with(config).await;
    let has = |name: &str| rig.runtime.image_names().contains(&name.to_owned());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(has("nobodys"));
    tokio::time::sleep(Duration::from_secs(15 * 60)).await;
    assert!(!has("nobodys") && has(IMAGE));
}
