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
    wait_restarts(&rig, "web", 3).await;
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

/// How often the container of a pod was restarted.
async fn wait_restarts(rig: &Rig, pod: &str, count: i64) {
    rig.wait_pod(pod, "crashes", |pod| {
        let seen = &pod["status"]["containerStatuses"][0]["restartCount"];
        seen.as_i64().is_some_and(|seen| seen >= count)
    })
    .await;
}

/// The node's containers are counted once a minute; the clock is paused, so that it passes at once.
#[tokio::test(start_paused = true)]
async fn the_node_keeps_so_many_ended_containers_in_all() {
    let mut rig = Rig::new().await;
    let mut config = rig.config();
    config.restart_pause_first = Duration::from_millis(1);
    config.restart_pause_max = Duration::from_millis(1);
    config.dead_containers.per_container_max = None;
    config.dead_containers.in_all_max = Some(3);
    rig.restart_with(config).await;
    let ended = || rig.runtime.container_count() - 2;
    for pod in ["one", "two"] {
        rig.runtime.set_ends("main", Some(1));
        rig.create(pod, json!({"restartPolicy": "OnFailure"}));
        wait_restarts(&rig, pod, 4).await;
        rig.runtime.set_ends("main", None);
        wait("running", || rig.runtime.running_of(pod)).await;
    }
    assert!(ended() >= 8);
    tokio::time::sleep(Duration::from_secs(61)).await;
    // One of each name first, then nothing: that is fewer than three.
    wait("few", || (ended() == 2).then_some(())).await;
    for pod in ["one", "two"] {
        assert!(rig.runtime.running_of(pod).is_some());
        let last = &rig.pod(pod)["status"]["containerStatuses"][0]["lastState"];
        assert!(last["terminated"].is_object(), "{last}");
    }
}

#[tokio::test]
async fn logs_are_linked_by_whose_they_are() {
    let mut rig = Rig::new().await;
    rig.runtime.set_logs(true);
    let links = rig.folder.path().join("containers");
    let names = || {
        let entries = std::fs::read_dir(&links).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    std::os::unix::fs::symlink("/nowhere/0.log", links.join("gone_default_main-c9.log")).unwrap();
    std::fs::write(links.join("own.log"), "somebody's").unwrap();
    rig.restart_kubelet().await;
    wait("dead links to go", || {
        (names() == ["own.log"]).then_some(())
    })
    .await;
    rig.create("web", json!({}));
    rig.wait_phase("web", "Running").await;
    let first = rig.runtime.running("main").unwrap();
    let link = |id: &str| format!("web_default_main-{id}.log");
    assert_eq!(names(), ["own.log".to_owned(), link(&first.id)]);
    let path = links.join(link(&first.id));
    assert_eq!(std::fs::read_link(&path).unwrap(), first.log_path);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "said\n");
    // Its successor has one of its own, and a container that is removed has none.
    let mut config = rig.config();
    config.restart_pause_first = Duration::from_millis(1);
    config.dead_containers.per_container_max = Some(0);
    rig.restart_with(config).await;
    rig.runtime.end(&first.id, 1);
    let second = wait("another", || {
        let other = rig.runtime.running("main")?;
        (other.id != first.id).then_some(other)
    })
    .await;
    let expected = ["own.log".to_owned(), link(&second.id)];
    wait("its link", || (names() == expected).then_some(())).await;
    rig.delete("web", 0);
    rig.wait_pod("web", "gone", serde_json::Value::is_null)
        .await;
    wait("links to go", || (names() == ["own.log"]).then_some(())).await;
}

#[tokio::test]
async fn without_isolation_nobody_counts_room_on_the_disk() {
    let mut rig = Rig::new().await;
    for isolation in [true, false, true] {
        let mut config = rig.config();
        config.local_storage_isolation = isolation;
        rig.restart_with(config).await;
        let what = format!("a node with isolation {isolation}");
        wait(&what, || {
            let node = rig.api.get("/api/v1/nodes/node-1")?;
            let status = &node["status"];
            let has = |of: &str| status[of]["ephemeral-storage"].is_string();
            let known = status["capacity"]["cpu"].is_string();
            (known && has("capacity") == isolation && has("allocatable") == isolation).then_some(())
        })
        .await;
    }
}
