//! What containers, pods and all of them together may have of the machine.

use std::collections::BTreeMap;

use kubelet::{CgroupFacts, MemoryQos, ReservedGroup};
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

#[tokio::test]
async fn pods_together_have_what_is_not_reserved() {
    let mut rig = Rig::new().await;
    let mut config = rig.config();
    let amount = |text: &str| meta::Quantity::parse(text).unwrap();
    let reserved = BTreeMap::from([
        ("memory".to_owned(), amount("1Gi")),
        ("pid".to_owned(), amount("1k")),
    ]);
    config.reserved = reserved.clone();
    config.reserved_groups = vec![ReservedGroup {
        name: "System",
        path: "/system.slice".into(),
        amounts: reserved,
        compressible: false,
    }];
    rig.restart_with(config).await;
    let node = wait("node", || rig.api.get(&format!("/api/v1/nodes/{NODE}"))).await;
    let capacity = |name: &str| {
        let text = node["status"]["capacity"][name].as_str().unwrap();
        meta::Quantity::parse(text).unwrap()
    };
    let left = capacity("memory").value() - (1 << 30);
    let limits = wait("all pods' limits", || {
        let limits = rig.runtime.group("/kubepods")?;
        (limits.memory_bytes == left).then_some(limits)
    })
    .await;
    assert_eq!(limits.cpu_shares, capacity("cpu").milli() * 1024 / 1000);
    assert!(limits.pids > 0);
    let system = rig.runtime.group("/system.slice").unwrap();
    assert_eq!((system.memory_bytes, system.pids), (1 << 30, 1000));
    // Classes weigh as much as their pods ask for.
    let shares = |class: &str| {
        let group = rig.runtime.group(&format!("/kubepods/{class}"))?;
        Some(group.cpu_shares)
    };
    wait("best effort", || {
        (shares("besteffort") == Some(2)).then_some(())
    })
    .await;
    let asking = |cpu: &str| {
        json!({"containers": [{"name": "main", "image": IMAGE,
            "resources": {"requests": {"cpu": cpu}}}]})
    };
    rig.create("one", asking("500m"));
    rig.create("other", asking("250m"));
    wait("both", || (shares("burstable") == Some(768)).then_some(())).await;
    rig.delete("one", 1);
    wait("the rest", || {
        (shares("burstable") == Some(256)).then_some(())
    })
    .await;
    // All that there is, where nothing is to be kept.
    let mut config = rig.config();
    config.enforce_allocatable = false;
    config.reserved = BTreeMap::from([("memory".to_owned(), amount("1Gi"))]);
    rig.restart_with(config).await;
    wait("all memory", || {
        let limits = rig.runtime.group("/kubepods")?;
        (limits.memory_bytes == capacity("memory").value()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn services_that_are_not_there_cannot_be_limited() {
    let rig = Rig::new().await;
    rig.runtime.set_stubborn("/kube", "no such group");
    let enforced = |amounts: &[(&str, &str)], compressible| {
        let mut config = rig.config();
        let amounts = amounts.iter().map(|(name, text)| {
            let amount = meta::Quantity::parse(text).unwrap();
            ((*name).to_owned(), amount)
        });
        config.reserved_groups = vec![ReservedGroup {
            name: "Kube",
            path: "/kube".into(),
            amounts: amounts.collect(),
            compressible,
        }];
        config
    };
    for (amounts, compressible, why) in [
        (
            &[("cpu", "1")][..],
            true,
            "Failed to enforce Kube Reserved Compressible Cgroup Limits on \"/kube\": no such group",
        ),
        (
            &[],
            false,
            "Failed to enforce Kube Reserved Cgroup Limits on \"/kube\": \"/kube\" cgroup is not \
             configured properly",
        ),
    ] {
        let parts = rig.parts();
        let crew = base::Crew::new();
        let config = enforced(amounts, compressible);
        let started = kubelet::run(rig.api.client(), parts, config, &crew).await;
        assert_eq!(started.unwrap_err().to_string(), why);
        crew.stop().raise();
        crew.finished().await.unwrap();
    }
}

#[tokio::test]
async fn without_classes_pods_have_no_groups() {
    let mut rig = Rig::new().await;
    wait("limits", || rig.runtime.group("/kubepods")).await;
    rig.runtime.forget_groups();
    let mut config = rig.config();
    config.cgroups_per_qos = false;
    config.cgroup_root = "/here".into();
    rig.restart_with(config).await;
    rig.create(
        "web",
        json!({"containers": [{"name": "main", "image": IMAGE,
            "resources": {"limits": {"cpu": "1", "memory": "64Mi"}}}]}),
    );
    rig.wait_phase("web", "Running").await;
    let main = rig.runtime.running("main").unwrap();
    assert_eq!(main.config.resources.memory_limit_bytes, 64 << 20);
    let sandbox = rig.runtime.sandbox_of(&main).config;
    assert_eq!(sandbox.cgroup_parent, "/here");
    assert_eq!(sandbox.resources, Some(node_api::LinuxResources::default()));
    assert_eq!(rig.runtime.group("/here"), None);
}

#[tokio::test]
async fn memory_of_better_pods_is_kept() {
    let mut rig = Rig::new().await;
    let mut config = unified(&rig);
    config.qos_reserved_memory = Some(100);
    config.memory_qos = Some(MemoryQos {
        throttling: 0.9,
        tiered: true,
    });
    rig.restart_with(config).await;
    let whole = wait("all", || rig.runtime.group("/kubepods"))
        .await
        .memory_bytes;
    let group = |class: &str| rig.runtime.group(&format!("/kubepods/{class}"));
    let asking = |resources: serde_json::Value| json!({"containers": [{"name": "main", "image": IMAGE, "resources": resources}]});
    let all = json!({"cpu": "10m", "memory": "2Gi"});
    rig.create("best", asking(json!({"requests": all, "limits": all})));
    rig.create("some", asking(json!({"requests": {"memory": "1Gi"}})));
    // The last of the three that is written.
    wait("both", || {
        (group("besteffort")?.memory_bytes == whole - (3 << 30)).then_some(())
    })
    .await;
    let all = rig.runtime.group("/kubepods").unwrap();
    assert_eq!(all.unified["memory.min"], (3_i64 << 30).to_string());
    let burstable = group("burstable").unwrap();
    assert_eq!(burstable.memory_bytes, whole - (2 << 30));
    assert_eq!(burstable.swap_bytes, -1);
    assert_eq!(burstable.unified["memory.low"], (1 << 30).to_string());
    let files = |pod: &'static str| {
        let runtime = rig.runtime.clone();
        async move {
            let running = wait("container", || runtime.running_of(pod)).await;
            running.config.resources.unified
        }
    };
    let best = files("best").await;
    assert_eq!(best["memory.min"], (2_i64 << 30).to_string());
    assert!(!best.contains_key("memory.high"));
    assert_eq!(files("some").await["memory.low"], (1 << 30).to_string());
    // What is in use already is not taken away by force.
    let left = (whole - (4 << 30)) >> 20;
    let much = json!({"cpu": "10m", "memory": format!("{left}Mi")});
    rig.create("more", asking(json!({"requests": much, "limits": much})));
    wait("what is used", || {
        (group("besteffort")?.memory_bytes == 3 << 30).then_some(())
    })
    .await;
}
