//! What may change while a pod runs: containers put into it, and its resources.

use node_api::{NamespaceMode, RuntimeService};
use serde_json::{Value, json};

use crate::rig::{IMAGE, NODE, Rig, condition, pod_path, wait};

/// Changes a pod's specification, as the API would.
fn change(rig: &Rig, name: &str, change: impl FnOnce(&mut Value)) {
    let mut pod = rig.pod(name);
    change(&mut pod["spec"]);
    let generation = pod["metadata"]["generation"].as_i64().unwrap();
    pod["metadata"]["generation"] = (generation + 1).into();
    rig.api.put(&pod_path(name), pod);
}

#[tokio::test]
async fn an_ephemeral_container_joins_its_target_and_lives_once() {
    let rig = Rig::new().await;
    rig.create("web", json!({}));
    rig.wait_phase("web", "Running").await;
    let main = rig.runtime.running("main").unwrap();
    change(&rig, "web", |spec| {
        spec["ephemeralContainers"] = json!([
            {"name": "look", "image": IMAGE, "targetContainerName": "main", "tty": true},
            {"name": "lost", "image": IMAGE, "targetContainerName": "nobody"},
        ]);
    });
    let pod = rig
        .wait_pod("web", "debugged", |pod| {
            let status = &pod["status"]["ephemeralContainerStatuses"];
            status[0]["state"]["running"].is_object()
                && status[1]["state"]["waiting"]["reason"] == "CreateContainerConfigError"
        })
        .await;
    let lost = &pod["status"]["ephemeralContainerStatuses"][1]["state"]["waiting"];
    assert_eq!(lost["message"], "unable to find target container nobody");
    assert_eq!(condition(&pod, "Ready"), "True");
    let look = rig.runtime.running("look").unwrap();
    let pid = look.config.security.namespaces.pid;
    assert_eq!(pid, NamespaceMode::Target(main.id));
    rig.runtime.end(&look.id, 3);
    let pod = rig
        .wait_pod("web", "looked", |pod| {
            let status = &pod["status"]["ephemeralContainerStatuses"][0];
            status["state"]["terminated"]["exitCode"] == 3
        })
        .await;
    assert_eq!(pod["status"]["phase"], "Running");
    // It is not started again, whatever else happens to the pod.
    rig.runtime.end(&rig.runtime.running("main").unwrap().id, 1);
    rig.wait_pod("web", "restarted", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"] == 1
            && condition(pod, "Ready") == "True"
    })
    .await;
    assert!(rig.runtime.running("look").is_none());
}

fn sized(cpu: &str, memory: &str) -> Value {
    let amounts = json!({"cpu": cpu, "memory": memory});
    json!({"requests": amounts, "limits": amounts})
}

