//! Limits, figures, and death for want of memory.

use node_api::{LinuxResources, NamespaceMode, RuntimeService};

use crate::host::Host;

#[tokio::test]
async fn too_much_memory_is_named() {
    let host = Host::new().await;
    // A shell variable doubles until the limit is hit.
    let mut config = host.shell("x=0123456789abcdef; while :; do x=$x$x; done");
    config.resources.memory_limit_bytes = 16 << 20;
    let (status, _) = host.run_config(config).await;
    assert_eq!(
        (status.exit_code, status.reason.as_str()),
        (137, "OOMKilled")
    );
    // A child that is killed so does not make its parent's own failure one.
    host.close().await;
}

#[tokio::test]
async fn limits_reach_the_cgroup_and_can_change() {
    let host = Host::new().await;
    let pod = host.pod().await;
    let mut config = host.shell("while :; do sleep 1; done");
    config.resources = LinuxResources {
        memory_limit_bytes: 64 << 20,
        cpu_shares: 512,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        pids_limit: 50,
        ..Default::default()
    };
    let id = host.start(&pod, config).await;
    let groups = linux::cgroup::Hierarchies::of_this_machine().unwrap();
    let group = groups
        .group(&format!("{}/kubepods/pod1/{pod}/{id}", host.cgroup_root))
        .unwrap();
    let read = |file: &str| {
        let found = group
            .mounts()
            .into_iter()
            .map(|(_, folder)| folder.join(file))
            .find(|path| path.exists());
        found.map(|path| std::fs::read_to_string(path).unwrap().trim().to_owned())
    };
    let memory = || {
        read("memory.limit_in_bytes")
            .or_else(|| read("memory.max"))
            .unwrap()
    };
    assert_eq!(memory(), (64 << 20).to_string());
    assert_eq!(read("pids.max").unwrap(), "50");
    let stats = host.engine().container_stats(&id).await.unwrap();
    assert!(
        stats.memory_usage_bytes > 0 && stats.process_count >= 1 && stats.pod_uid == "uid-1",
        "{stats:?}"
    );
    assert_eq!(host.engine().list_container_stats().await.unwrap().len(), 1);
    let smaller = LinuxResources {
        memory_limit_bytes: 32 << 20,
        ..Default::default()
    };
    host.engine()
        .update_container_resources(&id, smaller)
        .await
        .unwrap();
    assert_eq!(memory(), (32 << 20).to_string());
    // What is not set stays as it was.
    let status = host.engine().container_status(&id).await.unwrap();
    let kept = status.config.resources;
    assert_eq!(
        (kept.memory_limit_bytes, kept.cpu_quota, kept.pids_limit),
        (32 << 20, 50_000, 50)
    );
    host.close().await;
}

#[tokio::test]
async fn one_process_tree_for_the_pod() {
    let host = Host::new().await;
    let mut pod = host.pod_config();
    pod.namespaces.pid = NamespaceMode::Pod;
    let pod = host.engine().run_pod_sandbox(pod).await.unwrap();
    let mut first = host.shell("while :; do sleep 1000; done");
    first.security.namespaces.pid = NamespaceMode::Pod;
    first.log_path = "first/0.log".into();
    host.start(&pod, first).await;
    let mut second = host.shell("ps | grep -c 'sleep 100[0]'; cat /proc/1/comm");
    second.security.namespaces.pid = NamespaceMode::Pod;
    let id = host.start(&pod, second).await;
    let status = host.ended(&id).await;
    let log = crate::host::log_of(&status.log_path);
    assert!(log.contains("pause"), "{log}");
    let count: u32 = log
        .lines()
        .next()
        .unwrap()
        .trim_start_matches("stdout F ")
        .parse()
        .unwrap();
    assert!(count >= 1, "{log}");
    host.close().await;
}

#[tokio::test]
async fn the_nodes_own_namespaces() {
    let host = Host::new().await;
    let mut pod = host.pod_config();
    pod.namespaces = node_api::NamespaceOptions {
        network: NamespaceMode::Node,
        pid: NamespaceMode::Node,
        ipc: NamespaceMode::Node,
        ..Default::default()
    };
    let pod = host.engine().run_pod_sandbox(pod).await.unwrap();
    assert!(
        host.engine()
            .pod_sandbox_status(&pod)
            .await
            .unwrap()
            .ips
            .is_empty()
    );
    let mut config = host.shell("ls -l /proc/self/ns/net /proc/self/ns/ipc /proc/self/ns/pid");
    config.security.namespaces = host
        .engine()
        .pod_sandbox_status(&pod)
        .await
        .unwrap()
        .config
        .namespaces;
    let id = host.start(&pod, config).await;
    let status = host.ended(&id).await;
    let log = crate::host::log_of(&status.log_path);
    for kind in ["net", "ipc", "pid"] {
        let ours = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert!(log.contains(ours.to_str().unwrap()), "{kind}: {log}");
    }
    host.close().await;
}
