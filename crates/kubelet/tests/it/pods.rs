//! Lives of pods, from assignment to removal.

use serde_json::json;

use crate::rig::{IMAGE, NODE, Rig, condition, pod_path, wait};

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

#[tokio::test]
async fn pods_come_back_after_a_reboot() {
    let mut rig = Rig::new().await;
    rig.create(
        "web",
        json!({"initContainers": [{"name": "first", "image": IMAGE}]}),
    );
    rig.runtime.set_ends("first", Some(0));
    rig.wait_phase("web", "Running").await;
    // This one had ended for good.
    rig.create("job", json!({"restartPolicy": "Never"}));
    let job = wait("job", || rig.runtime.running_of("job")).await;
    rig.runtime.end(&job.id, 0);
    rig.wait_phase("job", "Succeeded").await;
    let before = rig.runtime.running_of("web").unwrap();
    let sandbox = rig.runtime.sandbox_of(&before).config;
    let logs = sandbox.log_directory.join("main");
    std::fs::create_dir_all(&logs).unwrap();
    for name in ["0.log", "1.log.20260131-120000.gz", "1.log"] {
        std::fs::write(logs.join(name), "").unwrap();
    }
    rig.reboot().await;
    let after = wait("web again", || rig.runtime.running_of("web")).await;
    assert_ne!(after.id, before.id);
    let pod = rig
        .wait_pod("web", "back", |pod| {
            let status = &pod["status"]["containerStatuses"][0];
            status["containerID"] == format!("sampan://{}", after.id)
                && pod["status"]["phase"] == "Running"
                && condition(pod, "Ready") == "True"
        })
        .await;
    let status = &pod["status"]["containerStatuses"][0];
    // Its log goes on in a file of its own.
    assert_eq!(status["restartCount"], 2, "{status}");
    assert_eq!(after.config.log_path, std::path::Path::new("main/2.log"));
    assert_eq!(rig.pod("job")["status"]["phase"], "Succeeded");
    assert!(rig.runtime.running_of("job").is_none());
}

#[tokio::test]
async fn init_containers_and_sidecars_keep_their_order() {
    let rig = Rig::new().await;
    rig.runtime.set_ends("setup", Some(0));
    let image = crate::rig::IMAGE;
    rig.create(
        "web",
        json!({
            "initContainers": [
                {"name": "setup", "image": image},
                {"name": "proxy", "image": image, "restartPolicy": "Always"},
            ],
            "containers": [{"name": "main", "image": image}],
        }),
    );
    let pod = rig
        .wait_pod("web", "ready", |pod| condition(pod, "Ready") == "True")
        .await;
    let starts = |rig: &Rig| -> Vec<String> {
        let calls = rig.runtime.calls().into_iter();
        calls.filter(|call| call.starts_with("start ")).collect()
    };
    assert_eq!(starts(&rig), ["start setup", "start proxy", "start main"]);
    assert_eq!(pod["status"]["initContainerStatuses"][1]["started"], true);
    rig.delete("web", 5);
    wait("removed", || {
        rig.api.get(&pod_path("web")).is_none().then_some(())
    })
    .await;
    let stops: Vec<String> = rig.runtime.calls();
    let place = |call: &str| stops.iter().position(|known| known == call);
    assert!(place("stop main 5") < place("stop proxy 5"), "{stops:?}");
}

#[tokio::test]
async fn pods_that_finish_are_told_so() {
    let rig = Rig::new().await;
    rig.runtime.set_ends("main", Some(0));
    rig.create("good", json!({"restartPolicy": "Never"}));
    let pod = rig.wait_phase("good", "Succeeded").await;
    let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(state["reason"], "Completed");
    assert_eq!(condition(&pod, "Ready"), "False");
    wait("sandbox stopped", || {
        rig.runtime
            .calls()
            .contains(&"stop sandbox".to_owned())
            .then_some(())
    })
    .await;
    assert_eq!(
        rig.runtime.container_count(),
        1,
        "its logs can still be read"
    );
    rig.runtime.set_ends("main", Some(3));
    rig.create("bad", json!({"restartPolicy": "Never"}));
    let pod = rig.wait_phase("bad", "Failed").await;
    assert_eq!(
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"],
        3
    );
}