#[tokio::test]
async fn a_running_pod_gets_other_resources() {
    let rig = Rig::new().await;
    rig.create(
        "web",
        json!({"containers": [
            {"name": "main", "image": IMAGE, "resources": sized("100m", "20Mi")},
            {"name": "strict", "image": IMAGE, "resources": sized("100m", "20Mi"), "resizePolicy": [
                {"resourceName": "memory", "restartPolicy": "RestartContainer"}]},
        ]}),
    );
    let pod = rig.wait_phase("web", "Running").await;
    let main = &pod["status"]["containerStatuses"][0];
    assert_eq!(main["resources"], sized("100m", "20Mi"));
    assert_eq!(main["allocatedResources"]["cpu"], "100m");
    let lives = rig.runtime.running("main").unwrap().id;
    rig.runtime.forget_calls();
    change(&rig, "web", |spec| {
        spec["containers"][0]["resources"] = sized("200m", "40Mi");
        spec["containers"][1]["resources"] = sized("100m", "30Mi");
    });
    let pod = rig
        .wait_pod("web", "resized", |pod| {
            let all = &pod["status"]["containerStatuses"];
            all[0]["resources"] == sized("200m", "40Mi")
                && all[1]["resources"] == sized("100m", "30Mi")
                && all[1]["restartCount"] == 1
                && condition(pod, "PodResizeInProgress") == "absent"
        })
        .await;
    assert_eq!(pod["status"]["observedGeneration"], 2);
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(rig.runtime.running("main").unwrap().id, lives);
    let calls = rig.runtime.calls();
    let limits: Vec<_> = calls
        .iter()
        .filter(|call| call.starts_with("limit"))
        .collect();
    // The pod as a whole first, for it grows.
    assert_eq!(
        limits,
        [
            "limit pod shares 307 memory 73400320",
            "limit main shares 204 memory 41943040"
        ]
    );
    wait("events", || {
        let told = rig.api.events_of("ResizeCompleted");
        (told.len() == 1 && rig.api.events_of("ResizeStarted").len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_resize_waits_until_the_node_has_room() {
    let rig = Rig::new().await;
    let node = wait("node", || rig.api.get(&format!("/api/v1/nodes/{NODE}"))).await;
    let cpus: i64 = node["status"]["allocatable"]["cpu"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let milli = |amount: i64| json!({"requests": {"cpu": format!("{amount}m")}});
    let spec = |amount: i64| json!({"containers": [{"name": "main", "image": IMAGE, "resources": milli(amount)}]});
    rig.create("web", spec(100));
    rig.wait_phase("web", "Running").await;
    rig.create("big", spec(cpus * 1_000 - 100));
    rig.wait_phase("big", "Running").await;
    change(&rig, "web", |spec| {
        spec["containers"][0]["resources"] = milli(200);
    });
    let pod = rig
        .wait_pod("web", "deferred", |pod| {
            condition(pod, "PodResizePending") == "True"
        })
        .await;
    assert_eq!(
        pod["status"]["containerStatuses"][0]["allocatedResources"]["cpu"],
        "100m"
    );
    let all = pod["status"]["conditions"].as_array().unwrap();
    let pending = all
        .iter()
        .find(|c| c["type"] == "PodResizePending")
        .unwrap();
    let expected = format!(
        "Node didn't have enough resource: cpu, requested: 200, used: {}, capacity: {}",
        cpus * 1_000 - 100,
        cpus * 1_000
    );
    assert_eq!(pending["reason"], "Deferred");
    assert_eq!(pending["message"], expected);
    // A third pod finds no room at all.
    rig.create("third", spec(50));
    let third = rig.wait_phase("third", "Failed").await;
    assert_eq!(third["status"]["reason"], "OutOfcpu");
    rig.delete("big", 1);
    rig.wait_pod("web", "resized", |pod| {
        condition(pod, "PodResizePending") == "absent"
            && condition(pod, "PodResizeInProgress") == "absent"
            && pod["status"]["containerStatuses"][0]["resources"]["requests"]["cpu"] == "200m"
    })
    .await;
}

#[tokio::test]
async fn a_pod_may_have_ids_and_images_of_its_own() {
    let rig = Rig::new().await;
    rig.runtime.add_image("data:1");
    let mounts = json!([{"name": "data", "mountPath": "/data", "subPath": "etc"},
        {"name": "scratch", "mountPath": "/scratch"}]);
    rig.create(
        "web",
        json!({
            "hostUsers": false,
            "containers": [{"name": "main", "image": IMAGE, "volumeMounts": mounts}],
            "volumes": [
                {"name": "data", "image": {"reference": "data:1", "pullPolicy": "IfNotPresent"}},
                {"name": "scratch", "emptyDir": {}},
            ],
        }),
    );
    rig.wait_phase("web", "Running").await;
    let sandbox = rig.runtime.list_pod_sandboxes().await.unwrap().remove(0);
    let user = sandbox.config.namespaces.user.unwrap();
    assert_eq!(
        (user.uids[0].host_id, user.uids[0].length),
        (65_536, 65_536)
    );
    let config = rig.runtime.running("main").unwrap().config;
    let mount = |path: &str| {
        let mut all = config.mounts.iter();
        all.find(|mount| mount.container_path.as_os_str() == path)
            .unwrap()
    };
    let image = mount("/data").image.clone().unwrap();
    assert_eq!(image.image, "sha256:data:1");
    assert_eq!(image.sub_path.as_os_str(), "etc");
    assert!(mount("/data").readonly && !mount("/data").mapped);
    assert!(mount("/scratch").mapped && mount("/etc/hosts").mapped);
}

#[tokio::test]
async fn a_runtime_class_names_who_runs_the_pod() {
    let rig = Rig::new().await;
    for (name, handler) in [("own", "sampan"), ("other", "kata")] {
        let path = format!("/apis/node.k8s.io/v1/runtimeclasses/{name}");
        let class = json!({"metadata": {"name": name}, "handler": handler});
        rig.api.put(&path, class);
    }
    rig.create("web", json!({"runtimeClassName": "own"}));
    rig.wait_phase("web", "Running").await;
    let sandbox = rig.runtime.list_pod_sandboxes().await.unwrap().remove(0);
    assert_eq!(sandbox.config.runtime_handler, "sampan");
    rig.create("lost", json!({"runtimeClassName": "other"}));
    let told = wait("event", || {
        rig.api.events_of("FailedCreatePodSandBox").pop()
    })
    .await;
    let expected = "Failed to create pod sandbox: no runtime for \"kata\" is configured";
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_node_short_of_memory_lets_pods_go_and_takes_none() {
    let mut rig = Rig::new().await;
    rig.create("web", json!({}));
    rig.create(
        "asked",
        json!({"containers": [{"name": "main", "image": IMAGE, "resources": {
        "requests": {"memory": "10Mi"}}}], "priority": 5}),
    );
    rig.wait_phase("web", "Running").await;
    rig.wait_phase("asked", "Running").await;
    rig.runtime.forget_calls();
    // No machine has so much to spare.
    let mut config = rig.config();
    config.eviction.thresholds = kubelet::Threshold::parse_all("memory.available<100%").unwrap();
    rig.restart_with(config).await;
    let web = rig.wait_phase("web", "Failed").await;
    assert_eq!(web["status"]["reason"], "Evicted");
    let message = web["status"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("The node was low on resource: memory. Threshold quantity: "),
        "{message}"
    );
    assert_eq!(condition(&web, "DisruptionTarget"), "True");
    let calls = rig.runtime.calls();
    // Sooner than by its own grace.
    assert_eq!(calls[0], "stop main 2", "{calls:?}");
    let node = format!("/api/v1/nodes/{NODE}");
    wait("memory pressure", || {
        let node = rig.api.get(&node).unwrap();
        (condition(&node, "MemoryPressure") == "True").then_some(())
    })
    .await;
    rig.create("late", json!({}));
    let late = rig.wait_phase("late", "Failed").await;
    assert_eq!(
        late["status"]["message"],
        "Pod was rejected: The node had condition: [MemoryPressure]. "
    );
}

#[tokio::test]
async fn whatever_a_node_is_short_of_it_makes_room() {
    let counts_inodes = nix::sys::statvfs::statvfs("/tmp").unwrap().files() > 0
        && nix::sys::statvfs::statvfs("/").unwrap().files() > 0;
    let signals = [
        ("nodefs.available", "ephemeral-storage", "DiskPressure"),
        ("nodefs.inodesFree", "inodes", "DiskPressure"),
        ("imagefs.available", "ephemeral-storage", "DiskPressure"),
        ("imagefs.inodesFree", "inodes", "DiskPressure"),
        ("pid.available", "pids", "PIDPressure"),
        ("allocatableMemory.available", "memory", "MemoryPressure"),
    ];
    let of_inodes = |signal: &str| signal.ends_with("inodesFree");
    // Some file systems make inodes as they need them.
    let seen = signals.into_iter();
    let seen = seen.filter(|(signal, ..)| counts_inodes || !of_inodes(signal));
    let all = seen.map(|(signal, resource, pressure)| short_of(signal, resource, pressure));
    futures::future::join_all(all).await;
}

async fn short_of(signal: &str, resource: &str, pressure: &'static str) {
    let mut rig = Rig::new().await;
    rig.runtime.add_image("nobodys");
    rig.runtime.pin_image("pinned");
    rig.create("web", json!({}));
    rig.wait_phase("web", "Running").await;
    let mut config = rig.config();
    let reserved = meta::Quantity::from_bytes(1 << 30);
    config.reserved.insert("memory".to_owned(), reserved);
    // Nowhere is all of it free.
    let threshold = format!("{signal}<100%");
    config.eviction.thresholds = kubelet::Threshold::parse_all(&threshold).unwrap();
    rig.restart_with(config).await;
    let web = rig.wait_phase("web", "Failed").await;
    assert_eq!(web["status"]["reason"], "Evicted", "{signal}");
    let message = web["status"]["message"].as_str().unwrap();
    let start = format!("The node was low on resource: {resource}. Threshold quantity: ");
    assert!(message.starts_with(&start), "{signal}: {message}");
    wait(pressure, || {
        let node = rig.api.get(&format!("/api/v1/nodes/{NODE}")).unwrap();
        (condition(&node, pressure) == "True").then_some(())
    })
    .await;
    // Images that nobody uses went first, where that makes room.
    let images = rig.runtime.image_names();
    let freed = !images.contains(&"nobodys".to_owned());
    assert_eq!(freed, pressure == "DiskPressure", "{signal}: {images:?}");
    for kept in [IMAGE, "pinned"] {
        assert!(images.contains(&kept.to_owned()), "{signal}: {images:?}");
    }
}

#[tokio::test]
async fn all_containers_start_anew_when_one_asks_for_it() {
    let rig = Rig::new().await;
    rig.runtime.set_ends("init", Some(0));
    rig.create(
        "job",
        json!({"restartPolicy": "Never", "initContainers": [{"name": "init", "image": IMAGE}],
        "containers": [
            {"name": "main", "image": IMAGE, "restartPolicyRules": [{"action": "RestartAllContainers",
                "exitCodes": {"operator": "In", "values": [42]}}]},
            {"name": "other", "image": IMAGE}]}),
    );
    let pod = rig.wait_phase("job", "Running").await;
    assert_eq!(condition(&pod, "AllContainersRestarting"), "False");
    wait("others", || rig.runtime.running("other")).await;
    rig.runtime
        .end(&rig.runtime.running("main").unwrap().id, 42);
    rig.wait_pod("job", "restarting", |pod| {
        let init = &pod["status"]["initContainerStatuses"][0]["state"]["waiting"];
        condition(pod, "AllContainersRestarting") == "True"
            && init["reason"] == "RestartingAllContainers"
            && condition(pod, "Initialized") == "True"
    })
    .await;
    let pod = rig
        .wait_pod("job", "restarted", |pod| {
            condition(pod, "AllContainersRestarting") == "False"
                && condition(pod, "Ready") == "True"
        })
        .await;
    assert_eq!(pod["status"]["phase"], "Running");
    for list in ["initContainerStatuses", "containerStatuses"] {
        for status in pod["status"][list].as_array().unwrap() {
            assert_eq!(status["restartCount"], 1, "{status}");
            assert!(status["lastState"]["terminated"].is_object(), "{status}");
        }
    }
    rig.runtime.end(&rig.runtime.running("main").unwrap().id, 1);
    rig.runtime
        .end(&rig.runtime.running("other").unwrap().id, 0);
    rig.wait_phase("job", "Failed").await;
}

#[tokio::test]
async fn variables_come_from_files_of_other_containers() {
    let rig = Rig::new().await;
    let from = |key: &str, optional: bool| {
        json!({"name": key, "valueFrom": {"fileKeyRef": {
            "volumeName": "data", "path": "env", "key": key, "optional": optional}}})
    };
    rig.runtime.set_ends("write", None);
    rig.create(
        "web",
        json!({"volumes": [{"name": "data", "emptyDir": {}}],
        "initContainers": [{"name": "write", "image": IMAGE,
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "containers": [{"name": "main", "image": IMAGE, "env": [from("A", false), from("B", true)]},
            {"name": "lost", "image": IMAGE, "env": [from("B", false)]}]}),
    );
    let write = wait("writer", || rig.runtime.running("write")).await;
    let mounts = &write.config.mounts;
    let data = mounts
        .iter()
        .find(|m| m.container_path == std::path::Path::new("/data"));
    std::fs::write(data.unwrap().host_path.join("env"), "A='one'\n").unwrap();
    rig.runtime.end(&write.id, 0);
    let main = wait("main", || rig.runtime.running("main")).await;
    assert!(
        main.config
            .envs
            .contains(&("A".to_owned(), "one".to_owned()))
    );
    assert!(main.config.envs.iter().all(|(name, _)| name != "B"));
    rig.wait_pod("web", "refused", |pod| {
        let state = &pod["status"]["containerStatuses"];
        let mut all = state.as_array().into_iter().flatten();
        all.any(|status| {
            let waiting = &status["state"]["waiting"];
            waiting["reason"] == "CreateContainerConfigError"
                && waiting["message"].as_str().is_some_and(|m| {
                    m.starts_with("environment variable key \"B\" not found in file")
                })
        })
    })
    .await;
}