#[tokio::test]
async fn a_crashing_container_backs_off() {
    let rig = Rig::new().await;
    rig.runtime.set_ends("main", Some(1));
    rig.create("web", json!({}));
    let pod = rig
        .wait_pod("web", "backs off", |pod| {
            let state = &pod["status"]["containerStatuses"][0]["state"];
            state["waiting"]["reason"] == "CrashLoopBackOff"
        })
        .await;
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["restartCount"], 1, "the first restart is at once");
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 1);
    let message = status["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.starts_with("back-off 10s restarting failed container=main pod=web_default("));
    assert_eq!(pod["status"]["phase"], "Running");
    wait("event", || {
        (!rig.api.events_of("BackOff").is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_image_that_does_not_come_is_waited_for() {
    let rig = Rig::new().await;
    rig.runtime.set_pull_error(Some("no such host"));
    let spec = json!({"containers": [{"name": "main", "image": "absent:1"}]});
    rig.create("web", spec);
    let reason = |pod: &serde_json::Value| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].clone()
    };
    rig.wait_pod("web", "fails", |pod| reason(pod) == "ErrImagePull")
        .await;
    let pod = rig
        .wait_pod("web", "backs off", |pod| reason(pod) == "ImagePullBackOff")
        .await;
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    let expected = "Back-off pulling image \"absent:1\": ErrImagePull: no such host";
    assert_eq!(waiting["message"], expected);
    wait("events", || {
        (rig.api.events_of("Failed").len() >= 3).then_some(())
    })
    .await;
    assert_eq!(rig.api.events_of("Pulling"), ["Pulling image \"absent:1\""]);
    rig.create(
        "never",
        json!({"containers": [
        {"name": "main", "image": "absent:2", "imagePullPolicy": "Never"}]}),
    );
    rig.wait_pod("never", "refused", |pod| reason(pod) == "ErrImageNeverPull")
        .await;
    rig.create(
        "bad",
        json!({"containers": [{"name": "main", "image": "Bad Name"}]}),
    );
    rig.wait_pod("bad", "refused", |pod| reason(pod) == "InvalidImageName")
        .await;
}

#[tokio::test]
async fn a_missing_config_map_is_named_and_waited_for() {
    let rig = Rig::new().await;
    let variable =
        json!({"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}});
    let more = json!({"name": "B", "value": "$(A)!"});
    let spec = json!({"containers": [
        {"name": "main", "image": crate::rig::IMAGE, "env": [variable, more], "args": ["--a=$(A)"]}]});
    rig.create("web", spec);
    let waiting =
        |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
    let pod = rig
        .wait_pod("web", "config error", |pod| {
            waiting(pod)["reason"] == "CreateContainerConfigError"
        })
        .await;
    assert_eq!(waiting(&pod)["message"], "configmap \"settings\" not found");
    let path = "/api/v1/namespaces/default/configmaps/settings";
    let settings = |data: serde_json::Value| json!({"metadata": {"name": "settings", "namespace": "default"}, "data": data});
    rig.api.put(path, settings(json!({"b": "2"})));
    rig.wait_pod("web", "key error", |pod| {
        waiting(pod)["message"] == "couldn't find key a in ConfigMap default/settings"
    })
    .await;
    rig.api.put(path, settings(json!({"a": "1"})));
    rig.wait_phase("web", "Running").await;
    let config = rig.runtime.running("main").unwrap().config;
    assert!(config.envs.contains(&("A".into(), "1".into())));
    assert!(config.envs.contains(&("B".into(), "1!".into())));
    assert_eq!(config.args, ["--a=1"]);
}

#[tokio::test]
async fn volumes_of_content_appear_and_follow() {
    let rig = Rig::new().await;
    let mount = json!({"name": "files", "mountPath": "/files"});
    let token = json!({"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}});
    let labels = json!({"downwardAPI": {"items": [
        {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}});
    let map = json!({"configMap": {"name": "settings"}});
    let spec = json!({
        "volumes": [{"name": "files", "projected": {"sources": [token, labels, map]}}],
        "containers": [{"name": "main", "image": crate::rig::IMAGE, "volumeMounts": [mount]}],
    });
    rig.create("web", spec);
    let failed = wait("told", || rig.api.events_of("FailedMount").first().cloned()).await;
    let expected =
        "MountVolume.SetUp failed for volume \"files\" : configmap \"settings\" not found";
    assert_eq!(failed, expected);
    let path = "/api/v1/namespaces/default/configmaps/settings";
    let settings = |text: &str| json!({"metadata": {"name": "settings", "namespace": "default"}, "data": {"a": text}});
    rig.api.put(path, settings("1"));
    rig.wait_phase("web", "Running").await;
    let config = rig.runtime.running("main").unwrap().config;
    let mount = config
        .mounts
        .iter()
        .find(|m| m.container_path.ends_with("files"))
        .unwrap();
    assert!(mount.readonly);
    let read = |name: &str| std::fs::read_to_string(mount.host_path.join(name)).unwrap_or_default();
    assert_eq!(
        (read("token").as_str(), read("name").as_str()),
        ("a-token", "web")
    );
    assert_eq!(read("a"), "1");
    rig.api.put(path, settings("2"));
    wait("new content", || (read("a") == "2").then_some(())).await;
    rig.delete("web", 1);
    wait("unmounted", || (!mount.host_path.exists()).then_some(())).await;
}

#[tokio::test]
async fn probes_make_ready_and_restart() {
    let rig = Rig::new().await;
    rig.runtime.set_exec("ready", 1);
    let probe = |command: &str| json!({"exec": {"command": [command]}, "periodSeconds": 1, "failureThreshold": 1});
    let spec = json!({"containers": [{"name": "main", "image": crate::rig::IMAGE,
        "startupProbe": probe("started"), "readinessProbe": probe("ready"),
        "livenessProbe": probe("alive")}]});
    rig.create("web", spec);
    let pod = rig
        .wait_pod("web", "started", |pod| {
            pod["status"]["containerStatuses"][0]["started"] == true
        })
        .await;
    assert_eq!(condition(&pod, "Ready"), "False");
    wait("told", || {
        let told = rig.api.events_of("Unhealthy");
        (told.first()? == "Readiness probe failed: out").then_some(())
    })
    .await;
    rig.runtime.set_exec("ready", 0);
    rig.wait_pod("web", "ready", |pod| condition(pod, "Ready") == "True")
        .await;
    rig.runtime.set_exec("alive", 1);
    wait("killed", || {
        let told = rig.api.events_of("Killing");
        (told.first()? == "Container main failed liveness probe, will be restarted").then_some(())
    })
    .await;
    rig.runtime.set_exec("alive", 0);
    rig.wait_pod("web", "restarted", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"] == 1
    })
    .await;
}

#[tokio::test]
async fn hooks_run_in_their_place() {
    let rig = Rig::new().await;
    let hook = |command: &str| json!({"exec": {"command": [command]}});
    let spec = json!({"containers": [{"name": "main", "image": crate::rig::IMAGE,
        "lifecycle": {"postStart": hook("hello"), "preStop": hook("goodbye")}}]});
    rig.create("web", spec.clone());
    rig.wait_phase("web", "Running").await;
    assert!(rig.runtime.calls().contains(&"exec main hello".to_owned()));
    rig.delete("web", 5);
    wait("removed", || {
        rig.api.get(&pod_path("web")).is_none().then_some(())
    })
    .await;
    let calls = rig.runtime.calls();
    let place = |call: &str| calls.iter().position(|known| known == call).unwrap();
    assert!(place("exec main goodbye") < place("stop main 5"));
    rig.runtime.set_exec("hello", 1);
    rig.create("bad", spec);
    rig.wait_pod("bad", "hook failed", |pod| {
        let state = &pod["status"]["containerStatuses"][0]["state"];
        ["PostStartHookError", "CrashLoopBackOff"]
            .contains(&state["waiting"]["reason"].as_str().unwrap_or_default())
    })
    .await;
    wait("told", || {
        (!rig.api.events_of("FailedPostStartHook").is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_status_survives_an_api_that_is_away() {
    let rig = Rig::new().await;
    rig.create("web", json!({"restartPolicy": "Never"}));
    rig.wait_phase("web", "Running").await;
    rig.api.set_down(true);
    rig.runtime.end(&rig.runtime.running("main").unwrap().id, 0);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(rig.pod("web")["status"]["phase"], "Running");
    rig.api.set_down(false);
    rig.wait_phase("web", "Succeeded").await;
}

#[tokio::test]
async fn a_pod_that_vanished_while_the_kubelet_was_away_is_ended() {
    let mut rig = Rig::new().await;
    rig.create("web", json!({}));
    rig.create("stays", json!({}));
    rig.wait_phase("web", "Running").await;
    rig.wait_phase("stays", "Running").await;
    rig.crew.stop().raise();
    rig.crew.finished().await.unwrap();
    rig.api.remove(&pod_path("web"));
    rig.restart_kubelet().await;
    wait("one left", || {
        (rig.runtime.sandbox_count() == 1).then_some(())
    })
    .await;
    assert!(rig.runtime.running("main").is_some());
    assert_eq!(
        rig.pod("stays")["status"]["containerStatuses"][0]["restartCount"],
        0
    );
}

#[tokio::test]
async fn a_deadline_ends_the_pod() {
    let rig = Rig::new().await;
    rig.create("web", json!({"activeDeadlineSeconds": 1}));
    let pod = rig.wait_phase("web", "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
}

#[tokio::test]
async fn a_sandbox_that_fails_is_tried_again() {
    let rig = Rig::new().await;
    rig.runtime.set_sandbox_error(Some("no address left"));
    rig.create("web", json!({}));
    let told = wait("told", || {
        rig.api.events_of("FailedCreatePodSandBox").first().cloned()
    })
    .await;
    assert_eq!(told, "Failed to create pod sandbox: no address left");
    rig.runtime.set_sandbox_error(None);
    rig.wait_phase("web", "Running").await;
}

#[tokio::test]
async fn a_static_pod_runs_and_has_a_mirror() {
    let rig = Rig::new().await;
    let crew = base::Crew::new();
    let mut config = rig.config();
    let folder = rig.folder.path().join("manifests");
    config.root_dir = rig.folder.path().join("other");
    config.static_pod_path = Some(folder.clone());
    rig.crew.stop().raise();
    rig.crew.finished().await.unwrap();
    rig.start_with(config, &crew).await;
    wait("folder", || folder.exists().then_some(())).await;
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: s\nspec:\n  containers:\n  - name: main\n    image: {}\n",
        crate::rig::IMAGE
    );
    std::fs::write(folder.join("s.yaml"), text).unwrap();
    let name = format!("s-{NODE}");
    let mirror = rig.wait_phase(&name, "Running").await;
    assert!(mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string());
    rig.api.remove(&pod_path(&name));
    rig.wait_phase(&name, "Running").await;
    std::fs::remove_file(folder.join("s.yaml")).unwrap();
    wait("mirror removed", || {
        rig.api.get(&pod_path(&name)).is_none().then_some(())
    })
    .await;
    wait("ended", || (rig.runtime.sandbox_count() == 0).then_some(())).await;
    crew.stop().raise();
    crew.finished().await.unwrap();
}
